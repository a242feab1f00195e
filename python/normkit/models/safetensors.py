"""The safetensors format [1]_: arrays and a mapping of strings in one file. Nothing in it is executed when it is read.

A file is 8 bytes with the length of the header, little-endian; the header, JSON in UTF-8; and the arrays, one after the
other without gaps, little-endian, in C order.

References
----------
.. [1] Hugging Face, "Safetensors", https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arrays", "Table", "dump", "parse", "table_of"]

Arrays = dict[str, NDArray[Any]]
Table = dict[str, dict[str, Any]]

METADATA = "__metadata__"
_LENGTH_BYTES = 8
_NAMES = {
    "BOOL": "?",
    **{f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}
_DTYPES = {name: np.dtype(code) for name, code in _NAMES.items()}
_NAME_OF = {dtype: name for name, dtype in _DTYPES.items()}


def table_of(arrays: Mapping[str, NDArray[Any]]) -> Table:
    """Return the entries of the header: the dtype, shape and place of each array.

    Raises
    ------
    ValueError
        If an array is of a dtype that the format, or NumPy, does not have.
    """
    table: Table = {}
    end = 0
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<")
        if dtype not in _NAME_OF:
            raise ValueError(f"'{name}' must be of one of {', '.join(_NAMES)}, got {array.dtype}")
        start, end = end, end + array.nbytes
        table[name] = {"dtype": _NAME_OF[dtype], "shape": list(array.shape), "data_offsets": [start, end]}
    return table


def dump(file: BinaryIO, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write arrays and metadata."""
    header = json.dumps({METADATA: dict(metadata), **table_of(arrays)}).encode()
    header += b" " * (-len(header) % _LENGTH_BYTES)  # so that the arrays start at a multiple of 8
    file.write(len(header).to_bytes(_LENGTH_BYTES, "little"))
    file.write(header)
    file.writelines(little_endian(array) for array in arrays.values())


def little_endian(array: NDArray[Any]) -> memoryview:
    """Return the bytes of an array as they are in the file."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data


def parse(content: bytes) -> tuple[dict[str, str], Arrays]:
    """Return the metadata, and the arrays as views of `content`.

    Raises
    ------
    ValueError, TypeError, LookupError, RecursionError
        If the file is not of this format, or not whole.
    """
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    if len(content) < start or content[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{":
        raise ValueError("it is no safetensors file, or cut off within its header")
    header = json.loads(content[_LENGTH_BYTES:start].decode("utf-8"), object_pairs_hook=_unique)
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not strings")
    data = memoryview(content)[start:]
    arrays: Arrays = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: _place(*item)):
        begin, stop = _place(name, entry)
        dtype, shape = _DTYPES.get(entry["dtype"]), entry["shape"]
        if dtype is None:
            raise ValueError(f"'{name}' is of dtype {entry['dtype']}; there are: {', '.join(_NAMES)}")
        if not _whole_numbers(shape) or begin != end or stop - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(
                f"the place of '{name}', {begin} to {stop}, is not that of {entry['dtype']} {shape}"
            )
        if stop > len(data):
            raise ValueError(
                f"it is cut off: '{name}' ends at byte {stop} of the arrays, which have {len(data)}"
            )
        arrays[name] = np.frombuffer(data[begin:stop], dtype).reshape(shape)
        end = stop
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes follow its last array")
    return metadata, arrays


def _place(name: str, entry: Any) -> tuple[int, int]:
    """Return the first byte of an array, and the one after its last."""
    if set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(
            f"the entry of '{name}' must have dtype, shape and data_offsets, got {', '.join(entry)}"
        )
    offsets = entry["data_offsets"]
    if not _whole_numbers(offsets) or len(offsets) != 2:
        raise ValueError(f"'{name}' has data_offsets {offsets}")
    return offsets[0], offsets[1]


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of the members of a JSON object, none of which comes twice."""
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"its header has '{name}' twice")
        members[name] = value
    return members
