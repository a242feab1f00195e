"""`Chunks`: the parts that each batch is cut into, which rank has which, and how results are combined."""

from __future__ import annotations

import itertools
from typing import Any

from numpy.typing import NDArray

from normkit.distributed.communicator import Communicator

__all__ = ["Chunks"]

Array = NDArray[Any]


class Chunks:
    """A number of contiguous parts of every batch, in runs over the ranks.

    Parameters
    ----------
    comm : Communicator
        The ranks.
    count : int
        Parts of a batch. Their sizes differ by at most one; in a small batch some are empty.
    ordered : bool
        Whether sums are taken in the order of the parts, so that their bits do not depend on the number of ranks.

    Attributes
    ----------
    local : range
        The parts of this rank; none if there are more ranks than parts.
    """

    def __init__(self, comm: Communicator, count: int, ordered: bool) -> None:
        self.comm, self.count, self.ordered = comm, count, ordered
        edges = _edges(count, comm.size)
        self._per_rank = [b - a for a, b in itertools.pairwise(edges)]
        self.local = range(edges[comm.rank], edges[comm.rank + 1])

    def slices(self, rows: int) -> list[slice]:
        """Return which rows of a batch the parts of this rank are."""
        edges = _edges(rows, self.count)
        return [slice(edges[k], edges[k + 1]) for k in self.local]

    def gather(self, table: Array) -> Array:
        """Return the rows of all parts in their order, from those of this rank's; collective."""
        return self.comm.gather(table, self._per_rank)

    def gather_objects(self, items: list[Any]) -> list[Any]:
        """Return the items of all parts in their order; collective."""
        return [item for part in self.comm.objects(items) for item in part]

    def total(self, table: Array) -> Array:
        """Return the sum over all parts of a short row for each; as `sum`, by a single message where order counts."""
        if self.ordered:
            return _in_order(self.gather(table))
        return self.sum(table)

    def sum(self, table: Array) -> Array:
        """Return the sum over all parts, from the rows of this rank's; collective.

        Parameters
        ----------
        table : ndarray, shape (parts of this rank, n)
            May be overwritten.

        Returns
        -------
        ndarray, shape (n,)
            The same bits on every rank; with `ordered` also at any number of ranks: each rank gets a share of the columns
            of all parts, adds them up one part after the other, and passes the result on.
        """
        if not self.ordered:
            total = _in_order(table)
            self.comm.allreduce(total)
            return total
        edges = _edges(table.shape[1], self.comm.size)
        share = _in_order(self.comm.exchange(table, self._per_rank, edges))
        return self.comm.gather(share, [b - a for a, b in itertools.pairwise(edges)])


def _edges(total: int, parts: int) -> list[int]:
    return [k * total // parts for k in range(parts + 1)]


def _in_order(table: Array) -> Array:
    """Sum of the rows. `np.sum` may pair them up, depending on the width."""
    total: Array = table[0]
    for row in table[1:]:
        total += row
    return total
