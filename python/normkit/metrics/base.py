"""`Metric`, and the mean over samples that most metrics are."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit._checks import as_numbers, shown
from normkit._registry import Owned, snake_case

__all__ = [
    "Average",
    "Direction",
    "Mean",
    "MeanMetric",
    "MeanMetricWrapper",
    "Metric",
    "matched",
    "weights_of",
]

Array = NDArray[Any]
Direction = Literal["up", "down"]


class Average:
    """Weighted mean of the numbers seen since `reset`; 0 before the first, as in Keras."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        self.total = 0.0
        self.count = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        """Count `value` with `weight`."""
        self.total += value * weight
        self.count += weight

    def add_samples(self, values: Array, sample_weight: ArrayLike | None) -> None:
        """Count the mean value of each sample, the first axis, with weight 1 or its own."""
        if sample_weight is None:
            self.add(float(np.add.reduce(values, axis=None)) / (values.size or 1), len(values))
            return
        weight = weights_of(sample_weight, len(values))
        samples = values.reshape(len(values), -1).mean(axis=1)
        total = float(weight.sum())
        self.add(float(samples @ weight) / total if total else 0.0, total)

    def result(self) -> float:
        """Return the mean."""
        return self.total / self.count if self.count else 0.0


class Metric(Owned):
    """A number, or several, of all targets and predictions since `reset_state`.

    A subclass writes `update_state`, `result` and `reset_state`, and names in `state_names` the attributes that
    `reset_state` sets.

    Parameters
    ----------
    name : str, optional
        Key in the logs and in `History.history`. Default: the class name in lower case, with underscores.

    Attributes
    ----------
    direction : "up", "down" or None
        Which way is better, for callbacks with mode='auto'.
    """

    direction: Direction | None = None
    state_names: tuple[str, ...] = ()

    def __init__(self, name: str | None = None) -> None:
        self.name = name if name is not None else snake_case(type(self).__name__)
        self.reset_state()

    def _goes_by(self, name: Any) -> bool:
        return super()._goes_by(name) or name.replace("_", "") in type(self).__name__.lower()

    def _compared(self, y_true: ArrayLike, y_pred: ArrayLike) -> tuple[Array, Array]:
        """Return targets and predictions as arrays with a batch axis."""
        t, p = as_numbers(f"{self.name}: y_true", y_true), as_numbers(f"{self.name}: y_pred", y_pred)
        if p.ndim == 0 or t.ndim == 0:
            raise ValueError(
                f"{self.name}: targets and predictions need a batch axis, got shapes {t.shape} and {p.shape}"
            )
        if len(t) != len(p):
            raise ValueError(
                f"{self.name}: targets and predictions must have the same length, got {len(t)} and {len(p)}"
            )
        return t, p

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch of y_true, y_pred, and sample_weight, shape (batch,), if there is any."""
        raise NotImplementedError

    def result(self) -> Any:
        """Return the value since `reset_state`."""
        raise NotImplementedError

    def reset_state(self) -> None:
        """Start again."""
        raise NotImplementedError

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`update_state`, then `result`."""
        self.update_state(*args, **kwargs)
        return self.result()

    def check(self, y_true: Array, y_pred: Array) -> None:
        """Raise ValueError if batches of these shapes cannot be compared; nothing is counted."""
        with np.errstate(all="ignore"):
            copy.deepcopy(self).update_state(y_true, y_pred)

    def get_state(self) -> dict[str, Any]:
        """Return what has been counted."""
        return {name: getattr(self, name) for name in self.state_names}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `get_state` returned."""
        values = {name: state[name] for name in self.state_names}
        for name, value in values.items():
            setattr(self, name, value)

    def merge_state(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Take over what several have counted, each a part of the samples; here the sums of `state_names`.

        A subclass whose state is not a sum over samples writes its own.
        """
        for name in self.state_names:
            setattr(self, name, functools.reduce(operator.add, (state[name] for state in states)))

    def check_merging(self) -> None:
        """Raise ValueError if what several have counted cannot be merged."""
        if not self.state_names and type(self).merge_state is Metric.merge_state:
            raise ValueError(
                f"{self.name}: its state on several ranks cannot be merged; name the attributes that are sums over "
                f"samples in {type(self).__name__}.state_names, or write merge_state"
            )


