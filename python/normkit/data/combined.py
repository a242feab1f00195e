"""Sources made of sources: the arrays of several side by side, and the rows of several files one after the other."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit.data.source import Array, Block, Fault, Source

__all__ = ["Files", "Joined"]


class Joined(Source):
    """The arrays of several sources of equal length, row by row: x from one file and y from another."""

    def __init__(self, *sources: Source) -> None:
        lengths = [len(source) for source in sources]
        if len(set(lengths)) != 1:
            raise ValueError(f"all arrays must have the same length, got {lengths}")
        self._sources = sources
        self._owners = [(source, i) for source in sources for i in range(len(source.empty))]

    @property
    def empty(self) -> tuple[Array, ...]:
        """The empty arrays of all."""
        return tuple(array for source in self._sources for array in source.empty)

    def __len__(self) -> int:
        """Return the number of rows, bad ones included."""
        return len(self._sources[0])

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults of all."""
        return tuple(fault for source in self._sources for fault in source.faults)

    @property
    def origins(self) -> tuple[Source, ...]:
        """Those of all."""
        return tuple(origin for source in self._sources for origin in source.origins)

    def edges(self, rows: int) -> NDArray[np.int64]:
        """Return the edges of the source with the fewest blocks: others can be cut there, it cannot elsewhere."""
        return min((source.edges(rows) for source in self._sources), key=len)

    def where(self, row: int, array: int | None = None, position: tuple[int, ...] = ()) -> str:
        """Say where, in the file that the array is from."""
        owner, index = (self._sources[0], None) if array is None else self._owners[array]
        return owner.where(row, index, position)

    def read(self, start: int, stop: int) -> Block:
        """Return the rows that are good in all sources."""
        blocks = [source.read(start, stop) for source in self._sources]
        rows = reduce(np.intersect1d, [b.rows for b in blocks])
        arrays = [
            a if len(a) == len(rows) else a[np.isin(b.rows, rows, assume_unique=True)]
            for b in blocks
            for a in b.arrays
        ]
        return Block(tuple(arrays), rows, tuple(fault for b in blocks for fault in b.faults))


class Files(Source):
    """The rows of several files, in the order given.

    Parameters
    ----------
    open_file : callable
        What makes a source of a path: `NpyFile`, or a function for other arguments, such as
        ``lambda path: CsvFile(path, y="price")``.
    paths : iterable of path
        The files. For a set that changes from machine to machine, sort them.

    Raises
    ------
    ValueError
        If no file can be opened, or if they differ in dtype or in the shape of a row. A file that cannot be opened
        is a fault, which `MiniBatches` raises or, with ``on_bad="skip"``, reports.
    """

    def __init__(self, open_file: Callable[[str], Source], paths: Iterable[str | os.PathLike[str]]) -> None:
        self._sources: list[Source] = []
        faults: list[Fault] = []
        first = ""
        for path in (os.fspath(path) for path in paths):
            try:
                source = open_file(path)
            except (ValueError, OSError) as error:
                faults.append(Fault(str(error), 0))
                continue
            faults.extend(source.faults)
            described = _described(source)
            if self._sources and described != _described(self._sources[0]):
                raise ValueError(
                    f"{path}: has {described} in a row, but {first} has {_described(self._sources[0])}"
                )
            first = first or path
            self._sources.append(source)
        if not self._sources:
            raise ValueError(faults[0].text if faults else "Files: expected at least one file")
        self._faults = tuple(faults)
        self._starts = np.cumsum([0, *(len(source) for source in self._sources)])

    def _state(self) -> dict[str, Any]:
        return {"files": len(self._sources), **super()._state()}

    @property
    def empty(self) -> tuple[Array, ...]:
        """The empty arrays of each."""
        return self._sources[0].empty

    def __len__(self) -> int:
        """Return the number of rows, bad ones included; without files that cannot be opened."""
        return int(self._starts[-1])

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Files that cannot be opened. How many rows they have nobody knows."""
        return self._faults

    @property
    def origins(self) -> tuple[Source, ...]:
        """These files, unless a function is applied to them."""
        return (self,) if all(source.origins == (source,) for source in self._sources) else ()

    def edges(self, rows: int) -> NDArray[np.int64]:
        """Return the edges of all: no block is of two files."""
        parts = [
            start + source.edges(rows)[:-1]
            for start, source in zip(self._starts[:-1], self._sources, strict=True)
        ]
        return np.concatenate([*parts, self._starts[-1:]])

    def where(self, row: int, array: int | None = None, position: tuple[int, ...] = ()) -> str:
        """Say where in which file."""
        index = self._index(row)
        return self._sources[index].where(row - int(self._starts[index]), array, position)

    def read(self, start: int, stop: int) -> Block:
        """Return rows, of several files if need be."""
        blocks = []
        index = self._index(start) if start < stop else len(self._sources)
        while index < len(self._sources) and self._starts[index] < stop:
            offset, end = int(self._starts[index]), int(self._starts[index + 1])
            if end > max(start, offset):
                block = self._sources[index].read(max(start, offset) - offset, min(stop, end) - offset)
                blocks.append(block._replace(rows=block.rows + offset))
            index += 1
        return Block.joined(blocks) if blocks else Block.of(start, *self.empty)

    def _index(self, row: int) -> int:
        return bisect_right(self._starts, row) - 1


def _described(source: Source) -> str:
    return " and ".join(f"{a.dtype} of shape {a.shape[1:]}" for a in source.empty)
