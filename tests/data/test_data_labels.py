"""Labels from every source: whole numbers, of which none is rounded to another; and what is a number in a CSV."""

from __future__ import annotations

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from normkit.data import ArrowFiles, BadDataWarning, CsvFile, Hdf5File, MiniBatches, NpyFile, Stream
from normkit.data.dataset import as_labels
from normkit.data.files import load_csv

MANY = 2**62  # classes


def npy(path, y):
    np.save(path.with_suffix(".npy"), y)
    return NpyFile(path.with_suffix(".npy"))


def hdf5(path, y):
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file["y"] = y
    return Hdf5File(path.with_suffix(".h5"), "y")


def parquet(path, y):
    pq.write_table(pa.table({"y": y}), path.with_suffix(".parquet"))
    return ArrowFiles(path.with_suffix(".parquet"), x="y")


def csv(path, y):
    path.with_suffix(".csv").write_text("x,y\n" + "".join(f"0,{label}\n" for label in y.tolist()))
    return CsvFile(path.with_suffix(".csv"), y="y").map(lambda x, y: y)


@pytest.mark.parametrize("source", [npy, hdf5, parquet, csv])
@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("int64", 2**53 - 1, 2**53),
        ("int64", 2**53 - 1, 2**53 + 1),
        ("int64", 7, -1),
        ("int64", 7, -(2**63)),
        ("uint64", 2**53 - 1, 2**64 - 1),
        ("uint64", 7, 2**63),
        ("float64", 2**53 - 1, 2.0**53),
        ("float64", 7, 1e300),
        ("float64", 7, 0.5),
        ("float64", 7, -1.0),
        ("float32", 2**24 - 1, 2.0**24),
        ("float16", 2047, 2048),
    ],
)
def test_labels_are_refused_and_not_rounded(tmp_path, source, dtype, good, bad):
    if source is csv and dtype in ("float32", "float16"):
        pytest.skip("what a CSV has is float64")
    labels = source(tmp_path / "t", np.array([0, good, bad], dtype)).labels(MANY)
    with pytest.raises(ValueError, match=r"labels must be (whole numbers from 0 to|less than)") as caught:
        list(MiniBatches(labels, shuffle=False, prefetch=0))
    assert str(caught.value).startswith(f"{tmp_path / 't'}.")
    with pytest.warns(BadDataWarning, match="skipped 1 bad rows"):
        ((y,),) = MiniBatches(labels, shuffle=False, on_bad="skip", prefetch=0)
    assert y.tolist() == [0, good]
    assert y.dtype == np.int64


def test_a_csv_rounds_no_label(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x,y\n0,9007199254740993\n")
    with pytest.raises(
        ValueError, match="labels must be less than 9007199254740992, up to which float64 is exact"
    ):
        list(MiniBatches(CsvFile(path, y="y").labels(MANY)))
    path.write_text("x,y\n16777217,1\n")  # features are float32
    with pytest.raises(ValueError, match="less than 16777216, up to which float32 is exact, got 16777216"):
        list(MiniBatches(CsvFile(path, x="x").labels(MANY)))


def test_labels_in_arrays(tmp_path):
    for y in (np.array([0, 70000]), np.array([0, 2048], "f2"), np.array([0, 2**63], "u8")):
        with pytest.raises(ValueError, match=r"t: training labels must be .* in row 1 \(from 0\)"):
            as_labels("t: training", y, 2)
    assert as_labels("t", np.array([True, False]), 2).tolist() == [1, 0]


@pytest.mark.parametrize("number", [0, -1, 2.5, "3", None])
def test_the_number_of_classes(number):
    with pytest.raises(ValueError, match="labels: num_classes must be a positive integer"):
        MiniBatches(np.zeros(3))._data.labels(number)


@pytest.mark.parametrize(("first", "then"), [("int32", 2**31), ("int8", -129), ("int64", 2**63)])
def test_a_stream_wraps_no_number(first, then):
    stream = Stream([np.zeros(2, first), np.array([0, then], "u8" if then == 2**63 else "i8")])
    with pytest.raises(
        ValueError, match=f"item 1 .from 0.: has values that {first}, the type of the first item, does"
    ):
        list(MiniBatches(stream, shuffle=False))


NUMBERS = ["1", "-1", "+1", "1.", ".5", "1.5", "1e3", "1E-3", "+1.5e+03", " 1", "1\t", '"1"', "007", "1e-400"]
NO_NUMBERS = [
    "١٢",  # Arabic-Indic
    "１２",  # full width
    "१",  # Devanagari
    "1_000",
    "0x10",
    "0x1p3",
    "1\u00a0",  # a space that does not break
    "\u30001",  # an ideographic one
    "−1",  # a minus sign, not a hyphen
    '"1,5"',
    "1 000",
    "1e",
    "e5",
    "--1",
    "+",
    ".",
    "1.2.3",
    "1d5",
    "1f",
    "nan(1)",
    "infin",
    "1.#INF",
    "NA",
    "½",
    "²",
    "1\x1c",
    "",
    "True",
]


@pytest.mark.parametrize("cell", NUMBERS)
@pytest.mark.parametrize("beside", ["1", "x"])  # as a block, and cell by cell
def test_what_is_a_number(tmp_path, cell, beside):
    path = tmp_path / "t.csv"
    path.write_text(f"a,y\n{cell},3\n{beside},3\n", encoding="utf-8")
    batches = MiniBatches(CsvFile(path, x="a", y="y"), shuffle=False, on_bad="skip", prefetch=0)
    if beside == "x":
        with pytest.warns(BadDataWarning, match="line 3, column 1: 'x' is not a finite number"):
            ((x, _),) = batches
    else:
        ((x, _),) = batches
    assert x[0] == np.float32(float(cell.strip('"')))


@pytest.mark.parametrize("cell", NO_NUMBERS)
@pytest.mark.parametrize("column", ["a", "y"])
def test_what_is_no_number(tmp_path, cell, column):
    """In features and in labels."""
    path = tmp_path / "t.csv"
    row = f"{cell},3" if column == "a" else f"3,{cell}"
    path.write_text(f"a,y\n1,1\n{row}\n", encoding="utf-8")
    place = f"line 3, column {1 if column == 'a' else 2}: "
    for read in (lambda: load_csv(path), lambda: list(MiniBatches(CsvFile(path, y="y")))):
        with pytest.raises(ValueError, match="is not a finite number") as caught:
            read()
        assert str(caught.value).startswith(f"{path}: {place}")


@pytest.mark.parametrize("cells", ["١,٢", "1_000,2_000", "0x10,0x11", "-0x1,0x2", "１,２"])
def test_numbers_in_other_notation_are_no_header(tmp_path, cells):
    """Else the first row would be lost without a word."""
    path = tmp_path / "t.csv"
    path.write_text(f"{cells}\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 1, column 1: .* is not a finite number"):
        load_csv(path)


@pytest.mark.parametrize("cell", ["nan", "NaN", "-nan", "inf", "-Inf", "+infinity", "INFINITY"])
def test_what_is_not_finite(tmp_path, cell):
    path = tmp_path / "t.csv"
    path.write_text(f"a,y\n1,1\n{cell},3\n")
    with pytest.raises(ValueError, match=r"line 3, column 1 \('a'\): .* is not a finite number"):
        list(MiniBatches(CsvFile(path, y="y")))
    ((x, _),) = MiniBatches(CsvFile(path, x="a", y="y"), shuffle=False, allow_nonfinite=True)
    np.testing.assert_array_equal(x, np.float32([1, float(cell)]))
