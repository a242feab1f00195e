"""`CSVLogger`: the logs of the epochs as a table in a file."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import IO, Any

from normkit.callbacks.base import Callback, Logs

__all__ = ["CSVLogger"]


class CSVLogger(Callback):
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
        self.filename = Path(filename)
        self.sep = separator
        self.append = append
        self._file: IO[str] | None = None
        self._writer: csv.DictWriter[str] | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        """Open the file."""
        self.close()
        self._file = self.filename.open("a" if self.append else "w", encoding="utf-8", newline="")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Write a row."""
        assert self._file is not None
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
        if self.append and self.filename.stat().st_size:
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
