"""Losses: the value that training lowers, and its gradient."""

from __future__ import annotations

from typing import Any

from normkit._names import show_public_names
from normkit._registry import Registry
from normkit.losses.base import ElementwiseLoss, Loss
from normkit.losses.crossentropy import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
)
from normkit.losses.others import CategoricalHinge, Hinge, KLDivergence, Poisson, SquaredHinge
from normkit.losses.regression import (
    CosineSimilarity,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
)

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "ElementwiseLoss",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "get",
    "registry",
]

show_public_names(__name__)

registry: Registry[Loss] = Registry(
    "loss",
    Loss,
    {
        "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
        "categorical_crossentropy": CategoricalCrossentropy,
        "binary_crossentropy": BinaryCrossentropy,
        "bce": BinaryCrossentropy,
        "mean_squared_error": MeanSquaredError,
        "mse": MeanSquaredError,
        "mean_absolute_error": MeanAbsoluteError,
        "mae": MeanAbsoluteError,
        "mean_absolute_percentage_error": MeanAbsolutePercentageError,
        "mape": MeanAbsolutePercentageError,
        "mean_squared_logarithmic_error": MeanSquaredLogarithmicError,
        "msle": MeanSquaredLogarithmicError,
        "huber": Huber,
        "log_cosh": LogCosh,
        "logcosh": LogCosh,
        "cosine_similarity": CosineSimilarity,
        "kl_divergence": KLDivergence,
        "kld": KLDivergence,
        "poisson": Poisson,
        "hinge": Hinge,
        "squared_hinge": SquaredHinge,
        "categorical_hinge": CategoricalHinge,
    },
)


def get(identifier: str | dict[str, Any] | Loss) -> Loss:
    """Return the loss of that name, or of that saved configuration, or the instance itself."""
    return registry.get(identifier)
