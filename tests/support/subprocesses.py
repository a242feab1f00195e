"""Runs a piece of Python in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap


def run_python(
    code: str, timeout: float = 120, warnings: str = "error", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `code`; environment variables are added to this process's, without the ones that steer normkit."""
    steering = ("NORMKIT_ISA", "NORMKIT_NUM_THREADS", "NORMKIT_POOL", "OMP_NUM_THREADS")
    env = {k: v for k, v in os.environ.items() if k not in steering} | environment
    return subprocess.run(
        [sys.executable, "-W", warnings, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=env,
        check=False,
    )


def output_of(code: str, **options: str) -> str:
    """Return what it printed; fail with what it wrote to stderr."""
    result = run_python(code, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
