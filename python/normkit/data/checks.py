"""What becomes of bad rows: an error, or a count and a report."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np

from normkit.data.source import Array, Block, Fault, Source
from normkit.data.streams import Stream

__all__ = ["BadDataWarning", "BadRows", "OnBad"]

OnBad = Literal["error", "skip"]
SHOWN = 5


class BadDataWarning(UserWarning):
    """Rows or files were skipped in an epoch, as ``on_bad="skip"`` asks."""


class BadRows:
    """Raises at the first fault, or counts the faults of an epoch.

    Parameters
    ----------
    on_bad : {"error", "skip"}
        Which of the two.
    finite : bool
        Whether rows with NaN or infinities are bad.
    """

    def __init__(self, on_bad: OnBad, finite: bool) -> None:
        self._skips, self._finite = on_bad == "skip", finite
        self.rows = 0
        self.shown: list[str] = []
        self._faults = 0

    def good(self, source: Source | Stream, block: Block, rows: int | None = None) -> tuple[Array, ...]:
        """Return the good rows of a block of `rows`; raise ValueError for the first bad one if none may be skipped."""
        if self._finite:
            block = finite_rows(source, block)
        # A row may be bad in two files; it is one row all the same.
        lost = sum(fault.rows for fault in block.faults) if rows is None else rows - len(block.rows)
        self.take(block.faults, lost)
        return block.arrays

    def take(self, faults: tuple[Fault, ...], lost: int = 0) -> None:
        """Raise the first fault, or count them and the rows that are lost by them."""
        if faults and not self._skips:
            raise ValueError(faults[0].text)
        self.rows += lost
        self._faults += len(faults)
        self.shown += [fault.text for fault in faults[: SHOWN - len(self.shown)]]

    def warn(self) -> None:
        """Say what was skipped, if anything was."""
        if self._faults:
            more = self._faults - len(self.shown)
            rest = f"; and {more} more" if more else ""
            warnings.warn(
                f"MiniBatches: skipped {self.rows} bad rows ({self._faults} faults): {'; '.join(self.shown)}{rest}",
                BadDataWarning,
                stacklevel=3,
            )


def finite_rows(source: Source | Stream, block: Block) -> Block:
    """Leave out rows with NaN or infinities, and say where the first of each is."""
    bad = np.zeros(len(block.rows), bool)
    reasons: dict[int, str] = {}
    for number, array in enumerate(block.arrays):
        if array.dtype.kind != "f":
            continue
        # One pass of reading and no array of the block's size: a sum is finite only if all its terms are.
        with np.errstate(all="ignore"):
            if np.isfinite(array.sum(dtype=np.float64)):
                continue
        for index in np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1)).tolist():
            row = array[index]
            position = tuple(int(i) for i in np.argwhere(~np.isfinite(row))[0]) if row.ndim else ()
            where = source.where(int(block.rows[index]), number, position)
            reasons.setdefault(index, f"{where}: {row[position]} is not a finite number")
            bad[index] = True
    if not reasons:
        return block
    return block.without(bad, [Fault(reasons[index]) for index in sorted(reasons)])
