"""Metrics: running means over the batches of an epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit._registry import Owned, Registry

__all__ = [
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "Mean",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "SparseCategoricalAccuracy",
    "get",
    "resolve_accuracy",
]

Array = NDArray[Any]


class Mean:
    """Weighted mean of the numbers seen since `reset_state`; 0 before the first, as in Keras."""

    def __init__(self) -> None:
        self.reset_state()

    def reset_state(self) -> None:
        """Forget what was seen."""
        self.total = 0.0
        self.count = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        """Count `value` with `weight`."""
        self.total += value * weight
        self.count += weight

    def result(self) -> float:
        """Return the mean."""
        return self.total / self.count if self.count else 0.0


class Metric(Owned):
    """Mean over samples of a value per sample.

    A subclass writes `values`.

    Parameters
    ----------
    name : str, optional
        Key in the logs and in `History.history`.
    """

    default_name: str

    def __init__(self, name: str | None = None) -> None:
        self.name = name if name is not None else self.default_name
        self._mean = Mean()

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """Return one value per sample or per output; the first axis is the batch."""
        raise NotImplementedError

    def check(self, y_true: Array, y_pred: Array) -> None:
        """Raise ValueError if batches of these shapes cannot be compared; nothing is counted."""
        if type(self).values is not Metric.values:
            with np.errstate(all="ignore"):
                self.values(y_true, y_pred)

    def update_state(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        """Count a batch, each sample with weight 1 or its `sample_weight`, shape (batch,)."""
        values = self.values(np.asarray(y_true), np.asarray(y_pred))
        if sample_weight is None:
            self._mean.add(float(np.add.reduce(values, axis=None)) / (values.size or 1), len(values))
            return
        weight = np.asarray(sample_weight, np.float64)
        samples = values.reshape(len(values), -1).mean(axis=1)
        total = float(weight.sum())
        self._mean.add(float(samples @ weight) / total if total else 0.0, total)

    def result(self) -> float:
        """Return the mean since `reset_state`."""
        return self._mean.result()

    def reset_state(self) -> None:
        """Start again."""
        self._mean.reset_state()


class SparseCategoricalAccuracy(Metric):
    """Share of samples whose most probable class is the integer label."""

    default_name = "sparse_categorical_accuracy"

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """1 where argmax(y_pred) is the label."""
        if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1:
            y_true = y_true[..., 0]
        labels = y_pred.argmax(axis=-1)
        return np.asarray(_matched(self.name, y_true, labels) == labels)


class CategoricalAccuracy(Metric):
    """Share of samples whose most probable class is that of the one-hot row."""

    default_name = "categorical_accuracy"

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """1 where argmax(y_pred) is argmax(y_true)."""
        return np.asarray(_matched(self.name, y_true, y_pred).argmax(axis=-1) == y_pred.argmax(axis=-1))


class BinaryAccuracy(Metric):
    """Share of outputs on the right side of a threshold.

    Parameters
    ----------
    name : str, optional
        Key in the logs.
    threshold : float, default 0.5
        Predictions above it count as 1.
    """

    default_name = "binary_accuracy"

    def __init__(self, name: str | None = None, threshold: float = 0.5) -> None:
        super().__init__(name)
        self.threshold = float(threshold)

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """1 where (y_pred > threshold) is y_true."""
        return np.asarray(_matched(self.name, y_true, y_pred) == (y_pred > self.threshold))


class MeanSquaredError(Metric):
    """Mean of (y_pred − y_true)²."""

    default_name = "mean_squared_error"

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """Squared differences."""
        return np.asarray(np.square(y_pred - _matched(self.name, y_true, y_pred)))


class MeanAbsoluteError(Metric):
    """Mean of |y_pred − y_true|."""

    default_name = "mean_absolute_error"

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """Absolute differences."""
        return np.asarray(np.abs(y_pred - _matched(self.name, y_true, y_pred)))


def _matched(name: str, y_true: Array, y_pred: Array) -> Array:
    """Return targets in the shape of the predictions, or raise ValueError."""
    if y_true.ndim == y_pred.ndim - 1 and y_pred.shape[-1] == 1:
        y_true = y_true[..., None]
    if y_true.shape != y_pred.shape:
        raise ValueError(
            f"{name}: targets and predictions do not match: the shapes to compare are "
            f"{y_true.shape} and {y_pred.shape}"
        )
    return y_true


registry: Registry[Metric] = Registry(
    "metric",
    Metric,
    {
        "sparse_categorical_accuracy": SparseCategoricalAccuracy,
        "categorical_accuracy": CategoricalAccuracy,
        "binary_accuracy": BinaryAccuracy,
        "mean_squared_error": MeanSquaredError,
        "mse": MeanSquaredError,
        "mean_absolute_error": MeanAbsoluteError,
        "mae": MeanAbsoluteError,
    },
)

_ACCURACY_NAMES = ("accuracy", "acc")


def get(identifier: str | dict[str, Any] | Metric) -> Metric:
    """Return the metric of that name, or of that saved configuration, or the instance itself.

    A metric made from a name is called by that name in the logs, as in Keras. 'accuracy' depends on the
    targets: see `resolve_accuracy`.
    """
    metric = registry.get(identifier)
    if isinstance(identifier, str):
        metric.name = identifier
    return metric


def is_accuracy(identifier: Any) -> bool:
    """Whether `identifier` is 'accuracy' or 'acc', which `get` cannot resolve without the targets."""
    return isinstance(identifier, str) and identifier.lower() in _ACCURACY_NAMES


def resolve_accuracy(name: str, y_shape: tuple[int, ...], output_shape: tuple[int | None, ...]) -> Metric:
    """Return the accuracy that fits, by Keras's rule.

    One output: binary. Targets with an axis less than the output, or with a last axis of length 1: sparse
    categorical. Else: categorical.
    """
    if output_shape[-1] == 1:
        return BinaryAccuracy(name)
    if len(y_shape) < len(output_shape) or y_shape[-1] == 1:
        return SparseCategoricalAccuracy(name)
    return CategoricalAccuracy(name)
