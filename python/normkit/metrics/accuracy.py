"""Accuracies: shares of what is right."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit._checks import number, positive_integer
from normkit.metrics.base import MeanMetric, matched

__all__ = [
    "Accuracy",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "SparseCategoricalAccuracy",
    "SparseTopKCategoricalAccuracy",
    "TopKCategoricalAccuracy",
]

Array = NDArray[Any]


class _Accuracy(MeanMetric):
    direction = "up"


class Accuracy(_Accuracy):
    """Share of predictions that are equal to the target."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """1 where both are equal."""
        return np.asarray(matched(self.name, y_true, y_pred) == y_pred)


class BinaryAccuracy(_Accuracy):
    """Share of outputs on the right side of a threshold.

    Parameters
    ----------
    name : str, optional
        Key in the logs.
    threshold : float, default 0.5
        Predictions above it count as 1.
    """

    def __init__(self, name: str | None = None, threshold: float = 0.5) -> None:
        super().__init__(name)
        self.threshold = number("BinaryAccuracy: threshold", threshold)

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """1 where (y_pred > threshold) is y_true."""
        return np.asarray(matched(self.name, y_true, y_pred) == (y_pred > self.threshold))


class CategoricalAccuracy(_Accuracy):
    """Share of samples whose most probable class is that of the one-hot row."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """1 where argmax(y_pred) is argmax(y_true)."""
        return np.asarray(matched(self.name, y_true, y_pred).argmax(axis=-1) == y_pred.argmax(axis=-1))


class SparseCategoricalAccuracy(_Accuracy):
    """Share of samples whose most probable class is the integer label."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """1 where argmax(y_pred) is the label."""
        labels = y_pred.argmax(axis=-1)
        return np.asarray(matched(self.name, _labels(y_true, y_pred), labels) == labels)


class _TopK(_Accuracy):
    """Share of samples whose class is among the k most probable.

    Parameters
    ----------
    k : int, default 5
        How many.
    name : str, optional
        Key in the logs.
    """

    def __init__(self, k: int = 5, name: str | None = None) -> None:
        super().__init__(name)
        self.k = positive_integer(f"{type(self).__name__}: k", k)

    def _hits(self, labels: Array, y_pred: Array) -> Array:
        if labels.size and not (labels.min() >= 0 and labels.max() < y_pred.shape[-1]):
            raise ValueError(
                f"{self.name}: labels must be 0 to {y_pred.shape[-1] - 1}, got {labels.min():g} to {labels.max():g}"
            )
        score = np.take_along_axis(y_pred, labels[..., None].astype(np.intp), axis=-1)
        return np.asarray(((y_pred > score).sum(axis=-1) < self.k) & np.isfinite(score[..., 0]))


class TopKCategoricalAccuracy(_TopK):
    """Share of samples whose class is among the k most probable, for one-hot rows. Arguments: k=5, name."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """1 where fewer than k classes are more probable than the right one."""
        return self._hits(matched(self.name, y_true, y_pred).argmax(axis=-1), y_pred)


class SparseTopKCategoricalAccuracy(_TopK):
    """Share of samples whose class is among the k most probable, for integer labels. Arguments: k=5, name."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """1 where fewer than k classes are more probable than the right one."""
        labels = matched(self.name, _labels(y_true, y_pred), y_pred[..., 0])
        return self._hits(labels, y_pred)


def _labels(y_true: Array, y_pred: Array) -> Array:
    """Labels without a last axis of length 1."""
    return y_true[..., 0] if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1 else y_true
