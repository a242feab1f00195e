"""The logs of the epochs in a file: `CSVLogger`, a table, and `JSONLinesLogger`."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from normkit._paths import a_path
from normkit.callbacks.base import Callback, Logs

__all__ = ["CSVLogger", "JSONLinesLogger"]


class _LogFile(Callback):
    """A text file with a part for each epoch; a backup keeps what this training has written to it."""

    writes = True

    def __init__(self, filename: str | os.PathLike[str], append: bool = False) -> None:
        self.filename = a_path(f"{type(self).__name__}: filename", filename)
        self.append = append
        self._start = 0

    @property
    def state_label(self) -> str:
        """See `Callback.state_label`."""
        return str(self.filename)

    def _begin(self) -> None:
        """Begin a new file, unless it goes on."""
        with self.filename.open("ab" if self.append else "wb") as file:
            self._start = file.tell()

    def get_state(self) -> dict[str, Any]:
        """See `Callback.get_state`."""
        if not (self.model.is_first_rank and self.filename.exists()):
            return {"start": 0, "written": ""}
        with self.filename.open("rb") as file:
            file.seek(self._start)
            return {"start": self._start, "written": file.read().decode("utf-8")}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Bring the file back to what it was then: without rows of epochs that are trained once more."""
        start, written = state["start"], state["written"].encode()
        if not self.model.is_first_rank:
            return
        self.close()
        with self.filename.open("r+b") as file:
            # What was there before that training is there still, unless the file is another.
            self._start = min(start, file.seek(0, os.SEEK_END))
            file.truncate(self._start)
            file.seek(self._start)
            file.write(written)


class CSVLogger(_LogFile):
    """Writes a row per epoch to a file, each as soon as the epoch is over.

    Columns: epoch, from 0, then the logs of the first epoch in alphabetical order. If it was not validated,
    there are columns for 'val_...' as well; a value that an epoch does not have is 'NA'.

    Parameters
    ----------
    filename : path-like
        The file.
    separator : str, default ','
        Between the columns.
    append : bool, default False
        Go on after the rows that are there, without a second head; else the file is replaced.
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        super().__init__(filename, append)
        self.sep = separator
        self._file: IO[str] | None = None
        self._writer: csv.DictWriter[str] | None = None

    def _arguments(self) -> dict[str, Any]:
        return {**super()._arguments(), "separator": self.sep}

    def on_train_begin(self, logs: Logs = None) -> None:
        """Begin the file."""
        self.close()
        self._begin()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Write a row."""
        if self._file is None:
            self._file = self.filename.open("a", encoding="utf-8", newline="")
        row: dict[str, Any] = {"epoch": epoch, **(logs or {})}
        if self._writer is None:
            self._writer = csv.DictWriter(
                self._file,
                self._columns(row),
                restval="NA",
                extrasaction="ignore",
                delimiter=self.sep,
                lineterminator="\n",
            )
            if self._file.tell() == 0:
                self._writer.writeheader()
        self._writer.writerow(row)
        self._file.flush()

    def _columns(self, row: dict[str, Any]) -> list[str]:
        """Those of the file if there is one to go on with, else those of the first epoch."""
        if self.filename.stat().st_size:
            with self.filename.open(encoding="utf-8", newline="") as file:
                return next(csv.reader(file, delimiter=self.sep))
        names = sorted(name for name in row if name != "epoch")
        if not any(name.startswith("val_") for name in names):
            names += [f"val_{name}" for name in names]
        return ["epoch", *names]

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file = self._writer = None

    def on_train_end(self, logs: Logs = None) -> None:
        """Close the file."""
        self.close()


class JSONLinesLogger(_LogFile):
    """Writes a JSON object per epoch to a line of a file, as soon as the epoch is over: the epoch, from 0, and the logs.

    A NaN or an infinity is written as null, which JSON has no number for.

    Parameters
    ----------
    filename : path-like
        The file.
    append : bool, default False
        Go on after the lines that are there; else the file is replaced.
    """

    def on_train_begin(self, logs: Logs = None) -> None:
        """Begin the file."""
        self._begin()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Write a line."""
        line = json.dumps({"epoch": epoch, **{name: _finite(value) for name, value in (logs or {}).items()}})
        with self.filename.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def _finite(value: Any) -> Any:
    array = np.asarray(value, np.float64)
    return [_finite(part) for part in array] if array.ndim else float(array) if np.isfinite(array) else None
