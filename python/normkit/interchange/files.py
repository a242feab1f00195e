"""Foreign files: read with errors of one line that name them, written whole or not at all."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from normkit._paths import a_file, a_path
from normkit.models.archive import replacing

__all__ = ["PathLike", "reading", "write_bytes"]

PathLike = str | os.PathLike[str]

# What a reader raises that finds something else than it expects. OSError is how h5py says that a file is damaged.
_FAULTS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    OSError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
_OF_THE_SYSTEM = (FileNotFoundError, PermissionError, IsADirectoryError)


@contextmanager
def reading(path: PathLike, kind: str) -> Iterator[Path]:
    """Turn whatever goes wrong with the content of a file into a ValueError of one line that names it.

    Parameters
    ----------
    path : path-like
        The file; yielded as a Path.
    kind : str
        What it should be, for the message: 'a .keras file'.
    """
    file = a_file(a_path("path", path))
    try:
        yield file
    except _OF_THE_SYSTEM:
        raise
    except _FAULTS as error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        reason = next(iter(text.splitlines()), type(error).__name__)
        if isinstance(error, KeyError) and " " not in reason:  # h5py's KeyErrors are sentences
            reason = f"it has no '{reason}'"
        raise ValueError(f"{file}: cannot be read as {kind}: {reason}") from error


def write_bytes(path: PathLike, content: bytes) -> None:
    """Write a file, atomically: a reader finds the old file or the whole new one."""
    with replacing(a_path("path", path)) as file:
        file.write(content)
