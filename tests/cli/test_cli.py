"""The command line: what each command prints and writes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

import normkit
from cli_support import COLUMNS, FILES, call_fixture, here_fixture, history, names, printed, table_fixture  # noqa: F401
from normkit.models import load_model

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist10k"


# --- train -------------------------------------------------------------------------------------------


def test_train_without_arguments_trains_the_tutorial_example_on_digits(call, tmp_path):
    code, out, err = call("train")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "digits: 1438 training and 359 validation rows, 64 features, 10 classes"
    assert lines[1] == "features divided by 16"
    assert lines[2] == "Dense(64) -> BatchNormalization -> Dense(10, softmax): 5066 parameters"
    assert lines[3] == "adam, learning rate 0.001, batches of 32, seed 0"
    assert lines[5].split() == [*COLUMNS, "time"]
    assert [line.split()[0] for line in lines[6:11]] == list("12345")
    assert lines[-1] == "wrote runs/digits-1: curves.png, history.csv, model.safetensors, run.json"
    assert max(map(len, lines)) < 80
    assert not re.search(r"[^\x20-\x7e\n]", out)

    folder = tmp_path / "runs" / "digits-1"
    assert names(folder) == FILES
    rows = history(folder)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[-1]["val_accuracy"] > 0.93
    assert rows[-1]["loss"] < rows[0]["loss"]
    for row, line in zip(rows, lines[6:11], strict=True):
        assert line.split()[:5] == [f"{row['epoch']:.0f}", *(f"{row[name]:.4f}" for name in COLUMNS[1:])]
    assert len({len(line) for line in lines[5:11]}) == 1


def test_picture_is_a_png_of_1200_by_450(call, table, tmp_path):
    call("train", "--data", table, "--epochs", 2, "--out", "run")
    content = (tmp_path / "run" / "curves.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    picture = imread(tmp_path / "run" / "curves.png")
    assert picture.shape[:2] == (450, 1200)
    for half in (picture[:, :600, :3], picture[:, 600:, :3]):
        assert len(np.unique(half.reshape(-1, 3), axis=0)) > 50


def test_same_seed_same_history_other_seed_another(call, table, tmp_path):
    for out, seed in (("a", 3), ("b", 3), ("c", 4)):
        options = ("--layers", "8,bn,relu,dropout:0.2,3", "--epochs", 3, "--out", out, "--seed", seed)
        assert call("train", "--data", table, *options)[0] == 0
    contents = [(tmp_path / out / "history.csv").read_bytes() for out in "abc"]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_options_reach_the_model(call, table, tmp_path):
    code, out, _ = call(
        *("train", "--data", table, "--layers", "8, LN ,gelu,dropout:0.25,7,bn,tanh,5,sigmoid,4,relu,3"),
        *("--batch-size", 7, "--epochs", 1, "--optimizer", "sgd", "--lr", 0.05, "--last", "spread"),
        *("--seed", 9, "--validation-split", 0.5, "--out", "deep/er/run"),
    )
    assert code == 0
    text = " ".join(out.split())
    assert "table: 30 training and 30 validation rows, 4 features, 3 classes" in text
    assert (
        "Dense(8) -> LayerNormalization -> gelu -> Dropout(0.25) -> Dense(7) -> BatchNormalization -> tanh"
        " -> Dense(5) -> sigmoid -> Dense(4) -> relu -> Dense(3, softmax): " in text
    )
    assert "sgd, learning rate 0.05, batches of 7, seed 9" in text
    model = load_model(tmp_path / "deep/er/run/model.safetensors")
    kinds = [type(layer).__name__ for layer in model.layers]
    dense = ["Dense", "Activation"]
    assert kinds[:6] == [
        "Dense",
        "LayerNormalization",
        "Activation",
        "Dropout",
        "Dense",
        "BatchNormalization",
    ]
    assert kinds[6:] == ["Activation", *dense, *dense, "Dense"]
    record = json.loads((tmp_path / "deep/er/run/run.json").read_text())
    assert record == {
        "normkit": normkit.__version__,
        "data": str(table),
        "rows": 60,
        "checksum": record["checksum"],
        "divisor": 1.0,
        "layers": ["8", "ln", "gelu", "dropout:0.25", "7", "bn", "tanh", "5", "sigmoid", "4", "relu", "3"],
        "batch_size": 7,
        "epochs": 1,
        "optimizer": "sgd",
        "lr": 0.05,
        "last": "spread",
        "validation_split": 0.5,
        "seed": 9,
    }


def test_run_folders_are_numbered_and_an_empty_one_is_used(call, table, tmp_path):
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        assert call("train", "--data", table, "--epochs", 1)[0] == 0
    assert call("train", "--data", table, "--epochs", 1, "--out", "empty")[0] == 0
    assert names(tmp_path / "runs") == ["table-1", "table-2"]
    assert names(tmp_path / "empty") == FILES


def test_a_number_that_is_taken_meanwhile_is_passed_over(call, table, tmp_path):
    (tmp_path / "runs" / "table-1").mkdir(parents=True)
    (tmp_path / "runs" / "table-1" / "kept").touch()
    (tmp_path / "runs" / "table-2").touch()
    out = call("train", "--data", table, "--epochs", 1, "--quiet")[1]
    assert out == "runs/table-3\n"
    assert names(tmp_path / "runs") == ["table-1", "table-2", "table-3"]
    assert names(tmp_path / "runs" / "table-1") == ["kept"]


def test_quiet_prints_the_folder_alone(call, table):
    assert call("train", "--data", table, "--epochs", 1, "--out", "run", "--quiet") == (0, "run\n", "")


def test_without_matplotlib_all_but_the_picture_is_written(call, table, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, err = call("train", "--data", table, "--epochs", 1, "--out", "run")
    assert code == 0
    assert err == "normkit: no picture: matplotlib is not installed (pip install 'normkit[train]')\n"
    assert out.endswith("wrote run: history.csv, model.safetensors, run.json\n")
    assert names(tmp_path / "run") == FILES[1:]


def test_a_loss_that_is_not_finite_is_told_and_drawn(call, table, tmp_path):
    code, _, err = call(
        *("train", "--data", table, "--layers", "8,8,3", "--optimizer", "sgd", "--lr", 1e30, "--out", "run"),
    )
    assert code == 0
    assert err == "normkit: the loss is not finite any more: a smaller --lr may help\n"
    assert not np.isfinite(history(tmp_path / "run")[-1]["loss"])
    assert call("evaluate", "run")[::2] == (0, "")
    assert names(tmp_path / "run") == FILES


def test_mnist10k(call, tmp_path):
    if not MNIST.is_dir():
        pytest.skip(f"{MNIST} is not there")
    code, out, _ = call("train", "--data", MNIST, "--epochs", 1, "--out", "run")
    assert code == 0
    assert out.startswith("mnist10k: 8000 training and 2000 validation rows, 784 features, 10 classes\n")
    assert history(tmp_path / "run")[0]["val_accuracy"] > 0.88


# --- evaluate and predict ----------------------------------------------------------------------------


def test_evaluate_gives_what_training_reported(call, table, tmp_path):
    call("train", "--data", table, "--epochs", 3, "--out", "run", "--seed", 5, "--validation-split", 0.4)
    last = history(tmp_path / "run")[-1]
    for arguments in (("run",), ("run/model.safetensors",), ("run", "--data", "table.csv")):
        code, out, err = call("evaluate", *arguments)
        assert (code, err) == (0, "")
        assert printed(out) == pytest.approx(
            {"rows": 24, "loss": last["val_loss"], "accuracy": last["val_accuracy"]}, abs=1e-6
        )


def test_evaluate_takes_all_rows_of_another_csv(call, table, tmp_path):
    call("train", "--data", table, "--epochs", 3, "--out", "run")
    (tmp_path / "other.csv").write_bytes(table.read_bytes())
    assert printed(call("evaluate", "run", "--data", "other.csv")[1])["rows"] == 60


def test_evaluate_takes_the_test_rows_of_an_npz(call, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (30, 3, 3), dtype=np.uint8), np.arange(30) % 2
    np.savez("a.npz", x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    assert call("train", "--data", "a.npz", "--epochs", 2, "--out", "run")[0] == 0
    out = call("evaluate", "run", "--data", "a.npz")[1]
    last = history(tmp_path / "run")[-1]
    expected = {"rows": 10, "divisor": 255, "loss": last["val_loss"], "accuracy": last["val_accuracy"]}
    assert printed(out) == pytest.approx(expected, abs=1e-6)


def read_predictions(text: str) -> tuple[np.ndarray, np.ndarray]:
    header, *lines = text.splitlines()
    cells = np.array([[float(cell) for cell in line.split(",")] for line in lines])
    assert header == ",".join(["label", *(f"p{i}" for i in range(cells.shape[1] - 1))])
    assert all(line.split(",")[0].isdecimal() for line in lines)
    return cells[:, 0], cells[:, 1:]


def test_predict_to_stdout_and_to_a_file(call, table, tmp_path):
    call("train", "--data", table, "--layers", "16,relu,3", "--epochs", 60, "--lr", 0.01, "--out", "run")
    code, out, err = call("predict", "run", "--data", table)
    assert (code, err) == (0, "")
    labels, probabilities = read_predictions(out)
    assert probabilities.shape == (60, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=3e-7)
    np.testing.assert_array_equal(labels, probabilities.argmax(axis=1))
    assert np.mean(labels == np.arange(60) % 3) > 0.9  # in the order of the file

    x = np.loadtxt(table, np.float32, delimiter=",", skiprows=1)[:, :4]
    np.testing.assert_array_equal(
        probabilities.astype(np.float32), load_model(tmp_path / "run/model.safetensors").predict(x, verbose=0)
    )

    np.savetxt("unlabelled.csv", x, delimiter=",", fmt="%.6f")
    code, told, err = call("predict", "run", "--data", "unlabelled.csv", "--out", "p.csv")
    assert (code, told, err) == (0, "wrote p.csv: 60 rows\n", "")
    assert (tmp_path / "p.csv").read_text() == out
    assert names(tmp_path) == ["p.csv", "run", "table.csv", "unlabelled.csv"]


def test_predict_without_data_takes_the_validation_rows(call, table):
    call("train", "--data", table, "--epochs", 1, "--out", "run")
    assert len(read_predictions(call("predict", "run")[1])[0]) == 12


# --- info, help, version -----------------------------------------------------------------------------


def test_info_is_a_table_of_show_config(call):
    code, out, err = call("info")
    assert (code, err) == (0, "")
    told = dict(line.split(maxsplit=1) for line in out.splitlines())
    config = normkit.show_config()
    assert told["normkit"] == normkit.__version__
    assert told["numpy"] == np.__version__
    assert told["isa_available"] == ", ".join(config["isa_available"])
    assert told["num_threads"] == str(config["num_threads"])


def test_version_and_help(call):
    assert call("--version") == (0, f"normkit {normkit.__version__}\n", "")
    code, out, err = call("train", "--help")
    assert (code, err) == (0, "")
    options = "data layers batch-size epochs optimizer lr last validation-split seed backup out quiet"
    assert all(f"--{option} " in out for option in options.split())
    assert "label, else target" in " ".join(out.split())
    code, out, err = call()
    assert (code, out) == (2, "")
    assert all(command in err for command in ("train", "evaluate", "predict", "info"))
