"""`Workshop`: a folder to make results in, which no two processes have at the same time.

It is locked for as long as its process lives. One that a killed process has left is there without a lock, and the
next process takes it over.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

try:
    import fcntl
except ImportError:  # not a POSIX system: what a killed process has left must be removed by hand
    fcntl = None  # type: ignore[assignment]

__all__ = ["InUseError", "Workshop"]

LOCK = ".normkit-lock"


class InUseError(FileExistsError):
    """Another process works there, or it cannot be told that none does."""


class Workshop:
    """A locked folder, which is removed at the end of a block unless `kept`.

    Parameters
    ----------
    folder : Path
        Its place, whose parent is there.

    Attributes
    ----------
    kept : bool
        Whether the folder stays at the end, for the next process.

    Raises
    ------
    InUseError
        If another process has it.
    OSError
        If it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = False
        self._lock = _locked(folder)

    @property
    def names(self) -> list[str]:
        """What is in it."""
        return sorted(path.name for path in self.folder.iterdir() if path.name != LOCK)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in it."""
        return not self.names

    def clear(self) -> None:
        """Remove what a killed process has left."""
        for path in map(self.folder.joinpath, self.names):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.kept:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def _locked(folder: Path) -> int:
    """Return the descriptor of the lock, in a folder that is made if need be."""
    while True:
        if folder.is_symlink():
            raise FileExistsError(errno.EEXIST, "is a link", str(folder))
        made = _make(folder)
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its owner has just removed it
            continue
        try:
            _lock(descriptor, made)
            # Meanwhile its owner may have removed it; a lock on a file without a name locks nobody out.
            if _is_there(folder / LOCK, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _make(folder: Path) -> bool:
    """Make the folder, and return whether it was not there."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _lock(descriptor: int, made: bool) -> None:
    try:
        if fcntl is None:
            raise OSError(errno.ENOTSUP, "there are no locks")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUseError("another process is writing there; wait for it, or choose another name") from None
    except OSError:  # a file system without locks: whoever has made the folder owns it
        if not made:
            raise InUseError(
                "another process is writing there, or was killed; choose another name, or remove it"
            ) from None


def _is_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
