"""Arrays as sources: NumPy's own, and those of h5py and zarr that are read by slicing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from normkit._checks import as_array
from normkit._reading import FAULTS, reason
from normkit.data.source import Array, Block, Fault, Function, Source, converted

__all__ = ["Arrays", "Sliced", "as_source", "described_position", "native"]


def described_position(position: tuple[int, ...]) -> str:
    """Say where in a row: ', column 3 (from 0)' if it has one axis."""
    if not position:
        return ""
    inside = str(position[0]) if len(position) == 1 else str(position)
    return f", column {inside} (from 0)"


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in this machine's byte order, which is what arithmetic is fast on."""
    return dtype.newbyteorder("=")


class Arrays(Source):
    """Arrays in memory. Blocks are views."""

    def __init__(self, *arrays: Array) -> None:
        self.arrays = arrays

    @property
    def empty(self) -> tuple[Array, ...]:
        """The arrays without rows."""
        return tuple(a[:0] for a in self.arrays)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.arrays[0])

    def _state(self) -> dict[str, Any]:
        return {}

    def where(self, row: int, array: int | None = None, position: tuple[int, ...] = ()) -> str:
        """Say which row."""
        name = "" if array is None else f"array {array + 1}: "
        return f"{name}row {row} (from 0){described_position(position)}"

    def map(self, function: Function, array: int | None = None) -> Arrays:
        """Apply the function at once: what is in memory needs no blocks."""
        return Arrays(*converted(self.arrays, function, array))

    def read(self, start: int, stop: int) -> Block:
        """Return views."""
        return Block.of(start, *(a[start:stop] for a in self.arrays))


class Sliced(Source):
    """One array-like that reads what is sliced, such as a dataset of an open HDF5 file or a zarr array."""

    def __init__(self, array: Any) -> None:
        if array.dtype.kind not in "buif" or len(array.shape) == 0:
            raise ValueError(
                f"{_name(array)}: expected numbers along at least one axis, got {array.dtype} of shape {array.shape}"
            )
        self._array = array

    @property
    def empty(self) -> tuple[Array, ...]:
        """The array without rows."""
        return (np.empty((0, *self._array.shape[1:]), native(self._array.dtype)),)

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._array.shape[0])

    def where(self, row: int, array: int | None = None, position: tuple[int, ...] = ()) -> str:
        """Say which row of the array."""
        return f"{_name(self._array)}: row {row} (from 0){described_position(position)}"

    def read(self, start: int, stop: int) -> Block:
        """Return what slicing gives; rows that cannot be read are a fault."""
        try:
            part = np.asarray(self._array[start:stop])
        except FAULTS as error:
            rows = f"rows {start} to {stop - 1} (from 0)"
            lost = Fault(f"{_name(self._array)}: {rows} cannot be read: {reason(error)}", stop - start)
            return Block(self.empty, np.empty(0, np.int64), (lost,))
        return Block.of(start, part.astype(native(part.dtype), copy=False))


def _name(array: Any) -> str:
    """Return what an array calls itself, after its file if it has one, as datasets of h5py have."""
    name = str(getattr(array, "name", "") or type(array).__name__)
    file = getattr(getattr(array, "file", None), "filename", None)
    return f"{file}: {name}" if file else name


def as_source(given: Sequence[Any]) -> list[Source]:
    """Return each as a source.

    Raises
    ------
    ValueError
        If one has no axis along which there could be samples.
    """
    sources: list[Source] = []
    for one in given:
        if isinstance(one, Source):
            sources.append(one)
        elif isinstance(getattr(one, "dtype", None), np.dtype) and hasattr(one, "chunks"):
            sources.append(Sliced(one))  # h5py, zarr: np.asarray would read all of it
        else:
            found = as_array("each of the data", one)
            if found.ndim == 0:
                raise ValueError("expected one or more arrays with at least one axis")
            sources.append(Arrays(found))
    return sources
