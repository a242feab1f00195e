"""`normkit export`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import numpy as safetensors

from cli_support import Command, call_fixture, here_fixture, table_fixture  # noqa: F401
from normkit.interchange import load_keras, load_keras_weights
from normkit.models import load_model


@pytest.fixture(name="run")
def run_fixture(call: Command, table: Path) -> Path:
    code, _, err = call("train", "--data", table, "--layers", "8,bn,relu,3", "--epochs", 1, "--out", "run")
    assert code == 0, err
    return table.parent / "run"


def test_the_ending_says_what_is_written(call: Command, here: Path, run: Path) -> None:
    model = load_model(run / "model.safetensors")
    for name in ("model.keras", "model.weights.h5", "model.safetensors"):
        assert call("export", "run", name) == (0, f"wrote {name}\n", "")
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    again = load_keras(here / "model.keras")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    load_keras_weights(again, here / "model.weights.h5")
    kernel = safetensors.load_file(here / "model.safetensors")["0.weight"]
    np.testing.assert_array_equal(kernel, model.layers[0].kernel.value.T)
    assert call("export", run / "model.safetensors", here / "again.keras")[0] == 0


def test_what_has_to_be_done_to_the_features_is_told(call: Command, here: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 2, 3), dtype=np.uint8), np.arange(40) % 2
    np.savez("pixels.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    assert call("train", "--data", "pixels.npz", "--layers", "2", "--epochs", 1, "--out", "run")[0] == 0
    assert call("export", "run", "m.keras") == (0, "wrote m.keras: it takes features divided by 255\n", "")


@pytest.mark.parametrize(
    ("model", "out", "message"),
    [
        (
            "run",
            "model.pt",
            "model.pt: expected a name that ends in one of .safetensors, .keras, .weights.h5, .onnx",
        ),
        (
            "run",
            "M.KERAS",
            "M.KERAS: expected a name that ends in .keras, in lower case; Keras opens no other, so write M.keras",
        ),
        ("run", "table.csv/model.keras", "table.csv/model.keras: cannot write there: Not a directory"),
        ("none", "model.keras", "none: No such file or directory"),
        (
            "table.csv",
            "model.keras",
            "table.csv: cannot be read as a normkit model: it is no safetensors file, or cut off within its header",
        ),
    ],
)
def test_errors(call: Command, run: Path, model: str, out: str, message: str) -> None:
    assert call("export", model, out) == (2, "", f"normkit: {message}\n")


def test_a_missing_package(call: Command, here: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    message = "normkit: ONNX is written by onnx, which is not installed: pip install 'normkit[interchange]'\n"
    assert call("export", "run", "model.onnx") == (2, "", message)
    assert not (here / "model.onnx").exists()
