"""`Source`: rows of one or more arrays that are read block by block, and what is said of rows that are bad.

Sources never decide what becomes of a bad row: a block holds the good rows and a `Fault` for each bad one,
and `MiniBatches(on_bad=...)` raises or counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from normkit._checks import positive_integer
from normkit._repr import ArrayLikeness, Described

__all__ = [
    "Array",
    "Block",
    "Fault",
    "Function",
    "Source",
    "block_edges",
    "converted",
    "row_bytes",
    "wrong_label",
]

Array = NDArray[Any]
Function = Callable[..., Any]


class Fault(NamedTuple):
    """What is bad, and where.

    Attributes
    ----------
    text : str
        One line that starts with the file.
    rows : int
        How many rows are lost by it.
    """

    text: str
    rows: int = 1


class Block(NamedTuple):
    """Good rows, and the faults of those that were left out.

    Attributes
    ----------
    arrays : tuple of ndarray
        Equal in length.
    rows : ndarray of int64
        Number of each row in its source, from 0, ascending.
    faults : tuple of Fault
        In the order of the rows.
    """

    arrays: tuple[Array, ...]
    rows: NDArray[np.int64]
    faults: tuple[Fault, ...] = ()

    @classmethod
    def of(cls, start: int, *arrays: Array) -> Self:
        """Return a block without faults whose first row is `start`."""
        return cls(arrays, np.arange(start, start + len(arrays[0])))

    @staticmethod
    def joined(blocks: Sequence[Block]) -> Block:
        """Return the rows of one or more blocks in one."""
        if len(blocks) == 1:
            return blocks[0]
        return Block(
            tuple(np.concatenate(parts) for parts in zip(*(b.arrays for b in blocks), strict=True)),
            np.concatenate([b.rows for b in blocks]),
            tuple(fault for b in blocks for fault in b.faults),
        )

    def without(self, bad: NDArray[np.bool_], faults: Sequence[Fault]) -> Block:
        """Return the block without some of its rows, for the reasons given."""
        good = ~bad
        return Block(tuple(a[good] for a in self.arrays), self.rows[good], (*self.faults, *faults))


class Source(Described, ABC):
    """Rows that are read in blocks. Reading is safe from any thread and after fork: no file is kept open."""

    @property
    @abstractmethod
    def empty(self) -> tuple[Array, ...]:
        """The arrays with no rows: they tell the dtypes and the shape of one row."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows, bad ones included."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Block:
        """Return the rows from start up to, and without, stop, in memory of their own."""

    @abstractmethod
    def where(self, row: int, array: int | None = None, position: tuple[int, ...] = ()) -> str:
        """Say where a row is, or a value: of which array, and where in its row."""

    def _state(self) -> dict[str, Any]:
        return {"arrays": tuple(ArrayLikeness(a.dtype, (len(self), *a.shape[1:])) for a in self.empty)}

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What was found bad before any row was read, such as files that cannot be opened."""
        return ()

    @property
    def origins(self) -> tuple[Source, ...]:
        """The sources that these rows are read from, before any function of `map`; none where that is not known."""
        return (self,)

    def edges(self, rows: int) -> NDArray[np.int64]:
        """Return where blocks of about so many rows start, and the end of the last; ascending."""
        return block_edges(len(self), rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first array."""
        return len(self), *self.empty[0].shape[1:]

    def map(self, function: Function, array: int | None = None) -> Source:
        """Return these rows after a function, which is applied block by block as they are read.

        Parameters
        ----------
        function : callable
            Takes the arrays of a block, rows along their first axes, and returns an array or a tuple of
            arrays with the same number of rows. It is called with no rows too, to learn what it returns. A row for which
            it raises ValueError is bad.
        array : int, optional
            Take and replace this array alone, counted from 0 or from the end.
        """
        return _Mapped(self, function, array)

    def labels(self, num_classes: int, array: int = -1) -> Source:
        """Return these rows with one array as labels: int64, from 0 to num_classes − 1, or the row is bad.

        A label is bad too if its type cannot tell it from its neighbours, and may have rounded it: from 2^53 on in
        float64 (and in integers, which others make floats of), from 2^24 on in float32.
        """
        return self.map(partial(_labels, positive_integer("labels: num_classes", num_classes)), array)

    def part(self, start: int, stop: int) -> Source:
        """Return the rows from start up to, and without, stop, as a source."""
        return _Part(self, start, stop)


def block_edges(length: int, rows: int) -> NDArray[np.int64]:
    """Return the edges of blocks of `rows` rows, and of one that may be shorter."""
    return np.append(np.arange(0, length, rows), length)


def row_bytes(arrays: Sequence[Array]) -> int:
    """Return the memory that one row takes."""
    return max(1, sum(a.itemsize * int(np.prod(a.shape[1:], dtype=np.int64)) for a in arrays))


