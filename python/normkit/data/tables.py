"""Tables of numbers in CSV: read at NumPy's speed, in parts, and searched cell by cell only to name a fault."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from normkit._paths import a_file
from normkit.data.source import Block, Fault, block_edges

__all__ = ["Table", "read_table"]

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_MARK = "\ufeff".encode()  # that the file is UTF-8, which some programs write at its start
_CHUNK = 1 << 20
_LONGEST_LINE = 64 << 20
_STRIDE = 64  # rows from one position that is remembered to the next
# Decimal notation in ASCII, and what is not finite as C writes it. Python's float takes digits of all scripts, and 1_000.
_NUMBER = re.compile(r"\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity|nan)\s*", re.ASCII | re.IGNORECASE)
_PLAIN = bytes([*range(32, 127), *b"\t\r\n"])  # in which NumPy takes for numbers just what `_NUMBER` does
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Table:
    """A table of numbers separated by commas, in UTF-8, one row a line; empty lines are none.

    The file is read once to find where the rows are: two numbers for 64 rows are remembered.

    Parameters
    ----------
    path : Path
        The file.
    header_names : collection of str
        The first line is a header if it holds one of these names, in upper or lower case, or if none of its cells is a
        number.

    Attributes
    ----------
    header : list of str
        The header's cells, stripped; empty without a header.
    columns : int
        Number of columns: those of the first line.

    Raises
    ------
    ValueError
        If there is no row, or the first line is not text.
    """

    def __init__(self, path: Path, header_names: Collection[str]) -> None:
        self.path = a_file(path)
        try:
            first, lines = _first_record(path)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: {_not_utf8(error.start)}") from error
        except csv.Error as error:
            raise ValueError(f"{path}: not a table in CSV ({error})") from error
        cells = [cell.strip() for cell in first]
        named = not {cell.lower() for cell in cells}.isdisjoint(header_names)
        self.header = cells if named or all(map(_is_name, cells)) else []
        self.columns = len(first)
        self._stamp = self._stat()
        self._rows, self._offsets, self._lines = self._scan(lines if self.header else 0)
        if not first or self._rows == 0:
            raise ValueError(f"{path}: the file is empty, or has no rows below its header")

    def __len__(self) -> int:
        """Return the number of rows, bad ones included."""
        return self._rows

    def edges(self, rows: int) -> NDArray[np.int64]:
        """Return the edges of blocks of about so many rows, where positions are remembered."""
        return block_edges(self._rows, -(-rows // _STRIDE) * _STRIDE)

    def _stat(self) -> tuple[int, int]:
        stat = self.path.stat()
        return stat.st_size, stat.st_mtime_ns

    def _scan(self, skipped: int) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """Count the rows after the first `skipped` lines; return the offset and the line of every 64th, and the end."""
        offsets, lines, rows, line = [], [], 0, 0
        for start, data in self._whole_lines():
            ends = np.flatnonzero(_line_ends(data))
            starts = np.concatenate([[0], ends[:-1] + 1])
            lengths = ends - starts
            blank = (lengths == 0) | ((lengths == 1) & (data[starts] == 13))
            found = np.flatnonzero(~blank & (np.arange(line, line + len(ends)) >= skipped))
            chosen = found[-rows % _STRIDE :: _STRIDE]
            offsets.append(start + starts[chosen])
            lines.append(line + chosen)
            rows, line = rows + len(found), line + len(ends)
        offsets.append(np.array([self._stamp[0]]))
        lines.append(np.array([line]))
        return rows, np.concatenate(offsets), np.concatenate(lines)

    def _whole_lines(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Return the file in pieces that end with the end of a line, and where each starts."""
        with self.path.open("rb") as file:
            start = len(_MARK) if file.read(len(_MARK)) == _MARK else 0
            file.seek(start)
            rest = b""
            while chunk := file.read(_CHUNK):
                if chunk.endswith(b"\r"):
                    chunk += file.read(1)  # \r\n must not be torn apart
                data = rest + chunk
                end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
                if end:
                    yield start, np.frombuffer(data, np.uint8, end)
                rest, start = data[end:], start + end
                if len(rest) > _LONGEST_LINE:
                    raise ValueError(
                        f"{self.path}: not a table in CSV (a line of more than {_LONGEST_LINE} bytes)"
                    )
            if rest:
                yield start, np.frombuffer(rest + b"\n", np.uint8)

    def read(self, start: int, stop: int, *, finite: bool) -> Block:
        """Return the cells of some rows, one array of float64.

        With `finite`, each must be in the range of float32. They are not rounded to it: a label of 16777217 must not
        become another.
        """
        if start == stop:
            return Block.of(start, np.empty((0, self.columns)))
        first, last = start // _STRIDE, -(-stop // _STRIDE)
        if self._stat() != self._stamp:
            raise ValueError(f"{self.path}: the file has changed since it was opened")
        with self.path.open("rb") as file:
            file.seek(int(self._offsets[first]))
            data = file.read(int(self._offsets[last] - self._offsets[first]))
        rows = min(last * _STRIDE, self._rows) - first * _STRIDE
        wanted = slice(start - first * _STRIDE, stop - first * _STRIDE)
        try:
            if data.translate(None, _PLAIN):
                raise ValueError("to be read by cell")
            text = io.StringIO(data.decode(), newline="")
            cells = np.loadtxt(text, comments=None, delimiter=",", quotechar='"', ndmin=2)
            if cells.shape == (rows, self.columns) and (not finite or (np.abs(cells) <= _FLOAT32_MAX).all()):
                return Block.of(start, cells[wanted])
        except ValueError:
            pass
        return self._read_by_cell(data, first, last, wanted, finite)

    def _read_by_cell(self, data: bytes, first: int, last: int, wanted: slice, finite: bool) -> Block:
        """As `read`, line by line: slow, but it knows what is wrong where."""
        good: list[list[float]] = []
        rows: list[int] = []
        faults: list[Fault] = []
        row, end = 0, int(self._offsets[last])
        for line, (offset, content) in enumerate(_lines(data), int(self._lines[first]) + 1):
            if content:
                if wanted.start <= row < wanted.stop:
                    try:
                        good.append(self._numbers(content, line, finite))
                        rows.append(first * _STRIDE + row)
                    except UnicodeDecodeError as error:
                        byte = end - len(data) + offset + error.start
                        faults.append(Fault(f"{self.path}: {_not_utf8(byte)}"))
                    except ValueError as error:
                        faults.append(Fault(f"{self.path}: {error}"))
                row += 1
        cells = np.array(good, np.float64).reshape(len(good), self.columns)
        return Block((cells,), np.array(rows, np.int64), tuple(faults))

    def _numbers(self, content: bytes, line: int, finite: bool) -> list[float]:
        text = content.decode()
        try:
            (cells,) = csv.reader([text])
        except csv.Error as error:
            raise ValueError(f"line {line}: not a table in CSV ({error})") from error
        if len(cells) != self.columns:
            raise ValueError(f"line {line} has {len(cells)} cells, the lines before have {self.columns}")
        numbers = []
        for column, cell in enumerate(cells, start=1):
            number = _number(cell)
            if number is None or (finite and not abs(number) <= _FLOAT32_MAX):
                for separator in ";\t":
                    if separator in cell:
                        raise ValueError(f"line {line}: separated by {separator!r}? normkit reads commas")
                large = number is not None and any(sign.isdigit() for sign in cell)
                wrong = "is too large for float32" if large else "is not a finite number"
                raise ValueError(f"line {line}, column {column}: {cell[:30]!r} {wrong}")
            numbers.append(number)
        return numbers

    def line(self, row: int) -> int:
        """Return the number of the line of a row, from 1."""
        first, within = divmod(row, _STRIDE)
        with self.path.open("rb") as file:
            file.seek(int(self._offsets[first]))
            data = file.read(int(self._offsets[first + 1] - self._offsets[first]))
        full = [number for number, (_, content) in enumerate(_lines(data), 1) if content]
        return int(self._lines[first]) + full[within]


