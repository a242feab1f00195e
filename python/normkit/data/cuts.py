"""Where rows are cut into batches, by the rule for those that are left over from full ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from normkit.data.pools import RowReader, Rows

__all__ = ["Cuts", "Last", "cut_until_end"]

Last = Literal["keep", "drop", "merge", "spread"]


class Cuts:
    """The batches of n rows; `len` is their number."""

    def __init__(self, n: int, size: int, last: Last) -> None:
        full, rest = divmod(n, size)
        short = rest > 0 and (last in ("keep", "spread") or full == 0)
        self._n, self._size, self._last = n, size, last
        self._count = full + short

    def __len__(self) -> int:
        """Return the number of batches."""
        return self._count

    def edge(self, batch: int) -> int:
        """Return the row at which a batch starts; of the number after the last, that at which it ends."""
        if self._last == "spread" and batch:
            return batch * self._n // self._count
        if batch < self._count or self._last == "drop":
            return min(batch * self._size, self._n)
        return self._n

    def sizes(self, first: int = 0) -> Iterator[int]:
        """Return the sizes of the batches from `first` on."""
        return (self.edge(i + 1) - self.edge(i) for i in range(first, self._count))


def cut_until_end(rows: RowReader, size: int, last: Last) -> Iterator[Rows]:
    """Cut batches by any rule but "spread" while it is not known how many rows there are."""
    held: Rows | None = None  # until it is known whether a short one follows
    while (batch := rows.take(size)) is not None:
        if last == "keep":
            yield batch
            continue
        if held is not None:
            if len(batch[0]) < size:
                if last == "merge":
                    held = tuple(np.concatenate(pair) for pair in zip(held, batch, strict=True))
                break
            yield held
        held = batch
    if held is not None:
        yield held
