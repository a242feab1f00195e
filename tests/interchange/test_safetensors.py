"""The file format: bytes written by hand by its specification, and what NumPy has that it has not."""

import io

import numpy as np
import pytest

from normkit.models import safetensors

HEADER = b'{"__metadata__":{"k":"v"},"b":{"dtype":"F32","shape":[],"data_offsets":[4,8]},"a":{"dtype":"I16","shape":[2,1],"data_offsets":[0,4]}}'
BYTES = len(HEADER).to_bytes(8, "little") + HEADER + b"\x01\x00\xff\xff" + b"\x00\x00\x80\x3f"


def test_bytes_by_the_specification():
    metadata, arrays = safetensors.parse(BYTES)
    assert metadata == {"k": "v"}
    np.testing.assert_array_equal(arrays["a"], np.array([[1], [-1]], np.int16), strict=True)
    np.testing.assert_array_equal(arrays["b"], np.array(1, np.float32), strict=True)


def test_what_is_written():
    file = io.BytesIO()
    arrays = {
        "b": np.array(1, ">f4"),
        "ä": np.arange(6.0).reshape(2, 3).T,
        "empty": np.zeros((0, 3)),
        "strided": np.arange(10, dtype=np.uint8)[::3],
        "bool": np.array([True, False]),
        "half": np.ones(3, np.float16),
    }
    safetensors.dump(file, arrays, {"k": "ü"})
    content = file.getvalue()
    assert int.from_bytes(content[:8], "little") % 8 == 0
    metadata, again = safetensors.parse(content)
    assert metadata == {"k": "ü"}
    assert list(again) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array.astype(array.dtype.newbyteorder("=")), strict=True)
    with pytest.raises(ValueError, match=r"'c' must be of one of BOOL, I8, I16, .*, got complex128"):
        safetensors.dump(file, {"c": np.ones(2, complex)}, {})