def converted(arrays: tuple[Array, ...], function: Function, array: int | None) -> tuple[Array, ...]:
    """Return the arrays after a function as `Source.map` takes it."""
    rows = len(arrays[0])
    if array is None:
        returned = function(*arrays)
        arrays = tuple(map(np.asarray, returned if isinstance(returned, tuple) else (returned,)))
    else:
        index = range(len(arrays))[array]
        arrays = (*arrays[:index], np.asarray(function(arrays[index])), *arrays[index + 1 :])
    shapes = [a.shape for a in arrays]
    if any(shape[:1] != (rows,) for shape in shapes):
        raise TypeError(
            f"map: the function must keep the number of rows, {rows}, but returned shapes {shapes}"
        )
    return arrays


class _Mapped(Source):
    def __init__(self, source: Source, function: Function, array: int | None) -> None:
        self._source, self._function, self._array = source, function, array
        before = source.empty
        self._empty = converted(before, function, array)
        # A position within a row means the same after the function only if the shape does.
        self._same = [a.shape == b.shape for a, b in zip(before, self._empty, strict=False)]

    @property
    def empty(self) -> tuple[Array, ...]:
        return self._empty

    def __len__(self) -> int:
        return len(self._source)

    @property
    def faults(self) -> tuple[Fault, ...]:
        return self._source.faults

    @property
    def origins(self) -> tuple[Source, ...]:
        return self._source.origins

    def edges(self, rows: int) -> NDArray[np.int64]:
        return self._source.edges(rows)

    def where(self, row: int, array: int | None = None, position: tuple[int, ...] = ()) -> str:
        if array is None or array >= len(self._same):
            return self._source.where(row)
        return self._source.where(row, array, position if self._same[array] else ())

    def read(self, start: int, stop: int) -> Block:
        block = self._source.read(start, stop)
        return mapped_block(block, self._function, self._array, self._source.where)


def mapped_block(
    block: Block, function: Function, array: int | None, where: Callable[[int, int | None], str]
) -> Block:
    """Apply a function to a block; where it refuses, to each row alone, to name the bad ones."""
    try:
        return block._replace(arrays=converted(block.arrays, function, array))
    except ValueError as error:
        refused = error
    blamed = None if array is None else range(len(block.arrays))[array]
    bad = np.zeros(len(block.rows), bool)
    faults = []
    for index, row in enumerate(block.rows.tolist()):
        try:
            converted(tuple(a[index : index + 1] for a in block.arrays), function, array)
        except ValueError as error:
            bad[index] = True
            faults.append(Fault(f"{where(row, blamed)}: {error}"))
    if not faults:  # it is the block that is refused, not a row
        raise refused
    good = block.without(bad, faults)
    return good._replace(arrays=converted(good.arrays, function, array))


class _Part(Source):
    def __init__(self, source: Source, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= len(source):
            raise ValueError(f"part: need 0 <= start <= stop <= {len(source)}, got {start} and {stop}")
        self._source, self._start, self._stop = source, start, stop

    @property
    def empty(self) -> tuple[Array, ...]:
        return self._source.empty

    def __len__(self) -> int:
        return self._stop - self._start

    @property
    def faults(self) -> tuple[Fault, ...]:
        return self._source.faults

    @property
    def origins(self) -> tuple[Source, ...]:
        origins = self._source.origins
        return (
            (self,) if origins == (self._source,) else tuple(o.part(self._start, self._stop) for o in origins)
        )

    def edges(self, rows: int) -> NDArray[np.int64]:
        return np.unique(self._source.edges(rows).clip(self._start, self._stop)) - self._start

    def where(self, row: int, array: int | None = None, position: tuple[int, ...] = ()) -> str:
        return self._source.where(row + self._start, array, position)

    def read(self, start: int, stop: int) -> Block:
        block = self._source.read(start + self._start, stop + self._start)
        return block._replace(rows=block.rows - self._start)


def _labels(num_classes: int, y: Array) -> Array:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "buif":
        raise TypeError(
            f"labels must be whole numbers, one per row, got rows of shape {y.shape[1:]}, type {y.dtype}"
        )
    if (wrong := wrong_label(y, num_classes)) is not None:
        raise ValueError(wrong[1])
    return y.astype(np.int64)


def wrong_label(y: Array, num_classes: int) -> tuple[int, str] | None:
    """Return the first row of real numbers, shape (rows,), that is no label from 0 to num_classes − 1, and why."""
    is_float = y.dtype.kind == "f"
    exact = 2 ** min(53, np.finfo(y.dtype).nmant + 1 if is_float else 53)
    bad = ~((y >= 0) & (y < min(num_classes, exact)))
    if is_float:
        bad |= y != np.floor(y)
    if not bad.any():
        return None
    row = int(np.argmax(bad))
    value = y[row].item()
    text = (
        f"{value:.15g}" if is_float and not (abs(value) < 1e17 and value == int(value)) else f"{int(value)}"
    )
    if exact <= value < num_classes:
        return row, f"labels must be less than {exact}, up to which {y.dtype} is exact, got {text}"
    return row, f"labels must be whole numbers from 0 to {num_classes - 1}, got {text}"
