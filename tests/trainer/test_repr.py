"""`repr`: what a thing is, in short, whatever state it is in."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import normkit as nk
from normkit import (
    activations,
    callbacks,
    data,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    regularizers,
)
from normkit._names import parameters
from normkit._repr import Described
from normkit.layers.base import ActivatedLayer
from normkit.optimizers import schedules

x = np.zeros((100, 3), np.float32)
y = np.zeros(100, np.int64)

# What an argument without a default may be; and values other than the default, by name.
REQUIRED: dict[str, Any] = {
    "units": 4,
    "activation": "relu",
    "rate": 0.5,
    "stddev": 0.25,
    "scale": 0.5,
    "target_shape": (2, 2),
    "shape": (3,),
    "initial_learning_rate": 0.5,
    "learning_rate": 0.5,
    "decay_steps": 10.0,
    "decay_rate": 0.5,
    "first_decay_steps": 10.0,
    "boundaries": [5.0],
    "values": [1.0, 0.5],
    "maximum": 0.5,
    "total_steps": 100,
    "max_learning_rate": 0.5,
    "fn": np.subtract,
    "filepath": "a.safetensors",
    "backup_dir": "folder",
    "filename": "a.csv",
    "schedule": abs,
    "monitor": "loss",
    "class_id": 1,
    "recall": 0.5,
    "precision": 0.5,
}
BASES = {
    "Layer",
    "ActivatedLayer",
    "Optimizer",
    "Loss",
    "ElementwiseLoss",
    "Metric",
    "MeanMetric",
    "Initializer",
    "Regularizer",
    "LearningRateSchedule",
    "ActivationFunction",
    "Callback",
}


def classes() -> Iterator[type]:
    for module in (
        layers,
        optimizers,
        schedules,
        losses,
        metrics,
        initializers,
        regularizers,
        callbacks,
        activations,
    ):
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isclass(found) and issubclass(found, Described) and name not in BASES:
                yield found


CLASSES = sorted(set(classes()), key=lambda cls: (cls.__module__, cls.__name__))


def required(cls: type) -> dict[str, Any]:
    if cls is optimizers.Optimizer:
        return {"learning_rate": 0.5}
    return {
        name: REQUIRED[name]
        for name, parameter in parameters(cls).items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
    }


def made(cls: type, **kwargs: Any) -> Any:
    if cls is callbacks.TensorBoard:
        pytest.importorskip("tensorboard")
    return cls(**required(cls), **kwargs)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_defaults_are_not_shown(cls: type) -> None:
    given = ", ".join(getattr(value, "__name__", repr(value)) for value in required(cls).values())
    shown = repr(made(cls))
    if cls is callbacks.History:
        assert shown == "History(epochs=0)"
    elif cls is callbacks.CallbackList:
        assert shown == "CallbackList(callbacks=[])"
    else:
        assert shown == f"{cls.__name__}({given})"


def other(value: Any) -> Any:
    """Another value of the same kind, which most arguments take."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 3
    return value / 2 if isinstance(value, float) and value else None


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_other_argument_is_shown(cls: type) -> None:
    if cls is callbacks.CallbackList:
        return
    known = {
        "name": "mine",
        "seed": 3,
        "dtype": "float64",
        "input_shape": (3,),
        "baseline": 0.5,
        "clipnorm": 0.5,
    }
    for name, parameter in parameters(cls).items():
        if parameter.default is parameter.empty or parameter.kind is parameter.VAR_POSITIONAL:
            continue
        value = known.get(name, other(parameter.default))
        if value is None or (cls is layers.Input):
            continue
        try:
            instance = made(cls, **{name: value})
        except (ValueError, TypeError, NotImplementedError):
            continue
        shown = (
            f"{name}={(value,)!r}"
            if name == "axis" and isinstance(instance.axis, tuple)
            else f"{name}={value!r}"
        )
        assert shown in repr(instance), (cls, name)


def test_layers() -> None:
    assert repr(layers.Dense(64, activation="relu")) == "Dense(64, activation='relu')"
    assert repr(layers.Dense(64, "linear")) == "Dense(64)"
    assert (
        repr(layers.Dense(4, kernel_initializer="he_normal", kernel_regularizer=regularizers.L2(0.1)))
        == "Dense(4, kernel_initializer=HeNormal(), kernel_regularizer=L2(l2=0.1))"
    )
    assert repr(layers.Dense(4, kernel_initializer=initializers.GlorotUniform(seed=1))) == (
        "Dense(4, kernel_initializer=GlorotUniform(seed=1))"
    )
    assert repr(layers.Dense(4, activation=activations.LeakyRelu(0.5))) == (
        "Dense(4, activation=LeakyRelu(negative_slope=0.5))"
    )
    layer = layers.BatchNormalization(momentum=0.9)
    before = repr(layer)
    layer(x)
    assert repr(layer) == before == "BatchNormalization(momentum=0.9)"
    assert repr(layers.LayerNormalization(axis=(1, 2))) == "LayerNormalization(axis=(1, 2))"


