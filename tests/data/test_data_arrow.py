"""Parquet and Arrow files: columns, lists, row groups, folders, and files and cells that are wrong."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from normkit.data import ArrowFiles, BadDataWarning, MiniBatches
from subprocesses import output_of


def table(start=0, stop=100):
    rows = np.arange(start, stop)
    return pa.table(
        {
            "a": rows.astype(np.float32),
            "b": rows * 2,
            "label": (rows % 7).astype(np.int8),
            "row": rows,
            "flag": rows % 2 == 0,
        }
    )


def lists(rows, length=3, **options):
    values = [[float(row * 10 + i) for i in range(length)] for row in range(rows)]
    kind = pa.list_(pa.float32(), length) if options.get("fixed") else pa.list_(pa.float32())
    return pa.array(values, kind)


def parquet(path, data=None, **options):
    path.parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(table() if data is None else data, path, **{"row_group_size": 9, **options})
    return path


def arrow(path, data, **options):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, data.schema, **options) as writer:
        writer.write_table(data, max_chunksize=9)
    return path


def failure(call, *args, **kwargs):
    with pytest.raises(ValueError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def check_rows(batches, count=100, size=7):
    batches = list(batches)
    assert [len(y) for _, y in batches[:-1]] == [size] * (len(batches) - 1)
    rows = np.concatenate([y for _, y in batches])
    assert sorted(rows) == list(range(count))
    for x, y in batches:
        np.testing.assert_array_equal(x[:, 0], y)
        np.testing.assert_array_equal(x[:, 1], y * 2)


BATCHING = [{"shuffle": False}, {"shuffle_buffer": 20}, {}, {"shuffle_buffer": 1}, {"prefetch": 0}]


@pytest.mark.parametrize("options", BATCHING)
@pytest.mark.parametrize(
    "written",
    [{}, {"row_group_size": 1}, {"row_group_size": 1000}, {"compression": "zstd", "use_dictionary": False}],
)
def test_columns_of_one_table(tmp_path, options, written):
    source = ArrowFiles(parquet(tmp_path / "t.parquet", **written), x=["a", "b"], y="row")
    assert [(a.shape, a.dtype) for a in source.empty] == [((0, 2), np.float64), ((0,), np.int64)]
    check_rows(MiniBatches(source, batch_size=7, seed=0, **options))


@pytest.mark.parametrize("options", BATCHING[:3])
def test_arrow_and_feather_files(tmp_path, options):
    path = arrow(tmp_path / "t.arrow", table())
    check_rows(MiniBatches(ArrowFiles(path, ["a", "b"], "row"), batch_size=7, **options))
    pyarrow.feather.write_feather(table(), str(tmp_path / "t.feather"), compression="lz4", chunksize=9)
    check_rows(MiniBatches(ArrowFiles(tmp_path / "t.feather", ["a", "b"], "row"), batch_size=7, **options))


def test_which_columns(tmp_path):
    path = parquet(tmp_path / "t.parquet")
    shapes = [a.shape[1:] for a in ArrowFiles(path, y="label").empty]
    assert shapes == [(4,), ()]
    assert [a.shape[1:] for a in ArrowFiles(path).empty] == [(5,)]
    assert [a.shape[1:] for a in ArrowFiles(path, x="a", y=["b", "label"]).empty] == [(), (2,)]
    assert [a.shape[1:] for a in ArrowFiles(path, x=["a"], y=["b"]).empty] == [(1,), (1,)]
    (batch,) = MiniBatches(ArrowFiles(path, x="flag"), batch_size=100, shuffle=False)
    np.testing.assert_array_equal(batch[0], np.arange(100) % 2 == 0)
    (batch,) = MiniBatches(ArrowFiles(path, x=["row", "row"]), batch_size=100, shuffle=False)
    np.testing.assert_array_equal(batch[0], np.arange(100)[:, None] * [1, 1])


@pytest.mark.parametrize("fixed", [True, False])
def test_lists(tmp_path, fixed):
    data = pa.table({"x": lists(50, fixed=fixed), "y": np.arange(50)})
    for path in (parquet(tmp_path / "t.parquet", data), arrow(tmp_path / "t.arrow", data)):
        for x, y in MiniBatches(ArrowFiles(path, "x", "y"), batch_size=7, shuffle_buffer=20):
            assert x.dtype == np.float32
            np.testing.assert_array_equal(x, y[:, None] * 10 + [0, 1, 2])


def test_uneven_row_groups_and_blocks(tmp_path):
    path = tmp_path / "t.parquet"
    sizes = [1, 40, 3, 0, 20, 2, 2, 2, 30]
    starts = np.cumsum([0, *sizes])
    with pq.ParquetWriter(path, table().schema) as writer:
        for start, size in zip(starts, sizes, strict=False):
            writer.write_table(table(start, start + size))
    source = ArrowFiles(path, ["a", "b"], "row")
    for rows, edges in {
        1: [0, 1, 41, 44, 64, 66, 68, 70, 100],
        25: [0, 1, 41, 66, 70, 100],
        1000: [0, 100],
    }.items():
        assert source.edges(rows).tolist() == edges
    for options in BATCHING:
        check_rows(MiniBatches(source, batch_size=7, **options))
    for start in range(0, 101, 7):
        for stop in range(start, 101, 9):
            assert source.read(start, stop).arrays[1].tolist() == list(range(start, stop))


def test_folders_files_and_datasets(tmp_path):
    folder = tmp_path / "data"
    for number, start in enumerate((60, 0, 30)):  # the order is that of the names
        parquet(folder / f"part-{number}.parquet", table(start, start + 40 if start == 60 else start + 30))
    (folder / "_SUCCESS").write_text("")
    (folder / ".hidden.parquet").write_text("")
    (folder / "README.md").write_text("")
    source = ArrowFiles(folder, ["a", "b"], "row")
    rows = np.concatenate([y for _, y in MiniBatches(source, shuffle=False)])
    assert rows.tolist() == [*range(60, 100), *range(60)]
    check_rows(MiniBatches(source, batch_size=7, shuffle_buffer=30))
    check_rows(MiniBatches(ArrowFiles(sorted(folder.glob("part-*")), ["a", "b"], "row"), batch_size=7))
    check_rows(
        MiniBatches(ArrowFiles(ds.dataset(sorted(folder.glob("part-*"))), ["a", "b"], "row"), batch_size=7)
    )
    assert source.where(0, 0, (1,)) == f"{folder / 'part-0.parquet'}: row 0 (from 0), column 'b'"
    assert source.where(45, 1) == f"{folder / 'part-1.parquet'}: row 5 (from 0), column 'row'"


def test_a_column_that_is_the_name_of_folders(tmp_path):
    for kind in (3, 5):
        parquet(tmp_path / f"kind={kind}" / "t.parquet", table(0, 10))
    for x, y in MiniBatches(ArrowFiles(tmp_path, "row", "kind"), batch_size=4, shuffle=False):
        assert set(y) <= {3, 5}
        assert len(x) == len(y)
    assert len(ArrowFiles(tmp_path, "row", "kind")) == 20


def test_empty_tables(tmp_path):
    none = parquet(tmp_path / "none.parquet", table(0, 0))
    assert list(MiniBatches(ArrowFiles(none, y="row"))) == []
    some = parquet(tmp_path / "some.parquet", table(0, 1))
    batches = list(MiniBatches(ArrowFiles([none, some, none], ["a", "b"], "row")))
    assert [y.tolist() for _, y in batches] == [[0]]


def test_columns_that_cannot_be_used(tmp_path):
    path = parquet(
        tmp_path / "t.parquet",
        pa.table({"a": [1.0], "text": ["x"], "when": pa.array([0], pa.timestamp("ms")), "list": [[1.0]]}),
    )
    there = "columns are a, text, when, list"
    assert failure(ArrowFiles, path, "z") == f"{path}: has no column 'z'; {there}"
    assert failure(ArrowFiles, path, "a", "z") == f"{path}: has no column 'z'; {there}"
    assert failure(ArrowFiles, path, []) == f"{path}: no column is left for an array; {there}"
    assert failure(ArrowFiles, path, "text") == f"{path}: column 'text' must be of real numbers, is string"
    assert (
        failure(ArrowFiles, path, "when")
        == f"{path}: column 'when' must be of real numbers, is timestamp[ms]"
    )
    said = failure(ArrowFiles, path, ["a", "list"])
    assert said == f"{path}: a column of lists must be named alone, not ['a', 'list']"
    empty = parquet(tmp_path / "e.parquet", pa.table({"x": pa.array([[], None], pa.list_(pa.int8()))}))
    assert failure(ArrowFiles, empty, "x") == f"{empty}: column 'x' has no list that has values"
    twice = parquet(tmp_path / "d.parquet", pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]))
    assert "duplicate field names" in failure(ArrowFiles, twice, "a")
    no_columns = parquet(tmp_path / "n.parquet", pa.table({}))
    assert (
        failure(ArrowFiles, no_columns) == f"{no_columns}: no column is left for an array; columns are none"
    )


def test_files_must_agree(tmp_path):
    one = parquet(tmp_path / "1.parquet", pa.table({"a": [1.0], "b": [1]}))
    two = parquet(tmp_path / "2.parquet", pa.table({"a": [1], "b": [1]}))
    three = parquet(tmp_path / "3.parquet", pa.table({"b": [1]}))
    assert failure(ArrowFiles, [one, two], "a") == f"{two}: column 'a' is int64, but double in {one}"
    assert failure(ArrowFiles, [one, three], "a") == f"{three}: has no column 'a', which {one} has"
    assert len(ArrowFiles([one, two, three], "b")) == 3
    text = tmp_path / "t.txt"
    text.write_text("")
    assert failure(ArrowFiles, text) == f"{text}: expected a file with one of .parquet, .pq, .arrow, .feather"
    (tmp_path / "folder").mkdir()
    assert failure(ArrowFiles, tmp_path / "folder") == f"{tmp_path / 'folder'}: has no Parquet or Arrow files"
    with pytest.raises(FileNotFoundError):
        ArrowFiles(tmp_path / "nothing.parquet")
    assert "expected a dataset of Parquet or Arrow files" in failure(ArrowFiles, ds.dataset(table()))


@pytest.mark.parametrize("write", [parquet, arrow])
def test_damaged_files(tmp_path, write):
    suffix = ".parquet" if write is parquet else ".arrow"
    path = write(tmp_path / f"2{suffix}", table())
    good = path.read_bytes()
    others = [write(tmp_path / f"{i}{suffix}", table()) for i in (1, 3)]
    for content in (b"", b"hello", good[: len(good) // 2], good[:-1], good[-200:]):
        path.write_bytes(content)
        said = failure(ArrowFiles, path)
        assert said.startswith(f"{path}: not a usable Parquet or Arrow file: ")
        for files in ([path, *others], [others[0], path, others[1]]):
            source = ArrowFiles(files, ["a", "b"], "row")
            assert failure(list, MiniBatches(source)) == said
            batches = MiniBatches(source, on_bad="skip")
            with pytest.warns(BadDataWarning, match="not a usable Parquet or Arrow file"):
                assert sum(len(y) for _, y in batches) == 200


def test_a_damaged_row_group(tmp_path):
    path = parquet(tmp_path / "t.parquet", write_page_checksum=True, compression="zstd")
    group = pq.ParquetFile(path).metadata.row_group(3)
    start = min(group.column(i).dictionary_page_offset or group.column(i).data_page_offset for i in range(2))
    content = bytearray(path.read_bytes())
    for i in range(start, start + group.column(0).total_compressed_size):
        content[i] ^= 0x5A
    path.write_bytes(content)
    source = ArrowFiles(path, ["a", "b"], "row")
    for options in ({"shuffle": False}, {"shuffle_buffer": 20}):
        said = failure(list, MiniBatches(source, **options))
        assert said.startswith(f"{path}: row group 3 (from 0) cannot be read: ")
        batches = MiniBatches(source, batch_size=7, on_bad="skip", **options)
        with pytest.warns(BadDataWarning, match=r"skipped 9 bad rows \(1 faults\)"):
            rows = np.concatenate([y for _, y in batches])
        assert sorted(rows) == [i for i in range(100) if not 27 <= i < 36]


def test_missing_values(tmp_path):
    data = pa.table(
        {"a": [1.0, None, 3.0, 4.0, float("nan")], "b": [1, 2, None, 4, 5], "y": [0, 1, 2, None, 4]}
    )
    path = parquet(tmp_path / "t.parquet", data, row_group_size=2)
    source = ArrowFiles(path, ["a", "b"], "y")
    assert (
        failure(list, MiniBatches(source, shuffle=False)) == f"{path}: row 1 (from 0), column 'a' is missing"
    )
    faults = source.read(0, 5).faults
    assert [fault.text for fault in faults] == [
        f"{path}: row 1 (from 0), column 'a' is missing",
        f"{path}: row 2 (from 0), column 'b' is missing",
        f"{path}: row 3 (from 0), column 'y' is missing",
    ]
    batches = MiniBatches(source, on_bad="skip")
    with pytest.warns(BadDataWarning, match=r"row 4 \(from 0\), column 'a': nan is not a finite number"):
        ((x, y),) = batches
    assert (x.tolist(), y.tolist(), y.dtype) == ([[1.0, 1.0]], [0], np.int64)


@pytest.mark.parametrize("fixed", [True, False])
def test_lists_that_lack_something(tmp_path, fixed):
    values = [[1.0, 2.0], None, [3.0, None], [float("inf"), 4.0], [5.0, 6.0]]
    kind = pa.list_(pa.float64(), 2) if fixed else pa.list_(pa.float64())
    if not fixed:
        values.append([7.0, 8.0, 9.0])
    path = parquet(tmp_path / "t.parquet", pa.table({"x": pa.array(values, kind)}))
    batches = MiniBatches(ArrowFiles(path, "x"), on_bad="skip", shuffle=False)
    with pytest.warns(BadDataWarning) as caught:
        ((x,),) = batches
    assert x.tolist() == [[1.0, 2.0], [5.0, 6.0]]
    expected = [
        "row 1 (from 0), column 'x' is missing",
        "row 2 (from 0), column 'x'[1] is missing",
        "row 3 (from 0), column 'x'[0]: inf is not a finite number",
    ]
    if not fixed:
        expected.append("row 5 (from 0), column 'x' has 3 values, expected 2")
    for text in expected:
        assert f"{path}: {text}" in str(caught[0].message)


def test_labels_out_of_range_are_named(tmp_path):
    path = parquet(tmp_path / "t.parquet")
    said = failure(list, MiniBatches(ArrowFiles(path, "a", "row").labels(64), shuffle=False))
    assert said == f"{path}: row 64 (from 0), column 'row': labels must be whole numbers from 0 to 63, got 64"


def test_without_pyarrow(tmp_path, monkeypatch):
    path = parquet(tmp_path / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = r"Parquet is read by pyarrow, which is not installed: pip install 'normkit\[data\]'"
    with pytest.raises(ModuleNotFoundError, match=message):
        ArrowFiles(path)


def test_fork_while_the_thread_reads(tmp_path):
    path = parquet(tmp_path / "t.parquet")
    code = f"""
    import os, warnings
    warnings.simplefilter("ignore")
    from normkit.data import ArrowFiles, MiniBatches
    data = MiniBatches(ArrowFiles({str(path)!r}, "a"), batch_size=1, shuffle_buffer=1, prefetch=20)
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


