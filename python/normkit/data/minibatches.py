"""`MiniBatches`: shuffled, seeded mini-batches of arrays by slicing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit._checks import positive_integer

__all__ = ["Last", "MiniBatches"]

Array = NDArray[Any]
Last = Literal["keep", "drop", "merge", "spread"]


class MiniBatches:
    """The mini-batches of one or more arrays of equal length, in a new order at every iteration.

    Without shuffling a batch is a view, with it a copy of the chosen rows; there is no work per sample in
    Python. Batch size 1 gives stochastic gradient descent, the number of samples (or more) batch
    gradient descent.

    Parameters
    ----------
    *arrays : array_like
        Samples along the first axis. A memory-mapped array is read batch by batch.
    batch_size : int, default 32
        Samples per batch.
    shuffle : bool, default True
        Draw a new permutation for every iteration. False: the order of the arrays.
    seed : int or Generator, optional
        Where permutations come from; a generator is used as it is, and advances.
    last : {"keep", "drop", "merge", "spread"}
        What to do with n mod batch_size samples that are left over:

        - "keep": they are a short last batch. Batch norm then sees a batch of another size, in the
          worst case of one sample, whose variance is 0.
        - "drop": they are left out of this iteration; with shuffling the next leaves out others. A set
          smaller than one batch is kept, so that something is always there.
        - "merge": they are added to the batch before.
        - "spread": as many batches as with "keep", their sizes differing by at most one.

    Yields
    ------
    tuple of ndarray
        One part of each array, in the order given.

    Raises
    ------
    ValueError
        If there is no array, lengths differ, or `batch_size` or `last` is not possible.

    Examples
    --------
    >>> x, y = np.arange(10.0), np.arange(10)
    >>> [len(xb) for xb, yb in MiniBatches(x, y, batch_size=4)]
    [4, 4, 2]
    >>> [len(xb) for xb, yb in MiniBatches(x, y, batch_size=4, last="spread")]
    [3, 3, 4]
    """

    def __init__(
        self,
        *arrays: ArrayLike,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | np.random.Generator | None = None,
        last: Last = "keep",
    ) -> None:
        self.arrays = tuple(np.asarray(array) for array in arrays)
        if not self.arrays or any(array.ndim == 0 for array in self.arrays):
            raise ValueError("MiniBatches: expected one or more arrays with at least one axis")
        lengths = [len(array) for array in self.arrays]
        if len(set(lengths)) != 1:
            raise ValueError(f"MiniBatches: all arrays must have the same length, got {lengths}")
        if last not in get_args(Last):
            raise ValueError(f"MiniBatches: last must be one of {', '.join(get_args(Last))}, got {last!r}")
        self.num_samples = lengths[0]
        self.batch_size = positive_integer("MiniBatches: batch_size", batch_size)
        self.shuffle = shuffle
        self.last = last
        self._rng = np.random.default_rng(seed)
        self._bounds = _bounds(self.num_samples, self.batch_size, last)

    @property
    def sizes(self) -> list[int]:
        """Number of samples in each batch."""
        return [stop - start for start, stop in zip(self._bounds, self._bounds[1:], strict=False)]

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._bounds) - 1

    def __iter__(self) -> Iterator[tuple[Array, ...]]:
        """Iterate over all batches once, in a new order if shuffling."""
        order = self._rng.permutation(self.num_samples) if self.shuffle else None
        for start, stop in zip(self._bounds, self._bounds[1:], strict=False):
            if order is None:
                yield tuple(array[start:stop] for array in self.arrays)
            else:
                chosen = order[start:stop]
                yield tuple(array.take(chosen, axis=0) for array in self.arrays)


def _bounds(n: int, size: int, last: Last) -> list[int]:
    """Where batches start, and where the last one ends: it is short of n only for "drop"."""
    bounds = list(range(0, n, size))
    remainder = n % size
    if last == "spread":
        return [i * n // len(bounds) for i in range(len(bounds))] + [n] if bounds else [0]
    if remainder and n > size:
        if last == "drop":
            return bounds
        if last == "merge":
            bounds.pop()
    return [*bounds, n] if bounds else [0]
