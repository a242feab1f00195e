"""F scores: precision and recall in one number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from normkit._checks import number
from normkit.metrics.base import Metric, matched, weights_of

__all__ = ["F1Score", "FBetaScore"]

EPSILON = 1e-7


class FBetaScore(Metric):
    """Weighted harmonic mean of precision and recall, for each output: (1 + β²) · P · R / (β² · P + R).

    Parameters
    ----------
    average : {"micro", "macro", "weighted"} or None
        Over all outputs together; the mean over outputs; the mean weighted by the positives of each; or an array.
    beta : float, default 1.0
        Positive; how much recall counts more than precision.
    threshold : float, optional
        Predictions above it are positive, in (0, 1]. Default: the largest of each sample is.
    name : str, optional
        Key in the logs.
    """

    direction = "up"
    state_names = ("true_positives", "false_positives", "false_negatives")
    AVERAGES = (None, "micro", "macro", "weighted")

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = None,
    ) -> None:
        kind = type(self).__name__
        if average not in self.AVERAGES:
            raise ValueError(f"{kind}: average must be one of {self.AVERAGES}, got {average!r}")
        if not number(f"{kind}: beta", beta) > 0.0:
            raise ValueError(f"{kind}: beta must be above 0, got {beta}")
        if threshold is not None and not 0.0 < number(f"{kind}: threshold", threshold) <= 1.0:
            raise ValueError(f"{kind}: threshold must be in (0, 1], got {threshold}")
        super().__init__("fbeta_score" if name is None else name)
        self.average, self.beta, self.threshold = average, float(beta), threshold

    def reset_state(self) -> None:
        """Start again."""
        self.true_positives, self.false_positives, self.false_negatives = (np.zeros(1) for _ in range(3))

    def update_state(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        """Count a batch of shape (batch, outputs)."""
        t, p = self._compared(y_true, y_pred)
        t = matched(self.name, t, p)
        if p.ndim != 2:
            raise ValueError(f"{self.name}: predictions must have shape (batch, outputs), got {p.shape}")
        if self.threshold is None:
            positive = (p >= p.max(axis=-1, keepdims=True)) & (np.abs(p) > 1e-9)
        else:
            positive = p > self.threshold
        w = np.ones(len(p)) if sample_weight is None else weights_of(sample_weight, len(p))
        counts = [w @ part for part in (positive * t, positive * (1 - t), ~positive * t)]
        if self.average == "micro":
            counts = [np.atleast_1d(count.sum()) for count in counts]
        for name, count in zip(self.state_names, counts, strict=True):
            setattr(self, name, getattr(self, name) + count)

    def result(self) -> Any:
        """Return the score since `reset_state`."""
        tp, positives = self.true_positives, self.true_positives + self.false_negatives
        precision = tp / (tp + self.false_positives + EPSILON)
        recall = tp / (positives + EPSILON)
        square = self.beta**2
        scores = (1 + square) * precision * recall / (square * precision + recall + EPSILON)
        if self.average is None:
            return scores
        if self.average == "weighted":
            return float((scores * positives / (positives.sum() + EPSILON)).sum())
        return float(scores.mean())


class F1Score(FBetaScore):
    """Harmonic mean of precision and recall; see `FBetaScore`."""

    def __init__(
        self, average: str | None = None, threshold: float | None = None, name: str | None = None
    ) -> None:
        super().__init__(average, 1.0, threshold, "f1_score" if name is None else name)
