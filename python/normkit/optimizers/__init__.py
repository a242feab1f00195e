"""Optimizers with Keras's names, defaults and formulas; `schedules` of their learning rate."""

from __future__ import annotations

from typing import Any

from normkit._names import show_public_names
from normkit._registry import Registry
from normkit.optimizers import schedules
from normkit.optimizers.adagrad import Adadelta, Adagrad
from normkit.optimizers.adam import Adam, Adamax, AdamW, Nadam
from normkit.optimizers.base import BLOCK, Optimizer
from normkit.optimizers.lion import Lion
from normkit.optimizers.rmsprop import RMSprop
from normkit.optimizers.sgd import SGD

__all__ = [
    "BLOCK",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "get",
    "registry",
    "schedules",
]

show_public_names(__name__)

registry: Registry[Optimizer] = Registry(
    "optimizer",
    Optimizer,
    {
        "sgd": SGD,
        "adam": Adam,
        "adamw": AdamW,
        "rmsprop": RMSprop,
        "adagrad": Adagrad,
        "adadelta": Adadelta,
        "adamax": Adamax,
        "nadam": Nadam,
        "lion": Lion,
    },
)


def get(identifier: str | dict[str, Any] | Optimizer) -> Optimizer:
    """Return the optimizer of that name, or of that saved configuration, or the instance itself."""
    return registry.get(identifier)
