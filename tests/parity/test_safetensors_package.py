"""What the safetensors package reads of our files, and we of its."""

import numpy as np
import pytest

from normkit.models import safetensors as ours
from trainer_support import saved

pytestmark = pytest.mark.parity

theirs = pytest.importorskip("safetensors.numpy", reason="needs safetensors (the 'parity' dependency group)")


def test_their_package_reads_a_model(tmp_path):
    path, model = saved(tmp_path)
    metadata, arrays = ours.parse(path.read_bytes())
    read = theirs.load_file(path)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array, strict=True)
    np.testing.assert_array_equal(read["weights/1/kernel"], model.get_weights()[0], strict=True)
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        assert file.metadata() == metadata


def test_we_read_what_their_package_writes(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        f"{dtype}/{shape}": rng.normal(size=shape).astype(dtype)
        for dtype in ("bool", "u1", "i8", "f2", "f4", "f8")
        for shape in ((), (3,), (0, 2), (2, 3, 5))
    }
    theirs.save_file(arrays, tmp_path / "theirs", {"a": "b"})
    metadata, read = ours.parse((tmp_path / "theirs").read_bytes())
    assert metadata == {"a": "b"}
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array, strict=True)
