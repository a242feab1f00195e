"""The definition of every operation: plain NumPy in float64, slow and readable.

The tests hold the kernels to these functions, and these functions to finite differences and exact fractions.
Each takes the arguments of its namesake in `normkit` and returns float64, whatever the dtype of its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit.moments import Moments, NormGradients

__all__ = [
    "Statistics",
    "batch_norm",
    "batch_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "statistics",
]

Array = NDArray[np.float64]


class Statistics(NamedTuple):
    """Mean and biased variance over some axes, with those axes kept at length 1, and the values centered."""

    mean: Array
    var: Array
    centered: Array


def statistics(x: ArrayLike, axes: tuple[int, ...]) -> Statistics:
    """Mean and biased variance of x over `axes`, two-pass, the mean corrected by the mean of the residuals.

    The correction (Chan, Golub & LeVeque 1983, eq. 1.7) keeps x − mean right to float64 when the mean is
    much larger than the standard deviation.
    """
    x = np.asarray(x, np.float64)
    if x.size == 0:
        kept = tuple(1 if axis in axes else length for axis, length in enumerate(x.shape))
        return Statistics(np.zeros(kept), np.zeros(kept), x)
    first = x.mean(axis=axes, keepdims=True)
    centered = x - first
    correction = centered.mean(axis=axes, keepdims=True)
    centered = centered - correction
    return Statistics(first + correction, np.square(centered).mean(axis=axes, keepdims=True), centered)


def layer_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int | Sequence[int] = -1,
    eps: float = 1e-5,
) -> tuple[Array, Moments]:
    """Return y = (x − mean) / sqrt(var + eps) · weight + bias, and the moments (Ba et al. 2016, eq. 4)."""
    x = np.asarray(x, np.float64)
    axes = _normalized_axes(x, axis)
    mean, var, centered = statistics(x, axes)
    rstd = 1.0 / np.sqrt(var + eps)
    y = _affine(centered * rstd, _spread(x, weight, axes), _spread(x, bias, axes))
    return y, Moments(mean.squeeze(axes), rstd.squeeze(axes))


def layer_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    moments: Moments,
    weight: ArrayLike | None = None,
    *,
    axis: int | Sequence[int] = -1,
) -> NormGradients:
    """Gradients of `layer_norm`.

    With x̂ = (x − mean)·rstd and g = dy·weight: dx = rstd·(g − mean(g) − x̂·mean(g·x̂)) over the normalized
    axes; dweight = Σ dy·x̂ and dbias = Σ dy over the other axes.
    """
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    axes = _normalized_axes(x, axis)
    others = tuple(i for i in range(x.ndim) if i not in axes)
    rstd = np.expand_dims(moments.rstd, axes)
    x_hat = _recentered(x, np.expand_dims(moments.mean, axes), axes) * rstd
    dx = _normalized_gradient(_affine(dy, _spread(x, weight, axes), None), x_hat, rstd, axes)
    return NormGradients(dx, (dy * x_hat).sum(axis=others), dy.sum(axis=others))


def batch_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    mean: ArrayLike | None = None,
    var: ArrayLike | None = None,
    axis: int = 1,
    eps: float = 1e-5,
) -> tuple[Array, Moments]:
    """Return y = (x − mean) / sqrt(var + eps) · weight + bias per channel, and the moments (Ioffe & Szegedy 2015).

    `mean` and `var`, shape (C,): the statistics to use (inference); by default those of x (training).
    """
    x = np.asarray(x, np.float64)
    channel, others = _channel_axis(x, axis)
    if mean is None or var is None:
        batch_mean, batch_var, centered = statistics(x, others)
    else:
        batch_mean, batch_var = _spread(x, mean, channel), _spread(x, var, channel)
        centered = x - batch_mean
    rstd = 1.0 / np.sqrt(batch_var + eps)
    y = _affine(centered * rstd, _spread(x, weight, channel), _spread(x, bias, channel))
    return y, Moments(batch_mean.squeeze(others), rstd.squeeze(others))


def batch_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    moments: Moments,
    weight: ArrayLike | None = None,
    *,
    training: bool = True,
    axis: int = 1,
) -> NormGradients:
    """Gradients of `batch_norm`; with training=False mean and variance are constants: dx = dy·weight·rstd."""
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    channel, others = _channel_axis(x, axis)
    mean, rstd = _spread(x, moments.mean, channel), _spread(x, moments.rstd, channel)
    x_hat = (_recentered(x, mean, others) if training else x - mean) * rstd
    g = _affine(dy, _spread(x, weight, channel), None)
    dx = _normalized_gradient(g, x_hat, rstd, others) if training else g * rstd
    return NormGradients(dx, (dy * x_hat).sum(axis=others), dy.sum(axis=others))


def _normalized_gradient(g: Array, x_hat: Array, rstd: Array, axes: tuple[int, ...]) -> Array:
    if g.size == 0:
        return np.asarray(g * rstd)
    mean_g = g.mean(axis=axes, keepdims=True)
    mean_gx = (g * x_hat).mean(axis=axes, keepdims=True)
    return np.asarray(rstd * (g - mean_g - x_hat * mean_gx))


def _recentered(x: Array, mean: Array, axes: tuple[int, ...]) -> Array:
    """X − mean, where mean is the float64-rounded mean of x itself: take out what that rounding left."""
    centered = x - mean
    return centered if x.size == 0 else np.asarray(centered - centered.mean(axis=axes, keepdims=True))


def _affine(x_hat: Array, weight: Array | None, bias: Array | None) -> Array:
    scaled = x_hat if weight is None else x_hat * weight
    return np.asarray(scaled if bias is None else scaled + bias)


def _normalized_axes(x: Array, axis: int | Sequence[int]) -> tuple[int, ...]:
    axes = (axis,) if isinstance(axis, (int, np.integer)) else tuple(axis)
    return tuple(sorted(int(a) % x.ndim for a in axes))


def _channel_axis(x: Array, axis: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    channel = int(axis) % x.ndim
    return (channel,), tuple(i for i in range(x.ndim) if i != channel)


def _spread(x: Array, parameter: Any, axes: tuple[int, ...]) -> Any:
    """Reshape a parameter over `axes` so that it broadcasts against x."""
    if parameter is None:
        return None
    shape = tuple(length if i in axes else 1 for i, length in enumerate(x.shape))
    return np.asarray(parameter, np.float64).reshape(shape)
