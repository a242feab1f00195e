"""Metrics that are the mean of a loss, or made of one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit import losses
from normkit.losses import Loss
from normkit.metrics.base import Direction, MeanMetric, Metric, matched, weights_of

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "Hinge",
    "KLDivergence",
    "LogCoshError",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "R2Score",
    "RootMeanSquaredError",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
]

Array = NDArray[Any]


class LossMetric(MeanMetric):
    """Mean of a loss over samples. A subclass makes its `loss`."""

    direction: Direction | None = "down"
    loss: Loss

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """Loss of each sample."""
        if y_pred.dtype not in (np.float32, np.float64):
            y_pred = y_pred.astype(np.float64)
        if not isinstance(self.loss, losses.SparseCategoricalCrossentropy):
            y_true = matched(self.name, y_true, y_pred)
        return self.loss.values(self.loss.targets(y_true, y_pred.shape, y_pred.dtype), y_pred)


class MeanSquaredError(LossMetric):
    """See `normkit.losses.MeanSquaredError`."""

    loss = losses.MeanSquaredError()


class MeanAbsoluteError(LossMetric):
    """See `normkit.losses.MeanAbsoluteError`."""

    loss = losses.MeanAbsoluteError()


class MeanAbsolutePercentageError(LossMetric):
    """See `normkit.losses.MeanAbsolutePercentageError`."""

    loss = losses.MeanAbsolutePercentageError()


class MeanSquaredLogarithmicError(LossMetric):
    """See `normkit.losses.MeanSquaredLogarithmicError`."""

    loss = losses.MeanSquaredLogarithmicError()


class LogCoshError(LossMetric):
    """See `normkit.losses.LogCosh`."""

    loss = losses.LogCosh()

    def __init__(self, name: str | None = None) -> None:
        super().__init__("logcosh" if name is None else name)


class Poisson(LossMetric):
    """See `normkit.losses.Poisson`."""

    loss = losses.Poisson()


class KLDivergence(LossMetric):
    """See `normkit.losses.KLDivergence`."""

    loss = losses.KLDivergence()


class Hinge(LossMetric):
    """See `normkit.losses.Hinge`."""

    loss = losses.Hinge()


class SquaredHinge(LossMetric):
    """See `normkit.losses.SquaredHinge`."""

    loss = losses.SquaredHinge()


class CategoricalHinge(LossMetric):
    """See `normkit.losses.CategoricalHinge`."""

    loss = losses.CategoricalHinge()


class CosineSimilarity(LossMetric):
    """Σ t·p / (|t| · |p|) over the last axis: more is better, other than for the loss of that name."""

    direction = "up"
    loss = losses.CosineSimilarity()

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """Cosine for each sample."""
        return -super().values(y_true, y_pred)


class RootMeanSquaredError(LossMetric):
    """Root of the mean squared error."""

    loss = losses.MeanSquaredError()

    def result(self) -> float:
        """Return the root of the mean since `reset_state`."""
        return math.sqrt(super().result())


class _Crossentropy(LossMetric):
    """Mean of a cross-entropy.

    Parameters
    ----------
    name : str, optional
        Key in the logs.
    from_logits, label_smoothing
        See the loss of that name.
    """

    _make: type[losses.BinaryCrossentropy | losses.CategoricalCrossentropy]

    def __init__(
        self, name: str | None = None, from_logits: bool = False, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(name)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing
        self.loss = self._make(from_logits, label_smoothing)


class BinaryCrossentropy(_Crossentropy):
    """Mean of `normkit.losses.BinaryCrossentropy`, whose arguments come after the name."""

    _make = losses.BinaryCrossentropy


class CategoricalCrossentropy(_Crossentropy):
    """Mean of `normkit.losses.CategoricalCrossentropy`, whose arguments come after the name."""

    _make = losses.CategoricalCrossentropy


class SparseCategoricalCrossentropy(LossMetric):
    """Mean of a cross-entropy, for integer labels.

    Parameters
    ----------
    name : str, optional
        Key in the logs.
    from_logits : bool, default False
        See the loss of that name.
    """

    def __init__(self, name: str | None = None, from_logits: bool = False) -> None:
        super().__init__(name)
        self.from_logits = from_logits
        self.loss = losses.SparseCategoricalCrossentropy(from_logits)


class R2Score(Metric):
    """Coefficient of determination: 1 − Σ (t − p)² / Σ (t − mean t)², for each output.

    Parameters
    ----------
    class_aggregation : {"uniform_average", "variance_weighted_average"} or None
        Mean over the outputs, weighted by the variance of their targets, or an array of one value for each.
    name : str, optional
        Key in the logs. Default: 'r2_score'.
    """

    direction = "up"
    state_names = ("weight", "sum", "squares", "residual")
    AGGREGATIONS = ("uniform_average", "variance_weighted_average", None)

    def __init__(self, class_aggregation: str | None = "uniform_average", name: str | None = None) -> None:
        if class_aggregation not in self.AGGREGATIONS:
            raise ValueError(
                f"R2Score: class_aggregation must be one of {self.AGGREGATIONS}, got {class_aggregation!r}"
            )
        super().__init__("r2_score" if name is None else name)
        self.class_aggregation = class_aggregation

    def reset_state(self) -> None:
        """Start again."""
        self.weight = 0.0
        self.sum, self.squares, self.residual = (np.zeros(1) for _ in range(3))

    def update_state(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        """Count a batch of shape (batch, outputs)."""
        t, p = (a.astype(np.float64, copy=False) for a in self._compared(y_true, y_pred))
        t = matched(self.name, t, p).reshape(len(p), -1)
        w = np.ones(len(p)) if sample_weight is None else weights_of(sample_weight, len(p))
        self.weight = self.weight + float(w.sum())
        self.sum = self.sum + w @ t
        self.squares = self.squares + w @ np.square(t)
        self.residual = self.residual + w @ np.square(t - p.reshape(t.shape))

    def result(self) -> Any:
        """Return the score; an output whose target is constant counts as 0."""
        total = self.squares - np.square(self.sum) / (self.weight or 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = 1.0 - self.residual / total
        scores = np.where(np.isinf(scores), 0.0, scores)
        if self.class_aggregation is None:
            return scores
        if self.class_aggregation == "uniform_average":
            return float(scores.mean())
        return float((total * scores).sum() / total.sum())
