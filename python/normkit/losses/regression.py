"""Losses of regression: means of a function of the error of each output."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit._checks import finite
from normkit.losses.base import EPSILON, ElementwiseLoss, Loss

__all__ = [
    "CosineSimilarity",
    "Huber",
    "LogCosh",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "RegressionLoss",
]

Array = NDArray[Any]


class MeanSquaredError(ElementwiseLoss):
    """(y_pred − y_true)², mean over the outputs."""

    name = "mean_squared_error"

    def _terms(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        difference = y_pred - y_true
        return np.square(difference), 2.0 * difference


class MeanAbsoluteError(ElementwiseLoss):
    """|y_pred − y_true|, mean over the outputs; the derivative at 0 is 0."""

    name = "mean_absolute_error"

    def _terms(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        difference = y_pred - y_true
        return np.abs(difference), np.sign(difference)


class MeanAbsolutePercentageError(ElementwiseLoss):
    """100 · |y_pred − y_true| / max(|y_true|, 1e-7), mean over the outputs."""

    name = "mean_absolute_percentage_error"

    def _terms(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        difference, scale = y_pred - y_true, 100.0 / np.maximum(np.abs(y_true), EPSILON)
        return np.abs(difference) * scale, np.sign(difference) * scale


class MeanSquaredLogarithmicError(ElementwiseLoss):
    """(log(1 + y_pred) − log(1 + y_true))², mean over the outputs; values below 1e-7 count as 1e-7."""

    name = "mean_squared_logarithmic_error"

    def _terms(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        p, t = np.maximum(y_pred, EPSILON), np.maximum(y_true, EPSILON)
        difference = np.log1p(p) - np.log1p(t)
        return np.square(difference), 2.0 * difference / (1.0 + p) * (y_pred >= EPSILON)


class Huber(ElementwiseLoss):
    """d² / 2 for an error |d| ≤ delta, else delta · |d| − delta² / 2, mean over the outputs (Huber 1964).

    Parameters
    ----------
    delta : float, default 1.0
        Where the parabola becomes a straight line.
    """

    name = "huber"

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = finite("Huber: delta", delta)

    def _terms(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        difference = y_pred - y_true
        clipped = np.clip(difference, -self.delta, self.delta)
        return clipped * (difference - 0.5 * clipped), clipped


class LogCosh(ElementwiseLoss):
    """log(cosh(y_pred − y_true)), mean over the outputs: a smooth `MeanAbsoluteError`."""

    name = "log_cosh"

    def _terms(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        difference = y_pred - y_true
        size = np.abs(difference)
        return size + np.log1p(np.exp(-2.0 * size)) - np.log(2.0).astype(size.dtype), np.tanh(difference)


class CosineSimilarity(Loss):
    """−Σ t·p / (|t| · |p|) over the last axis: −1 for the same direction, 0 for perpendicular ones.

    Norms below 1e-6 count as 1e-6.
    """

    name = "cosine_similarity"

    def _evaluate(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        t, _ = _unit(y_true)
        p, norm = _unit(y_pred)
        similarity = (t * p).sum(axis=-1, keepdims=True)
        return -similarity[..., 0], (similarity * p * (norm > _SMALLEST_NORM) - t) / norm


_SMALLEST_NORM = 1e-6


def _unit(x: Array) -> tuple[Array, Array]:
    """Vectors of length 1 in the same direction, and the lengths that they had."""
    norm = np.maximum(np.sqrt(np.square(x).sum(axis=-1, keepdims=True)), _SMALLEST_NORM)
    return x / norm, norm


RegressionLoss = (
    MeanSquaredError
    | MeanAbsoluteError
    | MeanAbsolutePercentageError
    | MeanSquaredLogarithmicError
    | Huber
    | LogCosh
    | CosineSimilarity
)
