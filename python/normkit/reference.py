"""The definition of every operation: plain NumPy in float64, slow and readable.

The tests hold the kernels to these functions, and these functions to finite differences and exact fractions.
Each takes the arguments of its namesake in `normkit` and returns float64, whatever the dtype of its input. What is fused there
is called by itself here: `activate` after a norm, `dropout_factors` before one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit.moments import Moments, NormGradients

__all__ = [
    "Statistics",
    "activate",
    "activation_gradient",
    "batch_norm",
    "batch_norm_backward",
    "dropout_factors",
    "dropout_words",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
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


def statistics(
    x: ArrayLike, axes: tuple[int, ...], where: ArrayLike | None = None, *, centered: bool = True
) -> Statistics:
    """Mean and biased variance of x over `axes`, two-pass, the mean corrected by the mean of the residuals.

    The correction (Chan, Golub & LeVeque 1983, eq. 1.7) keeps x − mean right to float64 when the mean is
    much larger than the standard deviation. With centered=False the mean is 0, and the variance mean(x²).
    """
    x = np.asarray(x, np.float64)
    mask = _mask(x, where)
    count = mask.sum(axis=axes, keepdims=True)
    if not centered:
        return Statistics(np.zeros(count.shape), _mean(np.square(x), axes, mask), x, count)
    first = _mean(x, axes, mask)
    correction = _mean(x - first, axes, mask)
    difference = x - first - correction
    return Statistics(first + correction, _mean(np.square(difference), axes, mask), difference, count)


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
    return _rows(x, weight, bias, axis, eps, where, centered=True)


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
    return _row_gradients(dy, x, moments, weight, axis, where, centered=True)


def rms_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int | Sequence[int] = -1,
    eps: float = 1e-5,
    where: ArrayLike | None = None,
) -> tuple[Array, Moments]:
    """Return y = x / sqrt(mean(x²) + eps) · weight + bias, and the moments (Zhang & Sennrich 2019, eq. 4)."""
    return _rows(x, weight, bias, axis, eps, where, centered=False)


def rms_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    moments: Moments,
    weight: ArrayLike | None = None,
    *,
    axis: int | Sequence[int] = -1,
    where: ArrayLike | None = None,
) -> NormGradients:
    """Gradients of `rms_norm`: those of `layer_norm` with x̂ = x·rstd, and without mean(g)."""
    return _row_gradients(dy, x, moments, weight, axis, where, centered=False)


def _rows(
    x: ArrayLike,
    weight: ArrayLike | None,
    bias: ArrayLike | None,
    axis: int | Sequence[int],
    eps: float,
    where: ArrayLike | None,
    *,
    centered: bool,
) -> tuple[Array, Moments]:
    x = np.asarray(x, np.float64)
    axes = _normalized_axes(x, axis)
    stats = statistics(x, axes, where, centered=centered)
    mean, rstd = stats.mean, stats.rstd(eps)
    y = _affine(stats.centered * rstd, _spread(x, weight, axes), _spread(x, bias, axes))
    return y, Moments(mean.squeeze(axes), rstd.squeeze(axes))


def _row_gradients(
    dy: ArrayLike,
    x: ArrayLike,
    moments: Moments,
    weight: ArrayLike | None,
    axis: int | Sequence[int],
    where: ArrayLike | None,
    *,
    centered: bool,
) -> NormGradients:
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    axes = _normalized_axes(x, axis)
    others = tuple(i for i in range(x.ndim) if i not in axes)
    rstd = np.expand_dims(moments.rstd, axes)
    mask = _mask(x, where)
    x_hat = (_recentered(x, np.expand_dims(moments.mean, axes), axes, mask) if centered else x) * rstd
    g = _affine(dy, _spread(x, weight, axes), None)
    dx = _normalized_gradient(g, x_hat, rstd, axes, mask, centered=centered)
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


def group_norm(
    x: ArrayLike,
    num_groups: int,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    where: ArrayLike | None = None,
) -> tuple[Array, Moments]:
    """Return y = (x − mean) / sqrt(var + eps) · weight + bias, and the moments, shape (batch, groups).

    Mean and variance are those of a group of channels in one sample, weight and bias of a channel (Wu & He 2018, eq. 7).
    """
    x = np.asarray(x, np.float64)
    grouped, axes = _grouped(x, num_groups, axis)
    stats = statistics(grouped, axes, _grouped_mask(x, where, num_groups, axis))
    mean, rstd = stats.mean, stats.rstd(eps)
    channel = (int(axis) % x.ndim,)
    x_hat = _ungrouped(stats.centered * rstd, x, axis)
    y = _affine(x_hat, _spread(x, weight, channel), _spread(x, bias, channel))
    return y, Moments(mean.squeeze(axes), rstd.squeeze(axes))


def group_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    moments: Moments,
    weight: ArrayLike | None = None,
    *,
    axis: int = 1,
    where: ArrayLike | None = None,
) -> NormGradients:
    """Gradients of `group_norm`: dx as that of `layer_norm`, with the means over a group."""
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    num_groups = moments.rstd.shape[1]
    channel, others = _channel_axis(x, axis)
    grouped, axes = _grouped(x, num_groups, axis)
    mask = _mask(grouped, _grouped_mask(x, where, num_groups, axis))
    rstd = np.expand_dims(moments.rstd, axes)
    x_hat = _recentered(grouped, np.expand_dims(moments.mean, axes), axes, mask) * rstd
    g = _affine(dy, _spread(x, weight, channel), None)
    dx = _normalized_gradient(_grouped(g, num_groups, axis)[0], x_hat, rstd, axes, mask)
    own = _ungrouped(x_hat, x, axis)
    return NormGradients(_ungrouped(dx, x, axis), (dy * own).sum(axis=others), dy.sum(axis=others))


def instance_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    where: ArrayLike | None = None,
) -> tuple[Array, Moments]:
    """`group_norm` with a group for each channel (Ulyanov et al. 2016, eq. 3)."""
    return group_norm(x, np.shape(x)[axis], weight, bias, axis=axis, eps=eps, where=where)


def instance_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    moments: Moments,
    weight: ArrayLike | None = None,
    *,
    axis: int = 1,
    where: ArrayLike | None = None,
) -> NormGradients:
    """Gradients of `instance_norm`."""
    return group_norm_backward(dy, x, moments, weight, axis=axis, where=where)


def activate(z: ArrayLike, activation: str | None, negative_slope: float = 0.01) -> Array:
    """Return a(z): relu, leaky_relu, gelu (Hendrycks & Gimpel 2016: z·Φ(z), by erfc) or silu (z·σ(z))."""
    z = np.asarray(z, np.float64)
    match activation:
        case None:
            return z
        case "relu":
            return np.where(z < 0, 0.0, z)
        case "leaky_relu":
            return np.where(z < 0, negative_slope * z, z)
        case "gelu":
            return np.asarray(z * _normal_cdf(z))
        case "silu":
            return np.asarray(z * _sigmoid(z))
    raise ValueError(f"activation must be one of relu, leaky_relu, gelu, silu, or None, got {activation!r}")


def activation_gradient(
    dy: ArrayLike, z: ArrayLike, activation: str | None, negative_slope: float = 0.01
) -> Array:
    """Return dy·a'(z) of `activate`; at 0 relu passes nothing, and leaky_relu negative_slope·dy."""
    dy, z = np.asarray(dy, np.float64), np.asarray(z, np.float64)
    match activation:
        case None:
            return dy
        case "relu":
            return np.where(z <= 0, 0.0, dy)
        case "leaky_relu":
            return np.where(z > 0, dy, negative_slope * dy)
        case "gelu":
            return np.asarray(dy * (_normal_cdf(z) + z * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)))
        case "silu":
            return np.asarray(dy * _sigmoid(z) * (1.0 + z * _sigmoid(-z)))
    raise ValueError(f"activation must be one of relu, leaky_relu, gelu, silu, or None, got {activation!r}")


