"""`Stream`: rows from any iterable, in the order in which they come."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Any

import numpy as np

from normkit._checks import as_array, flag, shown, whole
from normkit._repr import Described
from normkit.data.source import Array, Block, Fault, Function, converted, mapped_block, row_bytes

__all__ = ["UNKNOWN_LENGTH", "BatchIterable", "Stream", "is_iterable_of_batches"]

_BLOCK_BYTES = 1 << 20
UNKNOWN_LENGTH = (
    "the number of batches is not known before they end; give Stream(..., length=), or steps_per_epoch to fit"
)


class Stream(Described):
    """Rows from an iterable of batches or of samples; `MiniBatches` shuffles them and cuts batches of its own.

    Parameters
    ----------
    items : iterable, or function that returns one
        An iterator can be used for one epoch; a list, an object that can be iterated over again, or a function is used anew for
        each.
    samples : bool, default False
        Whether an item is one sample, instead of a batch. A tuple has one part for each array: ``(x, y)``.
    length : int, optional
        How many rows there are, for the number of batches. Not needed.

    Raises
    ------
    TypeError
        If `items` is neither.
    """

    def __init__(
        self,
        items: Iterable[Any] | Callable[[], Iterable[Any]],
        *,
        samples: bool = False,
        length: int | None = None,
    ) -> None:
        self._feed = _Feed(items)
        self._items = items
        self._samples = flag("Stream: samples", samples)
        self.length = None if length is None else whole("Stream: length", length)
        self._steps: tuple[tuple[Function, int | None], ...] = ()
        self._first: tuple[Array, ...] | None = None

    def __len__(self) -> int:
        """Return the number of rows, if it was given."""
        if self.length is None:
            raise TypeError("Stream: the number of rows is not known; give length=")
        return self.length

    @property
    def empty(self) -> tuple[Array, ...]:
        """The arrays without rows, as the first item tells; that is fetched for it, and not lost.

        Raises
        ------
        ValueError
            If there is no item.
        """
        if self._first is None:
            item = self._feed.peek()
            self._first = _sample(item) if self._samples else _first_batch(item)
        arrays = tuple(part[:0] for part in self._first)
        for function, array in self._steps:
            arrays = converted(arrays, function, array)
        return arrays

    def map(self, function: Function, array: int | None = None) -> Stream:
        """Return these rows after a function; see `Source.map`."""
        mapped = copy.copy(self)
        mapped._steps = (*self._steps, (function, array))
        return mapped

    def blocks(self) -> Iterator[Block]:
        """Return the rows, and what is wrong with items that do not fit the first."""
        for raw in self._stacked() if self._samples else self._batches():
            block = raw
            for function, array in self._steps:
                block = mapped_block(block, function, array, self.where)
            yield block

    def where(self, row: int, array: int | None = None, position: tuple[int, ...] = ()) -> str:
        """Say which row."""
        name = "" if array is None else f", array {array + 1}"
        return f"Stream: row {row} (from 0){name}{f' at {position}' if position else ''}"

    def _batches(self) -> Iterator[Block]:
        first: tuple[Array, ...] | None = None
        row = 0
        for number, item in enumerate(self._feed.start()):
            parts = _parts(item)
            first = first or parts
            rows = len(parts[0]) if parts and parts[0].ndim else 0
            if any(part.shape[:1] != (rows,) for part in parts):
                shapes = ", ".join(str(part.shape) for part in parts)
                wrong = f"arrays must be equal in length, got shapes {shapes}"
            else:
                wrong = _difference(parts, first)
            if wrong:
                fault = Fault(f"Stream: item {number} (from 0): {wrong}", max(rows, 1))
                yield Block(tuple(f[:0] for f in first), np.empty(0, np.int64), (fault,))
            else:
                arrays = (p.astype(f.dtype, copy=False) for p, f in zip(parts, first, strict=True))
                yield Block.of(row, *arrays)
            row += rows

    def _stacked(self) -> Iterator[Block]:
        first: tuple[Array, ...] | None = None
        good: list[tuple[Array, ...]] = []
        rows: list[int] = []
        faults: list[Fault] = []
        most = 1

        def block() -> Block:
            assert first is not None
            arrays = tuple(
                np.concatenate(column).astype(f.dtype, copy=False)
                for column, f in zip(zip(*good, strict=True), first, strict=True)
            )
            empty = tuple(f[:0] for f in first)
            return Block(arrays or empty, np.array(rows, np.int64), tuple(faults))

        for number, item in enumerate(self._feed.start()):
            parts = _sample(item)
            if first is None:
                first = parts
                most = max(1, _BLOCK_BYTES // row_bytes(parts))
            if wrong := _difference(parts, first):
                faults.append(Fault(f"Stream: item {number} (from 0): {wrong}"))
            else:
                good.append(parts)
                rows.append(number)
            if len(good) + len(faults) >= most:
                yield block()
                good, rows, faults = [], [], []
        if good or faults:
            yield block()


class _Feed:
    """Starts the iterable anew for each epoch, or says that it cannot be."""

    def __init__(self, items: Iterable[Any] | Callable[[], Iterable[Any]]) -> None:
        if not callable(items) and not isinstance(items, Iterable):
            raise TypeError(f"Stream: expected an iterable or a function, got {type(items).__name__}")
        self._items = items
        self._peeked: Iterator[Any] | None = None
        self._used = False

    def start(self) -> Iterator[Any]:
        if self._peeked is not None:
            iterator, self._peeked = self._peeked, None
            return iterator
        if self._used:
            raise ValueError(
                "Stream: the iterator is used up after one epoch; give a function that returns a new one"
            )
        items = self._items if isinstance(self._items, Iterable) else self._items()
        iterator = iter(items)
        self._used = iterator is self._items
        return iterator

    def peek(self) -> Any:
        iterator = self.start()
        try:
            first = next(iterator)
        except StopIteration:
            raise ValueError("Stream: the iterable has no items") from None
        self._peeked = chain([first], iterator)
        return first


def _difference(parts: Sequence[Array], first: Sequence[Array]) -> str:
    """Say in what an item differs from the first; nothing if it does not."""
    if len(parts) != len(first):
        return f"has {len(parts)} arrays, the first item {len(first)}"
    for part, other in zip(parts, first, strict=True):
        if part.dtype.kind not in "buif":
            return f"must be of real numbers, got {part.dtype}"
        if part.shape[1:] != other.shape[1:]:
            return f"has rows of shape {part.shape[1:]}, the first item {other.shape[1:]}"
        if not np.can_cast(part.dtype, other.dtype, "same_kind"):
            return f"is of type {part.dtype}, the first item {other.dtype}"
        if part.size and other.dtype.kind in "iu" and not np.can_cast(part.dtype, other.dtype):
            limits = np.iinfo(other.dtype)
            if part.min() < limits.min or part.max() > limits.max:  # would become another number
                return f"has values that {other.dtype}, the type of the first item, does not hold"
    return ""


class BatchIterable(Described):
    """An iterable of batches, which are passed on as they come."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._feed = _Feed(batches)
        self._batches = batches
        self._steps: tuple[tuple[Function, int | None], ...] = ()

    @property
    def empty(self) -> tuple[Array, ...]:
        """The first batch without its rows."""
        return self._after_steps(tuple(part[:0] for part in _first_batch(self._feed.peek())))

    def map(self, function: Function, array: int | None = None) -> BatchIterable:
        """Return the batches after a function; see `Source.map`."""
        mapped = copy.copy(self)
        mapped._steps = (*self._steps, (function, array))
        return mapped

    def __len__(self) -> int:
        """Return the number of batches; TypeError if the iterable does not know it."""
        if isinstance(self._batches, Sized):
            return len(self._batches)
        raise TypeError(f"MiniBatches: {UNKNOWN_LENGTH}")

    def __iter__(self) -> Iterator[tuple[Array, ...]]:
        """Iterate over the batches as tuples of arrays."""
        return (self._after_steps(_parts(item)) for item in self._feed.start())

    def _after_steps(self, batch: tuple[Array, ...]) -> tuple[Array, ...]:
        for function, array in self._steps:
            batch = converted(batch, function, array)
        return batch


