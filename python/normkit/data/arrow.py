"""Tables in Parquet and Arrow files, read row group by row group by pyarrow."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normkit._optional import optional
from normkit._paths import a_file
from normkit._reading import FAULTS, OF_THE_SYSTEM, check_promise, reason, refusing
from normkit.data.arrow_columns import Columns, Refused
from normkit.data.arrow_ipc import promises
from normkit.data.parquet_pages import Chunk, chunks, unpacked_bytes
from normkit.data.source import Array, Block, Fault, Source, row_bytes

__all__ = ["ArrowFiles"]

_FORMATS = {".parquet": "parquet", ".pq": "parquet", ".arrow": "ipc", ".feather": "ipc"}
_DECODED_ROWS = 16384  # at a time
_DAMAGED = "not a usable Parquet or Arrow file"


class _UnreadableError(ValueError):
    """A piece cannot be read, and the error says of which file."""


class _Piece(NamedTuple):
    """What can be read alone: a row group of a Parquet file, or a record batch of an Arrow file."""

    fragment: Any
    number: int
    rows: int
    first: int  # number of its first row in its file
    held: int  # bytes in the file, or at most so many


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
        file that cannot be read beside others that can, a row group that cannot be read or takes more than 32 MiB and
        1032 times the bytes of its file, and a row with a missing value are faults, which `MiniBatches` raises or,
        with ``on_bad="skip"``, reports.
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
        faults: list[Fault] = []
        self._pieces: list[_Piece] = []
        self._chunks: dict[str, list[list[Chunk]]] = {}  # of Parquet files, by path
        self._schema = None
        for dataset in self._opened(data, faults):
            self._schema = self._schema or dataset.schema
            for fragment in dataset.get_fragments():
                if not self._is_parquet(fragment) and not self._is_ipc(fragment):
                    raise ValueError(f"expected a dataset of Parquet or Arrow files, got {fragment}")
                with _noted(fragment.path, faults):
                    self._pieces.extend(self._cut(fragment))
        if self._schema is None:
            raise ValueError(faults[0].text if faults else f"{data}: has no Parquet or Arrow files")
        self._faults = tuple(faults)
        self._starts = np.cumsum([0, *(piece.rows for piece in self._pieces)])
        self._file = self._pieces[0].fragment.path if self._pieces else str(data)
        targets = [y] if isinstance(y, str) else list(y or ())
        with refusing(self._file, _DAMAGED):
            there = self._schema.names
        if x is None:
            x = [name for name in there if name not in targets]
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
            dataset = None
            with _noted(path, faults):
                dataset = self._datasets.dataset(str(path), format=kind, partitioning=partitioning)
                dataset.schema.names  # noqa: B018 - which may be no text
            if dataset is not None:
                yield dataset

    def _cut(self, fragment: Any) -> list[_Piece]:
        if self._is_parquet(fragment):
            size = fragment.filesystem.get_file_info(fragment.path).size
            pieces = [(group.num_rows, size) for group in fragment.row_groups]
        else:
            batches, dictionaries = promises(Path(fragment.path))
            for kind, parts in (("dictionary", dictionaries), ("record batch", batches)):
                for number, part in enumerate(parts):
                    check_promise(f"{kind} {number} (from 0)", part.unpacked, part.held)
            pieces = [(batch.rows, batch.held) for batch in batches]
        first, cut = 0, []
        for number, (rows, held) in enumerate(pieces):
            if rows < 0:
                raise ValueError(f"row group {number} (from 0) has {rows} rows")
            check_promise(
                f"row group or record batch {number} (from 0)", rows // 8, held
            )  # a bit for each, at least
            cut.append(_Piece(fragment, number, rows, first, held))
            first += rows
        return cut

    def _is_parquet(self, fragment: Any) -> bool:
        return isinstance(fragment, self._datasets.ParquetFileFragment)

    def _is_ipc(self, fragment: Any) -> bool:
        return isinstance(getattr(fragment, "format", None), self._datasets.IpcFileFormat)

    def _columns(self, names: str | Sequence[str]) -> Columns:
        try:
            return Columns(self._schema, names, self._first_list)
        except _UnreadableError as error:
            raise ValueError(str(error)) from error
        except FAULTS as error:
            raise ValueError(f"{self._file}: {reason(error)}") from error

    def _first_list(self, name: str) -> Any:
        """Return the first list of a column that can be read, None if there is none."""
        unreadable = None
        for piece in self._pieces:
            try:
                self._check_size(piece, [name], 1)
                for batch in self._unpacked(piece, [name]):
                    lists = batch.column(0).drop_null()
                    if len(lists):
                        return lists[0]
            except FAULTS as error:
                unreadable = unreadable or self._unreadable(piece, error)
        if unreadable:
            raise _UnreadableError(unreadable)
        return None

    def _check_that_files_agree(self) -> None:
        assert self._schema is not None
        for fragment in {piece.fragment.path: piece.fragment for piece in self._pieces}.values():
            with refusing(fragment.path, _DAMAGED):
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
        refused: list[Refused] = []
        row = first
        try:
            self._check_size(piece, self._names, row_bytes(self.empty))
            arrays = tuple(group.allocated(stop - start) for group in self._groups)
            for batch in self._unpacked(piece, self._names):
                low, high = max(start, row), min(stop, row + batch.num_rows)
                if low < high:
                    part = batch.slice(low - row, high - low)
                    for array, group in zip(arrays, self._groups, strict=True):
                        refused += group.fill(array[low - start : high - start], part, low)
                row += batch.num_rows
                if row > first + piece.rows:
                    break
            if row != first + piece.rows:
                raise ValueError(f"it has {row - first} rows, promised {piece.rows}")
        except OF_THE_SYSTEM:
            raise
        except FAULTS as error:
            return Block(
                self.empty, np.empty(0, np.int64), (Fault(self._unreadable(piece, error), stop - start),)
            )
        block = Block.of(start, *arrays)
        if not refused:
            return block
        reasons: dict[int, str] = {}
        for bad_row, why in refused:  # one for each row
            reasons.setdefault(bad_row, why)
        bad = np.isin(block.rows, list(reasons))
        return block.without(bad, [Fault(self.where(i) + reasons[i]) for i in sorted(reasons)])

    def _unit(self, piece: _Piece) -> str:
        return (
            f"{'row group' if self._is_parquet(piece.fragment) else 'record batch'} {piece.number} (from 0)"
        )

    def _unreadable(self, piece: _Piece, error: BaseException) -> str:
        return f"{piece.fragment.path}: {self._unit(piece)} cannot be read: {reason(error)}"

    def _check_size(self, piece: _Piece, names: list[str], width: int) -> None:
        """Raise ValueError if a piece, of so many bytes a row, is larger than what its file can hold."""
        promised = piece.rows * width
        if self._is_parquet(piece.fragment):
            with piece.fragment.open() as file:
                if piece.fragment.path not in self._chunks:
                    self._chunks[piece.fragment.path] = chunks(file)
                wanted = [
                    chunk
                    for chunk in self._chunks[piece.fragment.path][piece.number]
                    if chunk.path[0] in names
                ]
                promised = max(promised, sum(unpacked_bytes(file, chunk) for chunk in wanted))
        check_promise("it", promised, piece.held)

    def _unpacked(self, piece: _Piece, names: list[str]) -> Iterator[Any]:
        """Yield the columns of a piece in record batches whose offsets and lengths are checked."""
        for batch in self._batches(piece, names):
            batch.validate(full=True)  # Arrow trusts the offsets of a file, and a wrong one ends the process
            yield batch

    def _batches(self, piece: _Piece, names: list[str]) -> Iterator[Any]:
        fragment = piece.fragment
        if self._is_parquet(fragment):
            # No threads and nothing ahead: MiniBatches has a thread, and a bound of its memory.
            yield from fragment.subset(row_group_ids=[piece.number]).to_batches(
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
            return
        columns = [fragment.physical_schema.names.index(name) for name in names]
        options = self._arrow.ipc.IpcReadOptions(included_fields=columns, use_threads=False)
        # Read, not mapped: of a mapped file that became shorter, the system ends the process.
        with (
            self._arrow.OSFile(fragment.path) as file,
            self._arrow.ipc.open_file(file, options=options) as reader,
        ):
            yield reader.get_batch(piece.number).select(names)


@contextmanager
def _noted(path: object, faults: list[Fault]) -> Iterator[None]:
    """Note what is wrong with a file as a fault."""
    try:
        yield
    except OF_THE_SYSTEM:
        raise
    except FAULTS as error:
        faults.append(Fault(f"{path}: {_DAMAGED}: {reason(error)}", 0))


def _files(data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    for path in map(Path, [data] if isinstance(data, (str, os.PathLike)) else data):
        if not path.is_dir():
            yield path
            continue
        for file in sorted(path.rglob("*")):
            hidden = any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
            if file.is_file() and not hidden and file.suffix.lower() in _FORMATS:
                yield file