class _AverageMetric(Metric):
    """A metric whose state is one average."""

    state_names = ("total", "count")

    def reset_state(self) -> None:
        """Start again."""
        self._average = Average()

    @property
    def total(self) -> float:
        """Weighted sum."""
        return self._average.total

    @total.setter
    def total(self, value: float) -> None:
        self._average.total = value

    @property
    def count(self) -> float:
        """Sum of the weights."""
        return self._average.count

    @count.setter
    def count(self, value: float) -> None:
        self._average.count = value

    def result(self) -> float:
        """Return the mean since `reset_state`."""
        return self._average.result()


class Mean(_AverageMetric):
    """Weighted mean of values: ``update_state(values, sample_weight=None)``."""

    def update_state(self, values: ArrayLike, sample_weight: ArrayLike | None = None) -> None:
        """Count numbers, each with weight 1 or its `sample_weight`; a single one counts as a batch of one."""
        weight = None if sample_weight is None else np.atleast_1d(sample_weight)
        self._average.add_samples(np.atleast_1d(as_numbers(f"{self.name}: values", values)), weight)


class MeanMetric(_AverageMetric):
    """Mean over samples of a value for each. A subclass writes `values`."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """Return one value per sample or per output; the first axis is the batch."""
        raise NotImplementedError

    def update_state(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        """Count a batch, each sample with weight 1 or its `sample_weight`, shape (batch,)."""
        values = self.values(*self._compared(y_true, y_pred))
        self._average.add_samples(values, sample_weight)


class MeanMetricWrapper(MeanMetric):
    """A function as a metric.

    Parameters
    ----------
    fn : callable
        ``fn(y_true, y_pred)`` returns an array of one value per sample or per output. Within a model y_true is as
        the loss uses it: in the shape of y_pred, or for a sparse loss integer labels without the last axis.
    name : str, optional
        Key in the logs. Default: the name of the function.
    """

    def __init__(self, fn: Callable[[Array, Array], Array], name: str | None = None) -> None:
        if not callable(fn):
            raise TypeError(
                f"MeanMetricWrapper: fn must be a function of targets and predictions, got {shown(fn)}"
            )
        super().__init__(name if name is not None else getattr(fn, "__name__", None))
        self.fn = fn

    def _goes_by(self, name: Any) -> bool:
        return super()._goes_by(name) or name == getattr(self.fn, "__name__", None)

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """Return what the function does."""
        values = np.asarray(self.fn(y_true, y_pred))
        if values.shape[:1] != y_pred.shape[:1]:
            raise ValueError(
                f"{self.name}: the function must return one value per sample, {len(y_pred)} along the first axis, "
                f"got shape {values.shape}"
            )
        return values


def weights_of(sample_weight: ArrayLike, samples: int) -> Array:
    """Return sample weights as float64, or raise ValueError if there is not one for each sample."""
    weight = as_numbers("sample_weight", sample_weight).astype(np.float64, copy=False)
    if weight.shape != (samples,):
        raise ValueError(f"sample_weight must have shape ({samples},), got {weight.shape}")
    return weight


def matched(name: str, y_true: Array, y_pred: Array) -> Array:
    """Return targets in the shape of the predictions, or raise ValueError."""
    if y_true.ndim == y_pred.ndim - 1 and y_pred.shape[-1] == 1:
        y_true = y_true[..., None]
    if y_true.shape != y_pred.shape:
        raise ValueError(
            f"{name}: targets and predictions do not match: the shapes to compare are "
            f"{y_true.shape} and {y_pred.shape}"
            + ("; labels of several classes are given as one-hot rows" if y_true.ndim < y_pred.ndim else "")
        )
    return y_true
