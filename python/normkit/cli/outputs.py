"""Results that appear complete or not at all, and never in the place of something that is there already.

They are made in a `Workshop` beside their place, and then moved. So an interrupted command leaves nothing, and a
killed one leaves its workshop, which the next command for the same place takes over.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from normkit.cli.workshop import InUseError, Workshop
from normkit.models.archive import replacing

__all__ = ["Results", "is_stdout", "locked", "naming", "new_file", "new_folder"]

WORKSHOP = ".normkit-unfinished"
MADE = "made.json"  # in the workshop, once all results are in it


class Results:
    """A folder that will have results.

    Attributes
    ----------
    folder : Path
        Its name, as the user knows it.
    shop : Path
        Where the results are to be made.
    are_made : bool
        Whether they are all there: `deliver` was called, here or by a process of the same training that was killed.
    """

    def __init__(self, folder: Path, training: str, undo: ExitStack) -> None:
        self.folder = folder
        self._place = place = Path(os.path.realpath(folder))
        self._training = training
        self.shop = place / WORKSHOP
        self.are_made = False
        _make([*reversed(place.parents), place], undo)
        if not place.is_dir() or (self._others() and not self.shop.is_dir()):
            raise FileExistsError
        self._workshop = undo.enter_context(Workshop(self.shop))
        self._workshop.kept = not self._workshop.is_empty
        self._take_over()
        self._workshop.kept = False

    def _others(self) -> set[str]:
        return {path.name for path in self._place.iterdir()} - {WORKSHOP}

    def _take_over(self) -> None:
        """Finish what a killed process has begun to deliver; or else make sure that there is nothing but its workshop."""
        made = _read_made(self.shop / MADE)
        if made is None:
            if self._others():
                raise FileExistsError
            self._workshop.clear()
            return
        training, names = made
        self._move(names)
        self.are_made = training == self._training
        if not self.are_made:
            self._workshop.kept = False
            raise FileExistsError

    def deliver(self, partial: bool = False) -> None:
        """Move all that was made to the folder, where it is complete even if this process is killed meanwhile.

        `partial`: it is not what the whole training would have made, so that the same command has not made it.
        """
        names = self._workshop.names
        for name in names:
            _sync(self.shop / name)
        training = "" if partial else self._training
        with replacing(self.shop / MADE) as file:
            file.write(json.dumps({"training": training, "names": names}).encode())
        self._workshop.kept = True
        try:
            self._move(names)
        except (KeyboardInterrupt, SystemExit):  # the rest takes no time
            self._move(names)
            raise
        finally:
            self.are_made = True
            self._workshop.kept = any((self.shop / name).exists() for name in names)

    def _move(self, names: Sequence[str]) -> None:
        for name in names:
            if (self.shop / name).exists():  # else it was moved before
                _move_new(self.shop / name, self._place / name)

    @property
    def names(self) -> list[str]:
        """What is in the folder."""
        return sorted(self._others())


def _read_made(path: Path) -> tuple[str, list[str]] | None:
    """Return of which training the results are, and their names; None if they are not all made."""
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        training, names = str(made["training"]), [Path(name).name for name in made["names"]]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None
    return training, names


@contextmanager
def new_folder(out: Path | None, stem: Path, training: str) -> Iterator[Results]:
    """Claim a folder for results.

    After an exception in the block all is as it was before, unless the results were delivered.

    Parameters
    ----------
    out : Path or None
        A folder that is new or empty. Without one it is STEM-1, or the first number that is free.
    stem : Path
        Where folders get numbers.
    training : str
        All that the results depend on. If a process of the same training was killed after it had made them, they are
        delivered at once.

    Raises
    ------
    FileExistsError
        If `out` has something in it, or is claimed by another process.
    OSError
        If it cannot be written.
    """
    with ExitStack() as undo:
        if out is None:
            results = _numbered(stem, training, undo)
        else:
            with naming(out):
                results = Results(out, training, undo)
        yield results


def _numbered(stem: Path, training: str, undo: ExitStack) -> Results:
    with naming(stem):
        _make(reversed(stem.absolute().parents), undo)
        number = 0
        while True:
            number += 1
            folder = stem.with_name(f"{stem.name}-{number}")
            try:
                folder.mkdir()
                undo.callback(_remove_empty, folder)
            except FileExistsError:
                if not (folder / WORKSHOP).is_dir():
                    continue
            with suppress(FileExistsError), ExitStack() as attempt:
                results = Results(folder, training, attempt)
                undo.push(attempt.pop_all())
                return results


@contextmanager
def new_file(target: Path, streams: bool = False) -> Iterator[Path]:
    """Claim the name of a new file, and give one to write, which takes its place when the block ends well.

    With `streams` a pipe, a terminal and another device of characters is written to as it is.

    Raises
    ------
    FileExistsError
        If the name is taken, or claimed by another process.
    OSError
        If no file can be made there.
    """
    with ExitStack() as undo:
        with naming(target):
            place = Path(os.path.realpath(target))
            made = target
            if not (streams and _is_stream(place)):
                _refuse_existing(place)
                _make(reversed(place.parents), undo)
                made = undo.enter_context(Workshop(_beside(place))).folder / target.name
        yield made
        if made != target:
            with naming(target):
                _move_new(made, place)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if need be, and goes if nothing is in it at the end.

    Raises
    ------
    OSError
        If another process has it, or it cannot be written.
    """
    with ExitStack() as undo:
        place = Path(os.path.realpath(folder))
        with naming(folder):
            _make([*reversed(place.parents), place], undo)
            try:
                workshop = Workshop(place / WORKSHOP)
            except InUseError as error:
                raise InUseError(
                    f"another process trains with this backup; wait for it, or choose another --backup "
                    f"(if none does, remove {WORKSHOP} in it)"
                ) from error
        with workshop:
            yield
        _remove_empty(place)


def _beside(place: Path) -> Path:
    name = place.name
    if len(os.fsencode(name)) > 200:  # a name cannot be much longer
        name = f"{zlib.crc32(os.fsencode(name)):08x}"
    return place.with_name(f".{name}{WORKSHOP}")


def _is_stream(place: Path) -> bool:
    try:
        mode = place.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def is_stdout(target: Path) -> bool:
    """Whether a path, such as /dev/stdout, names the standard output."""
    try:
        return os.path.samestat(target.stat(), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):
        return False


def _refuse_existing(place: Path) -> None:
    if os.path.lexists(place):
        raise FileExistsError


def _move_new(made: Path, place: Path) -> None:
    """Give a file its name, unless there is another by now."""
    try:
        os.link(made, place)
    except FileExistsError:
        if not made.samefile(place):  # else a process was killed before it could remove the other name
            raise
    except OSError:  # a file system without links
        _refuse_existing(place)
        made.rename(place)
        return
    made.unlink()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


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
def naming(target: Path) -> Iterator[None]:
    """Let errors of the operating system speak of the target."""
    try:
        yield
    except InUseError as error:
        raise OSError(errno.EEXIST, str(error), str(target)) from error
    except FileExistsError as error:
        reason = "is there already; choose another name, or remove it"
        raise OSError(errno.EEXIST, reason, str(target)) from error
    except OSError as error:
        reason = f"cannot write there: {error.strerror or error}"
        raise OSError(error.errno, reason, str(target)) from error
