"""Tables in Parquet and Arrow files, read row group by row group by pyarrow."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normkit._optional import optional
from normkit._paths import a_file
from normkit.data.arrow_columns import Columns, Refused
from normkit.data.source import Array, Block, Fault, Source

__all__ = ["ArrowFiles"]

_FORMATS = {".parquet": "parquet", ".pq": "parquet", ".arrow": "ipc", ".feather": "ipc"}
_DECODED_ROWS = 16384  # at a time


class _Piece(NamedTuple):
    """What can be read alone: a row group of a Parquet file, or a record batch of an Arrow file."""

    fragment: Any
    number: int
    rows: int
    first: int  # number of its first row in its file


class ArrowFiles(Source):
    """Columns of tables in Parquet or Arrow files that may be larger than memory, as features and targets.

    Parameters
    ----------
    data : path, sequence of paths, or pyarrow.dataset.Dataset
        A file (``.parquet``, ``.pq``, ``.arrow``, ``.feather``); several; a folder, whose files of these kinds are taken
        in the order of their names, and whose subfolders may be values of a column of Parquet files (``year=2024``); or
        a dataset of files.
    x : str or sequence of str, optional
        Columns of the features; default: all but `y`. Several columns of numbers are put side by side; a column of lists
        of equal length is named alone, and has shape (rows, length).
    y : str or sequence of str, optional
        Columns of the targets; shape (rows,) for the name of a column of numbers. None: there is no array of targets.

    Raises
    ------
    ValueError
        If a column is missing or not of real numbers, if files differ in it, or if no file can be read. A
        file that cannot be read beside others that can, a row group that cannot be read, and a row with a missing value
        are faults, which `MiniBatches` raises or, with ``on_bad="skip"``, reports.
    ModuleNotFoundError
        If pyarrow is not installed.

    Notes
    -----
    The unit of reading is the row group, of Arrow files the record batch: one has to fit into memory. Who writes the file
    decides, as with ``pyarrow.parquet.write_table(..., row_group_size=...)``.
    """

    def __init__(
        self,
        data: Any,
        x: str | Sequence[str] | None = None,
        y: str | Sequence[str] | None = None,
    ) -> None:
        self._data, self._x, self._y = data, x, y
        self._arrow = optional("pyarrow", "Parquet is read by", "data")
        self._datasets = optional("pyarrow.dataset", "Parquet is read by", "data")
        self._unreadable = (self._arrow.ArrowException, OSError)
        faults: list[Fault] = []
        self._pieces: list[_Piece] = []
        self._schema = None
        for dataset in self._opened(data, faults):
            self._schema = self._schema or dataset.schema
            for fragment in dataset.get_fragments():
                try:
                    self._pieces.extend(self._cut(fragment))
                except self._unreadable as error:
                    faults.append(Fault(_unusable(fragment.path, error), 0))
        if self._schema is None:
            raise ValueError(faults[0].text if faults else f"{data}: has no Parquet or Arrow files")
        self._faults = tuple(faults)
        self._starts = np.cumsum([0, *(piece.rows for piece in self._pieces)])
        self._file = self._pieces[0].fragment.path if self._pieces else str(data)
        targets = [y] if isinstance(y, str) else list(y or ())
        if x is None:
            x = [name for name in self._schema.names if name not in targets]
        self._groups = [self._columns(x)] + ([] if y is None else [self._columns(y)])
        self._names = list(dict.fromkeys(name for group in self._groups for name in group.names))
        self._check_that_files_agree()

    def _opened(self, data: Any, faults: list[Fault]) -> Iterator[Any]:
        if isinstance(data, self._datasets.Dataset):
            yield data
            return
        for path in _files(data):
            kind = _FORMATS.get(path.suffix.lower())
            if kind is None:
                raise ValueError(f"{path}: expected a file with one of {', '.join(_FORMATS)}")
            with a_file(path).open("rb"):  # an OSError of the system says more than Arrow's
                pass
            partitioning = "hive" if kind == "parquet" else None
            try:
                yield self._datasets.dataset(str(path), format=kind, partitioning=partitioning)
            except self._unreadable as error:
                faults.append(Fault(_unusable(path, error), 0))

    def _cut(self, fragment: Any) -> list[_Piece]:
        if self._is_parquet(fragment):
            counts = [group.num_rows for group in fragment.row_groups]
        else:
            if not isinstance(getattr(fragment, "format", None), self._datasets.IpcFileFormat):
                raise ValueError(f"expected a dataset of Parquet or Arrow files, got {fragment}")
            with self._arrow.memory_map(fragment.path) as file, self._arrow.ipc.open_file(file) as reader:
                counts = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
        firsts = np.cumsum([0, *counts]).tolist()
        return [_Piece(fragment, i, rows, firsts[i]) for i, rows in enumerate(counts)]

    def _is_parquet(self, fragment: Any) -> bool:
        return isinstance(fragment, self._datasets.ParquetFileFragment)

    def _columns(self, names: str | Sequence[str]) -> Columns:
        try:
            return Columns(self._schema, names, self._first_list)
        except ValueError as error:
            raise ValueError(f"{self._file}: {error}") from error

    def _first_list(self, name: str) -> Any:
        """Return the first list of a column, None if there is none."""
        for piece in self._pieces:
            for batch in self._decoded(piece, [name]):
                lists = batch.column(0).drop_null()
                if len(lists):
                    return lists[0]
        return None

    def _check_that_files_agree(self) -> None:
        assert self._schema is not None
        for fragment in {piece.fragment.path: piece.fragment for piece in self._pieces}.values():
            there = fragment.physical_schema
            for name in self._names:
                wanted = self._schema.field(name).type
                if name not in there.names:
                    if f"/{name}=" not in fragment.path:
                        raise ValueError(f"{fragment.path}: has no column {name!r}, which {self._file} has")
                elif there.field(name).type != wanted:
                    raise ValueError(
                        f"{fragment.path}: column {name!r} is {there.field(name).type}, but {wanted} in {self._file}"
                    )

    @property
    def empty(self) -> tuple[Array, ...]:
        """The arrays without rows."""
        return tuple(group.allocated(0) for group in self._groups)

    def __len__(self) -> int:
        """Return the number of rows of the files that can be opened."""
        return int(self._starts[-1])

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Files that cannot be opened. How many rows they have nobody knows."""
        return self._faults

    def edges(self, rows: int) -> NDArray[np.int64]:
        """Return edges of row groups; small ones are read together."""
        starts = self._starts.tolist()
        edges = [0]
        for start, stop in pairwise(starts):
            if edges[-1] < start and stop - edges[-1] > rows:
                edges.append(start)
        return np.array([*edges, starts[-1]] if starts[-1] else [0], np.int64)

    def where(self, row: int, array: int | None = None, position: tuple[int, ...] = ()) -> str:
        """Say which row of which file, and the column."""
        piece, start = self._piece_of(row)
        text = f"{piece.fragment.path}: row {row - start + piece.first} (from 0)"
        return text if array is None else text + self._groups[array].described(position)

    def _piece_of(self, row: int) -> tuple[_Piece, int]:
        number = bisect_right(self._starts, row) - 1
        return self._pieces[number], int(self._starts[number])

    def read(self, start: int, stop: int) -> Block:
        """Read rows of as many row groups as it takes."""
        blocks = []
        while start < stop:
            piece, first = self._piece_of(start)
            end = min(stop, first + piece.rows)
            blocks.append(self._read_piece(piece, first, start, end))
            start = end
        return Block.joined(blocks) if blocks else Block.of(start, *self.empty)

    def _read_piece(self, piece: _Piece, first: int, start: int, stop: int) -> Block:
        """Read rows of one piece, whose first row is `first`."""
        arrays = tuple(group.allocated(stop - start) for group in self._groups)
        refused: list[Refused] = []
        row = first
        try:
            for batch in self._decoded(piece, self._names):
                low, high = max(start, row), min(stop, row + batch.num_rows)
                if low < high:
                    part = batch.slice(low - row, high - low)
                    for array, group in zip(arrays, self._groups, strict=True):
                        refused += group.fill(array[low - start : high - start], part, low)
                row += batch.num_rows
            if row != first + piece.rows:
                raise OSError(f"it has {row - first} rows, promised {piece.rows}")
        except self._unreadable as error:
            unit = "row group" if self._is_parquet(piece.fragment) else "record batch"
            reason = f"{unit} {piece.number} (from 0) cannot be read: {_one_line(error)}"
            lost = Fault(f"{piece.fragment.path}: {reason}", stop - start)
            return Block(self.empty, np.empty(0, np.int64), (lost,))
        block = Block.of(start, *arrays)
        if not refused:
            return block
        reasons: dict[int, str] = {}
        for bad_row, reason in refused:  # one for each row
            reasons.setdefault(bad_row, reason)
        bad = np.isin(block.rows, list(reasons))
        return block.without(bad, [Fault(self.where(i) + reasons[i]) for i in sorted(reasons)])

    def _decoded(self, piece: _Piece, names: list[str]) -> Iterator[Any]:
        if self._is_parquet(piece.fragment):
            # No threads and nothing ahead: MiniBatches has a thread, and a bound of its memory.
            yield from piece.fragment.subset(row_group_ids=[piece.number]).to_batches(
                schema=self._schema,
                columns=names,
                use_threads=False,
                batch_size=_DECODED_ROWS,
                batch_readahead=1,
                fragment_readahead=1,
                fragment_scan_options=self._datasets.ParquetFragmentScanOptions(
                    use_buffered_stream=True, pre_buffer=False
                ),
            )
        else:
            with (
                self._arrow.memory_map(piece.fragment.path) as file,
                self._arrow.ipc.open_file(file) as reader,
            ):
                yield reader.get_batch(piece.number).select(names)


def _files(data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    for path in map(Path, [data] if isinstance(data, (str, os.PathLike)) else data):
        if not path.is_dir():
            yield path
            continue
        for file in sorted(path.rglob("*")):
            hidden = any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
            if file.is_file() and not hidden and file.suffix.lower() in _FORMATS:
                yield file


def _unusable(path: object, error: Exception) -> str:
    return f"{path}: not a usable Parquet or Arrow file: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
