"""leaky_relu at exactly 0, of either sign, passes the slope, as torch's does: in the kernels, the trainer, the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normkit as nk
from cases import DTYPES, SIXTEEN_BITS
from normkit import activations

ALL_DTYPES = [*DTYPES, *SIXTEEN_BITS]
# Channels along axis 1: each plan, with whole and with broken vectors.
SHAPES = [(64, 16), (9, 7), (3, 5, 40), (2, 3, 33), (4, 6, 2, 3)]


def gradients_from_y(dy: Any, y: Any, moments: Any, weight: Any, bias: Any, **options: Any) -> Any:
    return nk.batch_norm_backward(dy, None, moments, weight, bias=bias, y=y, **options)


def passed(dy: Any, y: Any, slope: float) -> Any:
    """torch's rule: dy where y > 0, else slope·dy."""
    return np.where(np.asarray(y, np.float64) > 0, 1.0, slope) * np.asarray(dy, np.float64)


def parameters(dtype: Any) -> Any:
    """The type of weights and of their gradients, which sums of whole numbers do not leave."""
    return np.float64 if np.dtype(dtype) == np.float64 else np.float32


def inputs(shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(3)
    x = np.empty(shape, dtype)
    values = np.zeros((shape[1], x.size // shape[1]))
    third = values.shape[1] // 3
    values[:, :third], values[:, third : 2 * third] = 1.0, -1.0  # as many above 0 as below: a mean of 0
    values = rng.permuted(values, axis=1)
    x[...] = np.moveaxis(values.reshape(shape[1], shape[0], *shape[2:]), 0, 1).astype(dtype)
    dy = rng.integers(1, 8, shape).astype(dtype)
    return x, dy, rng.choice([-2.0, 0.5, 1.0], shape[1]).astype(parameters(dtype))


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("slope", "zero"), [(0.25, 0.0), (4.0, -0.0)])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm(
    isa: str, shape: tuple[int, ...], zero: float, slope: float, training: bool, dtype: Any
) -> None:
    x, dy, weight = inputs(shape, dtype)
    bias = np.full(shape[1], zero, parameters(dtype))
    stats = nk.RunningStats(shape[1])
    y, moments = nk.batch_norm(
        x,
        weight,
        bias,
        stats=stats,
        training=training,
        activation="leaky_relu",
        negative_slope=slope,
        return_moments=True,
    )
    assert (y == 0).any()
    got = gradients_from_y(dy, y, moments, weight, bias, training=training)
    dz = passed(dy, y, slope)
    others = tuple(i for i in range(x.ndim) if i != 1)
    np.testing.assert_array_equal(got.dbias, dz.sum(axis=others))  # whole numbers: nothing is rounded
    wide = x.astype(np.float64)
    expected = nk.batch_norm_backward(
        dz, wide, nk.Moments(moments.mean, moments.rstd), weight.astype(np.float64), training=training
    )
    eps = {2: 2.0**-8, 4: 2.0**-21, 8: 2.0**-50}[x.itemsize]
    np.testing.assert_allclose(
        got.dx.astype(np.float64), expected.dx, rtol=0, atol=4 * eps * np.abs(expected.dx).max()
    )


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("shape", [(8, 4), (2, 4, 40)])
def test_a_channel_outside_the_range_of_the_type(isa: str, shape: tuple[int, ...], dtype: Any) -> None:
    """Upstream gradients so small that the coefficients leave the range: another code, the same rule."""
    dtype = np.dtype(dtype)
    x, dy, _ = inputs(shape, dtype)
    tiny = {"float32": 2.0**-120, "float64": 2.0**-1010, "bfloat16": 2.0**-120}.get(dtype.name, 2.0**-10)
    dy = (dy.astype(np.float64) * tiny).astype(dtype)
    weight, bias = np.full(4, 2.0**-10, parameters(dtype)), np.zeros(4, parameters(dtype))
    y, moments = nk.batch_norm(
        x, weight, bias, activation="leaky_relu", negative_slope=0.25, return_moments=True
    )
    got = gradients_from_y(dy, y, moments, weight, bias)
    others = tuple(i for i in range(x.ndim) if i != 1)
    np.testing.assert_array_equal(np.asarray(got.dbias, np.float64), passed(dy, y, 0.25).sum(axis=others))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_with_the_slope_that_vanishes(isa: str, dtype: Any) -> None:
    """z is below 0 and y = slope·z has become −0: the slope is what passes."""
    least = float(np.finfo(dtype).smallest_subnormal)
    x = np.array([[-least], [least], [0.0], [-0.0]], dtype)
    stats = nk.RunningStats(1, dtype=dtype)
    y, moments = nk.batch_norm(
        x, stats=stats, training=False, eps=0.0, activation="leaky_relu", return_moments=True
    )
    np.testing.assert_array_equal(y, [[0.0], [least], [0.0], [0.0]])
    got = gradients_from_y(np.ones_like(x), y, moments, None, None, training=False)
    np.testing.assert_array_equal(got.dx, np.array([[0.01], [1.0], [0.01], [0.01]], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_trainer_and_the_reference_agree(dtype: Any) -> None:
    z = np.array([-1.0, -0.0, 0.0, 1.0], dtype)
    dy = np.full(4, 8.0, dtype)
    expected = np.array([2.0, 2.0, 2.0, 8.0])
    function = activations.LeakyRelu(0.25)
    np.testing.assert_array_equal(function.gradient(dy, z), expected)
    np.testing.assert_array_equal(function.gradient(dy, function(z)), expected)
    np.testing.assert_array_equal(nk.reference.activation_gradient(dy, z, "leaky_relu", 0.25), expected)
