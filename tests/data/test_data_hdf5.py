"""HDF5 files: datasets in files of several layouts, files that are open already, and files that are wrong."""

from __future__ import annotations

import sys
import warnings

import h5py
import numpy as np
import pytest

from normkit.data import BadDataWarning, Hdf5File, MiniBatches
from subprocesses import output_of

X = np.arange(600.0).reshape(100, 3, 2)
Y = np.arange(100)


def write(path, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=X, **options)
        file["y"] = Y
    return path


def failure(call, *args):
    with pytest.raises(ValueError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "options", [{}, {"chunks": (7, 3, 2)}, {"chunks": (64, 1, 1), "compression": "gzip"}, {"dtype": ">f4"}]
)
@pytest.mark.parametrize("batching", [{"shuffle": False}, {"shuffle_buffer": 20}, {}])
def test_layouts(tmp_path, options, batching):
    source = Hdf5File(write(tmp_path / "t.h5", **options), "x", "y")
    assert source.shape == (100, 3, 2)
    batches = list(MiniBatches(source, batch_size=9, seed=0, **batching))
    assert [len(y) for _, y in batches] == [9] * 11 + [1]
    rows = np.concatenate([y for _, y in batches])
    assert sorted(rows) == list(range(100))
    for x, y in batches:
        assert x.dtype == np.dtype(options.get("dtype", "f8")).newbyteorder("=")
        np.testing.assert_array_equal(x, X[y])


def test_blocks_cut_no_chunk(tmp_path):
    source = Hdf5File(write(tmp_path / "t.h5", chunks=(7, 3, 2)), "x", "y")
    for rows in (1, 7, 10, 1000):
        edges = source.edges(rows)
        assert (edges[0], edges[-1]) == (0, 100)
        assert (edges[1:-1] % 7 == 0).all()


