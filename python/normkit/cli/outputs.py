"""Files that appear complete or not at all: made in a workshop next to their place, then renamed."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["check_free", "publish", "publish_numbered", "workshop"]


def check_free(folder: Path) -> None:
    """Raise FileExistsError unless `folder` does not exist or is an empty folder."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"{folder}: is there already; choose another --out, or remove it")


@contextmanager
def workshop(target: Path) -> Iterator[Path]:
    """Give a temporary folder from which a rename to `target` works; it is gone when the block ends."""
    # A rename must not cross a file system: work in the nearest folder above the target that exists.
    above = next(folder for folder in target.absolute().parents if folder.exists())
    try:
        folder = Path(tempfile.mkdtemp(prefix=".normkit-", dir=above))
    except OSError as error:
        raise OSError(error.errno, f"cannot write there: {error.strerror}", str(target)) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(made: Path, target: Path) -> Path:
    """Rename to `target`, in place of an existing file or empty folder, and return it; parents are made."""
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    try:
        made.replace(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    return target


def publish_numbered(made: Path, stem: Path) -> Path:
    """Rename a folder to STEM-1, or the first number that is free, and return the path.

    Trainings that run at the same time get different numbers.
    """
    number = 1
    while True:
        target = stem.with_name(f"{stem.name}-{number}")
        try:
            return publish(made, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) or not target.exists():
                raise
        number += 1
