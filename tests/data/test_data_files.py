"""Loaders of labelled data: every format, and what each says about a file that is wrong."""

from __future__ import annotations

import gzip
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from normkit.data.files import load, load_digits, load_idx, load_npz
from normkit.data.idx import read_idx

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist10k"
NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def idx(array: np.ndarray, kind: int = 0x08) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, kind, array.ndim]) + sizes + array.tobytes()


def arrays(rows: int = 6, tests: int = 4, classes: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (rows, 2, 5), dtype=np.uint8),
        "y_train": (np.arange(rows) % classes).astype(np.uint8),
        "x_test": rng.integers(0, 256, (tests, 2, 5), dtype=np.uint8),
        "y_test": (np.arange(tests) % classes).astype(np.uint8),
    }


def idx_folder(folder: Path, *, zipped: bool = False, **changed: np.ndarray) -> Path:
    folder.mkdir()
    for name, array in zip(NAMES.values(), (arrays() | changed).values(), strict=True):
        content = idx(array)
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    return folder


def npz(path: Path, **changed: object) -> Path:
    np.savez(path, **{name: a for name, a in (arrays() | changed).items() if a is not None})
    return path


def failure(call: object, *args: object) -> str:
    """The one line that a loader's ValueError says."""
    with pytest.raises(ValueError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- IDX ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_folder_scales_pixels_by_255_and_keeps_the_image_axes(tmp_path, zipped):
    data = load(idx_folder(tmp_path / "tiny", zipped=zipped))
    expected = arrays()
    assert data.x_train.dtype == np.float32
    assert data.y_train.dtype == np.int64
    np.testing.assert_array_equal(data.x_train, expected["x_train"].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(data.x_test, expected["x_test"].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(data.y_train, expected["y_train"])
    np.testing.assert_array_equal(data.y_test, expected["y_test"])
    assert (data.num_classes, data.name) == (3, "tiny")


def test_idx_accepts_dotted_names_and_gz_files_that_are_plain(tmp_path):
    folder = idx_folder(tmp_path / "tiny")
    for name in NAMES.values():
        (folder / name).rename(folder / (name.replace("-idx", ".idx") + ".gz"))
    np.testing.assert_array_equal(load(folder).y_train, arrays()["y_train"])


@pytest.mark.parametrize(
    ("kind", "dtype"), [(0x09, "i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")]
)
def test_idx_reads_every_type_of_the_format(tmp_path, kind, dtype):
    values = np.array([[1, -2, 3], [4, 5, -100]], dtype)
    (tmp_path / "x").write_bytes(idx(values, kind))
    read = read_idx(tmp_path / "x")
    np.testing.assert_array_equal(read, values)
    assert read.dtype == np.dtype(dtype)


def test_idx_type_other_than_pixels_is_not_scaled(tmp_path):
    folder = idx_folder(tmp_path / "tiny")
    values = np.arange(60, dtype=">f4").reshape(6, 2, 5)
    (folder / NAMES["train_images"]).write_bytes(idx(values, 0x0D))
    np.testing.assert_array_equal(load(folder).x_train, values)


def test_mnist10k():
    if not MNIST.is_dir():
        pytest.skip(f"{MNIST} is not there")
    data = load(MNIST)
    assert data.x_train.shape == (8000, 28, 28)
    assert data.x_test.shape == (2000, 28, 28)
    assert data.num_classes == 10
    assert set(np.unique(data.y_test)) == set(range(10))
    assert (data.x_train.min(), data.x_train.max()) == (0.0, 1.0)


def damaged_idx() -> list[tuple[str, bytes, str]]:
    good = idx(arrays()["x_train"])
    packed = gzip.compress(good, mtime=0)
    flipped = bytearray(packed)
    flipped[-6] ^= 0xFF  # the checksum
    huge = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)
    return [
        ("empty", b"", "the file is empty"),
        ("empty in gzip", gzip.compress(b""), "the file is empty"),
        (
            "wrong magic",
            b"\x89PNG" + good,
            "not an IDX file: it starts with 0x89504e47, an image file with 0x00000803",
        ),
        ("unknown type", b"\0\0\x07\x03" + good[4:], "not an IDX file: it starts with 0x00000703"),
        ("no axes", b"\0\0\x08\0", "not an IDX file: it starts with 0x00000800"),
        ("two bytes", b"\0\0", "not an IDX file: it starts with 0x0000,"),
        ("cut header", good[:10], "the IDX header is cut off: it promises 3 axes"),
        (
            "cut values",
            good[:-1],
            "the IDX header promises 60 bytes of shape (6, 2, 5), the file holds fewer",
        ),
        (
            "cut values in gzip",
            gzip.compress(good[:-1]),
            "promises 60 bytes of shape (6, 2, 5), the file holds fewer",
        ),
        (
            "more values",
            good + b"\0",
            "the IDX header promises 60 bytes of shape (6, 2, 5), the file holds more",
        ),
        ("sizes beyond memory", huge, "the file holds fewer"),
        ("sizes beyond memory in gzip", gzip.compress(huge), "the file holds fewer"),
        ("cut gzip", packed[: len(packed) // 2], "the gzip archive is damaged or cut off"),
        ("cut gzip header", packed[:5], "the gzip archive is damaged or cut off"),
        ("wrong checksum", bytes(flipped), "the gzip archive is damaged or cut off"),
        ("garbage in gzip", packed[:10] + b"\xff" * 40, "the gzip archive is damaged or cut off"),
    ]


@pytest.mark.parametrize(("content", "message"), [pytest.param(*c[1:], id=c[0]) for c in damaged_idx()])
def test_damaged_idx(tmp_path, content, message):
    folder = idx_folder(tmp_path / "tiny")
    path = folder / NAMES["train_images"]
    path.write_bytes(content)
    said = failure(load, folder)
    assert said.startswith(f"{path}: ")
    assert message in said


def test_idx_folder_without_a_file_names_it(tmp_path):
    folder = idx_folder(tmp_path / "tiny")
    (folder / NAMES["test_labels"]).unlink()
    assert failure(load, folder) == (
        f"{folder}: has no t10k-labels-idx1-ubyte (plain or .gz), so it is not a folder of IDX files"
    )


def test_idx_counts_and_shapes_must_belong_together(tmp_path):
    few = idx_folder(tmp_path / "a", y_train=np.zeros(5, np.uint8))
    assert failure(load, few) == f"{few}: training labels have shape (5,), expected (6,): one per row"
    other = idx_folder(tmp_path / "b", x_test=np.zeros((4, 2, 6), np.uint8))
    assert failure(load_idx, other) == f"{other}: training rows have shape (2, 5), test rows (2, 6)"
    none = idx_folder(tmp_path / "c", x_test=np.zeros((0, 2, 5), np.uint8), y_test=np.zeros(0, np.uint8))
    assert "test rows need shape (rows, features, ...) and at least one value, got (0, 2, 5)" in failure(
        load, none
    )
    flat = idx_folder(tmp_path / "d", x_train=np.zeros(6, np.uint8))
    assert "training rows need shape (rows, features, ...)" in failure(load, flat)


# --- npz ---------------------------------------------------------------------------------------------


def test_npz_in_the_layout_of_keras(tmp_path):
    data = load(npz(tmp_path / "mnist.npz"))
    np.testing.assert_array_equal(data.x_train, arrays()["x_train"].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(data.y_test, arrays()["y_test"])
    assert (data.num_classes, data.name) == (3, "mnist")


def test_npz_takes_float_rows_unscaled_and_labels_in_a_column(tmp_path):
    x = np.linspace(-3, 300, 60).reshape(6, 10)
    data = load(npz(tmp_path / "a.npz", x_train=x, x_test=x[:4], y_train=np.arange(6.0)[:, None]))
    np.testing.assert_array_equal(data.x_train, x.astype(np.float32))
    np.testing.assert_array_equal(data.y_train, np.arange(6))
    assert data.num_classes == 6


def test_the_divisor_is_told_and_can_be_chosen(tmp_path):
    folder, path = idx_folder(tmp_path / "tiny"), npz(tmp_path / "a.npz")
    table = tmp_path / "t.csv"
    table.write_text("10,0\n20,1\n")
    assert [load(source).divisor for source in (folder, path, table, "digits")] == [255, 255, 1, 16]
    for source in (folder, path):
        data = load(source, divisor=2)
        assert data.divisor == 2
        np.testing.assert_array_equal(data.x_train, arrays()["x_train"] / np.float32(2))
    assert {*load(table, divisor=5).x_train[0], *load(table, divisor=5).x_test[0]} == {2, 4}
    assert load("digits", divisor=1).x_train.max() == 16


def test_the_divisor_of_an_npz_is_that_of_its_training_rows(tmp_path):
    pixels = arrays()["x_test"]
    data = load(npz(tmp_path / "a.npz", x_test=pixels.astype(np.int64)))
    np.testing.assert_array_equal(data.x_test, pixels / np.float32(255))


def test_npz_of_other_files(tmp_path):
    path = npz(tmp_path / "a.npz", x_train=None, y_test=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train", b"hello")
        archive.writestr("y_test.npy", b"hello")
    assert failure(load, path) == (
        f"{path}: not a usable .npz archive: its x_train, y_test must be NumPy arrays, not other files"
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_test": None, "y_test": None}, "it has no x_test, y_test, but x_train, y_train"),
        (
            {"x_train": np.array([{}] * 6, object)},
            "x_train.npy has Python objects, which are never unpickled",
        ),
        ({"x_train": np.full((6, 2, 5), "a")}, "training rows must be real numbers, got <U1"),
        ({"x_train": np.zeros((6, 2, 5), complex)}, "training rows must be real numbers, got complex128"),
        ({"x_train": np.array(1.0)}, "training rows need shape (rows, features, ...)"),
        (
            {"x_test": np.full((4, 2, 5), np.nan)},
            "test row 0 (from 0) has a value that is not a finite float32",
        ),
        (
            {"x_test": np.full((4, 2, 5), 1e39)},
            "test row 0 (from 0) has a value that is not a finite float32",
        ),
        ({"y_train": np.zeros((6, 3))}, "training labels have shape (6, 3), expected (6,): one per row"),
        ({"y_train": np.array([0, 1, -1, 0, 0, 0])}, "0 to 65535, got -1 in row 2 (from 0)"),
        ({"y_train": np.array([0, 1, 0, 0, 0, 65536])}, "0 to 65535, got 65536 in row 5 (from 0)"),
        (
            {"y_test": np.array([0, 1.5, 0, 0])},
            "test labels must be whole numbers from 0 to 65535, got 1.5 in row 1",
        ),
        (
            {"y_test": np.array([0, np.nan, 0, 0])},
            "test labels must be whole numbers from 0 to 65535, got nan in row 1",
        ),
        (
            {"y_test": np.array(list("0123"))},
            "test labels must be whole numbers, at least one; got 4 of type <U1",
        ),
    ],
)
def test_npz_with_wrong_arrays(tmp_path, changed, message):
    path = npz(tmp_path / "a.npz", **changed)
    said = failure(load, path)
    assert said.startswith(f"{path}: ")
    assert message in said


def test_npz_is_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (sys.exit, ("unpickled",))

    path = npz(tmp_path / "a.npz", x_train=np.array([Trap()], object))
    assert "x_train.npy has Python objects, which are never unpickled" in failure(load_npz, path)


def test_damaged_npz(tmp_path):
    path = npz(tmp_path / "a.npz")
    good = path.read_bytes()
    start = f"{path}: not a usable .npz archive: "
    for content in (b"", b"hello", good[: len(good) // 2], good[-40:]):
        path.write_bytes(content)
        assert failure(load, path).startswith(start)
    flipped = bytearray(good)
    flipped[150] ^= 0xFF  # inside the values of x_train
    path.write_bytes(bytes(flipped))
    assert failure(load, path).startswith(start)


def test_npz_that_claims_a_size_nobody_has(tmp_path):
    path = npz(tmp_path / "a.npz", x_train=None)
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**60}, 1), }}".ljust(117) + "\n"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(
            "x_train.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
        )
    assert failure(load, path).startswith(f"{path}: not a usable .npz archive: ")


# --- the rest ----------------------------------------------------------------------------------------


def test_digits_are_scaled_by_16_and_split():
    x, y = load_digits()
    assert (x.shape, x.dtype, y.dtype) == ((1797, 64), np.float32, np.int64)
    assert set(np.unique(x * 16)) == set(range(17))
    data = load()
    assert (len(data.x_train), len(data.x_test), data.num_classes, data.name) == (1438, 359, 10, "digits")


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'normkit\[train\]'"):
        load_digits()


def test_data_with_test_rows_of_its_own_is_not_split(tmp_path):
    path = npz(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="has test rows of its own, so a validation split cannot be chosen"):
        load(path, validation_split=0.5)


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*nothing\.csv"):
        load(tmp_path / "nothing.csv")
    path = tmp_path / "t.txt"
    path.write_text("1,0\n")
    assert failure(load, path) == f"{path}: expected a folder of IDX files, a .npz or a .csv"


@pytest.mark.parametrize(
    "header", [b"{'descr': (((", b"{'descr': '<f8', 'shape': (6, 4)}", b"\0" * 40, b"{" * 9000]
)
def test_npz_with_damaged_headers(tmp_path, header):
    """What NumPy raises of them is of many kinds; TokenError is none of the usual ones."""
    path = npz(tmp_path / "a.npz", x_train=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header)
    assert failure(load_npz, path).startswith(f"{path}: not a usable .npz archive: ")
