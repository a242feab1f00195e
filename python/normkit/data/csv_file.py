"""`CsvFile`: a table in CSV that may be larger than memory."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from normkit._names import did_you_mean
from normkit._paths import a_path
from normkit.data.source import Array, Block, Source
from normkit.data.tables import Table

__all__ = ["CsvFile"]

Columns = str | int | Sequence[str | int]


class CsvFile(Source):
    """Columns of a CSV file that may be larger than memory, as features and targets.

    One row per line, cells separated by commas, all of them numbers, in UTF-8. The first line may be a header: it is one
    if it holds a name that is asked for or if none of its cells is a number. The file is read once when it is opened, to
    find where rows start, and must not change after that.

    Parameters
    ----------
    path : path
        The file.
    x : str, int or sequence of these, optional
        Columns of the features, by name or number (from 0, or from the end); default: all but `y`. float32.
    y : str, int or sequence of these, optional
        Columns of the targets; shape (rows,) for one. float64, of which `labels` makes checked integers. None: there is no
        array of targets.

    Raises
    ------
    ValueError
        If there are no rows, or there is no such column. A row with another number of cells, or with a cell that is not a
        number, is a fault, which `MiniBatches` raises or, with ``on_bad="skip"``, reports.
    """

    def __init__(
        self, path: str | os.PathLike[str], x: Columns | None = None, y: Columns | None = None
    ) -> None:
        self._path, self._x, self._y = path, x, y
        targets = _listed(y)
        features = _listed(x)
        asked = {name.strip().lower() for name in (*targets, *features) if isinstance(name, str)}
        self._table = Table(a_path("CsvFile: path", path), asked)
        self._arrays = [] if y is None else [self._numbers(targets)]
        left = [i for i in range(self._table.columns) if i not in self._numbers(targets)]
        self._arrays.insert(0, left if x is None else self._numbers(features))
        if not all(self._arrays):
            raise ValueError(f"{path}: no column is left for an array, of {self._table.columns} columns")
        self._alone = [isinstance(x, (str, int)), isinstance(y, (str, int))]

    def _numbers(self, names: list[str | int]) -> list[int]:
        return [self._number(name) for name in names]

    def _number(self, name: str | int) -> int:
        header, columns = self._table.header, self._table.columns
        if isinstance(name, int):
            if not -columns <= name < columns:
                raise ValueError(f"{self._table.path}: has no column {name}, but {columns} columns, from 0")
            return name % columns
        if header.count(name) != 1:
            there = (
                f"columns are {', '.join(header)}" if header else "it has no header, so use numbers, from 0"
            )
            count = header.count(name) or "no"
            raise ValueError(
                f"{self._table.path}: has {count} column {name!r}; {there}{did_you_mean(name, header)}"
            )
        return header.index(name)

    @property
    def empty(self) -> tuple[Array, ...]:
        """The arrays without rows."""
        return self._cut(np.empty((0, self._table.columns)))

    def __len__(self) -> int:
        """Return the number of rows, bad ones included."""
        return len(self._table)

    def edges(self, rows: int) -> NDArray[np.int64]:
        """Return the edges of blocks of about so many rows, where reading can start."""
        return self._table.edges(rows)

    def where(self, row: int, array: int | None = None, position: tuple[int, ...] = ()) -> str:
        """Say which line, and which column."""
        text = f"{self._table.path}: line {self._table.line(row)}"
        if array is None or not (position or self._alone[array]):
            return text
        column = self._arrays[array][position[0] if position else 0]
        name = f" ({self._table.header[column]!r})" if self._table.header else ""
        return f"{text}, column {column + 1}{name}"

    def read(self, start: int, stop: int) -> Block:
        """Read lines; those that are bad are faults."""
        block = self._table.read(start, stop, finite=False)
        return block._replace(arrays=self._cut(block.arrays[0]))

    def _cut(self, cells: Array) -> tuple[Array, ...]:
        parts = [
            cells[:, columns[0] if alone else columns]
            for columns, alone in zip(self._arrays, self._alone, strict=False)
        ]
        with np.errstate(over="ignore"):  # beyond float32 it is infinite, which is refused as such
            return parts[0].astype(np.float32), *parts[1:]


def _listed(names: Columns | None) -> list[str | int]:
    return [names] if isinstance(names, (str, int)) else list(names or ())
