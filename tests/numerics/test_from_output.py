"""Gradients from the output y: as exact as y is, to the bound that docs/operations.md states, on hostile data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bounds
import normkit as nk
from bounds import F64, half_unit
from cases import DTYPES, SIXTEEN_BITS

ALL_DTYPES = [*DTYPES, *SIXTEEN_BITS]
# rows and columns of (rows, columns); statistics of two values, of few, of many
SHAPES = [(40, 2), (2, 40), (3, 7), (300, 5), (5, 300)]
# sizes of weight; those at the ends of what has an inverse
WEIGHTS = {"one size": (0, 0), "all sizes": (-6, 6), "smallest": (-30, -28), "largest": (28, 30)}
BIASES = (0.0, 1.0, 1000.0)  # times the weight


def lost(y: Any, exact: Any, weight: F64, bias: F64, slope: float | None) -> F64:
    """The bound on the error of x̂: 4 units of y and two roundings, three more behind leaky_relu; what 16 bits lose."""
    narrow = y.dtype.itemsize == 2
    eps = float(np.finfo(np.float32 if narrow else y.dtype).eps)
    size = np.maximum(np.maximum(np.abs(exact.x_hat), np.abs(bias / weight)), 1 / 256)
    error = (5 if slope is None else 8) * eps * size
    if narrow:
        z = np.asarray(exact.y, np.float64)
        slopes = 1.0 if slope is None else np.where(z > 0, 1.0, slope)
        error = error + half_unit(y.dtype, z * slopes) / (slopes * np.abs(weight))
    return np.asarray(error)


def assert_within(
    got: nk.NormGradients, exact: Any, error: F64, dy: F64, weight: F64, axis: int, rstd: F64, dtype: Any
) -> None:
    narrow = np.dtype(dtype).itemsize == 2
    eps = float(np.finfo(np.float32 if narrow else dtype).eps)
    g = dy * weight
    mean_gx = np.abs((g * exact.x_hat).mean(axis=axis, keepdims=True))
    mean_error = (np.abs(g) * error).mean(axis=axis, keepdims=True)
    size = np.abs(exact.x_hat) + error
    bound = {
        "dx": 4 * eps * np.asarray(exact.dx_scale, np.float64)
        + rstd * (error * (mean_gx + mean_error) + size * mean_error),
        "dweight": 2 * eps * np.asarray(exact.dweight_scale, np.float64) + (np.abs(dy) * error).sum(axis=0),
        "dbias": 2 * eps * np.asarray(exact.dbias_scale, np.float64),
    }
    for name, value in got._asdict().items():
        expected = np.asarray(getattr(exact, name), np.float64)
        most = 1.001 * (bound[name] + half_unit(value.dtype, expected))
        share = np.abs(value.astype(np.float64) - expected) / most
        assert share.max() <= 1.0, f"{name}: {share.max():.2f} of the bound"


def operands(shape: tuple[int, int], size: str, dtype: Any) -> tuple[Any, Any, Any]:
    """x, dy and weight, whose sizes are powers of two between the given ones."""
    rng = np.random.default_rng(11)
    x = (rng.standard_normal(shape) + 2).astype(dtype)
    dy = rng.standard_normal(shape).astype(dtype)
    low, high = WEIGHTS[size]
    if np.dtype(dtype) == np.float64 and low != high:
        low, high = (200 * e // 30 for e in (low, high))
    sizes = np.exp2(rng.uniform(low, high, shape[1]))
    parameters = np.float64 if np.dtype(dtype) == np.float64 else np.float32
    return x, dy, (rng.choice([-1.0, 1.0], shape[1]) * sizes).astype(parameters)


def fits(y: Any) -> bool:
    """float16 has no room for the largest weights: y must be finite."""
    return bool(np.isfinite(y.astype(np.float64)).all())


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("size", WEIGHTS)
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_rows(isa: str, name: str, size: str, dtype: Any) -> None:
    forward, backward = getattr(nk, name), getattr(nk, f"{name}_backward")
    for shape in SHAPES:
        x, dy, weight = operands(shape, size, dtype)
        for ratio in BIASES:
            bias = (weight * ratio).astype(weight.dtype)
            y, moments = forward(x, weight, bias, return_moments=True)
            if not fits(y):
                continue
            got = backward(dy, None, moments, weight, bias=bias, y=y)
            wide, shift = weight.astype(np.float64), bias.astype(np.float64)
            oracle = bounds.by_decimal if x.dtype == np.float64 else bounds.by_reference
            exact = oracle(dy, x, wide, (1,), 1e-5, centered=name == "layer_norm")
            exact = bounds.summed(exact, shift, (0,), weight.shape)
            error = lost(y, exact, wide, shift, None)
            rstd = moments.rstd[:, None]
            assert_within(got, exact, error, dy.astype(np.float64), wide, 1, rstd, dtype)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("slope", [None, 2.0**-7, 0.3, 100.0])
@pytest.mark.parametrize("size", WEIGHTS)
def test_channels(isa: str, size: str, slope: float | None, dtype: Any) -> None:
    activation: dict[str, Any] = (
        {} if slope is None else {"activation": "leaky_relu", "negative_slope": slope}
    )
    for shape in SHAPES:
        x, dy, weight = operands(shape, size, dtype)
        for ratio in BIASES:
            bias = (weight * ratio).astype(weight.dtype)
            y, moments = nk.batch_norm(x, weight, bias, return_moments=True, **activation)
            if not fits(y):
                continue
            got = nk.batch_norm_backward(dy, None, moments, weight, bias=bias, y=y)
            wide, shift = weight.astype(np.float64), bias.astype(np.float64)
            dz = dy.astype(np.float64)
            if slope is not None:
                dz = np.where(y.astype(np.float64) > 0, dz, slope * dz)
            oracle = bounds.by_decimal if x.dtype == np.float64 else bounds.by_reference
            exact = bounds.summed(oracle(dz, x, wide, (0,), 1e-5), shift, (0,), weight.shape)
            error = lost(y, exact, wide, shift, slope)
            assert_within(got, exact, error, dz, wide, 0, moments.rstd, dtype)
