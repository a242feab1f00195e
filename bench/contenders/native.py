"""Small C++ libraries, compiled where they are needed and kept beside the other temporary files of the user."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.contenders import AbsentError

SOURCES = Path(__file__).resolve().parents[1] / "native"


def compiled(source: str, *options: str) -> ctypes.CDLL:
    """Load the library made of bench/native/`source`."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        raise AbsentError("no C++ compiler: install one or name it in CXX")
    text = (SOURCES / source).read_bytes()
    command = [compiler, "-O3", "-march=native", "-fopenmp", "-std=c++17", "-shared", "-fPIC"]
    key = hashlib.sha256(text + " ".join([*command, *options]).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"normkit-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{Path(source).stem}-{key}.so"
    if not library.exists():
        made = library.with_suffix(f".{os.getpid()}")
        done = subprocess.run(
            [*command, str(SOURCES / source), "-o", str(made), *options],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise AbsentError(f"bench/native/{source} does not compile: {done.stderr.strip()[:500]}")
        made.rename(library)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise AbsentError(f"bench/native/{source} does not load: {error}") from None
