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
Mask = NDArray[np.bool_]


class Statistics(NamedTuple):
    """Mean and biased variance over some axes, with those axes kept at length 1, and the values centered.

    samples: how many elements they are taken of; of none they are 0.
    """

    mean: Array
    var: Array
    centered: Array
    samples: NDArray[np.int64]

    def rstd(self, eps: float) -> Array:
        """Return 1 / sqrt(var + eps), or 0 where a mask leaves no element."""
        return np.where((self.samples == 0) & (self.centered.size > 0), 0.0, 1.0 / np.sqrt(self.var + eps))


def statistics(x: ArrayLike, axes: tuple[int, ...], where: ArrayLike | None = None) -> Statistics:
    """Mean and biased variance of x over `axes`, two-pass, the mean corrected by the mean of the residuals.

    The correction (Chan, Golub & LeVeque 1983, eq. 1.7) keeps x − mean right to float64 when the mean is
    much larger than the standard deviation.
    """
    x = np.asarray(x, np.float64)
    mask = _mask(x, where)
    count = mask.sum(axis=axes, keepdims=True)
    first = _mean(x, axes, mask)
    correction = _mean(x - first, axes, mask)
    centered = x - first - correction
    return Statistics(first + correction, _mean(np.square(centered), axes, mask), centered, count)


def layer_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int | Sequence[int] = -1,
    eps: float = 1e-5,
    where: ArrayLike | None = None,
) -> tuple[Array, Moments]:
    """Return y = (x − mean) / sqrt(var + eps) · weight + bias, and the moments (Ba et al. 2016, eq. 4)."""
    x = np.asarray(x, np.float64)
    axes = _normalized_axes(x, axis)
    stats = statistics(x, axes, where)
    mean, rstd = stats.mean, stats.rstd(eps)
    y = _affine(stats.centered * rstd, _spread(x, weight, axes), _spread(x, bias, axes))
    return y, Moments(mean.squeeze(axes), rstd.squeeze(axes))


def layer_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    moments: Moments,
    weight: ArrayLike | None = None,
    *,
    axis: int | Sequence[int] = -1,
    where: ArrayLike | None = None,
) -> NormGradients:
    """Gradients of `layer_norm`.

    With x̂ = (x − mean)·rstd and g = dy·weight: dx = rstd·(g − mean(g) − x̂·mean(g·x̂)) over the normalized
    axes; dweight = Σ dy·x̂ and dbias = Σ dy over the other axes. With `where` the means are sums over all elements,
    divided by the number of those that count, and are subtracted from these alone.
    """
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    axes = _normalized_axes(x, axis)
    others = tuple(i for i in range(x.ndim) if i not in axes)
    rstd = np.expand_dims(moments.rstd, axes)
    mask = _mask(x, where)
    x_hat = _recentered(x, np.expand_dims(moments.mean, axes), axes, mask) * rstd
    dx = _normalized_gradient(_affine(dy, _spread(x, weight, axes), None), x_hat, rstd, axes, mask)
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
    where: ArrayLike | None = None,
) -> tuple[Array, Moments]:
    """Return y = (x − mean) / sqrt(var + eps) · weight + bias per channel, and the moments (Ioffe & Szegedy 2015).

    `mean` and `var`, shape (C,): the statistics to use (inference); by default those of x (training).
    """
    x = np.asarray(x, np.float64)
    channel, others = _channel_axis(x, axis)
    if mean is None or var is None:
        stats = statistics(x, others, where)
        batch_mean, centered, rstd = stats.mean, stats.centered, stats.rstd(eps)
    else:
        batch_mean = _spread(x, mean, channel)
        centered, rstd = x - batch_mean, 1.0 / np.sqrt(_spread(x, var, channel) + eps)
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
    where: ArrayLike | None = None,
) -> NormGradients:
    """Gradients of `batch_norm`; with training=False mean and variance are constants: dx = dy·weight·rstd."""
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    channel, others = _channel_axis(x, axis)
    mean, rstd = _spread(x, moments.mean, channel), _spread(x, moments.rstd, channel)
    mask = _mask(x, where)
    x_hat = (_recentered(x, mean, others, mask) if training else x - mean) * rstd
    g = _affine(dy, _spread(x, weight, channel), None)
    dx = _normalized_gradient(g, x_hat, rstd, others, mask) if training else g * rstd
    return NormGradients(dx, (dy * x_hat).sum(axis=others), dy.sum(axis=others))


def _normalized_gradient(g: Array, x_hat: Array, rstd: Array, axes: tuple[int, ...], mask: Mask) -> Array:
    count = np.maximum(1, mask.sum(axis=axes, keepdims=True))
    mean_g = g.sum(axis=axes, keepdims=True) / count
    mean_gx = (g * x_hat).sum(axis=axes, keepdims=True) / count
    return np.asarray(rstd * np.where(mask, g - mean_g - x_hat * mean_gx, g))


def _recentered(x: Array, mean: Array, axes: tuple[int, ...], mask: Mask) -> Array:
    """X − mean, where mean is the float64-rounded mean of x itself: take out what that rounding left."""
    centered = x - mean
    return np.asarray(centered - _mean(centered, axes, mask))


def _mask(x: Array, where: ArrayLike | None) -> Mask:
    return np.broadcast_to(np.asarray(True if where is None else where, np.bool_), x.shape)


def _mean(x: Array, axes: tuple[int, ...], mask: Mask) -> Array:
    count = np.maximum(1, mask.sum(axis=axes, keepdims=True))
    return np.asarray(x.sum(axis=axes, keepdims=True, where=mask) / count)


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
