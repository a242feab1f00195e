"""Reading files that may be damaged or hostile: errors that name the file, and a limit on what a small file may ask for."""

from __future__ import annotations

import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["AT_ONCE", "FAULTS", "MOST_EXPANDED", "OF_THE_SYSTEM", "check_promise", "reason", "refusing"]

# What a reader raises that finds something else than it expects. OSError is how h5py and pyarrow say that a file is
# damaged; MemoryError that a number in it is too large; RuntimeError also that something is nested too deeply.
FAULTS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    MemoryError,
    EOFError,
    OSError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,  # of the header of .npy
)
# These say which file, and it is not the content that is wrong.
OF_THE_SYSTEM = (FileNotFoundError, PermissionError, IsADirectoryError)

MOST_EXPANDED = 1032  # deflate's limit: https://zlib.net/zlib_tech.html
AT_ONCE = 32 << 20


def reason(error: BaseException) -> str:
    """Return what an error says, in one line."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(text.split()) or type(error).__name__
    return f"it has no '{text}'" if isinstance(error, KeyError) and " " not in text else text


@contextmanager
def refusing(path: str | os.PathLike[str], wrong: str) -> Iterator[None]:
    """Turn whatever goes wrong with the content of a file into a ValueError of one line that names it.

    Parameters
    ----------
    path : path-like
        The file. An error that names it already is passed on.
    wrong : str
        What is wrong if something is: 'not a usable HDF5 file'.
    """
    try:
        yield
    except OF_THE_SYSTEM:
        raise
    except FAULTS as error:
        text = reason(error)
        if isinstance(error, ValueError) and text.startswith(f"{os.fspath(path)}: "):
            raise
        raise ValueError(f"{os.fspath(path)}: {wrong}: {text}") from error


def check_promise(what: str, promised: int, held: int) -> None:
    """Raise ValueError if a file promises more than it can hold, before memory is allocated for it.

    Compressed data may be `MOST_EXPANDED` times as large as in the file. Up to `AT_ONCE` bytes may be any: encodings of
    repeated values have no limit of their own.

    Parameters
    ----------
    what : str
        What is promised: 'row group 0 (from 0)'.
    promised : int
        How many bytes it takes in memory.
    held : int
        How many bytes there are in the file for it.
    """
    if promised > max(AT_ONCE, MOST_EXPANDED * held):
        raise ValueError(
            f"{what} takes {promised} bytes in memory, of {held} bytes in the file; at most {MOST_EXPANDED} times "
            f"as many, or {AT_ONCE >> 20} MiB, are read at once"
        )
