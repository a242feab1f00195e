"""Losses of counts, of distributions and of margins."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit.losses.base import EPSILON, ElementwiseLoss, Loss

__all__ = ["CategoricalHinge", "Hinge", "KLDivergence", "Poisson", "SquaredHinge"]

Array = NDArray[Any]


class Poisson(ElementwiseLoss):
    """p − t · log(p + 1e-7), mean over the outputs: for counts, with a positive output."""

    name = "poisson"

    def _terms(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        shifted = y_pred + y_pred.dtype.type(EPSILON)
        return y_pred - y_true * np.log(shifted), 1.0 - y_true / shifted


class KLDivergence(Loss):
    """Σ t · log(t / p) over the last axis (Kullback & Leibler 1951); both are kept in [1e-7, 1]."""

    name = "kl_divergence"

    def _evaluate(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        t, p = np.clip(y_true, EPSILON, 1.0), np.clip(y_pred, EPSILON, 1.0)
        return (t * np.log(t / p)).sum(axis=-1), -t / p * (p == y_pred)


class _Margin(ElementwiseLoss):
    """For targets −1 and 1; those in {0, 1} are taken as −1 and 1 if all of a batch are."""

    def _shortfall(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        binary = bool(((y_true == 0) | (y_true == 1)).all())
        sign = 2.0 * y_true - 1.0 if binary else y_true
        return np.maximum(1.0 - sign * y_pred, 0.0), sign


class Hinge(_Margin):
    """max(1 − t · p, 0), mean over the outputs, for targets −1 and 1 (or 0 and 1)."""

    name = "hinge"

    def _terms(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        terms, sign = self._shortfall(y_true, y_pred)
        return terms, -sign * (terms > 0)


class SquaredHinge(_Margin):
    """max(1 − t · p, 0)², mean over the outputs, for targets −1 and 1 (or 0 and 1)."""

    name = "squared_hinge"

    def _terms(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        terms, sign = self._shortfall(y_true, y_pred)
        return np.square(terms), -2.0 * sign * terms


class CategoricalHinge(Loss):
    """max(1 + max((1 − t) · p) − Σ t · p, 0) over the classes (last axis), for one-hot targets."""

    name = "categorical_hinge"

    def _evaluate(self, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
        others = (1.0 - y_true) * y_pred
        rival = np.expand_dims(others.argmax(axis=-1), -1)
        values = np.maximum(others.max(axis=-1) - (y_true * y_pred).sum(axis=-1) + 1.0, 0.0)
        gradient = -y_true
        slope = np.take_along_axis(gradient, rival, -1) + np.take_along_axis(1.0 - y_true, rival, -1)
        np.put_along_axis(gradient, rival, slope, -1)
        return values, gradient * (values > 0)[..., None]
