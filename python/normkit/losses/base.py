"""`Loss`: what all losses share.

A loss is the mean over samples, each multiplied by its sample weight if there are weights (Keras's
`sum_over_batch_size`: the divisor is the number of samples, not the sum of the weights).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit._checks import as_numbers, batch_shape
from normkit._registry import Configured

__all__ = [
    "EPSILON",
    "ElementwiseLoss",
    "LogitsStep",
    "Loss",
    "require_finite",
    "require_probabilities",
]

Array = NDArray[Any]

# Keras's bound on probabilities: log is taken of values in [EPSILON, 1 − EPSILON].
EPSILON = 1e-7


class LogitsStep(NamedTuple):
    """What a cross-entropy makes of logits: per-sample losses, predictions, and d(losses)/d(logits)."""

    values: Array
    predictions: Array
    gradient: Array


class Loss(Configured):
    """Base of the losses.

    Attributes
    ----------
    name : str
        Keras's name.
    fuses : str or None
        Name of the activation whose input (logits) this loss can take instead of its output.
    """

    name: str
    fuses: str | None = None

    def targets(self, y_true: ArrayLike, output_shape: tuple[int | None, ...], dtype: Any) -> Array:
        """Check targets for a model output of this shape, batch axis first, and return them as used.

        Raises
        ------
        ValueError
            If shape or values do not fit. The text says what was expected.
        """
        y = np.ascontiguousarray(as_numbers(f"{self.name}: y", y_true), dtype)
        if y.ndim == len(output_shape) - 1 and output_shape[-1] == 1:
            y = y[..., None]
        if y.ndim != len(output_shape) or y.shape[1:] != output_shape[1:]:
            one = len(output_shape) == 2 and y.size == len(np.atleast_1d(y))
            raise ValueError(
                f"{self.name}: y must have the shape of the model's output, {batch_shape(output_shape)}, got {y.shape}"
                f"{'; for one value a sample the last layer has 1 unit' if one else ''}"
            )
        require_finite(f"{self.name}: y", y)
        return y

    def __call__(self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean loss of predictions (logits if `from_logits`).

        Parameters
        ----------
        y_true, y_pred : array_like
            Targets, and predictions of shape (batch, ..., outputs).
        sample_weight : array_like of shape (batch,), optional
            Factor of each sample's loss.
        """
        predictions = as_numbers(f"{self.name}: y_pred", y_pred)
        if predictions.ndim == 0:
            raise ValueError(
                f"{self.name}: y_pred must have shape (batch, ..., outputs), got a single number"
            )
        if predictions.dtype not in (np.float32, np.float64):
            predictions = predictions.astype(np.float64)
        targets = self.targets(y_true, predictions.shape, predictions.dtype)
        if targets.ndim == 0:
            raise ValueError(
                f"{self.name}: y_true and y_pred need a batch axis, for one sample y_true[None], y_pred[None]"
            )
        if len(targets) != len(predictions):
            raise ValueError(
                f"{self.name}: y_true and y_pred must have the same length, got {len(targets)} and {len(predictions)}"
            )
        weight = None if sample_weight is None else as_numbers("sample_weight", sample_weight)
        if weight is not None:
            if weight.shape != predictions.shape[:1]:
                raise ValueError(f"sample_weight must have shape {predictions.shape[:1]}, got {weight.shape}")
            weight = weight.astype(predictions.dtype, copy=False)
        return self.mean_and_gradient(targets, predictions, weight)[0]

    def mean_and_gradient(self, y_true: Array, y_pred: Array, weight: Array | None) -> tuple[float, Array]:
        """Return the mean loss of checked targets, and its gradient with respect to y_pred."""
        values, gradient = self._evaluate(y_true, y_pred)
        return _mean(values, weight), _scaled(gradient, values, weight)

    def from_logits_step(
        self, y_true: Array, logits: Array, weight: Array | None
    ) -> tuple[float, Array, Array]:
        """Return mean loss, its gradient with respect to the logits, and activation(logits)."""
        step = self._evaluate_logits(y_true, logits)
        return _mean(step.values, weight), _scaled(step.gradient, step.values, weight), step.predictions

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """Return the loss of each sample, for checked targets."""
        return self._evaluate(y_true, y_pred)[0]

    def _evaluate(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        """Loss of each sample, shape (batch, ...) without the last axis of y_pred, and d/dy_pred of its own."""
        raise NotImplementedError

    def _evaluate_logits(self, y_true: Array, logits: Array) -> LogitsStep:
        raise NotImplementedError(f"{self.name} has no form for logits")


class ElementwiseLoss(Loss):
    """A loss that is the mean over the outputs of a term for each. A subclass writes `_terms`."""

    def _terms(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        """Return the term of each output, and its derivative with respect to y_pred, arrays of their own."""
        raise NotImplementedError

    def _evaluate(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        terms, derivative = self._terms(y_true, y_pred)
        derivative *= 1.0 / y_pred.shape[-1]
        return np.asarray(terms.mean(axis=-1)), derivative


def _mean(values: Array, weight: Array | None) -> float:
    if weight is not None:
        values = values * _over(weight, values)
    return float(np.add.reduce(values, axis=None)) / values.size


def _scaled(gradient: Array, values: Array, weight: Array | None) -> Array:
    """Gradient of the mean from the gradients of the samples; `gradient` is overwritten."""
    gradient *= 1.0 / values.size
    if weight is not None:
        gradient *= _over(weight, gradient)
    return gradient


def _over(weight: Array, values: Array) -> Array:
    """Weights of shape (batch,), so that they broadcast against values of shape (batch, ...)."""
    return weight.reshape(-1, *(1,) * (values.ndim - 1))


def require_finite(name: str, values: Array) -> None:
    """Raise ValueError if a value is NaN or infinite, with how many are and where the first is."""
    if values.dtype.kind != "f" or not values.size:
        return
    with np.errstate(all="ignore"):
        total = np.add.reduce(values, axis=None)
    if np.isfinite(total):
        return
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(np.argmax(bad.reshape(len(bad), -1).any(axis=1)))
        count = int(np.count_nonzero(bad))
        raise ValueError(
            f"{name} must be finite, got {count} NaN or infinite value{'s' if count > 1 else ''}, the first in row "
            f"{row} (from 0); leave these rows out"
        )


def require_probabilities(name: str, y: Array) -> None:
    """Raise ValueError if a target is not in [0, 1]."""
    if y.size and not (y.min() >= 0 and y.max() <= 1):
        hint = ""
        if (y == np.rint(y)).all():
            hint = "; for labels of several classes use 'sparse_categorical_crossentropy' and a unit for each class"
            if y.min() == -1 and y.max() == 1:
                hint = "; for targets of -1 and 1 use 'hinge', or give (y + 1) / 2"
        raise ValueError(f"{name}: targets must be in [0, 1], got values in [{y.min():g}, {y.max():g}]{hint}")
