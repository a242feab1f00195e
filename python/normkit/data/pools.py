"""Pools: the rows that are in memory at a time, in the order in which batches take them.

Shuffling data larger than memory: blocks are read in a random order, their rows fill a pool, and the rows of a full
pool are put in a random order. Everything is drawn from the generator of the epoch, so it is the same
whenever the epoch is run, and each pool from a generator of its own, so that an epoch can start at any pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from normkit.data.source import Array, Source, row_bytes

__all__ = ["Pool", "RowReader", "Rows", "block_order", "buffer_rows", "filled", "pool_orders"]

BUFFER_BYTES = 64 << 20

Rows = tuple[Array, ...]
Orders = Callable[[int, int], NDArray[np.int64]]


class Pool(NamedTuple):
    """Rows of arrays, in an order; None: their own."""

    arrays: Rows
    order: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.arrays[0]) if self.order is None else len(self.order)

    def rows(self, start: int, stop: int) -> Rows:
        """Return some rows: views without an order, copies with one."""
        if self.order is None:
            return tuple(array[start:stop] for array in self.arrays)
        chosen = self.order[start:stop]
        return tuple(array.take(chosen, axis=0) for array in self.arrays)


def block_order(
    source: Source, rows: int, rng: np.random.Generator | None, start: int
) -> Iterator[tuple[int, int]]:
    """Return the blocks of about `rows` rows to read, as start and stop, without the first `start` rows of all.

    In the order of the source, or a random one, which is drawn at once.
    """
    edges = source.edges(rows)
    blocks = np.arange(len(edges) - 1) if rng is None else rng.permutation(len(edges) - 1)
    return _ranges(edges, blocks, start)


def _ranges(edges: NDArray[np.int64], blocks: NDArray[np.int64], start: int) -> Iterator[tuple[int, int]]:
    for block in blocks:
        low, high = int(edges[block]), int(edges[block + 1])
        skipped = min(start, high - low)
        start -= skipped
        if low + skipped < high:
            yield low + skipped, high


def buffer_rows(arrays: Rows) -> int:
    """Return how many rows such as these fit into a buffer whose size is not given."""
    return max(1, BUFFER_BYTES // row_bytes(arrays))


def pool_orders(seed: int) -> Orders:
    """Return the random order of the rows of each pool."""
    return lambda number, count: np.random.default_rng([seed, number]).permutation(count)


def filled(blocks: Iterable[Rows], size: int | None, orders: Orders, first: int = 0) -> Iterator[Pool]:
    """Fill pools of `size` rows with those of the blocks; the number of the first pool is `first`.

    A pool's memory is used again for the next, so its rows must be taken before that.
    """
    buffers: Rows = ()
    count, number = 0, first

    def pool() -> Pool:
        return Pool(buffers, orders(number, count))

    for block in blocks:
        if not buffers:
            size = size or buffer_rows(block)
            buffers = tuple(np.empty((size, *array.shape[1:]), array.dtype) for array in block)
        assert size is not None
        at = 0
        while at < len(block[0]):
            taken = min(size - count, len(block[0]) - at)
            for buffer, array in zip(buffers, block, strict=True):
                buffer[count : count + taken] = array[at : at + taken]
            count, at = count + taken, at + taken
            if count == size:
                yield pool()
                count, number = 0, number + 1
    if count:
        yield pool()


class RowReader:
    """Takes rows from pool after pool, after the first `skipped`."""

    def __init__(self, pools: Iterable[Pool], skipped: int = 0) -> None:
        self._pools = iter(pools)
        self._pool: Pool | None = None
        self._at = 0
        self._skipped = skipped

    def take(self, count: int) -> Rows | None:
        """Return the next rows; fewer at the end, and None if there are none."""
        parts: list[Rows] = []
        while count > 0 and self._more():
            assert self._pool is not None
            stop = min(self._at + count, len(self._pool))
            parts.append(self._pool.rows(self._at, stop))
            count -= stop - self._at
            self._at = stop
        if len(parts) < 2:
            return parts[0] if parts else None
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    def _more(self) -> bool:
        """Whether there are rows; goes on to the next pool if need be."""
        while self._pool is None or self._at == len(self._pool):
            self._pool = None  # so that two are never held
            self._pool = next(self._pools, None)
            if self._pool is None:
                return False
            self._at = min(self._skipped, len(self._pool))
            self._skipped -= self._at
        return True
