"""Compiled models that go to Keras in a `.keras` file and come from there: the same optimizer, loss and metrics, and a training
that goes on.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normkit import layers, losses, metrics
from normkit.models import Sequential, load_model
from normkit.optimizers import schedules
from test_interchange import close

pytestmark = [pytest.mark.parity]

OPTIMIZERS = [
    ("SGD", {}),
    ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True, "clipnorm": 1.0}),
    (
        "SGD",
        {"momentum": 0.5, "use_ema": True, "ema_overwrite_frequency": 4, "gradient_accumulation_steps": 3},
    ),
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.01, "gradient_accumulation_steps": 2}),
    ("AdamW", {"global_clipnorm": 0.5, "use_ema": True}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.5, "centered": True}),
    ("Adagrad", {"learning_rate": 0.1}),
    ("Adadelta", {"learning_rate": 1.0}),
    ("Adamax", {}),
    ("Nadam", {"learning_rate": 0.01}),
    ("Lion", {"learning_rate": 0.001}),
]
RNG = np.random.default_rng(4)
X, Y = RNG.normal(1.0, 2.0, (160, 4)).astype(np.float32), RNG.normal(size=(160, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def keras_stays_quiet(keras: Any) -> Any:
    """Keras's own warnings are not ours; that of state which it could not load is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*(could not be loaded|Skipping variable).*")
        warnings.filterwarnings("error", message=".*(starts anew|normkit lacks|Keras has no).*")
        yield


def go_on(model: Any) -> Any:
    model.fit(X, Y, batch_size=16, epochs=1, shuffle=False, verbose=0)
    return model


def made(library: Any, name: str, arguments: dict[str, Any], **compiled: Any) -> Any:
    """Return a model of this library or of Keras."""
    parts = library.layers
    hidden = [parts.Dense(6, "relu"), parts.BatchNormalization()]
    model = library.Sequential([library.Input((4,)), *hidden, parts.Dense(3)])
    model.compile(getattr(library.optimizers, name)(**arguments), **{"loss": "mse", **compiled})
    return model


def same_state(mine: Any, theirs: Any) -> None:
    assert mine.optimizer.iterations == int(theirs.optimizer.iterations)
    for own, other in zip(mine.get_weights(), theirs.get_weights(), strict=True):
        close(own, other, factor=100)


@pytest.mark.parametrize(("name", "arguments"), OPTIMIZERS)
@pytest.mark.parametrize("steps", [0, 1])
def test_from_here_to_keras(
    keras: Any, tmp_path: Path, name: str, arguments: dict[str, Any], steps: int
) -> None:
    import normkit

    mine = made(normkit, name, arguments)
    for _ in range(steps):
        go_on(mine)
    path = tmp_path / "m.keras"
    mine.save(path)
    theirs = keras.models.load_model(path)
    assert type(theirs.optimizer).__name__ == name
    same_state(go_on(mine), go_on(theirs))
    again = load_model(path)
    assert again.optimizer.get_config() == mine.optimizer.get_config()
    go_on(again)
    for own, other in zip(again.get_weights(), mine.get_weights(), strict=True):
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize(("name", "arguments"), OPTIMIZERS)
@pytest.mark.parametrize("steps", [0, 1])
def test_from_keras_to_here(
    keras: Any, tmp_path: Path, name: str, arguments: dict[str, Any], steps: int
) -> None:
    theirs = made(keras, name, arguments, metrics=["mae"])
    for _ in range(steps):
        go_on(theirs)
    theirs.save(tmp_path / "m.keras")
    mine = load_model(tmp_path / "m.keras")
    assert type(mine.optimizer).__name__ == name
    same_state(go_on(mine), go_on(theirs))
    assert list(mine.evaluate(X, Y, verbose=0, return_dict=True)) == ["loss", "mae"]


def test_schedules(keras: Any, tmp_path: Path) -> None:
    import normkit

    for rate in (
        schedules.CosineDecay(0.1, 15, warmup_target=0.2, warmup_steps=3),
        schedules.CosineDecayRestarts(0.1, 5),
        schedules.ExponentialDecay(0.1, 5, 0.5, staircase=True),
        schedules.PiecewiseConstantDecay([5, 12], [0.1, 0.05, 0.01]),
        schedules.PolynomialDecay(0.1, 20),
        schedules.InverseTimeDecay(0.1, 5, 0.5),
    ):
        mine = go_on(made(normkit, "SGD", {"learning_rate": rate, "momentum": 0.9}))
        mine.save(tmp_path / "m.keras")
        theirs = keras.models.load_model(tmp_path / "m.keras")
        same_state(go_on(mine), go_on(theirs))
        theirs.save(tmp_path / "m.keras")
        same_state(go_on(load_model(tmp_path / "m.keras")), go_on(theirs))


LABELS = RNG.integers(0, 6, 160)
SHARES = RNG.dirichlet(np.ones(6), 160).astype(np.float32)


@pytest.mark.parametrize("name", losses.registry.names)
def test_losses(keras: Any, tmp_path: Path, name: str) -> None:
    model = Sequential([layers.Dense(6, "softmax", input_shape=(4,))])
    y = LABELS if name.startswith("sparse") else SHARES
    for loss in (name, losses.get(name)):
        model.compile("sgd", loss)
        model.save(tmp_path / "m.keras")
        theirs = keras.models.load_model(tmp_path / "m.keras")
        mine = float(model.evaluate(X, y, verbose=0))
        assert float(theirs.evaluate(X, y, verbose=0)) == pytest.approx(mine, rel=1e-4)
        theirs.save(tmp_path / "m.keras")
        assert load_model(tmp_path / "m.keras").loss.get_config() == model.loss.get_config()


@pytest.mark.parametrize("name", [*metrics.registry.names, "accuracy", "acc"])
def test_metrics(keras: Any, tmp_path: Path, name: str) -> None:
    model = Sequential([layers.Dense(6, "softmax", input_shape=(4,))])
    y = LABELS if name.startswith("sparse") else np.eye(6, dtype=np.float32)[LABELS]
    loss = "sparse_categorical_crossentropy" if name.startswith("sparse") else "categorical_crossentropy"
    for metric in (name,) if name in ("accuracy", "acc") else (name, metrics.get(name)):
        model.compile("sgd", loss, metrics=[metric], weighted_metrics=["acc"])
        expected = model.evaluate(X, y, return_dict=True)
        model.save(tmp_path / "m.keras")
        theirs = keras.models.load_model(tmp_path / "m.keras")
        found = theirs.evaluate(X, y, verbose=0, return_dict=True)
        for called in list(expected)[:2]:
            np.testing.assert_allclose(found[called], expected[called], rtol=1e-4, atol=1e-4)
        theirs.save(tmp_path / "m.keras")
        again = load_model(tmp_path / "m.keras").evaluate(X, y, return_dict=True)
        assert list(again) == list(expected)
        for value, other in zip(again.values(), expected.values(), strict=True):
            np.testing.assert_array_equal(value, other)
