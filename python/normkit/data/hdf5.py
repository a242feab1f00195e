"""HDF5 files, read block by block by h5py."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit._names import did_you_mean
from normkit._optional import optional
from normkit._paths import a_file, a_path
from normkit._reading import FAULTS, check_promise, reason, refusing
from normkit.data.arrays import described_position, native
from normkit.data.source import Array, Block, Fault, Source, block_edges

__all__ = ["Hdf5File", "own_member"]

_MOST_LINKS = 16  # one after the other; HDF5's own limit
_DAMAGED = "not a usable HDF5 file"


class Hdf5File(Source):
    """The rows of one or more datasets of an HDF5 file that may be larger than memory.

    The file is opened for each block, so that it is never open across a fork. No other file is opened: external links,
    external storage and virtual datasets are refused.

    Parameters
    ----------
    path : path
        The file.
    *names : str
        Its datasets, such as ``"x", "y"``; ``"train/x"`` is in a group. They must be equal in length.

    Raises
    ------
    ValueError
        If the file is damaged, lacks a dataset, or if one is not of real numbers, has its values in another file, or
        promises more than 1032 times the bytes that are stored of it, and more than 32 MiB.
    ModuleNotFoundError
        If h5py is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *names: str) -> None:
        self._h5py = optional("h5py", "HDF5 is read by", "data")
        self._path, self._names = a_file(a_path("Hdf5File: path", path)), names
        if not names:
            raise ValueError(f"{self._path}: name the datasets to read, such as 'x', 'y'")
        with refusing(self._path, _DAMAGED), self._open() as file:
            datasets = [self._dataset(file, name) for name in names]
            self._check_sizes(datasets)
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
        with refusing(self._path, _DAMAGED):
            file = self._h5py.File(self._path, "r")
        with file:
            yield file

    def _dataset(self, file: Any, name: str) -> Any:
        """Return a dataset of real numbers in this file."""
        h5py = self._h5py
        try:
            dataset = own_member(h5py, file, name)
        except KeyError as error:
            there = ", ".join(file) or "nothing"
            raise ValueError(
                f"{self._path}: has no dataset {name!r}, but {there}{did_you_mean(name, file)}"
            ) from error
        if not isinstance(dataset, h5py.Dataset):
            there = ", ".join(dataset) if isinstance(dataset, h5py.Group) else "no values"
            raise ValueError(f"{self._path}: {name!r} is no dataset, but a group of {there}")  # noqa: TRY004
        if dataset.is_virtual or dataset.external:
            raise ValueError(
                f"{self._path}: {name!r} has its values in other files, which are not opened; "
                "copy them into this file"
            )
        if dataset.dtype.kind not in "buif":
            raise ValueError(f"{self._path}: {name!r} must be of real numbers, got {dataset.dtype}")
        if not dataset.shape or 0 in dataset.shape[1:]:
            raise ValueError(
                f"{self._path}: {name!r} needs shape (rows, ...) with at least one value in a row, got {dataset.shape}"
            )
        return dataset

    def _check_sizes(self, datasets: list[Any]) -> None:
        """Raise ValueError if a dataset, or a chunk of it, is larger than what is stored of it can be."""
        size = self._path.stat().st_size
        for name, dataset in zip(self._names, datasets, strict=True):
            counts = [math.prod(lengths) for lengths in (dataset.shape, dataset.chunks or ())]
            held = min(dataset.id.get_storage_size(), size)
            what = f"{self._path}: {name!r} of shape {dataset.shape}"
            check_promise(what, max(counts) * dataset.dtype.itemsize, held)

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
            with refusing(self._path, _DAMAGED):
                datasets = [self._dataset(file, name) for name in self._names]
            for name, dataset, empty in zip(self._names, datasets, self._empty, strict=True):
                if dataset.shape != (self._length, *empty.shape[1:]):
                    raise ValueError(f"{self._path}: {name!r} has another shape since it was opened")
            return self._read(datasets, start, stop)

    def _read(self, datasets: list[Any], start: int, stop: int) -> Block:
        arrays = []
        for name, dataset, empty in zip(self._names, datasets, self._empty, strict=True):
            try:
                part = dataset[start:stop]
            except FAULTS as error:
                middle = (start + stop) // 2 // max(1, self._chunk) * self._chunk
                if start < middle:  # the damage may be in the chunks of one half alone
                    halves = [self._read(datasets, start, middle), self._read(datasets, middle, stop)]
                    return Block.joined(halves)
                text = f"{name!r}, rows {start} to {stop - 1} (from 0), cannot be read: {reason(error)}"
                fault = Fault(f"{self._path}: {text}", stop - start)
                return Block(self._empty, np.empty(0, np.int64), (fault,))
            arrays.append(part.astype(empty.dtype, copy=False))
        return Block.of(start, *arrays)


def own_member(h5py: Any, group: Any, path: str, links: int = _MOST_LINKS) -> Any:
    """Return what is at a path in a file; at most so many links within the file are followed.

    Raises
    ------
    KeyError
        If there is nothing.
    ValueError
        If a link on the way leads into another file, or there are too many links, such as a circle of them.
    """
    if path.startswith("/"):
        group = group.file["/"]
    for name in (part for part in path.split("/") if part not in ("", ".")):
        key = name.encode()
        # `name in group` would open the file that an external link names.
        if not isinstance(group, h5py.Group) or not group.id.links.exists(key):
            raise KeyError(path)
        kind = group.id.links.get_info(key).type
        if kind == h5py.h5l.TYPE_HARD:
            group = group[name]
            continue
        here = f"{group.name.rstrip('/')}/{name}"
        if kind != h5py.h5l.TYPE_SOFT:
            raise ValueError(f"{here!r} is a link into another file, which is not opened; copy what it names")
        if links == 0:
            raise ValueError(f"{here!r} is a link that is not followed: there are too many before it")
        links -= 1
        group = own_member(h5py, group, group.id.links.get_val(key).decode(), links)
    return group