def _first_batch(item: Any) -> tuple[Array, ...]:
    """Return the arrays of a batch, or raise ValueError if it is none."""
    parts = _parts(item)
    if any(part.ndim == 0 for part in parts):
        raise ValueError(
            "an item of the iterable must be a batch of samples, such as (x, y) of arrays, got "
            + ", ".join(shown(part.item()) if part.ndim == 0 else f"shape {part.shape}" for part in parts)
        )
    return parts


def _sample(item: Any) -> tuple[Array, ...]:
    """Return the arrays of a sample as a batch of one; a list is an array, as samples often are lists of numbers."""
    return tuple(part[None] for part in _parts(item if isinstance(item, tuple) else (item,)))


def _parts(item: Any) -> tuple[Array, ...]:
    """Return the arrays of a batch."""
    parts = item if isinstance(item, (tuple, list)) else (item,)
    return tuple(as_array("each part of a batch", part) for part in parts)


def is_iterable_of_batches(given: Any) -> bool:
    """Whether this is an iterable but neither an array nor a collection that NumPy makes one of."""
    return (
        isinstance(given, Iterable)
        and not isinstance(given, (Sequence, Mapping, AbstractSet))
        and not hasattr(given, "__array__")
        and not hasattr(given, "shape")
        and not hasattr(given, "dtype")
    )
