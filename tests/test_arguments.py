"""Every argument that is a number or a switch refuses what is none, by its name.

The arguments are found in the signatures, so that a new one is covered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import normkit as nk
from normkit import callbacks, data, layers, losses, metrics, optimizers
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


def test_switches_of_compile_and_fit() -> None:
    model = nk.Sequential([layers.Dense(1)])
    refused(lambda: model.compile("sgd", "mse", merge_statistics="no"), "merge_statistics")
    model.compile("sgd", "mse")
    refused(lambda: model.fit(np.ones((4, 2)), np.ones(4), shuffle="no"), "shuffle")
