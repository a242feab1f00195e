"""What the record batches of an Arrow file promise, told by the file's tables alone: nothing is unpacked.

An Arrow file [1]_ ends with a footer, a flatbuffer [2]_ that says where the messages of its batches are. A message is a
flatbuffer with the number of rows and the place of each buffer, and the buffers. A buffer that is compressed begins with
its size when unpacked, an int64; -1 says that it is not compressed after all.

References
----------
.. [1] https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format
.. [2] https://flatbuffers.dev/internals
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

__all__ = ["Promise", "promises"]

_MAGIC = b"ARROW1"
_DICTIONARIES, _BATCHES = 2, 3  # fields of a footer
_HEADER = 2  # field of a message
_DATA = 1  # field of a dictionary batch, a record batch
_LENGTH, _BUFFERS, _COMPRESSION = 0, 2, 3  # fields of a record batch
_BLOCK = struct.Struct("<qixxxxq")
_PLACE = struct.Struct("<qq")


class Promise(NamedTuple):
    """A record batch: its rows, the bytes of its buffers when unpacked, and those in the file."""

    rows: int
    unpacked: int
    held: int


def promises(path: Path) -> tuple[list[Promise], list[Promise]]:
    """Return what the record batches of a file promise, and its dictionaries.

    Raises
    ------
    ValueError, struct.error
        If the file is damaged.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        tail = _read(file, size - len(_MAGIC) - 4, len(_MAGIC) + 4)
        (length,) = struct.unpack("<i", tail[:4])
        if tail[4:] != _MAGIC:
            raise ValueError("it does not end with ARROW1: it is no Arrow file, or cut off")
        footer = _Table.root(_read(file, size - len(tail) - length, length))
        batches = [_promise(file, block) for block in footer.structs(_BATCHES, _BLOCK)]
        dictionaries = [_promise(file, block, _DATA) for block in footer.structs(_DICTIONARIES, _BLOCK)]
    return batches, dictionaries


def _read(file: BinaryIO, start: int, count: int) -> bytes:
    size = file.seek(0, os.SEEK_END)
    if start < 0 or count < 0 or start + count > size:
        raise ValueError(f"it is cut off, or damaged: bytes {start} to {start + count} of {size} are wanted")
    file.seek(start)
    return file.read(count)


def _promise(file: BinaryIO, block: tuple[int, ...], inner: int | None = None) -> Promise:
    start, length, body = block
    head = _read(file, start, length)
    prefix = (
        8 if head[:4] == b"\xff\xff\xff\xff" else 4
    )  # before version 0.15 of Arrow there was the size alone
    batch = _Table.root(head[prefix:]).table(_HEADER)
    batch = batch if batch is None or inner is None else batch.table(inner)
    if batch is None:
        raise ValueError(f"the message at byte {start} has no record batch")
    if body < 0 or start + length + body > file.seek(0, os.SEEK_END):
        raise ValueError(f"it is cut off: the message at byte {start} has a body of {body} bytes")
    rows, unpacked = batch.int64(_LENGTH), 0
    packed = batch.table(_COMPRESSION) is not None
    for place, count in batch.structs(_BUFFERS, _PLACE):
        if place < 0 or count < 0 or place + count > body:
            raise ValueError(f"a buffer of the message at byte {start} lies outside of it")
        full = count
        if packed and count >= 8:
            (full,) = struct.unpack("<q", _read(file, start + length + place, 8))
        unpacked += count if full < 0 else full
    if rows < 0:
        raise ValueError(f"the message at byte {start} has {rows} rows")
    return Promise(rows, unpacked, body)


class _Table:
    """A table of a flatbuffer: fields by their numbers."""

    def __init__(self, content: bytes, at: int) -> None:
        self._content, self._at = content, at
        self._fields = at - self._int("<i", at)
        self._end = self._int("<H", self._fields)

    @classmethod
    def root(cls, content: bytes) -> _Table:
        return cls(content, struct.unpack_from("<I", content)[0])

    def _int(self, code: str, at: int) -> int:
        if at < 0:  # which Python counts from the end
            raise ValueError("a table in it is damaged")
        return int(struct.unpack_from(code, self._content, at)[0])

    def _place(self, field: int) -> int | None:
        at = 4 + 2 * field
        offset = self._int("<H", self._fields + at) if at < self._end else 0
        return self._at + offset if offset else None

    def int64(self, field: int) -> int:
        at = self._place(field)
        return 0 if at is None else self._int("<q", at)

    def table(self, field: int) -> _Table | None:
        at = self._place(field)
        return None if at is None else _Table(self._content, at + self._int("<I", at))

    def structs(self, field: int, kind: struct.Struct) -> Iterator[tuple[int, ...]]:
        at = self._place(field)
        if at is not None:
            at += self._int("<I", at)
            count = self._int("<I", at)
            yield from kind.iter_unpack(self._slice(at + 4, count * kind.size))

    def _slice(self, start: int, count: int) -> bytes:
        if start + count > len(self._content):
            raise ValueError("a table in it is damaged")
        return self._content[start : start + count]