OFFSETS = {"huge": 2**30, "negative": -5, "most": 2**31 - 1, "less": 0}


@pytest.mark.parametrize("kind", ["list_", "large_list"])
def test_offsets_that_point_elsewhere(tmp_path, kind):
    """In a process of its own: Arrow believes offsets, and a wrong one was its end."""
    values = pa.array(np.arange(300, dtype=np.float32))
    width = "i4" if kind == "list_" else "i8"
    cases = []
    for name, offset in OFFSETS.items():
        for place in (1, 50, 100):
            offsets = np.arange(0, 303, 3, dtype=width)
            content = offsets.tobytes()
            path = tmp_path / f"{name}{place}.arrow"
            arrays = pa.Array.from_buffers(
                getattr(pa, kind)(pa.float32()), 100, [None, pa.py_buffer(content)], children=[values]
            )
            one = pa.table({"x": arrays, "y": np.arange(100)})
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, one.schema) as writer:
                writer.write_table(one)
            whole = path.read_bytes()
            assert content in whole
            offsets[place] = offset
            path.write_bytes(whole.replace(content, offsets.tobytes()))
            cases.append(str(path))
    code = f"""
    import warnings
    from normkit.data import ArrowFiles, MiniBatches
    warnings.simplefilter("ignore")
    for path in {cases!r}:
        for options in ({{}}, {{"on_bad": "skip"}}, {{"shuffle": False}}):
            try:
                rows = sum(len(x) for x, y in MiniBatches(ArrowFiles(path, x="x", y="y"), **options))
            except ValueError as error:
                assert str(error).startswith(path + ": "), error
                assert "\\n" not in str(error), error
            else:
                assert options == {{"on_bad": "skip"}} and rows == 0, (path, options, rows)
    print("ok")
    """
    assert output_of(code) == "ok"


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_damaged_lists_name_the_file(tmp_path, name):
    """Also while it is opened, when the first list is read for its length."""
    path = tmp_path / name
    data = pa.table({"x": lists(100), "y": np.arange(100)})
    (parquet if name == "t.parquet" else arrow)(
        path, data, **({"compression": "zstd"} if name == "t.parquet" else {})
    )
    good = path.read_bytes()
    for place in range(8, len(good) - 8, 61):
        path.write_bytes(good[:place] + bytes(16) + good[place + 16 :])
        for options in ({}, {"on_bad": "skip", "allow_nonfinite": True}):
            try:
                with warnings.catch_warnings(action="ignore", category=BadDataWarning):
                    list(MiniBatches(ArrowFiles(path, x="x", y="y"), prefetch=0, **options))
            except ValueError as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017
                assert f"{path}: {path}: " not in str(error)  # noqa: PT017


def test_a_damaged_first_list_is_one_row_group_lost(tmp_path):
    path = parquet(
        tmp_path / "t.parquet", pa.table({"x": lists(100), "row": np.arange(100)}), compression="none"
    )
    content = bytearray(path.read_bytes())
    content[4:40] = bytes(36)  # the first page of the first list
    path.write_bytes(content)
    batches = MiniBatches(ArrowFiles(path, x="x", y="row"), on_bad="skip", shuffle=False)
    with pytest.warns(
        BadDataWarning, match=r"skipped 9 bad rows \(1 faults\): .*row group 0 \(from 0\) cannot be read"
    ):
        assert np.concatenate([y for _, y in batches]).tolist() == list(range(9, 100))
