"""CSV files larger than memory: lines, columns, and what is said of lines that are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from normkit.data import BadDataWarning, CsvFile, Files, MiniBatches


def text(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def numbered(path, rows=1000, end="\n", header="a,b,label\n"):
    return text(path, header + "".join(f"{i},{i * 2}.5,{i % 7}{end}" for i in range(rows)))


def failure(call, *args, **kwargs):
    with pytest.raises(ValueError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


BATCHING = [{"shuffle": False}, {"shuffle_buffer": 300}, {"shuffle_buffer": 10}, {}]


@pytest.mark.parametrize("options", BATCHING)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", "\r\n\r\n\n"])
@pytest.mark.parametrize("header", ["", "a,b,label\n", '\ufeff"a","b","label"\n', "\n\n", "\ufeff"])
def test_every_row_once(tmp_path, options, end, header):
    path = numbered(tmp_path / "t.csv", end=end, header=header)
    source = CsvFile(path, y=-1)
    assert len(source) == 1000
    batches = list(MiniBatches(source, batch_size=64, seed=0, **options))
    rows = np.concatenate([x[:, 0] for x, _ in batches])
    assert sorted(rows) == list(range(1000))
    for x, y in batches:
        assert (x.dtype, y.dtype) == (np.float32, np.float64)
        np.testing.assert_array_equal(x[:, 1], x[:, 0] * 2 + 0.5)
        np.testing.assert_array_equal(y, x[:, 0] % 7)


def test_any_part(tmp_path):
    source = CsvFile(numbered(tmp_path / "t.csv", rows=200), x=0)
    for start in range(0, 201, 13):
        for stop in range(start, 201, 17):
            assert source.read(start, stop).arrays[0].tolist() == list(range(start, stop))


def test_lines_across_the_pieces_in_which_the_file_is_searched(tmp_path, monkeypatch):
    contents = ["1,2\n33,4\r\n\r\n5,6\n\n\n7,8", "1,2\r33,4\r\r5,6\r\n7,8\r\n", "\n1,2\n33,4\n5,6\n7,8\n\n"]
    for content in contents:
        path = text(tmp_path / "t.csv", content)
        for chunk in range(1, 12):
            monkeypatch.setattr("normkit.data.tables._CHUNK", chunk)
            monkeypatch.setattr("normkit.data.tables._STRIDE", 2)
            monkeypatch.setattr("normkit.data.tables._first_record", lambda _: (["1", "2"], 1))
            source = CsvFile(path)
            (block,) = (source.read(0, len(source)),)
            assert block.arrays[0].tolist() == [[1, 2], [33, 4], [5, 6], [7, 8]]
            assert source.read(3, 4).arrays[0].tolist() == [[7, 8]]


def test_which_columns(tmp_path):
    path = numbered(tmp_path / "t.csv")
    assert [a.shape[1:] for a in CsvFile(path).empty] == [(3,)]
    assert [a.shape[1:] for a in CsvFile(path, y="label").empty] == [(2,), ()]
    assert [a.shape[1:] for a in CsvFile(path, x="b", y=["a", "label"]).empty] == [(), (2,)]
    source = CsvFile(path, x=["b", 0], y=-1)
    assert source.read(3, 4).arrays[0].tolist() == [[6.5, 3]]
    zero_one = text(tmp_path / "n.csv", "0,1,class\n1,2,0\n3,4,1\n")
    assert len(CsvFile(zero_one, y="class")) == 2
    assert failure(CsvFile, path, y="z") == f"{path}: has no column 'z'; columns are a, b, label"
    assert failure(CsvFile, path, y=3) == f"{path}: has no column 3, but 3 columns, from 0"
    plain = numbered(tmp_path / "p.csv", header="")
    assert (
        failure(CsvFile, plain, y="z")
        == f"{plain}: has no column 'z'; it has no header, so use numbers, from 0"
    )
    assert failure(CsvFile, path, y=[0, 1, 2]) == f"{path}: no column is left for an array, of 3 columns"
    assert failure(CsvFile, path, y=[]) == f"{path}: no column is left for an array, of 3 columns"
    twice = text(tmp_path / "d.csv", "a,a\n1,2\n")
    assert failure(CsvFile, twice, y="a") == f"{twice}: has 2 column 'a'; columns are a, a"


@pytest.mark.parametrize("content", ["", "\n\n", "a,b\n", "\ufeff", "a,b\n\n\r\n"])
def test_no_rows(tmp_path, content):
    path = text(tmp_path / "t.csv", content)
    assert failure(CsvFile, path) == f"{path}: the file is empty, or has no rows below its header"


def test_one_row_and_one_column(tmp_path):
    assert [x.tolist() for (x,) in MiniBatches(CsvFile(text(tmp_path / "t.csv", "7")))] == [[[7.0]]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2", "line 504 has 2 cells, the lines before have 3"),
        ("1,2,3,4", "line 504 has 4 cells, the lines before have 3"),
        ("1,x,3", "line 504, column 2: 'x' is not a finite number"),
        (",1,3", "line 504, column 1: '' is not a finite number"),
        ("1_0,1,3", "line 504, column 1: '1_0' is not a finite number"),
        (" ", "line 504 has 1 cells, the lines before have 3"),
        ('1,"2,3', "line 504 has 2 cells, the lines before have 3"),
        ('1,2,"3', None),
        ("1,nan,3", "line 504, column 2 ('b'): nan is not a finite number"),
        ("-inf,1,3", "line 504, column 1 ('a'): -inf is not a finite number"),
        ("1,1e39,3", "line 504, column 2 ('b'): inf is not a finite number"),
        ("1,1,nan", "line 504, column 3 ('label'): labels must be whole numbers from 0 to 6, got nan"),
        (b"1,\xff,3", "not a text file in UTF-8 (byte "),
        ("1,2,9", "line 504, column 3 ('label'): labels must be whole numbers from 0 to 6, got 9"),
        ("1,2,0.5", "line 504, column 3 ('label'): labels must be whole numbers from 0 to 6, got 0.5"),
        (
            "1,2," + "9" * 140000,
            "line 504, column 3 ('label'): labels must be whole numbers from 0 to 6, got inf",
        ),
        ("1,x," + "9" * 140000, "line 504: not a table in CSV (field larger than field limit (131072))"),
        ("1;2;3", "line 504 has 1 cells, the lines before have 3"),
    ],
)
def test_a_bad_line_is_named_or_skipped(tmp_path, line, message):
    path = numbered(tmp_path / "t.csv")
    lines = path.read_bytes().split(b"\n")
    lines[503:503] = [line if isinstance(line, bytes) else line.encode()]
    lines[10:10] = [b"", b"", b""]  # so that rows are not lines
    lines[503], lines[506] = lines[506], lines[503]
    path.write_bytes(b"\n".join(lines))
    for options in BATCHING:
        batches = MiniBatches(CsvFile(path, y="label").labels(7), **options)
        if message is None:
            assert sum(len(y) for _, y in batches) == 1001
            continue
        assert failure(list, batches).startswith(f"{path}: {message}")
        batches = MiniBatches(CsvFile(path, y="label").labels(7), on_bad="skip", **options)
        with pytest.warns(BadDataWarning, match=r"skipped 1 bad rows \(1 faults\): "):
            rows = np.concatenate([x[:, 0] for x, _ in batches])
        assert sorted(rows) == list(range(1000))


def test_the_byte_that_is_not_utf8(tmp_path):
    content = "\ufeff1,2\r\n3,4\r\n".encode() + b"5,\xff\r\n"
    path = text(tmp_path / "t.csv", content)
    said = failure(list, MiniBatches(CsvFile(path)))
    assert said == f"{path}: not a text file in UTF-8 (byte {content.index(0xFF)})"


def test_a_file_that_changes_is_an_error(tmp_path):
    path = numbered(tmp_path / "t.csv")
    source = CsvFile(path)
    numbered(path, rows=900)
    assert failure(list, MiniBatches(source)) == f"{path}: the file has changed since it was opened"


def test_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("normkit.data.tables._LONGEST_LINE", 3 << 20)
    path = text(tmp_path / "t.csv", b"1,2\n" + b"1" * (5 << 20))
    assert failure(CsvFile, path) == f"{path}: not a table in CSV (a line of more than 3145728 bytes)"


def test_several_files(tmp_path):
    paths = [numbered(tmp_path / f"{i}.csv", rows=100 * i) for i in (1, 2)]
    source = Files(lambda path: CsvFile(path, y="label"), paths)
    assert len(source) == 300
    assert sum(len(y) for _, y in MiniBatches(source, shuffle_buffer=100)) == 300
