"""Jobs of several ranks, on this machine, by the mpiexec of the MPI that mpi4py uses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

SUPPORT = Path(__file__).resolve().parents[1] / "support"
Job = subprocess.CompletedProcess[str]
Launch = Callable[..., Job]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.mpi)


@pytest.fixture(scope="session")
def mpiexec() -> str:
    """The launcher: that of the environment of this Python, else of the system."""
    needs = "(install the 'mpi' dependency group)"
    pytest.importorskip("mpi4py", reason=f"needs mpi4py {needs}")
    beside = Path(sys.prefix) / "bin" / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip(f"needs mpiexec {needs}")
    check = [sys.executable, "-c", "from mpi4py import MPI"]
    if subprocess.run(check, capture_output=True, timeout=60, check=False).returncode:
        pytest.skip(f"mpi4py finds no MPI library {needs}")
    return found


@pytest.fixture
def command(mpiexec: str, tmp_path: Path) -> Launch:
    """Runs a command on so many ranks, one thread each, in a temporary folder; a job that hangs fails the test."""

    def run(ranks: int, *words: str, timeout: float = 90) -> Job:
        env = {
            **os.environ,
            "PYTHONPATH": str(SUPPORT),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONWARNINGS": "error",
            # Open MPI asks before it runs as root, and before it starts more ranks than there are cores.
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        }
        return subprocess.run(
            [mpiexec, "-n", str(ranks), *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=env,
            cwd=tmp_path,
            check=False,
        )

    return run


@pytest.fixture
def launch(command: Launch, tmp_path: Path) -> Launch:
    """Runs a piece of Python on so many ranks."""

    def run(ranks: int, code: str, timeout: float = 90) -> Job:
        script = tmp_path / "job.py"
        script.write_text(textwrap.dedent(code))
        return command(ranks, sys.executable, str(script), timeout=timeout)

    return run


@pytest.fixture
def printed(launch: Launch) -> Callable[[int, str], list[str]]:
    """The lines that a job printed, which must end well."""

    def run(ranks: int, code: str) -> list[str]:
        job = launch(ranks, code)
        assert job.returncode == 0, job.stderr
        return job.stdout.splitlines()

    return run
