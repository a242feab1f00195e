"""Every argument that is a number refuses what is none, by its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

import normkit as nk
from normkit import callbacks, layers, losses, metrics, optimizers
from normkit._names import parameters
from normkit.optimizers import schedules

# What NumPy and the interpreter say of what goes on inside.
FOREIGN = re.compile(
    "ufunc|object is not|not supported between|could not convert|__init__|invalid literal|float\\(\\)"
)


# Each argument that is a number, as a text and as None; found in the signature, so that a new one is covered.
def numeric_arguments() -> list[tuple[str, Callable[..., Any], str]]:
    found = []
    first: dict[Any, dict[str, Any]] = {
        layers.Dropout: {"rate": 0.5},
        layers.GaussianNoise: {"stddev": 0.5},
        layers.Rescaling: {"scale": 0.5},
        schedules.CosineDecay: {"initial_learning_rate": 0.1, "decay_steps": 10},
        schedules.ExponentialDecay: {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5},
        schedules.PolynomialDecay: {"initial_learning_rate": 0.1, "decay_steps": 10},
        schedules.OneCycle: {"max_learning_rate": 0.1, "total_steps": 10},
        callbacks.MonitorCallback: {"monitor": "loss"},
    }
    for module in (
        layers,
        optimizers,
        schedules,
        losses,
        metrics,
        nk.initializers,
        nk.regularizers,
        callbacks,
    ):
        for name in module.__all__:
            cls = getattr(module, name)
            if not isinstance(cls, type) or name in ("Layer", "Optimizer", "Variable"):
                continue
            for argument, parameter in parameters(cls).items():
                value = first.get(cls, {}).get(argument, parameter.default)
                if isinstance(value, float) and not (cls in first and argument not in parameters(cls)):
                    given = {k: v for k, v in first.get(cls, {}).items() if k != argument}
                    required = [
                        p
                        for p in parameters(cls).values()
                        if p.default is p.empty
                        and p.name not in first.get(cls, {})
                        and p.kind is not p.VAR_POSITIONAL
                    ]
                    if not required:
                        found.append(
                            (f"{name}.{argument}", lambda c=cls, g=given, **k: c(**g, **k), argument)
                        )
    return found


@pytest.mark.parametrize(
    ("name", "make", "argument"), numeric_arguments(), ids=lambda v: v if isinstance(v, str) else ""
)
@pytest.mark.parametrize("value", ["0.5", "fast", [0.5, 0.5], 1j, dict], ids=repr)
def test_an_argument_that_is_no_number(
    name: str, make: Callable[..., Any], argument: str, value: Any
) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        make(**{argument: value})
    assert argument in str(caught.value)
    assert not FOREIGN.search(str(caught.value)), str(caught.value)


def test_there_are_numeric_arguments() -> None:
    names = {name for name, _, _ in numeric_arguments()}
    assert {"Adam.beta_1", "SGD.learning_rate", "Dropout.rate", "BatchNormalization.momentum"} <= names
    assert len(names) > 60
