"""HDF5 files, read block by block by h5py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit._names import did_you_mean
from normkit._optional import optional
from normkit._paths import a_file, a_path
from normkit.data.arrays import described_position, native
from normkit.data.source import Array, Block, Fault, Source, block_edges

__all__ = ["Hdf5File"]


class Hdf5File(Source):
    """The rows of one or more datasets of an HDF5 file that may be larger than memory.

    The file is opened for each block, so that it is never open across a fork.

    Parameters
    ----------
    path : path
        The file.
    *names : str
        Its datasets, such as ``"x", "y"``; ``"train/x"`` is in a group. They must be equal in length.

    Raises
    ------
    ValueError
        If the file is damaged, lacks a dataset, or if one is not of real numbers.
    ModuleNotFoundError
        If h5py is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *names: str) -> None:
        self._h5py = optional("h5py", "HDF5 is read by", "data")
        self._path, self._names = a_file(a_path("Hdf5File: path", path)), names
        if not names:
            raise ValueError(f"{self._path}: name the datasets to read, such as 'x', 'y'")
        with self._open() as file:
            datasets = [self._dataset(file, name) for name in names]
            lengths = [len(dataset) for dataset in datasets]
            self._empty = tuple(np.empty((0, *d.shape[1:]), native(d.dtype)) for d in datasets)
            self._chunk = max(d.chunks[0] if d.chunks else 0 for d in datasets)  # 0: none has chunks
        if len(set(lengths)) != 1:
            raise ValueError(f"{self._path}: {', '.join(names)} must be equal in length, have {lengths}")
        self._length = lengths[0]

    @contextmanager
    def _open(self) -> Iterator[Any]:
        with self._path.open("rb"):  # an OSError of the system says more than HDF5's
            pass
        try:
            file = self._h5py.File(self._path, "r")
        except OSError as error:
            raise ValueError(f"{self._path}: not a usable HDF5 file: {error}") from error
        with file:
            yield file

    def _dataset(self, file: Any, name: str) -> Any:
        try:
            dataset = file[name]
        except KeyError as error:
            there = ", ".join(file) or "nothing"
            raise ValueError(
                f"{self._path}: has no dataset {name!r}, but {there}{did_you_mean(name, file)}"
            ) from error
        if not isinstance(dataset, self._h5py.Dataset):
            there = ", ".join(dataset) if isinstance(dataset, self._h5py.Group) else "no values"
            raise ValueError(f"{self._path}: {name!r} is no dataset, but a group of {there}")  # noqa: TRY004
        if dataset.dtype.kind not in "buif":
            raise ValueError(f"{self._path}: {name!r} must be of real numbers, got {dataset.dtype}")
        if not dataset.shape or 0 in dataset.shape[1:]:
            raise ValueError(
                f"{self._path}: {name!r} needs shape (rows, ...) with at least one value in a row, got {dataset.shape}"
            )
        return dataset

    @property
    def empty(self) -> tuple[Array, ...]:
        """The arrays without rows."""
        return self._empty

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._length

    def edges(self, rows: int) -> NDArray[np.int64]:
        """Return edges that cut no chunk: HDF5 reads and unpacks whole chunks."""
        chunk = max(1, self._chunk)
        return block_edges(self._length, -(-rows // chunk) * chunk)

    def where(self, row: int, array: int | None = None, position: tuple[int, ...] = ()) -> str:
        """Say which row of which dataset."""
        name = "" if array is None else f"{self._names[array]!r}, "
        return f"{self._path}: {name}row {row} (from 0){described_position(position)}"

    def read(self, start: int, stop: int) -> Block:
        """Read rows of all datasets; chunks that HDF5 cannot read are faults."""
        with self._open() as file:
            return self._read(file, start, stop)

    def _read(self, file: Any, start: int, stop: int) -> Block:
        arrays = []
        for name, empty in zip(self._names, self._empty, strict=True):
            try:
                part = file[name][start:stop]
            except (OSError, KeyError) as error:
                middle = (start + stop) // 2 // max(1, self._chunk) * self._chunk
                if start < middle:  # the damage may be in the chunks of one half alone
                    return Block.joined([self._read(file, start, middle), self._read(file, middle, stop)])
                reason = f"{name!r}, rows {start} to {stop - 1} (from 0), cannot be read: {error}"
                fault = Fault(f"{self._path}: {reason}", stop - start)
                return Block(self._empty, np.empty(0, np.int64), (fault,))
            if part.shape != (stop - start, *empty.shape[1:]):
                raise ValueError(f"{self._path}: {name!r} has another shape since it was opened")
            arrays.append(part.astype(empty.dtype, copy=False))
        return Block.of(start, *arrays)
