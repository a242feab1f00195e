"""Metrics of right and wrong decisions at thresholds: counts, precision, recall, areas under curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit._checks import positive_integer
from normkit.metrics.base import Metric, matched

__all__ = [
    "AUC",
    "FalseNegatives",
    "FalsePositives",
    "Precision",
    "Recall",
    "TrueNegatives",
    "TruePositives",
]

Array = NDArray[Any]
Thresholds = float | Sequence[float] | None
EPSILON = 1e-7
_MOST_THRESHOLDS = 1_000_000


class Confusion(Metric):
    """Base: weights of true and false positives and negatives at each threshold.

    A prediction above a threshold is positive; a target that is not 0 is. All outputs are taken together.

    Parameters
    ----------
    thresholds : float or sequence of float, optional
        In [0, 1]. Default: 0.5; with `top_k` none.
    top_k : int, optional
        Only the k largest predictions of a sample can be positive.
    class_id : int, optional
        Take this output alone.
    name : str, optional
        Key in the logs.
    """

    state_names = ("true_positives", "false_positives", "true_negatives", "false_negatives")

    def __init__(
        self,
        thresholds: Thresholds = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
    ) -> None:
        given = [] if thresholds is None else np.atleast_1d(np.asarray(thresholds, np.float64)).tolist()
        self.thresholds = None if thresholds is None else given[0] if np.ndim(thresholds) == 0 else given
        if any(not 0.0 <= threshold <= 1.0 for threshold in given):
            raise ValueError(f"{type(self).__name__}: thresholds must be in [0, 1], got {thresholds}")
        self.top_k = None if top_k is None else positive_integer(f"{type(self).__name__}: top_k", top_k)
        self.class_id = class_id
        self._at = np.array(given or [0.5 if top_k is None else -np.inf])
        super().__init__(name)

    def reset_state(self) -> None:
        """Start again."""
        for name in self.state_names:
            setattr(self, name, np.zeros(len(self._at)))

    true_positives: Array
    false_positives: Array
    true_negatives: Array
    false_negatives: Array

    def update_state(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        """Count a batch, each sample with weight 1 or its `sample_weight`, shape (batch,)."""
        p = np.asarray(y_pred)
        t = matched(self.name, np.asarray(y_true), p) != 0
        if self.top_k is not None:
            smallest = np.partition(p, -min(self.top_k, p.shape[-1]), axis=-1)
            p = np.where(p >= smallest[..., [-min(self.top_k, p.shape[-1])]], p, -np.inf)
        if self.class_id is not None:
            t, p = t[..., self.class_id], p[..., self.class_id]
        w = np.ones(p.shape)
        if sample_weight is not None:
            w *= np.asarray(sample_weight, np.float64).reshape(-1, *(1,) * (p.ndim - 1))
        positive, negative = (self._above(p, w * part) for part in (t, ~t))
        self.true_positives = self.true_positives + positive
        self.false_positives = self.false_positives + negative
        self.false_negatives = self.false_negatives + (float((w * t).sum()) - positive)
        self.true_negatives = self.true_negatives + (float((w * ~t).sum()) - negative)

    def _above(self, p: Array, weight: Array) -> Array:
        """Sum of the weights of predictions above each threshold, by how many thresholds each is above."""
        order = np.argsort(self._at, kind="stable")
        exceeded = np.searchsorted(self._at[order].astype(p.dtype), p.reshape(-1), side="left")
        sums = np.bincount(exceeded, weight.reshape(-1), minlength=len(order) + 1)
        above = np.empty(len(order))
        above[order] = sums[::-1].cumsum()[::-1][1:]
        return above

    def _each(self, values: Array) -> Any:
        """One number for one threshold, else an array."""
        return float(values[0]) if len(values) == 1 else values


class _Count(Confusion):
    """Weight of the cases of one kind.

    Parameters
    ----------
    thresholds : float or sequence of float, default 0.5
        In [0, 1]; for several the result is an array.
    name : str, optional
        Key in the logs.
    """

    _counted: str

    def __init__(self, thresholds: Thresholds = None, name: str | None = None) -> None:
        super().__init__(thresholds, name=name)

    def result(self) -> Any:
        """Return the count since `reset_state`."""
        return self._each(getattr(self, self._counted))


class TruePositives(_Count):
    """Weight of true positives: called positive, and are. Arguments: thresholds=0.5 (for several: an array), name."""

    _counted = "true_positives"


class FalsePositives(_Count):
    """Weight of false positives: called positive, and are not. Arguments: thresholds=0.5 (for several: an array), name."""

    _counted = "false_positives"


class TrueNegatives(_Count):
    """Weight of true negatives: not called positive, and are not. Arguments: thresholds=0.5 (for several: an array), name."""

    _counted = "true_negatives"


class FalseNegatives(_Count):
    """Weight of false negatives: not called positive, and are. Arguments: thresholds=0.5 (for several: an array), name."""

    _counted = "false_negatives"


class Precision(Confusion):
    """Share of what was called positive that is; 0 if nothing was. Parameters: see `Recall`."""

    direction = "up"

    def result(self) -> Any:
        """Return the precision since `reset_state`."""
        return self._each(_ratio(self.true_positives, self.true_positives + self.false_positives))


class Recall(Confusion):
    """Share of what is positive that was called so; 0 if nothing is.

    Parameters
    ----------
    thresholds : float or sequence of float, optional
        In [0, 1]; for several the result is an array. Default: 0.5; with `top_k` none.
    top_k : int, optional
        Only the k largest predictions of a sample can be positive.
    class_id : int, optional
        Take this output alone.
    name : str, optional
        Key in the logs.
    """

    direction = "up"

    def result(self) -> Any:
        """Return the recall since `reset_state`."""
        return self._each(_ratio(self.true_positives, self.true_positives + self.false_negatives))


class AUC(Confusion):
    """Area under the ROC or the precision-recall curve, from a number of points on it.

    Parameters
    ----------
    num_thresholds : int, default 200; at most 1000000
        Evenly spaced points, at least 2.
    curve : {"ROC", "PR"}
        Recall over the false positive rate, or precision over recall.
    summation_method : {"interpolation", "minoring", "majoring"}
        Trapezoids (for PR: the interpolation of [1]_), or the smaller or the larger height of each step.
    name : str, optional
        Key in the logs. Default: 'auc'.
    thresholds : sequence of float, optional
        Points to use instead, in (0, 1).
    from_logits : bool, default False
        Whether predictions are logits.

    References
    ----------
    .. [1] J. Davis, M. Goadrich, "The Relationship Between Precision-Recall and ROC Curves", 2006.
    """

    direction = "up"
    CURVES = ("ROC", "PR")
    METHODS = ("interpolation", "minoring", "majoring")

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        thresholds: Sequence[float] | None = None,
        from_logits: bool = False,
    ) -> None:
        if curve not in self.CURVES:
            raise ValueError(f"AUC: curve must be one of {self.CURVES}, got {curve!r}")
        if summation_method not in self.METHODS:
            raise ValueError(f"AUC: summation_method must be one of {self.METHODS}, got {summation_method!r}")
        self.num_thresholds = positive_integer("AUC: num_thresholds", num_thresholds)
        if not 2 <= self.num_thresholds <= _MOST_THRESHOLDS:
            raise ValueError(
                f"AUC: num_thresholds must be at least 2 and at most {_MOST_THRESHOLDS}, got {num_thresholds}"
            )
        super().__init__(thresholds, name="auc" if name is None else name)
        self.curve, self.summation_method, self.from_logits = curve, summation_method, from_logits
        inner = (
            np.arange(1, self.num_thresholds - 1) / (self.num_thresholds - 1)
            if thresholds is None
            else np.sort(self._at)
        )
        self._at = np.concatenate([[-EPSILON], inner, [1.0 + EPSILON]])
        self.reset_state()

    def update_state(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        """See `Confusion.update_state`; predictions are kept in [0, 1]."""
        p = np.asarray(y_pred)
        if self.from_logits:
            p = 0.5 * (1.0 + np.tanh(0.5 * p))
        super().update_state(y_true, np.clip(p, 0.0, 1.0), sample_weight)

    def result(self) -> float:
        """Return the area since `reset_state`."""
        recall = _ratio(self.true_positives, self.true_positives + self.false_negatives)
        if self.curve == "ROC":
            x, y = _ratio(self.false_positives, self.false_positives + self.true_negatives), recall
        elif self.summation_method == "interpolation":
            return self._interpolated()
        else:
            x, y = recall, _ratio(self.true_positives, self.true_positives + self.false_positives)
        height = {
            "interpolation": (y[:-1] + y[1:]) / 2,
            "minoring": np.minimum(y[:-1], y[1:]),
            "majoring": np.maximum(y[:-1], y[1:]),
        }[self.summation_method]
        return float(((x[:-1] - x[1:]) * height).sum())

    def _interpolated(self) -> float:
        """Precision between two thresholds as a function of true positives, which grow in a line with all."""
        tp, positive = self.true_positives, self.true_positives + self.false_positives
        slope = _ratio(tp[:-1] - tp[1:], np.maximum(positive[:-1] - positive[1:], 0))
        intercept = tp[1:] - slope * positive[1:]
        both = (positive[:-1] > 0) & (positive[1:] > 0)
        ratio = np.where(both, _ratio(positive[:-1], positive[1:]), 1.0)
        steps = slope * (tp[:-1] - tp[1:] + intercept * np.log(ratio))
        return float(_ratio(steps, tp[1:] + self.false_negatives[1:]).sum())


def _ratio(a: Array, b: Array) -> Array:
    """Return a / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.shape(a)), where=b != 0)
