"""`Watch`: says that features have NaN or infinities, without a pass over the data that have none."""

from __future__ import annotations

import math
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Watch"]

Array = NDArray[Any]

ROWS = 8192  # that are searched at a time
NAMED = 5  # columns


class Watch:
    """Warns once if features are not finite in the dtype that the model computes in.

    Looks at the sum of the first batch, and later only where a loss is not finite: NaN in the features make it so.

    Parameters
    ----------
    x : ndarray, optional
        All features, if they are in memory, so that the warning counts them all.
    """

    def __init__(self, x: Array | None = None) -> None:
        self._all = x
        self._first, self._over = True, False
        self._told = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the features: a copy of a model has none."""
        return {**vars(self), "_all": None}

    def before(self, batch: Array, dtype: np.dtype[Any]) -> None:
        """Look at a batch before its step, if it is the first; `dtype`: what the first layer casts it to."""
        self._dtype = dtype
        if self._first:
            self._first = False
            if batch.dtype.kind == "f":
                with np.errstate(all="ignore"):
                    total = float(np.add.reduce(batch.astype(self._dtype, copy=False), axis=None))
                if not math.isfinite(total):  # which large values can be as well
                    self._search(batch)

    def after(self, batch: Array, loss: float) -> None:
        """Look at a batch whose loss is not finite, if it is the first such."""
        if not self._over and not math.isfinite(loss):
            self._over = True
            self._search(batch)

    def arithmetic(self) -> AbstractContextManager[None]:
        """Return what to compute a step in: without NumPy's warnings of the values that this has warned of."""
        return np.errstate(over="ignore", invalid="ignore") if self._told else nullcontext()

    def _search(self, batch: Array) -> None:
        x, where = (batch, "this batch") if self._all is None else (self._all, "x")
        text = _found(x, self._dtype)
        if text is None:
            return
        self._over = self._told = True
        warnings.warn(
            f"{where} has {text}; they make the loss and the weights NaN: leave these rows out, or fill them in "
            "(np.nan_to_num)",
            stacklevel=2,
        )


def _found(x: Array, dtype: np.dtype[Any]) -> str | None:
    """Say how many values are not finite in this dtype, and in which columns; None if all are finite."""
    nans, infinities, large, rows = 0, 0, 0, 0
    columns = np.zeros(x.shape[1:], np.intp)
    for start in range(0, len(x), ROWS):
        part = x[start : start + ROWS]
        with np.errstate(all="ignore"):
            bad = ~np.isfinite(part.astype(dtype, copy=False))
        if bad.any():
            nan, infinite = int(np.isnan(part).sum()), int(np.isinf(part).sum())
            nans, infinities = nans + nan, infinities + infinite
            large += int(bad.sum()) - nan - infinite
            rows += int(bad.reshape(len(bad), -1).any(axis=1).sum())
            columns += bad.sum(axis=0)
    if not rows:
        return None
    where = [str(int(i[0])) if len(i) == 1 else str(tuple(map(int, i))) for i in np.argwhere(columns)[:NAMED]]
    more = int(np.count_nonzero(columns)) - len(where)
    place = f"column{'s' if len(where) > 1 else ''} {', '.join(where)}" if x.ndim > 1 else "its only column"
    kinds = [f"{n} {name}" for n, name in ((nans, "NaN"), (infinities, "infinite")) if n]
    found = [f"{' and '.join(kinds)} value{'s' if nans + infinities > 1 else ''}"] if kinds else []
    found += [f"{large} value{'s' if large > 1 else ''} too large for {dtype}"] if large else []
    return (
        f"{' and '.join(found)} in {rows} of {len(x)} rows, in {place}"
        f"{f' and {more} more' if more else ''} (from 0)"
    )