def test_groups_and_two_files(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["train/x"] = X
    with h5py.File(tmp_path / "u.h5", "w") as file:
        file["y"] = Y
    sources = Hdf5File(tmp_path / "t.h5", "train/x"), Hdf5File(tmp_path / "u.h5", "y")
    for x, y in MiniBatches(*sources, batch_size=9, shuffle_buffer=20):
        np.testing.assert_array_equal(x, X[y])


def test_datasets_of_an_open_file_are_not_read_at_once(tmp_path, monkeypatch):
    with h5py.File(write(tmp_path / "t.h5"), "r") as file:
        monkeypatch.setattr(h5py.Dataset, "__array__", None)
        batches = MiniBatches(file["x"], file["y"], Y, batch_size=9, shuffle_buffer=20)
        for x, y, again in batches:
            np.testing.assert_array_equal(x, X[y])
            np.testing.assert_array_equal(y, again)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        strings = file.create_dataset("s", data=["a", "b"])
        with pytest.raises(ValueError, match="expected numbers along at least one axis, got object of shape"):
            MiniBatches(strings)


def test_one_row_and_none(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["one"], file["none"] = X[:1], X[:0]
    assert [len(x) for (x,) in MiniBatches(Hdf5File(tmp_path / "t.h5", "one"))] == [1]
    assert list(MiniBatches(Hdf5File(tmp_path / "t.h5", "none"))) == []


def test_what_cannot_be_used(tmp_path):
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = X, Y[:50]
        file["group/inner"] = Y
        file["text"] = ["a", "b"]
        file["scalar"] = 3.0
        file["void"] = np.zeros((5, 0))
        file["complex"] = np.zeros(5, complex)
        file["type"] = np.dtype("f4")
    assert failure(Hdf5File, path) == f"{path}: name the datasets to read, such as 'x', 'y'"
    there = "complex, group, scalar, text, type, void, x, y"
    assert failure(Hdf5File, path, "z") == f"{path}: has no dataset 'z', but {there}"
    assert failure(Hdf5File, path, "group") == f"{path}: 'group' is no dataset, but a group of inner"
    assert failure(Hdf5File, path, "type") == f"{path}: 'type' is no dataset, but a group of no values"
    assert failure(Hdf5File, path, "text") == f"{path}: 'text' must be of real numbers, got object"
    assert failure(Hdf5File, path, "complex") == f"{path}: 'complex' must be of real numbers, got complex128"
    for name in ("scalar", "void"):
        assert "needs shape (rows, ...) with at least one value in a row" in failure(Hdf5File, path, name)
    assert failure(Hdf5File, path, "x", "y") == f"{path}: x, y must be equal in length, have [100, 50]"


def test_damaged_files(tmp_path):
    path = write(tmp_path / "t.h5")
    good = path.read_bytes()
    for content in (b"", b"hello", good[: len(good) // 2], good[:100], good[:-1]):
        path.write_bytes(content)
        assert failure(Hdf5File, path, "x").startswith(f"{path}: not a usable HDF5 file: ")
    with pytest.raises(FileNotFoundError):
        Hdf5File(tmp_path / "nothing.h5", "x")


def test_a_damaged_chunk(tmp_path):
    path = write(tmp_path / "t.h5", chunks=(10, 3, 2), compression="gzip", fletcher32=True)
    with h5py.File(path, "r") as file:
        chunk = file["x"].id.get_chunk_info(3)
    content = bytearray(path.read_bytes())
    for i in range(chunk.byte_offset, chunk.byte_offset + chunk.size):
        content[i] ^= 0xFF
    path.write_bytes(content)
    said = failure(list, MiniBatches(Hdf5File(path, "x", "y"), shuffle=False))
    assert said.startswith(f"{path}: 'x', rows 30 to 39 (from 0), cannot be read: ")
    for options in ({"shuffle": False}, {"shuffle_buffer": 20}, {}):
        batches = MiniBatches(Hdf5File(path, "x", "y"), batch_size=7, on_bad="skip", **options)
        with pytest.warns(
            BadDataWarning, match=r"skipped 10 bad rows \(1 faults\): .*rows 30 to 39 \(from 0\)"
        ):
            rows = np.concatenate([y for _, y in batches])
        assert sorted(rows) == [i for i in range(100) if not 30 <= i < 40]


def test_values_that_are_not_finite_are_named(tmp_path):
    path = write(tmp_path / "t.h5")
    with h5py.File(path, "a") as file:
        file["x"][42, 1, 0] = np.nan
    said = failure(list, MiniBatches(Hdf5File(path, "y", "x"), shuffle=False))
    assert said == f"{path}: 'x', row 42 (from 0), column (1, 0) (from 0): nan is not a finite number"


def test_without_h5py(tmp_path, monkeypatch):
    path = write(tmp_path / "t.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    message = r"HDF5 is read by h5py, which is not installed: pip install 'normkit\[data\]'"
    with pytest.raises(ModuleNotFoundError, match=message):
        Hdf5File(path, "x")


def test_fork_while_the_thread_reads(tmp_path):
    """A forked child reads the same file from its start, whatever the parent's thread was at."""
    path = write(tmp_path / "t.h5", chunks=(1, 3, 2))
    code = f"""
    import os, warnings
    warnings.simplefilter("ignore")
    import numpy as np
    from normkit.data import Hdf5File, MiniBatches
    data = MiniBatches(Hdf5File({str(path)!r}, "x", "y"), batch_size=1, shuffle_buffer=1, prefetch=20)
    for _ in range(5):
        iterator = iter(data)
        next(iterator)
        child = os.fork()
        if child == 0:
            os._exit(len(list(data)))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 100
    print("ok")
    """
    assert output_of(code, timeout=100) == "ok"


def elsewhere(folder):
    """A file whose datasets have their values in others, which must not be opened."""
    other = write(folder / "other.h5")
    (folder / "raw").write_bytes(X.tobytes())
    path = folder / "t.h5"
    with h5py.File(path, "w") as file:
        file["here"] = X
        file["soft"], file["hard"] = h5py.SoftLink("/here"), file["here"]
        file["group/here"] = h5py.SoftLink("there")
        file["group/there"] = X
        file["group/absolute"] = h5py.SoftLink("/soft")
        file["link"] = h5py.ExternalLink(other.name, "/x")
        file["door"] = h5py.ExternalLink(other.name, "/")
        file["soft_to_link"] = h5py.SoftLink("/link")
        file["soft_into_link"] = h5py.SoftLink("/door/x")
        file["group/up"] = h5py.SoftLink("/link")
        file["circle"], file["back"] = h5py.SoftLink("/back"), h5py.SoftLink("/circle")
        file["dangling"] = h5py.SoftLink("/nothing")
        file.create_dataset("raw", X.shape, X.dtype, external=[("raw", 0, X.nbytes)])
        layout = h5py.VirtualLayout(X.shape, X.dtype)
        layout[:] = h5py.VirtualSource(other, "x", X.shape)
        file.create_virtual_dataset("virtual", layout)
        within = h5py.VirtualLayout(X.shape, X.dtype)
        within[:] = h5py.VirtualSource(".", "here", X.shape)
        file.create_virtual_dataset("within", within)
    return path


@pytest.mark.parametrize("name", ["here", "soft", "hard", "/soft", "./here", "group/absolute", "group/here"])
def test_links_within_the_file_are_followed(tmp_path, name):
    (x,) = next(iter(MiniBatches(Hdf5File(elsewhere(tmp_path), name), batch_size=100, shuffle=False)))
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("link", "'/link' is a link into another file, which is not opened"),
        ("door/x", "'/door' is a link into another file, which is not opened"),
        ("soft_to_link", "'/link' is a link into another file"),
        ("soft_into_link", "'/door' is a link into another file"),
        ("group/up", "'/link' is a link into another file"),
        ("raw", "'raw' has its values in other files, which are not opened; copy them into this file"),
        ("virtual", "'virtual' has its values in other files"),
        ("within", "'within' has its values in other files"),
        ("circle", "is a link that is not followed: there are too many before it"),
        ("dangling", "has no dataset 'dangling'"),
        ("link/x", "'/link' is a link into another file"),
        ("here/x", "has no dataset 'here/x'"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_what_lies_in_other_files_is_refused(tmp_path, name, message, there):
    path = elsewhere(tmp_path)
    if not there:  # nothing may be opened, so it makes no difference
        (tmp_path / "other.h5").unlink()
        (tmp_path / "raw").unlink()
    said = failure(Hdf5File, path, name)
    assert said.startswith(f"{path}: ")
    assert message in said


def test_links_are_looked_at_for_each_block(tmp_path):
    path = elsewhere(tmp_path)
    source = Hdf5File(path, "here")
    with h5py.File(path, "a") as file:
        del file["here"]
        file["here"] = h5py.ExternalLink("other.h5", "/x")
    assert "is a link into another file" in failure(list, MiniBatches(source, prefetch=0))


@pytest.mark.parametrize("options", [{}, {"chunks": (16, 3, 2)}, {"chunks": (16, 3, 2), "libver": "latest"}])
def test_every_word_of_a_file_overwritten(tmp_path, options):
    """Whatever HDF5 says, it becomes a ValueError that names the file; also where bad rows are skipped."""
    options = dict(options)
    path = tmp_path / "t.h5"
    with h5py.File(path, "w", libver=options.pop("libver", None)) as file:
        file.create_dataset("x", data=X, **options)
    good = path.read_bytes()
    start = good.find(X[:16].tobytes()[:64])
    assert start > 0
    for place in (*range(0, min(start, 4096), 8), *range(start + X.nbytes, len(good), 8)):
        path.write_bytes(good[:place] + b"\xff" * 8 + good[place + 8 :])
        try:
            with warnings.catch_warnings(action="ignore", category=BadDataWarning):
                list(MiniBatches(Hdf5File(path, "x"), on_bad="skip", prefetch=0))
            list(MiniBatches(Hdf5File(path, "x"), prefetch=0))
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017


def test_a_damaged_chunk_of_an_open_file(tmp_path):
    path = write(tmp_path / "t.h5", chunks=(10, 3, 2), fletcher32=True)
    with h5py.File(path, "r") as file:
        offset = file["x"].id.get_chunk_info(3).byte_offset
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)
    with h5py.File(path, "r") as file:
        said = failure(list, MiniBatches(file["x"], shuffle=False, shuffle_buffer=10))
        assert said.startswith(f"{path}: /x: rows 0 to 99 (from 0) cannot be read: ")
