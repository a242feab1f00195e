"""Cross-entropies.

They are computed from logits wherever those are known: `from_logits=True`, or a model whose last
layer ends with the matching activation. With log-sum-exp shifted by the maximum the value is exact however
small the probability, and the gradient with respect to the logits is p − target.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit import _core, activations
from normkit._checks import as_numbers, batch_shape, flag, share
from normkit.losses.base import EPSILON, LogitsStep, Loss, require_probabilities

__all__ = ["BinaryCrossentropy", "CategoricalCrossentropy", "SparseCategoricalCrossentropy"]

Array = NDArray[Any]


class _Crossentropy(Loss):
    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        self.from_logits = flag(f"{type(self).__name__}: from_logits", from_logits)
        self.label_smoothing = share(f"{type(self).__name__}: label_smoothing", label_smoothing)

    def _evaluate(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        if self.from_logits:
            step = self._evaluate_logits(y_true, y_pred)
            return step.values, step.gradient
        return self._evaluate_probabilities(y_true, y_pred)

    def _evaluate_probabilities(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        raise NotImplementedError


class BinaryCrossentropy(_Crossentropy):
    """−t·log p − (1 − t)·log(1 − p), mean over the outputs; p a probability or, from logits, sigmoid(z).

    Parameters
    ----------
    from_logits : bool, default False
        Whether predictions are logits. Not needed for a model that ends with 'sigmoid': its logits are
        used anyway.
    label_smoothing : float, default 0.0
        Targets become t·(1 − s) + s/2.
    """

    name = "binary_crossentropy"
    fuses = "sigmoid"

    def targets(self, y_true: ArrayLike, output_shape: tuple[int | None, ...], dtype: Any) -> Array:
        """See `Loss.targets`; values must be in [0, 1]."""
        y = super().targets(y_true, output_shape, dtype)
        require_probabilities(self.name, y)
        return y

    def _smoothed(self, y_true: Array) -> Array:
        s = self.label_smoothing
        return y_true * (1.0 - s) + 0.5 * s if s else y_true

    def _evaluate_probabilities(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        t, p = self._smoothed(y_true), np.clip(y_pred, EPSILON, 1.0 - EPSILON)
        values = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean(axis=-1)
        gradient = (p - t) / (p * (1 - p)) * (p == y_pred)
        return values, gradient / y_pred.shape[-1]

    def _evaluate_logits(self, y_true: Array, logits: Array) -> LogitsStep:
        t, p = self._smoothed(y_true), activations.sigmoid(logits)
        # log(1 + exp(z)) − t·z, with the exponential of −|z|.
        values = np.maximum(logits, 0) - logits * t + np.log1p(np.exp(-np.abs(logits)))
        return LogitsStep(values.mean(axis=-1), p, (p - t) / logits.shape[-1])


class CategoricalCrossentropy(_Crossentropy):
    """−Σ t·log p over the classes (last axis), for targets given as probabilities, such as one-hot rows.

    Parameters
    ----------
    from_logits : bool, default False
        Whether predictions are logits. Not needed for a model that ends with 'softmax': its logits are
        used anyway. Probabilities are divided by their sum and kept in [1e-7, 1 − 1e-7], as in Keras.
    label_smoothing : float, default 0.0
        Targets become t·(1 − s) + s/classes.
    """

    name = "categorical_crossentropy"
    fuses = "softmax"

    def targets(self, y_true: ArrayLike, output_shape: tuple[int | None, ...], dtype: Any) -> Array:
        """See `Loss.targets`; values must be in [0, 1]."""
        y = as_numbers(f"{self.name}: y", y_true)
        if y.ndim < len(output_shape) or (y.shape[-1] == 1 and output_shape[-1] != 1):
            raise ValueError(
                f"{self.name}: y must be one-hot rows of shape {batch_shape(output_shape)}, got {y.shape}; "
                "for labels as integers use 'sparse_categorical_crossentropy'"
            )
        y = super().targets(y, output_shape, dtype)
        require_probabilities(self.name, y)
        return y

    def _smoothed(self, y_true: Array) -> Array:
        s = self.label_smoothing
        return y_true * (1.0 - s) + s / y_true.shape[-1] if s else y_true

    def _evaluate_probabilities(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        t = self._smoothed(y_true)
        total = y_pred.sum(axis=-1, keepdims=True)
        p = y_pred / total
        clipped = np.clip(p, EPSILON, 1.0 - EPSILON)
        values = -(t * np.log(clipped)).sum(axis=-1)
        gradient = -t / clipped * (p == clipped)
        gradient -= (gradient * p).sum(axis=-1, keepdims=True)
        return values, gradient / total

    def _evaluate_logits(self, y_true: Array, logits: Array) -> LogitsStep:
        t = self._smoothed(y_true)
        shifted, p, log_sum = _log_softmax_parts(logits)
        mass = t.sum(axis=-1)
        values = log_sum[..., 0] * mass - (t * shifted).sum(axis=-1)
        return LogitsStep(values, p, p * mass[..., None] - t)


class SparseCategoricalCrossentropy(_Crossentropy):
    """−log p[label], for targets given as integer labels of shape (batch, ...) or (batch, ..., 1).

    Parameters
    ----------
    from_logits : bool, default False
        As for `CategoricalCrossentropy`.
    """

    name = "sparse_categorical_crossentropy"
    fuses = "softmax"

    def __init__(self, from_logits: bool = False) -> None:
        super().__init__(from_logits)

    def targets(self, y_true: ArrayLike, output_shape: tuple[int | None, ...], dtype: Any) -> Array:
        """Return the labels as integers of shape (batch, ...); they must be in [0, classes)."""
        y, classes = as_numbers(f"{self.name}: y", y_true), output_shape[-1] or 0
        if y.ndim == len(output_shape) and y.shape[-1] == 1:
            y = y[..., 0]
        if y.ndim != len(output_shape) - 1 or y.shape[1:] != output_shape[1:-1]:
            raise ValueError(
                f"{self.name}: y must be integer labels of shape {batch_shape(output_shape[:-1])}, got {y.shape}"
                + (
                    "; for one-hot rows use 'categorical_crossentropy'"
                    if y.shape[1:] == output_shape[1:]
                    else ""
                )
            )
        if y.dtype.kind not in "iub":
            whole = np.isfinite(y) & (y == np.rint(y)) if y.dtype.kind == "f" else np.zeros(y.shape, bool)
            if not whole.all():
                found = y[~whole].tolist()[0]
                hint = (
                    "; for targets that are no classes use 'mean_squared_error'" if np.isfinite(found) else ""
                )
                raise ValueError(
                    f"{self.name}: labels must be integers, got {found!r} of type {y.dtype} "
                    f"({np.count_nonzero(~whole)} of {y.size} are none){hint}"
                )
        if y.size and (y.min() < 0 or y.max() >= classes):
            found = int(y.min() if y.min() < 0 else y.max())
            hint = "labels start at 0"
            if y.min() >= 0:
                hint = f"give the last layer {int(y.max()) + 1} units"
                if y.min() == 1:
                    hint = f"if they start at 1, give y - 1, else {hint}"
            raise ValueError(
                f"{self.name}: labels must be 0 to {classes - 1}, as the last layer has {classes} "
                f"unit{'s' if classes > 1 else ''}, got {found}; {hint}"
            )
        return y.astype(np.intp)

    def _evaluate_probabilities(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        one_hot = np.zeros_like(y_pred)
        np.put_along_axis(one_hot, y_true[..., None], 1, axis=-1)
        return CategoricalCrossentropy()._evaluate_probabilities(one_hot, y_pred)

    def from_logits_step(
        self, y_true: Array, logits: Array, weight: Array | None
    ) -> tuple[float, Array, Array]:
        """See `Loss.from_logits_step`; in one native pass."""
        if weight is not None and y_true.ndim > 1:
            weight = np.repeat(weight, y_true.size // len(y_true))
        step: tuple[float, Array, Array] = _core.softmax_cross_entropy(logits, y_true, weight)
        return step

    def _evaluate_logits(self, y_true: Array, logits: Array) -> LogitsStep:
        shifted, p, log_sum = _log_softmax_parts(logits)
        rows, labels = np.arange(y_true.size), y_true.reshape(-1)
        classes = logits.shape[-1]
        values = log_sum.reshape(-1) - shifted.reshape(-1, classes)[rows, labels]
        gradient = p.copy()
        gradient.reshape(-1, classes)[rows, labels] -= 1
        return LogitsStep(values.reshape(y_true.shape), p, gradient)


def _log_softmax_parts(logits: Array) -> tuple[Array, Array, Array]:
    """Return z − max z, softmax(z), and log Σ exp(z − max z), over the last axis."""
    shifted = logits - np.maximum.reduce(logits, axis=-1, keepdims=True)
    p = np.exp(shifted)
    total = np.add.reduce(p, axis=-1, keepdims=True)
    p /= total
    return shifted, p, np.log(total)