def read_table(path: Path, header_names: Collection[str]) -> tuple[list[str], NDArray[np.float64]]:
    """Read a table of finite numbers into memory.

    Returns
    -------
    header : list of str
        The header's cells, stripped and in lower case; empty without a header.
    cells : ndarray of float64, shape (rows, columns)
        Each in the range of float32.

    Raises
    ------
    ValueError
        If there is no row, or a cell is not a finite number, or lines differ in length.
    """
    table = Table(path, header_names)
    edges = table.edges(max(1, _CHUNK // table.columns)).tolist()
    # A cell takes two bytes of the file. If there are fewer some line is short, and is named before the array is filled.
    fits = 2 * table.columns * len(table) <= path.stat().st_size + 1
    cells = np.empty((len(table) if fits else 0, table.columns))
    for start, stop in pairwise(edges):
        block = table.read(start, stop, finite=True)
        if block.faults:
            raise ValueError(block.faults[0].text)
        cells[start:stop] = block.arrays[0]
    return [name.lower() for name in table.header], cells


def _first_record(path: Path) -> tuple[list[str], int]:
    """Return the cells of the first line that is not empty, and the number of lines up to its end."""
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(iter(lambda: file.readline(_CHUNK), ""))
        first = next((record for record in reader if record), [])
        lines = reader.line_num
    if any("\udc80" <= sign <= "\udcff" for cell in first for sign in cell):
        with path.open("rb") as file:
            file.read(_CHUNK).decode()  # raises, and knows the byte
    return first, lines


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the lines and where each starts."""
    start = 0
    for end in _LINE_END.finditer(data):
        yield start, data[start : end.start()]
        start = end.end()
    yield start, data[start:]


def _line_ends(data: NDArray[np.uint8]) -> NDArray[np.bool_]:
    r"""Return where lines end: at \n, and at \r that no \n follows."""
    ends: NDArray[np.bool_] = data == 10
    returns = data == 13
    returns[:-1] &= ~ends[1:]
    ends |= returns
    return ends


def _not_utf8(byte: int) -> str:
    return f"not a text file in UTF-8 (byte {byte})"


def _number(cell: str) -> float | None:
    return float(cell) if _NUMBER.fullmatch(cell) else None


def _is_name(cell: str) -> bool:
    """Whether a cell can be that of a header: nothing that some program writes for a number."""
    if cell[:2].lower() == "0x" or cell[1:3].lower() == "0x":
        return False
    try:
        float(cell)  # Python takes 1_000 and digits of all scripts
    except ValueError:
        return True
    return False
