"""Files that hold one array of numbers as it is in memory, mapped block by block: ``.npy``, and IDX."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from normkit.data.arrays import described_position, native
from normkit.data.idx import idx_layout
from normkit.data.source import Array, Block, Source

__all__ = ["IdxFile", "NpyFile"]


class _MappedFile(Source):
    """The array at an offset of a file.

    The map is made anew for each block and the block copied out of it. So memory that is mapped never exceeds a
    block, and a file that became shorter meanwhile is an error, not a SIGBUS.
    """

    def __init__(
        self,
        path: Path,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        offset: int,
        order: Literal["C", "F"] = "C",
    ) -> None:
        if dtype.kind not in "buif":
            raise ValueError(f"{path}: expected real numbers, got {dtype}")
        if not shape or 0 in shape[1:]:
            raise ValueError(
                f"{path}: expected shape (rows, ...) with at least one value in a row, got {shape}"
            )
        promised = math.prod(shape) * dtype.itemsize
        held = path.stat().st_size - offset
        if held != promised:
            raise ValueError(
                f"{path}: the header promises {promised} bytes of shape {shape}, the file holds "
                f"{'fewer' if held < promised else 'more'}: {held}"
            )
        self._path, self._dtype, self._shape, self._offset, self._order = path, dtype, shape, offset, order

    @property
    def empty(self) -> tuple[Array, ...]:
        """The array without rows, in native byte order."""
        return (np.empty((0, *self._shape[1:]), native(self._dtype)),)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._shape[0]

    def where(self, row: int, array: int | None = None, position: tuple[int, ...] = ()) -> str:
        """Say which row of the file."""
        return f"{self._path}: row {row} (from 0){described_position(position)}"

    def read(self, start: int, stop: int) -> Block:
        """Copy rows out of the file."""
        if start >= stop:
            return Block.of(start, *self.empty)
        try:
            array = np.memmap(self._path, self._dtype, "r", self._offset, self._shape, self._order)
        except ValueError as error:
            raise ValueError(
                f"{self._path}: the file became shorter since it was opened ({error})"
            ) from error
        return Block.of(start, np.array(array[start:stop], native(self._dtype), order="C", subok=False))


class NpyFile(_MappedFile):
    """The rows of a ``.npy`` file that may be larger than memory: C or Fortran order, any byte order.

    Parameters
    ----------
    path : path
        The file.

    Raises
    ------
    ValueError
        If it is not a ``.npy`` file, has fewer or more values than its header says, or other values than
        real numbers. Objects are refused and never unpickled.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        if path.stat().st_size == 0:
            raise ValueError(f"{path}: the file is empty")
        try:
            array = _mapped_npy(path)
        except Exception as error:  # NumPy raises all kinds on foreign bytes
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{path}: not a usable .npy file: {reason}") from error
        order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
        super().__init__(path, array.dtype, array.shape, array.offset, order)


def _mapped_npy(path: Path) -> np.memmap[Any, Any]:
    with path.open("rb") as file:
        np.lib.format.read_magic(file)  # np.load takes archives and pickles for what they are
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    assert isinstance(array, np.memmap)
    return array


class IdxFile(_MappedFile):
    """The rows of an IDX file, MNIST's format, that may be larger than memory.

    Parameters
    ----------
    path : path
        The file. A gzipped one cannot be read in the middle: `read_idx` reads it into memory.

    Raises
    ------
    ValueError
        If it is not IDX, is gzipped, or holds fewer or more values than its header says.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        super().__init__(path, *idx_layout(path))
