"""Bad files and rows: where they are by default, and how many with ``on_bad="skip"``."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from normkit.data import BadDataWarning, Files, MiniBatches, NpyFile, Stream


@pytest.fixture
def x(tmp_path):
    """100 rows; 17 has NaN in column 2, 40 has -inf in column 0, 41 NaN in both."""
    rows = np.arange(300.0).reshape(100, 3)
    rows[17, 2] = np.nan
    rows[40, 0] = -np.inf
    rows[41, :2] = np.nan
    np.save(tmp_path / "x.npy", rows)
    return tmp_path / "x.npy"


GOOD = [i for i in range(100) if i not in (17, 40, 41)]


def message_of(batches):
    with pytest.raises(ValueError) as caught:
        list(batches)
    return str(caught.value)


def test_values_that_are_not_finite_are_named(x):
    said = message_of(MiniBatches(NpyFile(x), shuffle=False))
    assert said == f"{x}: row 17 (from 0), column 2 (from 0): nan is not a finite number"
    said = message_of(MiniBatches(NpyFile(x).part(30, 60), shuffle=False))
    assert said == f"{x}: row 40 (from 0), column 0 (from 0): -inf is not a finite number"
    y = np.arange(100)
    y_file = x.with_name("y.npy")
    np.save(y_file, np.where(y == 3, np.nan, y))
    said = message_of(MiniBatches(NpyFile(x).part(0, 10), NpyFile(y_file).part(0, 10), shuffle=False))
    assert said == f"{y_file}: row 3 (from 0): nan is not a finite number"


def test_they_can_be_allowed(x):
    rows = np.concatenate([p for (p,) in MiniBatches(NpyFile(x), shuffle=False, allow_nonfinite=True)])
    np.testing.assert_array_equal(rows, np.load(x))


def test_arrays_in_memory_are_not_searched():
    (batch,) = MiniBatches(np.array([[np.nan, 1.0]]))
    assert np.isnan(batch[0][0, 0])


def test_finite_values_whose_sum_is_not_are_good(tmp_path):
    np.save(tmp_path / "x.npy", np.full((10, 3), 1e308))
    assert len(list(MiniBatches(NpyFile(tmp_path / "x.npy"), batch_size=5))) == 2


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_skipping_counts_and_reports_once_an_epoch(x, shuffle, prefetch):
    batches = MiniBatches(
        NpyFile(x),
        np.arange(100),
        batch_size=7,
        shuffle=shuffle,
        seed=0,
        shuffle_buffer=20,
        prefetch=prefetch,
        on_bad="skip",
    )
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            parts = list(batches)
        (warning,) = caught
        assert warning.category is BadDataWarning
        assert warning.filename == __file__
        assert "MiniBatches: skipped 3 bad rows (3 faults): " in str(warning.message)
        assert f"{x}: row 41 (from 0), column 0 (from 0): nan is not a finite number" in str(warning.message)
        assert batches.skipped == 3
        rows = np.concatenate([y for _, y in parts])
        assert sorted(rows) == GOOD
        assert [len(y) for _, y in parts] == [7] * 13 + [6]
        np.testing.assert_array_equal(np.concatenate([p for p, _ in parts]), np.load(x)[rows])


@pytest.mark.parametrize(
    ("last", "sizes"), [("keep", [32, 32, 32, 1]), ("drop", [32] * 3), ("merge", [32, 32, 33])]
)
@pytest.mark.filterwarnings("ignore::normkit.data.BadDataWarning")
def test_the_rule_for_the_last_batch_holds_after_skipping(x, last, sizes):
    batches = MiniBatches(NpyFile(x), on_bad="skip", last=last)
    assert [len(p) for (p,) in batches] == sizes


def test_a_good_file_warns_of_nothing(x):
    batches = MiniBatches(NpyFile(x).part(50, 100), on_bad="skip")
    assert len(list(batches)) == 2
    assert batches.skipped == 0


def test_a_row_that_is_bad_in_two_files_is_one(x):
    y = x.with_name("y.npy")
    values = np.arange(100.0)
    values[[17, 18]] = np.nan
    np.save(y, values)
    batches = MiniBatches(NpyFile(x).map(refuse_nan), NpyFile(y).map(refuse_nan), on_bad="skip")
    with pytest.warns(BadDataWarning, match=r"skipped 4 bad rows \(5 faults\)"):
        rows = np.concatenate([part for _, part in batches])
    assert sorted(rows) == [i for i in GOOD if i != 18]
    assert batches.skipped == 4


def refuse_nan(rows):
    if not np.isfinite(rows).all():
        raise ValueError("not finite")
    return rows


def test_rows_in_memory_that_a_function_refuses():
    x = np.array([[0.0], [np.nan], [2.0]])
    batches = MiniBatches(x, np.arange(3), on_bad="skip", shuffle=False)
    with pytest.warns(BadDataWarning, match=r"array 1: row 1 \(from 0\): not finite"):
        ((_, y),) = batches.map(refuse_nan, 0)
    assert (y.tolist(), batches.skipped) == ([0, 2], 1)
    with pytest.raises(ValueError, match="not finite"):
        MiniBatches(x, np.arange(3)).map(refuse_nan, 0)


def test_only_the_first_few_are_shown(tmp_path):
    np.save(tmp_path / "x.npy", np.full((50, 2), np.nan))
    batches = MiniBatches(NpyFile(tmp_path / "x.npy"), on_bad="skip", shuffle=False)
    with pytest.warns(BadDataWarning, match=r"skipped 50 bad rows \(50 faults\): .*; and 45 more$"):
        assert list(batches) == []


def test_labels_out_of_range_are_named(tmp_path):
    labels = np.array([0, 1, 2, 1, 3, 0])
    np.save(tmp_path / "y.npy", labels)
    source = NpyFile(tmp_path / "y.npy").labels(3)
    said = message_of(MiniBatches(np.zeros((6, 2)), source, shuffle=False))
    assert said == f"{tmp_path / 'y.npy'}: row 4 (from 0): labels must be whole numbers from 0 to 2, got 3"
    batches = MiniBatches(np.zeros((6, 2)), source, shuffle=False, on_bad="skip")
    with pytest.warns(BadDataWarning, match="skipped 1 bad rows"):
        ((_, y),) = batches
    np.testing.assert_array_equal(y, [0, 1, 2, 1, 0])
    assert y.dtype == np.int64
    for wrong, text in ((-1.0, "-1"), (0.5, "0.5"), (np.nan, "nan")):
        np.save(tmp_path / "y.npy", np.array([0.0, wrong]))
        said = message_of(MiniBatches(NpyFile(tmp_path / "y.npy").labels(3), allow_nonfinite=True))
        assert said.endswith(f"row 1 (from 0): labels must be whole numbers from 0 to 2, got {text}")


def test_labels_in_a_column(tmp_path):
    np.save(tmp_path / "y.npy", np.array([[0.0], [2.0]]))
    ((y,),) = MiniBatches(NpyFile(tmp_path / "y.npy").labels(3), shuffle=False)
    np.testing.assert_array_equal(y, [0, 2])
    np.save(tmp_path / "y.npy", np.zeros((2, 3)))
    with pytest.raises(TypeError, match=r"one per row, got rows of shape \(3,\)"):
        NpyFile(tmp_path / "y.npy").labels(3)


def test_a_function_that_refuses_a_block_but_no_row_is_an_error(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((5, 2)))

    def refuse(x):
        if len(x) > 1:
            raise ValueError("too many")
        return x

    for on_bad in ("error", "skip"):
        assert message_of(MiniBatches(NpyFile(tmp_path / "x.npy").map(refuse), on_bad=on_bad)) == "too many"


def test_a_bad_file_among_others(tmp_path):
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.full((10, 2), float(i)))
    bad = tmp_path / "1.npy"
    bad.write_bytes(bad.read_bytes()[:-8])
    files = Files(NpyFile, sorted(tmp_path.glob("*.npy")))
    assert message_of(MiniBatches(files)).startswith(f"{bad}: not a usable .npy file: ")
    batches = MiniBatches(files, on_bad="skip", batch_size=8)
    with pytest.warns(BadDataWarning, match=r"skipped 0 bad rows \(1 faults\): .*1\.npy: not a usable"):
        rows = np.concatenate([p for (p,) in batches])
    assert sorted(rows[:, 0]) == [0.0] * 10 + [2.0] * 10
    (tmp_path / "0.npy").write_bytes(b"")
    (tmp_path / "2.npy").unlink()
    with pytest.raises(ValueError, match=r"0\.npy: the file is empty"):
        Files(NpyFile, sorted(tmp_path.glob("*.npy")))


def items():
    yield np.zeros((4, 3)), np.arange(4)
    yield np.ones((4, 2)), np.arange(4)
    yield np.ones((4, 3)), np.arange(3)
    yield np.array([[1.0, np.inf, 2.0], [1.0, 2.0, 3.0]]), np.arange(2)
    yield np.array([["a", "b", "c"]]), np.arange(1)
    yield (np.ones((2, 3)),)


FAULTS = [
    "Stream: item 1 (from 0): has rows of shape (2,), the first item (3,)",
    "Stream: item 2 (from 0): arrays must be equal in length, got shapes (4, 3), (3,)",
    "Stream: row 12 (from 0), array 1 at (1,): inf is not a finite number",
    "Stream: item 4 (from 0): must be of real numbers, got <U1",
    "Stream: item 5 (from 0): has 1 arrays, the first item 2",
]


def test_items_of_a_stream_that_do_not_fit_the_first():
    batches = MiniBatches(Stream(items), batch_size=3, shuffle=False, on_bad="skip")
    with pytest.warns(BadDataWarning) as caught:
        parts = list(batches)
    message = str(caught[0].message)
    for fault in FAULTS:
        assert fault in message
    assert batches.skipped == 4 + 4 + 1 + 1 + 2
    np.testing.assert_array_equal(np.concatenate([y for _, y in parts]), [0, 1, 2, 3, 1])
    assert message_of(MiniBatches(Stream(items), batch_size=3, shuffle=False)) == FAULTS[0]
