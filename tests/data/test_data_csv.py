"""Tables of numbers: header, label column, split, and what is said about a file that is wrong."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from normkit.data.files import load, load_csv, load_csv_features


def text(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def failure(call: object, *args: object) -> str:
    """The one line that a loader's ValueError says."""
    with pytest.raises(ValueError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("content", "x", "y"),
    [
        ("1,2,0\n3,4,1\n", [[1, 2], [3, 4]], [0, 1]),
        ("a,b,c\n1,2,0\n3,4,1\n", [[1, 2], [3, 4]], [0, 1]),
        ("label,a,b\n0,1,2\n1,3,4\n", [[1, 2], [3, 4]], [0, 1]),
        ("a, Target ,b\n1,0,2\n3,1,4\n", [[1, 2], [3, 4]], [0, 1]),
        ("class,a,label\n5,1,0\n6,3,1\n", [[5, 1], [6, 3]], [0, 1]),
        ("0,1,class\n1,2,0\n3,4,1\n", [[1, 2], [3, 4]], [0, 1]),
        ('\ufeff"a ""b"", c",label\r\n"1.5",0\r\n\r\n-2e1,1\r\n', [[1.5], [-20]], [0, 1]),
        ("1,2,0\n3,4,1", [[1, 2], [3, 4]], [0, 1]),
        ("1,2,0\n", [[1, 2]], [0]),
    ],
)
def test_csv_header_and_label_column(tmp_path, content, x, y):
    features, labels = load_csv(text(tmp_path / "t.csv", content))
    assert (features.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(features, x)
    np.testing.assert_array_equal(labels, y)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty, or has no rows below its header"),
        ("\n\n", "the file is empty, or has no rows below its header"),
        ("a,b,label\n", "the file is empty, or has no rows below its header"),
        ("a,label\n1,0\nx1,1\n", "line 3, column 1: 'x1' is not a finite number"),
        ("a,label\n1,0\n\n2,one\n", "line 4, column 2: 'one' is not a finite number"),
        ("1,0\n,1\n", "line 2, column 1: '' is not a finite number"),
        ("1,x,0\n1,2,0\n", "line 1, column 2: 'x' is not a finite number"),
        ("1,0\nnan,1\n", "line 2, column 1: 'nan' is not a finite number"),
        ("1,0\n1,1\n-inf,1\n", "line 3, column 1: '-inf' is not a finite number"),
        ("1,0\n1e39,1\n", "line 2, column 1: '1e39' is too large for float32"),
        ("1,0\n1,1e300\n", "line 2, column 2: '1e300' is too large for float32"),
        ("1,0\n-1e999,1\n", "line 2, column 1: '-1e999' is too large for float32"),
        ("1,0\n1e,1\n", "line 2, column 1: '1e' is not a finite number"),
        ("1,2,0\n1,0\n", "line 2 has 2 cells, the lines before have 3"),
        ("a,b,label\n1,2,0\n1,2,3,0\n", "line 3 has 4 cells, the lines before have 3"),
        ("1;0\n2;1\n", "line 2: separated by ';'? normkit reads commas"),
        ("a\tlabel\n2\t1\n", r"line 2: separated by '\t'? normkit reads commas"),
        ("1,0\n1,16777217\n", "got 16777217 in row 1 (from 0)"),
        ("1,0\n1,0.9999999999\n", "got 0.9999999999 in row 1 (from 0)"),
        ("1\n2\n", "needs a feature and a label column separated by a comma, has one column"),
        ("1,0\n1,-1\n", "column 2 labels must be whole numbers from 0 to 65535, got -1 in row 1 (from 0)"),
        (
            "label,a\n0.5,1\n",
            "column 1 labels must be whole numbers from 0 to 65535, got 0.5 in row 0 (from 0)",
        ),
        ("1,0\n1,70000\n", "got 70000 in row 1 (from 0)"),
    ],
)
def test_wrong_csv(tmp_path, content, message):
    path = text(tmp_path / "t.csv", content)
    said = failure(load, path)
    assert said.startswith(f"{path}: ")
    assert message in said


def test_csv_that_is_not_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xff\xfe1,0\n")
    assert failure(load, path) == f"{path}: not a text file in UTF-8 (byte 0)"
    path.write_bytes(b"1,0\n" * 40000 + b"\xff,0\n")  # beyond the first buffer
    assert failure(load, path).startswith(f"{path}: not a text file in UTF-8")
    path.write_text("a" * 200000 + ",label\n1,0\n")  # longer than the csv module takes
    assert failure(load, path).startswith(f"{path}: not a table in CSV")


def test_csv_split_is_seeded_and_loses_no_row(tmp_path):
    path = text(tmp_path / "t.csv", "".join(f"{i},{i % 3}\n" for i in range(20)))
    one, again, other = load(path, seed=1), load(path, seed=1), load(path, seed=2)
    assert (len(one.x_train), len(one.x_test), one.num_classes) == (16, 4, 3)
    np.testing.assert_array_equal(one.x_train, again.x_train)
    assert not np.array_equal(one.x_test, other.x_test)
    rows = np.concatenate([one.x_train, one.x_test])[:, 0]
    np.testing.assert_array_equal(np.sort(rows), np.arange(20))
    np.testing.assert_array_equal(np.concatenate([one.y_train, one.y_test]), rows.astype(int) % 3)


@pytest.mark.parametrize(
    ("rows", "share", "tests"), [(10, 0.5, 5), (10, 0.001, 1), (10, 0.999, 9), (2, 0.5, 1)]
)
def test_split_leaves_a_row_on_both_sides(tmp_path, rows, share, tests):
    path = text(tmp_path / "t.csv", "1,0\n" * rows)
    data = load(path, validation_split=share)
    assert (len(data.x_test), len(data.x_train)) == (tests, rows - tests)


def test_split_that_cannot_be(tmp_path):
    path = text(tmp_path / "t.csv", "1,0\n")
    assert failure(load, path) == f"{path}: one row cannot be split into training and validation"
    for share in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="validation_split must be between 0 and 1, got"):
            load(path, validation_split=share)


def test_csv_features_with_and_without_labels(tmp_path):
    path = text(tmp_path / "t.csv", "label,a,b\n0,1,2\n1,3,4\n")
    np.testing.assert_array_equal(load_csv_features(path, 2), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(load_csv_features(path, 3), [[0, 1, 2], [1, 3, 4]])
    assert failure(load_csv_features, path, 5) == (
        f"{path}: expected 5 features, with or without a label column, has 3 columns"
    )
