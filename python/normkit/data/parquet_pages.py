"""How large the pages of a Parquet file become, told by its footer and the headers of its pages: nothing is unpacked.

A Parquet file [1]_ ends with a footer that says where the pages of each column are. Each page is a header, with its size in
the file and unpacked, and its values. Both are structs in Thrift's compact protocol [2]_. pyarrow believes them, and takes
the memory; and it ends the process on some damaged footers that it is asked about the columns of.

References
----------
.. [1] https://github.com/apache/parquet-format
.. [2] https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

__all__ = ["Chunk", "chunks", "unpacked_bytes"]

_MAGIC = b"PAR1"
_HEADER = 1 << 14  # of a page: more than statistics of numbers take
_WIDTHS = {1: 4, 2: 8, 4: 4, 5: 8}  # of INT32, INT64, FLOAT, DOUBLE; of others one byte is counted
_TRUE, _FALSE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 7, 8, 9, 10, 11, 12


class Chunk(NamedTuple):
    """The pages of a column in a row group."""

    path: tuple[str, ...]
    start: int
    size: int
    width: int  # bytes of a value, at least


def chunks(file: Any) -> list[list[Chunk]]:
    """Return the columns of each row group of an open file, a pyarrow.NativeFile."""
    size = file.size()
    tail = _read(file, size - 8, 8)
    (length,) = struct.unpack("<i", tail[:4])
    if tail[4:] != _MAGIC:
        raise ValueError("it does not end with PAR1: it is no Parquet file, or cut off")
    footer = _Thrift(_read(file, size - 8 - length, length)).struct()
    return [[_chunk(column[3]) for column in group[1]] for group in footer[4]]


def _chunk(column: dict[int, Any]) -> Chunk:
    dictionary = column.get(11, 0)
    start = dictionary if 0 < dictionary < column[9] else column[9]
    path = tuple(part.decode() for part in column[3])
    nested = 2 if len(path) > 1 else 1  # pyarrow has levels and offsets beside the values of lists
    return Chunk(path, start, column[7], nested * _WIDTHS.get(column[1], 1))


def unpacked_bytes(file: Any, chunk: Chunk) -> int:
    """Return how many bytes the pages of a column take, unpacked or as values, whichever is more."""
    at, end, total = chunk.start, chunk.start + chunk.size, 0
    if chunk.size < 0 or not 0 <= at <= end <= file.size():
        raise ValueError(f"the pages of column {'.'.join(chunk.path)!r}, {at} to {end}, are not in the file")
    while at < end:
        reader = _Thrift(_read(file, at, min(_HEADER, end - at)))
        header = reader.struct()
        unpacked, packed = header[2], header[3]
        if unpacked < 0 or packed < 0:
            raise ValueError(f"the page at byte {at} has a size of {min(unpacked, packed)} bytes")
        values = max([0, *(part[1] for kind in (5, 8) if (part := header.get(kind)) is not None)])
        total += max(unpacked, values * chunk.width)
        at += reader.at + packed
    return total


def _read(file: Any, start: int, count: int) -> bytes:
    if start < 0 or count < 0 or start + count > file.size():
        raise ValueError(
            f"it is cut off, or damaged: bytes {start} to {start + count} of {file.size()} are wanted"
        )
    return bytes(file.read_at(count, start))


class _Thrift:
    """Reads structs as dicts from the number of a field to its value."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if 3 < kind < _DOUBLE:
            return self._integer()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15) for _ in range(count)]
        if kind == _STRUCT:
            return self.struct()
        if kind in (_TRUE, _FALSE, 3):
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == _MAP and (count := self._varint()):
            kinds = self._byte()
            return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(count)]
        if kind == _MAP:
            return []
        raise ValueError("a header in it is damaged")

    def _byte(self) -> int:
        self.at += 1
        return self._content[self.at - 1]

    def _bytes(self, count: int) -> bytes:
        self.at += count
        if self.at > len(self._content):
            raise ValueError("a header in it is damaged")
        return self._content[self.at - count : self.at]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a header in it is damaged")

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
