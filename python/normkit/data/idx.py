"""The IDX format of MNIST: a header of big-endian sizes, then the values; often gzipped.

http://yann.lecun.com/exdb/mnist describes it: two zero bytes, a byte for the type of the values, a byte for the
number of axes, the size of each axis as uint32, and the values in C order.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from normkit._paths import a_file, a_path

__all__ = ["idx_layout", "read_idx"]

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_DEFLATE_RATIO = 1032  # https://zlib.net/zlib_tech.html


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read one IDX file, plain or gzipped (told by its content, not by its name).

    Returns
    -------
    ndarray
        Read-only; the shape and the type that the header says, big-endian if that is the file's order.

    Raises
    ------
    ValueError
        If the file is not IDX, is damaged, or holds fewer or more values than its header says.
    """
    path = a_file(a_path("read_idx: path", path))
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        zipped = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        try:
            if zipped:
                with gzip.GzipFile(fileobj=file) as stream:
                    return _parse(stream, size * _MAX_DEFLATE_RATIO)
            return _parse(file, size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: the gzip archive is damaged or cut off ({error})") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def idx_layout(path: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Return dtype, shape and offset of the values of a plain IDX file, as its header says.

    Raises
    ------
    ValueError
        If it is gzipped, or its header is not one of IDX.
    """
    with path.open("rb") as file:
        if file.read(2) == _GZIP_MAGIC:
            raise ValueError(
                f"{path}: is gzipped, so it cannot be read in the middle; unpack it first (gunzip)"
            )
        file.seek(0)
        try:
            dtype, shape = _header(file)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return dtype, shape, file.tell()


def _header(stream: BinaryIO | gzip.GzipFile) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    if not magic:
        raise ValueError("the file is empty")
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or magic[3] == 0:
        raise ValueError(f"not an IDX file: it starts with 0x{magic.hex()}, an image file with 0x00000803")
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise ValueError(f"the IDX header is cut off: it promises {magic[3]} axes")
    return np.dtype(_TYPES[magic[2]]), tuple(np.frombuffer(sizes, ">u4").tolist())


def _parse(stream: BinaryIO | gzip.GzipFile, most: int) -> NDArray[Any]:
    """Read the header and the values of a stream that cannot be longer than `most` bytes."""
    dtype, shape = _header(stream)
    promised = math.prod(shape) * dtype.itemsize
    values = stream.read(promised) if promised <= most else b""
    if len(values) < promised:
        raise ValueError(f"the IDX header promises {promised} bytes of shape {shape}, the file holds fewer")
    if stream.read(1):
        raise ValueError(f"the IDX header promises {promised} bytes of shape {shape}, the file holds more")
    return np.frombuffer(values, dtype).reshape(shape)
