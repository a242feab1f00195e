"""Foreign files: read with errors of one line that name them, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from normkit._paths import a_file, a_path
from normkit._reading import FAULTS, OF_THE_SYSTEM, reason
from normkit.models.archive import replacing

__all__ = ["PathLike", "reading", "write_bytes"]

PathLike = str | os.PathLike[str]


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
    except OF_THE_SYSTEM:
        raise
    except FAULTS as error:
        raise ValueError(f"{file}: cannot be read as {kind}: {reason(error)}") from error


def write_bytes(path: PathLike, content: bytes) -> None:
    """Write a file, atomically: a reader finds the old file or the whole new one."""
    with replacing(a_path("path", path)) as file:
        file.write(content)
