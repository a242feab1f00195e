"""`.npy` and IDX files larger than memory: every order of bytes and axes, and files that are wrong."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from normkit.data import Files, IdxFile, MiniBatches, NpyFile
from normkit.data.idx import read_idx


def npy(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def idx(path: Path, array: np.ndarray, kind: int = 0x08) -> Path:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(bytes([0, 0, kind, array.ndim]) + sizes + array.tobytes())
    return path


def all_of(source, **options):
    """All rows in order, cut in batches of 3."""
    batches = list(MiniBatches(source, batch_size=3, shuffle=False, **options))
    return np.concatenate([part for (part,) in batches]) if batches else np.empty(0)


def failure(call, *args) -> str:
    with pytest.raises(ValueError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", ">i2", "u1", "?", ">u8", "f2"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (10,), (8, 3, 2), (1, 4)])
def test_npy_in_any_order(tmp_path, dtype, order, shape):
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    path = npy(tmp_path / "x.npy", np.asarray(values, order=order))
    read = all_of(NpyFile(path))
    np.testing.assert_array_equal(read, values)
    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    assert read.dtype.isnative
    shuffled = np.concatenate([p for (p,) in MiniBatches(NpyFile(path), batch_size=3, shuffle_buffer=4)])
    rows = [tuple(row.reshape(-1).tolist()) for row in values]
    assert sorted(tuple(row.reshape(-1).tolist()) for row in shuffled) == sorted(rows)


def test_fewer_rows_than_a_batch_and_none(tmp_path):
    one = NpyFile(npy(tmp_path / "one.npy", np.ones((1, 3))))
    assert [part.shape for (part,) in MiniBatches(one, batch_size=32)] == [(1, 3)]
    none = NpyFile(npy(tmp_path / "none.npy", np.ones((0, 3))))
    assert none.shape == (0, 3)
    for shuffle in (True, False):
        assert list(MiniBatches(none, shuffle=shuffle)) == []


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.array([{}, {}]),
            "not a usable .npy file: Array can't be memory-mapped: Python objects in dtype.",
        ),
        (np.array(["a", "b"]), "expected real numbers, got <U1"),
        (np.zeros(3, complex), "expected real numbers, got complex128"),
        (np.zeros(3, "M8[s]"), "expected real numbers, got datetime64[s]"),
        (np.zeros(3, [("a", "f4")]), "expected real numbers, got [('a', '<f4')]"),
        (np.float64(1), "expected shape (rows, ...) with at least one value in a row, got ()"),
        (np.zeros((3, 0)), "expected shape (rows, ...) with at least one value in a row, got (3, 0)"),
    ],
)
def test_npy_of_other_things(tmp_path, array, message):
    path = npy(tmp_path / "x.npy", array)
    assert failure(NpyFile, path) == f"{path}: {message}"


class Trap:
    def __reduce__(self):
        return (exit, ("unpickled",))


def damaged() -> dict[str, tuple[bytes, str]]:
    stream = io.BytesIO()
    np.save(stream, np.arange(60.0).reshape(20, 3))
    good = stream.getvalue()
    archive = io.BytesIO()
    np.savez(archive, x=np.arange(3))
    huge = good.replace(b"(20, 3)", b"(%d, 3)" % 2**60)[: len(good)]
    return {
        "empty": (b"", "the file is empty"),
        "foreign": (b"hello", "not a usable .npy file: "),
        "cut magic": (good[:5], "not a usable .npy file: "),
        "cut header": (good[:60], "not a usable .npy file: "),
        "cut values": (good[:-1], "not a usable .npy file: "),
        "no values": (good[:128], "not a usable .npy file: "),
        "more values": (
            good + b"\0",
            "the header promises 480 bytes of shape (20, 3), the file holds more: 481",
        ),
        "sizes beyond memory": (huge, "not a usable .npy file: "),
        "archive": (archive.getvalue(), "not a usable .npy file: the magic string is not correct"),
        "pickle": (pickle.dumps(Trap()), "not a usable .npy file: the magic string is not correct"),
    }


@pytest.mark.parametrize("kind", damaged())
def test_damaged_npy(tmp_path, kind):
    content, message = damaged()[kind]
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    assert failure(NpyFile, path).startswith(f"{path}: {message}")


def test_a_file_that_becomes_shorter_is_an_error(tmp_path):
    path = npy(tmp_path / "x.npy", np.zeros((1000, 50)))
    source = NpyFile(path)
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ValueError, match="the file became shorter since it was opened"):
        list(MiniBatches(source))


def test_a_missing_file(tmp_path):
    for kind in (NpyFile, IdxFile):
        with pytest.raises(FileNotFoundError):
            kind(tmp_path / "nothing")


def test_features_and_labels_of_two_files(tmp_path):
    x = np.arange(60.0).reshape(20, 3)
    files = NpyFile(npy(tmp_path / "x.npy", x)), NpyFile(npy(tmp_path / "y.npy", np.arange(20)))
    for xb, yb in MiniBatches(*files, batch_size=7, shuffle_buffer=8):
        np.testing.assert_array_equal(xb, x[yb])
    with pytest.raises(ValueError, match=r"MiniBatches: all arrays must have the same length, got \[20, 3\]"):
        MiniBatches(files[0], np.arange(3))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(0x08, "u1"), (0x09, "i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")],
)
def test_idx_is_what_read_idx_reads(tmp_path, kind, dtype):
    path = idx(tmp_path / "x", np.arange(84).reshape(7, 3, 4).astype(dtype), kind)
    read = all_of(IdxFile(path))
    np.testing.assert_array_equal(read, read_idx(path))
    assert read.dtype.isnative


def test_damaged_idx(tmp_path):
    path = idx(tmp_path / "x", np.arange(84, dtype=np.uint8).reshape(7, 3, 4))
    good = path.read_bytes()
    for content, message in (
        (b"", "the file is empty"),
        (b"\x89PNG", "not an IDX file"),
        (good[:10], "the IDX header is cut off: it promises 3 axes"),
        (good[:-1], "the header promises 84 bytes of shape (7, 3, 4), the file holds fewer: 83"),
        (good + b"\0", "the header promises 84 bytes of shape (7, 3, 4), the file holds more: 85"),
        (b"\x1f\x8b" + good, "is gzipped, so it cannot be read in the middle; unpack it first (gunzip)"),
    ):
        path.write_bytes(content)
        assert failure(IdxFile, path).startswith(f"{path}: {message}")


# --- several files -------------------------------------------------------------------------------------


def shards(folder: Path, *lengths: int) -> list[Path]:
    starts = np.cumsum([0, *lengths])
    return [
        npy(folder / f"{i}.npy", np.arange(starts[i], starts[i] + n, dtype=float)[:, None])
        for i, n in enumerate(lengths)
    ]


def test_files_are_one_after_the_other(tmp_path):
    files = Files(NpyFile, shards(tmp_path, 5, 0, 1, 12))
    np.testing.assert_array_equal(all_of(files)[:, 0], np.arange(18))
    shuffled = [part for (part,) in MiniBatches(files, batch_size=4, shuffle_buffer=6, seed=0)]
    assert sorted(np.concatenate(shuffled)[:, 0]) == list(range(18))
    for start in range(18):
        for stop in range(start, 19):
            np.testing.assert_array_equal(files.read(start, stop).arrays[0][:, 0], np.arange(start, stop))
    assert files.where(5) == f"{tmp_path / '2.npy'}: row 0 (from 0)"
    assert files.where(6) == f"{tmp_path / '3.npy'}: row 0 (from 0)"


def test_files_must_fit_together(tmp_path):
    one, two = npy(tmp_path / "1.npy", np.zeros((3, 2))), npy(tmp_path / "2.npy", np.zeros((3, 4)))
    assert failure(Files, NpyFile, [one, two]) == (
        f"{two}: has float64 of shape (4,) in a row, but {one} has float64 of shape (2,)"
    )
    assert failure(Files, NpyFile, []) == "Files: expected at least one file"


def test_a_part_of_a_file(tmp_path):
    (path,) = shards(tmp_path, 100)
    train, test = NpyFile(path).part(0, 80), NpyFile(path).part(80, 100)
    np.testing.assert_array_equal(all_of(test)[:, 0], np.arange(80, 100))
    seen = np.concatenate([p for (p,) in MiniBatches(train, shuffle_buffer=10)])[:, 0]
    assert sorted(seen) == list(range(80))
    assert test.where(3) == f"{path}: row 83 (from 0)"
    with pytest.raises(ValueError, match="part: need 0 <= start <= stop <= 100, got 80 and 101"):
        NpyFile(path).part(80, 101)


def test_a_function_of_the_rows(tmp_path):
    x = npy(tmp_path / "x.npy", np.arange(60, dtype=np.uint8).reshape(20, 3))
    y = np.arange(20)
    source = NpyFile(x).map(lambda x: x.astype(np.float32) / 255)
    assert (source.empty[0].dtype, source.shape) == (np.float32, (20, 3))
    for xb, yb in MiniBatches(source, y, batch_size=7, shuffle_buffer=8):
        np.testing.assert_array_equal(xb, (np.arange(60).reshape(20, 3)[yb] / 255).astype(np.float32))
    with pytest.raises(TypeError, match="map: the function must keep the number of rows, 0, but returned"):
        NpyFile(x).map(lambda x: x.sum())
