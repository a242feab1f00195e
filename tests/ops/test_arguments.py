"""Every argument that is a number or a switch refuses what is none, by its name.

The arguments are found in the signatures, so that a new one is covered.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import normkit as nk
from normkit import callbacks, data, interchange, layers, losses, metrics, models, optimizers
from normkit._names import parameters
from normkit.optimizers import schedules

MODULES = (layers, optimizers, schedules, losses, metrics, nk.initializers, nk.regularizers, callbacks)
# What a class needs besides; arguments without a default are tried as well.
NEEDED: dict[type, dict[str, Any]] = {
    layers.Dense: {"units": 4},
    layers.Dropout: {"rate": 0.5},
    layers.GaussianNoise: {"stddev": 0.5},
    layers.Rescaling: {"scale": 0.5},
    schedules.CosineDecay: {"initial_learning_rate": 0.1, "decay_steps": 10},
    schedules.ExponentialDecay: {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5},
    schedules.InverseTimeDecay: {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5},
    schedules.PolynomialDecay: {"initial_learning_rate": 0.1, "decay_steps": 10},
    schedules.OneCycle: {"max_learning_rate": 0.1, "total_steps": 10},
    callbacks.MonitorCallback: {"monitor": "loss"},
    callbacks.ModelCheckpoint: {"filepath": "a.safetensors"},
    callbacks.BackupAndRestore: {"backup_dir": "folder"},
    data.MiniBatches: {},
}
# Without an effect, or taken from Python's own rules of truth.
LEFT_OUT = {"CallbackList", "TensorBoard", "CSVLogger", "JSONLinesLogger", "Variable", "Layer", "Optimizer"}

# What NumPy and the interpreter say of what goes on inside.
FOREIGN = re.compile(
    "ufunc|object is not|not supported between|could not convert|__init__|invalid literal|float\\(\\)|ambiguous"
)


def arguments(kind: type) -> Iterator[tuple[str, Callable[..., Any], str]]:
    """Names, calls and arguments of every public class whose argument, or its default, is of a kind."""
    classes = [getattr(module, name) for module in MODULES for name in module.__all__]
    for cls in [*classes, data.MiniBatches]:
        if not isinstance(cls, type) or cls.__name__ in LEFT_OUT:
            continue
        needed = NEEDED.get(cls, {})
        positional = (np.ones(4),) if cls is data.MiniBatches else ()
        found = parameters(cls)
        if any(
            p.default is p.empty and name not in needed and p.kind is not p.VAR_POSITIONAL
            for name, p in found.items()
        ):
            continue
        for name, parameter in found.items():
            if type(needed.get(name, parameter.default)) is kind:
                others = {key: value for key, value in needed.items() if key != name}

                def call(*, c: Any = cls, p: Any = positional, o: Any = others, **given: Any) -> Any:
                    return c(*p, **o, **given)

                yield f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}.{name}", call, name


NUMBERS, SWITCHES = list(arguments(float)), list(arguments(bool))


def refused(call: Callable[[], Any], argument: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert argument in str(caught.value)
    assert not FOREIGN.search(str(caught.value)), str(caught.value)


@pytest.mark.parametrize(("name", "make", "argument"), NUMBERS, ids=[name for name, _, _ in NUMBERS])
def test_an_argument_that_is_no_number(name: str, make: Callable[..., Any], argument: str) -> None:
    for value in ("0.5", "fast", [0.5, 0.5], 1j, dict, {1, 2}):
        refused(lambda value=value: make(**{argument: value}), argument)


@pytest.mark.parametrize(("name", "make", "argument"), SWITCHES, ids=[name for name, _, _ in SWITCHES])
def test_an_argument_that_is_no_switch(name: str, make: Callable[..., Any], argument: str) -> None:
    for value in ("False", None, [True], np.array([True, False]), 2, 0.5):
        refused(lambda value=value: make(**{argument: value}), argument)
    for value in (True, False, 0, 1, np.bool_(True)):
        make(**{argument: value})


def test_there_are_such_arguments() -> None:
    assert {"adam.Adam.beta_1", "sgd.SGD.learning_rate", "regularization.Dropout.rate"} <= {
        name for name, _, _ in NUMBERS
    }
    assert {"core.Dense.use_bias", "batch_normalization.BatchNormalization.center", "sgd.SGD.nesterov"} <= {
        name for name, _, _ in SWITCHES
    }
    assert len(NUMBERS) > 80
    assert len(SWITCHES) > 30


x = np.ones((4, 2), np.float32)


def ready() -> nk.Sequential:
    model = nk.Sequential([layers.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def saved(folder: Path, ending: str) -> Path:
    path = folder / f"saved{ending}"
    ready().save(path)
    return path


# Switches of functions and methods: what is called with one, in a folder.
CALLS: dict[str, Callable[[Path, Any], Any]] = {
    "Sequential.compile merge_statistics": lambda _, v: ready().compile(
        optimizers.SGD(gradient_accumulation_steps=2), "mse", merge_statistics=v
    ),
    "Sequential.fit shuffle": lambda _, v: ready().fit(x, x[:, 0], shuffle=v, verbose=0),
    "Sequential.evaluate return_dict": lambda _, v: ready().evaluate(x, x[:, 0], return_dict=v, verbose=0),
    "Sequential.train_on_batch return_dict": lambda _, v: ready().train_on_batch(x, x[:, 0], return_dict=v),
    "Sequential.test_on_batch return_dict": lambda _, v: ready().test_on_batch(x, x[:, 0], return_dict=v),
    "Sequential.__call__ training": lambda _, v: ready()(x, training=v),
    "Sequential.trainable trainable": lambda _, v: setattr(ready(), "trainable", v),
    "Sequential.save overwrite": lambda f, v: ready().save(f / "m.keras", overwrite=v),
    "Sequential.save_weights overwrite": lambda f, v: ready().save_weights(f / "m.weights.h5", overwrite=v),
    "save_model overwrite": lambda f, v: models.save_model(ready(), f / "m.safetensors", overwrite=v),
    "save_weights overwrite": lambda f, v: models.save_weights(ready(), f / "m.safetensors", overwrite=v),
    "load_model compile": lambda f, v: models.load_model(saved(f, ".safetensors"), compile=v),
    "load_model compile, of Keras": lambda f, v: models.load_model(saved(f, ".keras"), compile=v),
    "load_keras compile": lambda f, v: interchange.load_keras(saved(f, ".keras"), compile=v),
    "export_onnx fold": lambda f, v: interchange.export_onnx(ready(), f / "m.onnx", fold=v),
    "from_torch unbiased": lambda _, v: interchange.from_torch(
        ready(), interchange.to_torch(ready()), unbiased=v
    ),
    "Stream samples": lambda _, v: data.Stream([(x[0], x[0])], samples=v),
}
WITHOUT_EFFECT = {"run_eagerly", "jit_compile", "auto_scale_loss"}  # taken for Keras's sake
OF_LAYERS = {"backward"}  # which the training calls, not a user


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_a_switch_of_a_function(name: str, tmp_path: Path) -> None:
    for value in (
        "no",
        "False",
        [True],
        np.array([True, False]),
        2,
        0.5,
        *([] if "unbiased" in name else [None]),
    ):
        refused(lambda value=value: CALLS[name](tmp_path, value), name.split(",")[0].split()[1])
        assert {path.stem for path in tmp_path.iterdir()} <= {"saved"}
    for value in (True, False, 0, 1, np.bool_(True)):
        CALLS[name](tmp_path, value)
        for path in tmp_path.iterdir():
            path.unlink()


def test_every_switch_of_a_function_is_among_them() -> None:
    there: set[str] = set()
    for module in (models, interchange, data):
        for public in module.__all__:
            value = getattr(module, public)
            methods = inspect.getmembers(value, inspect.isfunction) if inspect.isclass(value) else []
            functions = [(f"{public}.{n}", f) for n, f in methods if n == "__call__" or not n.startswith("_")]
            if inspect.isfunction(value):
                functions = [(public, value)]
            for name, function in functions:
                there |= {
                    f"{name} {parameter.name}"
                    for parameter in inspect.signature(function).parameters.values()
                    if isinstance(parameter.default, bool)
                    or re.match("bool.*None", str(parameter.annotation))
                    if parameter.name not in WITHOUT_EFFECT and name.split(".")[-1] not in OF_LAYERS
                }
    assert len(there) > 10
    assert there <= set(CALLS), there - set(CALLS)
