"""Learning-rate schedules with Keras's names, arguments and formulas, and `OneCycle`.

A schedule is called with the number of batches trained so far, from 0, and returns the learning rate of the next
one. It is computed in float64, Keras's in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normkit._names import show_public_names
from normkit._registry import Registry
from normkit.optimizers.schedules.base import LearningRateSchedule
from normkit.optimizers.schedules.cosine import CosineDecay, CosineDecayRestarts, OneCycle
from normkit.optimizers.schedules.decay import (
    ExponentialDecay,
    InverseTimeDecay,
    PiecewiseConstantDecay,
    PolynomialDecay,
)

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "OneCycle",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "get",
    "registry",
]

show_public_names(__name__)

registry: Registry[LearningRateSchedule] = Registry(
    "learning-rate schedule",
    LearningRateSchedule,
    {
        cls.__name__: cls
        for cls in (
            ExponentialDecay,
            PiecewiseConstantDecay,
            PolynomialDecay,
            InverseTimeDecay,
            CosineDecay,
            CosineDecayRestarts,
            OneCycle,
        )
    },
)


def get(identifier: Mapping[str, Any] | LearningRateSchedule) -> LearningRateSchedule:
    """Return the schedule of a saved configuration, or the instance itself."""
    return registry.get(identifier)