def test_optimizers() -> None:
    assert repr(optimizers.Adam(1e-4)) == "Adam(learning_rate=0.0001)"
    assert repr(optimizers.SGD(0.1, momentum=0.9, clipnorm=1.0)) == (
        "SGD(learning_rate=0.1, momentum=0.9, clipnorm=1.0)"
    )
    assert repr(optimizers.Adam(schedules.CosineDecay(0.1, 100))) == (
        "Adam(learning_rate=CosineDecay(0.1, 100.0))"
    )
    optimizer = optimizers.Adam(lambda: 1 / 0)
    assert repr(optimizer) == "Adam(learning_rate=test_optimizers.<locals>.<lambda>)"


def test_sequential() -> None:
    model = nk.Sequential([layers.Dense(4), layers.Dense(2, "softmax")], name="mine")
    assert repr(model) == "Sequential([Dense(4), Dense(2, activation='softmax')], name='mine', built=False)"
    model.build((None, 3))
    assert repr(model) == "Sequential([Dense(4), Dense(2, activation='softmax')], name='mine', parameters=26)"
    assert repr(nk.Sequential()) == "Sequential([], name='sequential')"
    long = nk.Sequential([layers.Dense(4, activation="relu") for _ in range(100)])
    lines = repr(long).splitlines()
    assert lines[0] == "Sequential(["
    assert lines[1] == "    Dense(4, activation='relu'),"
    assert "    ... 80 more," in lines
    assert lines[-1] == "], name='sequential', built=False)"
    assert len(lines) == 23
    assert repr(nk.Sequential.__new__(nk.Sequential)) == "Sequential([], name=None)"


