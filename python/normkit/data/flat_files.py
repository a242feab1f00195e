"""Files that hold one array of numbers as it is in memory: ``.npy``, and IDX."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from normkit._paths import a_file, a_path
from normkit.data.arrays import described_position, native
from normkit.data.idx import idx_layout
from normkit.data.source import Array, Block, Source

__all__ = ["IdxFile", "NpyFile"]


class _FlatFile(Source):
    """The array at an offset of a file.

    Blocks are read, not mapped: mapped pages, and their neighbours, count as memory of the process as long as the map is
    there, and a file that became shorter would be a SIGBUS.
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
        """Read rows of the file; in Fortran order from as many places as there are columns."""
        rows, columns = stop - start, math.prod(self._shape[1:])
        shape = (rows, *self._shape[1:])
        with self._path.open("rb", buffering=0) as file:
            if self._order == "C":
                part = self._values(file, start * columns, rows * columns).reshape(shape)
            else:
                parts = [self._values(file, c * len(self) + start, rows) for c in range(columns)]
                part = np.stack(parts, axis=-1).reshape(shape, order="F")
        return Block.of(start, np.ascontiguousarray(part, native(self._dtype)))

    def _values(self, file: IO[bytes], first: int, count: int) -> Array:
        file.seek(self._offset + first * self._dtype.itemsize)
        values: Array = np.fromfile(file, self._dtype, count)
        if values.size < count:
            raise ValueError(f"{self._path}: the file became shorter since it was opened")
        return values


class NpyFile(_FlatFile):
    """The rows of a ``.npy`` file that may be larger than memory: C or Fortran order, any byte order.

    Rows of a file in Fortran order lie apart, so it is slow to read.

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
        path = a_file(a_path("NpyFile: path", path))
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


class IdxFile(_FlatFile):
    """The rows of an IDX file, MNIST's format, that may be larger than memory.

    Parameters
    ----------
    path : path
        The file. A gzipped one cannot be read in the middle: `normkit.data.idx.read_idx` reads it into memory.

    Raises
    ------
    ValueError
        If it is not IDX, is gzipped, or holds fewer or more values than its header says.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = a_file(a_path("IdxFile: path", path))
        super().__init__(path, *idx_layout(path))