def dropout_factors(shape: tuple[int, ...], dropout: float, seed: int = 0) -> Array:
    """Return what `add_layer_norm` multiplies x with: 0 where an element is dropped, else 1 / (1 − dropout).

    An element is kept where its word (`dropout_words`) is below (1 − dropout)·2³².
    """
    kept = dropout_words(seed, math.prod(shape)) < np.uint64(round((1.0 - dropout) * 2.0**32))
    return np.where(kept, 1.0 / (1.0 - dropout), 0.0).reshape(shape)


def dropout_words(seed: int, size: int) -> NDArray[np.uint64]:
    """Return the 32-bit words of the first `size` elements, in the order of memory.

    They are those of Philox 4x32-10 (Salmon et al. 2011) with the key `seed`: word w of counter c in a block of 16 counters is
    that of the element 16·w + c of a block of 64 elements.
    """
    low = np.uint64(0xFFFFFFFF)
    bits = np.uint64(32)
    a = np.arange(-(-size // 64) * 16, dtype=np.uint64)
    a, b = a & low, a >> bits
    c, d = np.zeros_like(a), np.zeros_like(a)
    keys = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        first, second = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a = (second >> bits) ^ b ^ np.uint64(keys[0])
        c = (first >> bits) ^ d ^ np.uint64(keys[1])
        b, d = second & low, first & low
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack([a, b, c, d]).reshape(4, -1, 16).transpose(1, 0, 2).reshape(-1)[:size]


def _normal_cdf(z: Array) -> Array:
    """Φ(z) = erfc(−z/√2)/2. What the rounding of −z/√2 leaves counts as often as −z/√2 is large: added by the derivative."""
    exact = -z.astype(np.longdouble) / np.sqrt(np.longdouble(2))
    rounded = exact.astype(np.float64)
    left = (exact - rounded).astype(np.float64)
    erfc = np.vectorize(math.erfc, otypes=[np.float64])(rounded)
    return np.asarray(0.5 * erfc - np.exp(-rounded * rounded) * left / math.sqrt(math.pi))


def _sigmoid(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return np.where(z < 0, e, 1.0) / (1.0 + e)


def _grouped(x: NDArray[Any], num_groups: int, axis: int) -> tuple[NDArray[Any], tuple[int, ...]]:
    """X as (batch, groups, channels of a group, ...), and the axes of a group."""
    first = np.moveaxis(x, axis, 1)
    batch, channels, *rest = first.shape
    grouped = first.reshape(batch, num_groups, channels // num_groups, *rest)
    return grouped, tuple(range(2, grouped.ndim))


def _ungrouped(grouped: Array, x: Array, axis: int) -> Array:
    first = np.moveaxis(x, axis, 1).shape
    return np.moveaxis(grouped.reshape(first), 1, axis)


def _grouped_mask(x: Array, where: ArrayLike | None, num_groups: int, axis: int) -> Mask | None:
    return None if where is None else _grouped(_mask(x, where), num_groups, axis)[0]


def _normalized_gradient(
    g: Array, x_hat: Array, rstd: Array, axes: tuple[int, ...], mask: Mask, *, centered: bool = True
) -> Array:
    count = np.maximum(1, mask.sum(axis=axes, keepdims=True))
    mean_g = g.sum(axis=axes, keepdims=True) / count if centered else 0.0
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
