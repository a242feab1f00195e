"""What a saved run makes of data: its own, changed, scaled otherwise, or of another format."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from cli_support import call_fixture, here_fixture, history, printed, table_fixture  # noqa: F401
from normkit.layers import Activation, Dense, Input
from normkit.models import Sequential


def pictures(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of 4×4 pixels of uint8: where the bright line is."""
    labels = (np.arange(rows) % 3).astype(np.uint8)
    pixels = np.random.default_rng(0).integers(0, 64, (rows, 4, 4), dtype=np.uint8)
    pixels[np.arange(rows), labels] += 191
    return pixels, labels


def write_npz(path: Path) -> Path:
    x, y = pictures(150)
    np.savez(path, x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])
    return path


def write_idx(folder: Path) -> Path:
    folder.mkdir()
    x, y = pictures(150)
    for part, rows in (("train", slice(120)), ("t10k", slice(120, None))):
        for kind, values in (("images-idx3", x[rows]), ("labels-idx1", y[rows])):
            head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            content = head + values.tobytes()
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    return folder


def write_csv(path: Path, rows: slice, *, labelled: bool = True) -> Path:
    """The same pixels as numbers from 0 to 255."""
    x, y = pictures(150)
    columns = [x[rows].reshape(len(x[rows]), -1), y[rows]]
    np.savetxt(path, np.column_stack(columns[: 1 + labelled]), fmt="%d", delimiter=",")
    return path


TEST = slice(120, None)


# --- one scale for a run -----------------------------------------------------------------------------


@pytest.mark.parametrize(("write", "name"), [(write_npz, "tiny.npz"), (write_idx, "tiny")])
def test_pixels_in_a_csv_are_scaled_as_in_the_training(call, here, write, name):
    source = write(here / name)
    out = call("train", "--data", source, "--epochs", 5, "--out", "run")[1]
    assert out.startswith("tiny: 120 training and 30 validation rows, 16 features, 3 classes\n")
    assert "\nfeatures divided by 255\n" in out
    last = history(here / "run")[-1]
    assert last["val_accuracy"] > 0.9
    expected = pytest.approx(
        {"rows": 30, "divisor": 255, "loss": last["val_loss"], "accuracy": last["val_accuracy"]}, abs=1e-6
    )
    own = call("predict", "run")[1]

    labelled = write_csv(here / "labelled.csv", TEST)
    unlabelled = write_csv(here / "unlabelled.csv", TEST, labelled=False)
    assert printed(call("evaluate", "run")[1]) == expected
    assert printed(call("evaluate", "run", "--data", labelled)[1]) == expected
    assert call("predict", "run", "--data", labelled)[1] == own
    assert call("predict", "run", "--data", unlabelled)[1] == own
    told = call("predict", "run", "--data", unlabelled, "--out", "p.csv")[1]
    assert told == "wrote p.csv: 30 rows, features divided by 255\n"


def test_pixels_of_uint8_are_not_scaled_for_a_model_that_was_trained_on_a_csv(call, here):
    call("train", "--data", write_csv(here / "train.csv", slice(120)), "--epochs", 3, "--out", "run")
    csv = call("evaluate", "run", "--data", write_csv(here / "test.csv", TEST))[1]
    assert "divisor" not in csv
    assert call("evaluate", "run", "--data", write_npz(here / "tiny.npz"))[1] == csv


def test_digits_in_a_csv_are_scaled_as_the_digits(call, here):
    from sklearn.datasets import load_digits

    call("train", "--epochs", 1, "--out", "run")
    np.savetxt("raw.csv", load_digits().data[:50], fmt="%d", delimiter=",")
    np.savetxt("scaled.csv", load_digits().data[:50] / 16, fmt="%.9g", delimiter=",")
    raw = call("predict", "run", "--data", "raw.csv")[1]
    (here / "run" / "run.json").unlink()  # and with it what is known of the training
    assert call("predict", "run", "--data", "scaled.csv")[1] == raw


# --- data that are not what they were ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "now"), [(lambda lines: lines[:-1], 59), (lambda lines: [lines[0], *lines[:0:-1]], 60)]
)
def test_data_that_changed_since_the_training(call, table, here, change, now):
    call("train", "--data", table, "--epochs", 1, "--out", "run")
    content = table.read_text()
    table.write_text("".join(change(content.splitlines(keepends=True))))
    for arguments in (("evaluate", "run"), ("evaluate", "run", "--data", "table.csv"), ("predict", "run")):
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert err.endswith(
            f"table.csv: has changed since the training (60 rows then, {now} now), so which rows validate is not "
            "known any more; a copy under another name is taken as new data\n"
        )
    shutil.copy(table, "copy.csv")
    assert printed(call("evaluate", "run", "--data", "copy.csv")[1])["rows"] == now
    table.write_text(content)
    assert call("evaluate", "run")[0] == 0


@pytest.mark.parametrize("change", [{"divisor": 0}, {"divisor": None}, {"rows": "x"}, {"seed": 1e999}])
def test_a_damaged_record(call, table, here, change):
    call("train", "--data", table, "--epochs", 1, "--out", "run")
    path = here / "run" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert call("evaluate", "run") == (2, "", "normkit: run/run.json: not the record of a run\n")


# --- models and folders ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "name", "activation"),
    [(Dense(3), "Dense", "linear"), (Activation("sigmoid"), "Activation", "sigmoid")],
)
def test_a_model_that_gives_no_probabilities_is_refused(call, table, last, name, activation):
    model = Sequential([Input((4,)), Dense(3), last])
    model.compile("sgd", "mse")
    model.save("other.safetensors")
    message = (
        f"normkit: other.safetensors: is no classifier: its last layer, {name}, must give a softmax over the labels, "
        f"but its activation is {activation} and its shape (None, 3)\n"
    )
    for command in ("evaluate", "predict"):
        assert call(command, "other.safetensors", "--data", table) == (2, "", message)


def test_softmax_may_be_a_layer(call, table):
    model = Sequential([Input((4,)), Dense(3), Activation("softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.save("other.safetensors")
    for command in ("evaluate", "predict"):
        assert call(command, "other.safetensors", "--data", table)[::2] == (0, "")


def test_a_folder_named_digits_has_another_name_too(call, here):
    write_idx(here / "digits")
    out = call("train", "--data", "./digits", "--epochs", 1, "--out", "run")[1]
    assert out.startswith("digits: 120 training and 30 validation rows, 16 features")
    assert printed(call("evaluate", "run")[1])["rows"] == 30
    assert "./digits" in call("train", "--help")[1]
