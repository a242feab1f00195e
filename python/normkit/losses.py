"""Losses: the value that training lowers, and its gradient.

A loss is the mean over samples, each multiplied by its sample weight if there are weights (Keras's
`sum_over_batch_size`: the divisor is the number of samples, not the sum of the weights).

Cross-entropies are computed from logits wherever those are known: `from_logits=True`, or a model whose last
layer ends with the matching activation. With log-sum-exp shifted by the maximum the value is exact however
small the probability, and the gradient with respect to the logits is p − target.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit import activations
from normkit._registry import Configured, Registry

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Loss",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "get",
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
        y = np.ascontiguousarray(y_true, dtype)
        if y.ndim == len(output_shape) - 1 and output_shape[-1] == 1:
            y = y[..., None]
        if y.ndim != len(output_shape) or y.shape[1:] != output_shape[1:]:
            raise ValueError(
                f"{self.name}: y must have the shape of the model's output, {_batch(output_shape)}, got {y.shape}"
            )
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
        predictions = np.asarray(y_pred)
        if predictions.dtype not in (np.float32, np.float64):
            predictions = predictions.astype(np.float64)
        targets = self.targets(y_true, predictions.shape, predictions.dtype)
        weight = None if sample_weight is None else np.asarray(sample_weight, predictions.dtype)
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

    def _evaluate(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        """Loss of each sample, shape (batch, ...) without the last axis of y_pred, and d/dy_pred of its own."""
        raise NotImplementedError

    def _evaluate_logits(self, y_true: Array, logits: Array) -> LogitsStep:
        raise NotImplementedError(f"{self.name} has no form for logits")


class MeanSquaredError(Loss):
    """(y_pred − y_true)², mean over the outputs."""

    name = "mean_squared_error"

    def _evaluate(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        difference = y_pred - y_true
        values = np.square(difference).mean(axis=-1)
        difference *= 2.0 / y_pred.shape[-1]
        return values, difference


class _Crossentropy(Loss):
    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(
                f"{type(self).__name__}: label_smoothing must be in [0, 1], got {label_smoothing}"
            )
        self.from_logits = from_logits
        self.label_smoothing = float(label_smoothing)

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
        _require_probabilities(self.name, y)
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
        y = np.asarray(y_true)
        if y.ndim < len(output_shape) or (y.shape[-1] == 1 and output_shape[-1] != 1):
            raise ValueError(
                f"{self.name}: y must be one-hot rows of shape {_batch(output_shape)}, got {y.shape}; "
                "for labels as integers use 'sparse_categorical_crossentropy'"
            )
        y = super().targets(y, output_shape, dtype)
        _require_probabilities(self.name, y)
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
        y, classes = np.asarray(y_true), output_shape[-1] or 0
        if y.ndim == len(output_shape) and y.shape[-1] == 1:
            y = y[..., 0]
        if y.ndim != len(output_shape) - 1 or y.shape[1:] != output_shape[1:-1]:
            raise ValueError(
                f"{self.name}: y must be integer labels of shape {_batch(output_shape[:-1])}, got {y.shape}"
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
                raise ValueError(f"{self.name}: labels must be integers, got {found!r} of type {y.dtype}")
        if y.size and (y.min() < 0 or y.max() >= classes):
            found = y.min() if y.min() < 0 else y.max()
            raise ValueError(f"{self.name}: labels must be in [0, {classes}), got {found}")
        return y.astype(np.intp)

    def _evaluate_probabilities(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        one_hot = np.zeros_like(y_pred)
        np.put_along_axis(one_hot, y_true[..., None], 1, axis=-1)
        return CategoricalCrossentropy()._evaluate_probabilities(one_hot, y_pred)

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


def _require_probabilities(name: str, y: Array) -> None:
    if y.size and not (y.min() >= 0 and y.max() <= 1):
        raise ValueError(f"{name}: targets must be in [0, 1], got values in [{y.min():g}, {y.max():g}]")


def _batch(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join(['batch', *(str(n) for n in shape[1:])])}{',' if len(shape) == 1 else ''})"


registry: Registry[Loss] = Registry(
    "loss",
    Loss,
    {
        "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
        "categorical_crossentropy": CategoricalCrossentropy,
        "binary_crossentropy": BinaryCrossentropy,
        "mean_squared_error": MeanSquaredError,
        "mse": MeanSquaredError,
    },
)


def get(identifier: str | dict[str, Any] | Loss) -> Loss:
    """Return the loss of that name, or of that saved configuration, or the instance itself."""
    return registry.get(identifier)