def test_history() -> None:
    model = nk.Sequential([layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    history = model.fit(x, np.ones(100), epochs=3, verbose=0)
    loss, mae = history.history["loss"][-1], history.history["mae"][-1]
    assert repr(history) == f"History(epochs=3, loss={_short(loss)}, mae={_short(mae)})"
    assert repr(callbacks.History()) == "History(epochs=0)"


def _short(value: float) -> str:
    return repr(value) if len(repr(value)) <= 12 else f"{value:.6g}"


def test_mini_batches_and_streams() -> None:
    assert repr(data.MiniBatches(x, y)) == "MiniBatches(<float32 (100, 3)>, <int64 (100,)>)"
    assert repr(data.MiniBatches(x, batch_size=8, seed=3, shuffle=False, last="drop")) == (
        "MiniBatches(<float32 (100, 3)>, batch_size=8, shuffle=False, seed=3, last='drop')"
    )
    assert repr(data.Stream([(x, y)], length=100)) == (
        "Stream([(<float32 (100, 3)>, <int64 (100,)>)], length=100)"
    )
    used = data.MiniBatches(batch for batch in [(x, y)])
    assert repr(used).startswith("MiniBatches(BatchIterable(<generator object")
    list(used)
    assert repr(used).startswith("MiniBatches(BatchIterable(<generator object")


def test_showing_a_stream_takes_nothing_of_it() -> None:
    stream = data.Stream(iter([x, x]))
    batches = data.MiniBatches(stream, batch_size=50)
    repr(stream), repr(batches)
    assert sum(len(batch) for (batch,) in batches) == 200


def test_a_state_that_was_loaded_is_shown() -> None:
    batches, others = data.MiniBatches(x, seed=3), data.MiniBatches(x)
    assert "seed" not in repr(others)
    others.load_state_dict(batches.state_dict())
    assert "seed=3" in repr(others)


def test_sources(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, x)
    source = data.NpyFile(path)
    shown = f"NpyFile({str(path)!r}, arrays=(<float32 (100, 3)>,))"
    assert repr(source) == shown or len(str(path)) > 100
    assert "0, 7, arrays=(<float32 (7, 3)>,))" in repr(source.part(0, 7))
    assert "<float64 (100, 3)>" in repr(source.map(lambda a: a.astype(np.float64)))
    assert repr(data.Files(data.NpyFile, [path, path])) == "Files(files=2, arrays=(<float32 (200, 3)>,))"
    both = repr(data.MiniBatches(source, y, batch_size=4))
    assert "NpyFile(" in both
    assert "Arrays(<int64 (100,)>)" in both
    assert both.endswith("batch_size=4)")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    table = repr(data.CsvFile(tmp_path / "t.csv", y="b"))
    assert table.startswith("CsvFile(")
    assert "y='b', arrays=(<float32 (1, 1)>, <float64 (1,)>)" in table
    path.unlink()
    repr(source)  # a file that is gone


def test_a_closed_file() -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File("in memory", "w", driver="core", backing_store=False) as file:
        batches = data.MiniBatches(file.create_dataset("x", data=x))
        assert "<float32 (100, 3)>" in repr(batches)
    assert repr(batches).startswith("MiniBatches(")


def test_what_holds_arrays_shows_none_of_them() -> None:
    pytest.importorskip("sklearn")
    shown = repr(data.load())
    assert shown.startswith("Dataset(x_train=<float32 (1438, 64)>, y_train=<int64 (1438,)>, ")
    assert len(repr(metrics.AUC(thresholds=list(np.linspace(0.01, 0.99, 1000))))) < 200
    model = nk.Sequential([layers.Dense(1)])
    model.compile("sgd", "mse")
    found = nk.models.find_learning_rate(model, np.ones((64, 3)), np.ones(64), steps=10)
    assert "losses=<float64 (" in repr(found)
    assert "\n" not in repr(found)


def test_names_other_than_the_default() -> None:
    assert repr(metrics.get("auc")) == "AUC()"
    assert repr(metrics.LogCoshError()) == "LogCoshError()"
    assert repr(metrics.get("mse")) == "MeanSquaredError(name='mse')"
    assert repr(optimizers.SGD(name="mine")) == "SGD(name='mine')"
    assert repr(layers.Dense(2, name="d")) == "Dense(2, name='d')"


def test_an_activation_that_was_copied_has_its_name(tmp_path: Path) -> None:
    model = nk.Sequential([layers.Dense(2, "relu", input_shape=(3,))])
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    twin.save(tmp_path / "twin.safetensors")
    assert activations.serialize(copy.deepcopy(activations.gelu)) == "gelu"
    with pytest.raises(ValueError, match="cannot save activation 'leaky_relu'"):
        activations.serialize(activations.LeakyRelu(0.5))


def test_callbacks() -> None:
    assert (
        repr(callbacks.EarlyStopping(patience=3, baseline=0.5)) == "EarlyStopping(patience=3, baseline=0.5)"
    )
    assert repr(callbacks.LambdaCallback(on_epoch_end=abs)) == "LambdaCallback(on_epoch_end=abs)"
    assert repr(callbacks.CSVLogger("a.csv", separator=";")) == "CSVLogger('a.csv', separator=';')"
    checkpoint = callbacks.ModelCheckpoint(
        Path("a.safetensors"), save_best_only=True, initial_value_threshold=0.5
    )
    assert (
        repr(checkpoint)
        == "ModelCheckpoint('a.safetensors', save_best_only=True, initial_value_threshold=0.5)"
    )


class Circle(callbacks.Callback):
    def __init__(self, itself: Any = None) -> None:
        self.itself = self


class Hostile(layers.Layer):
    def __init__(self, text: Any = "", broken: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.text = text

    @property
    def broken(self) -> Any:
        raise RuntimeError


class NoRepr:
    def __repr__(self) -> str:
        raise RuntimeError


def test_it_never_raises_nor_floods() -> None:
    assert repr(Circle()) == "Circle(itself=...)"
    assert repr(Hostile()) == "Hostile(...)"
    assert repr(layers.Dense.__new__(layers.Dense)).startswith("Dense(")
    for cls in CLASSES:
        assert repr(cls.__new__(cls)).startswith(cls.__name__)
    assert len(repr(callbacks.MonitorCallback("a" * 10_000))) < 200
    assert "NoRepr" in repr(data.Stream([NoRepr()]))
    assert len(repr(data.Stream([list(range(10**5))] * 1000))) < 1000
    assert "..." in repr(data.MiniBatches.__new__(data.MiniBatches))
    assert repr(data.Stream.__new__(data.Stream)) == "Stream()"


def test_copies_show_the_same() -> None:
    model = nk.Sequential([layers.Dense(2, input_shape=(3,)), layers.BatchNormalization()])
    model.compile("adam", "mse")
    for thing in (model, model.optimizer, model.layers[0], model.loss, data.MiniBatches(x)):
        assert repr(copy.deepcopy(thing)) == repr(thing)
        assert repr(pickle.loads(pickle.dumps(thing))) == repr(thing)
    assert isinstance(model.layers[0], ActivatedLayer)
