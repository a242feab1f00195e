"""Results that appear complete or not at all: made in a folder next to their place, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

__all__ = ["claim", "naming", "output_file"]

WORKSHOP = ".normkit-unfinished"


@contextmanager
def claim(out: Path | None, stem: Path) -> Iterator[tuple[Path, Path]]:
    """Claim a folder for results, and give it and a folder to work in.

    At the end of the block the results move from one to the other; after an exception all is as it was before.

    Parameters
    ----------
    out : Path or None
        A folder that is new or empty. Without one it is STEM-1, or the first number that is free.
    stem : Path
        Where folders get numbers.

    Raises
    ------
    FileExistsError
        If `out` has something in it, or is claimed by another process.
    OSError
        If it cannot be written.
    """
    with ExitStack() as undo:
        folder = out or _numbered(stem, undo)
        with naming(folder):
            place = Path(os.path.realpath(folder))
            _make([*reversed(place.parents), place], undo)
            if not place.is_dir() or any(place.iterdir()):
                raise FileExistsError
            shop = place / WORKSHOP
            shop.mkdir()  # of two processes one fails here
        undo.callback(shutil.rmtree, shop, ignore_errors=True)
        yield folder, shop
        with naming(folder):
            for result in shop.iterdir():
                result.replace(place / result.name)


def _numbered(stem: Path, undo: ExitStack) -> Path:
    with naming(stem):
        _make(reversed(stem.absolute().parents), undo)
        number = 1
        while True:
            folder = stem.with_name(f"{stem.name}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                undo.callback(_remove_empty, folder)
                return folder


def _make(folders: Iterable[Path], undo: ExitStack) -> None:
    """Make the folders that are missing, of which `undo` will remove the empty ones."""
    for folder in folders:
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            undo.callback(_remove_empty, folder)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def output_file(target: Path) -> Iterator[TextIO]:
    """Open a text file that takes its place when the block ends well; a pipe or a device is written to as it is."""
    with naming(target), ExitStack() as undo:
        if target.exists() and not target.is_file():
            yield undo.enter_context(target.open("w", encoding="utf-8"))
            return
        place = Path(os.path.realpath(target))
        _make(reversed(place.parents), undo)
        shop = Path(tempfile.mkdtemp(prefix=".normkit-", dir=place.parent))
        undo.callback(shutil.rmtree, shop, ignore_errors=True)
        made = shop / "made"
        with made.open("w", encoding="utf-8") as file:
            yield file
        made.replace(place)


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """Let errors of the operating system speak of the target."""
    try:
        yield
    except FileExistsError as error:
        reason = "is there already; choose another --out, or remove it"
        raise OSError(errno.EEXIST, reason, str(target)) from error
    except OSError as error:
        reason = f"cannot write there: {error.strerror or error}"
        raise OSError(error.errno, reason, str(target)) from error
