"""float64 at the ends of its range: the exact result, held to the contract's bounds, wherever it is a number."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest

import bounds
import normkit as nk
from bounds import Errors, batch_norm_errors, group_norm_errors, layer_norm_errors

LEAST = 5e-324
# Channels along axis 1: as columns, as columns of short runs, as long runs.
SHAPES = [(7, 5), (3, 5, 4), (3, 4, 40)]


def check(errors: Errors, what: str) -> None:
    assert errors.worst() <= 1.0, f"{what}: {errors}"


def to_decimal(values: Any) -> Any:
    return np.vectorize(lambda v: Decimal(float(v)), otypes=[object])(values)


def as_float(exact: Any) -> Any:
    """Decimals beyond the range become infinite."""
    return np.vectorize(float, otypes=[np.float64])(exact)


def assert_near(got: Any, exact: Any, size: Any, units: float) -> None:
    """|got − exact| within so many ε of size, to which comes the smallest number; inf where exact rounds to that."""
    with localcontext() as context:
        context.prec = 1000
        expected = as_float(exact)
        inside = np.isfinite(expected)
        np.testing.assert_array_equal(got[~inside], expected[~inside])
        error = abs(to_decimal(np.where(inside, got, 0.0)) - np.where(inside, exact, Decimal(0)))
        most = size * Decimal(units * 2.0**-52) + Decimal(LEAST)
        worst = max((error / most).flat)
        assert worst <= 1, f"{float(worst):.3g} of the bound"


@pytest.mark.parametrize("var", [LEAST, 1e-310, 1e-300, 1e-250, 1.0, 1e250, 1e300, 1.7e308])
@pytest.mark.parametrize(
    ("distance", "size"),
    [(1.0, 1.0), (1e-150, 1e150), (1e150, 1e-150)],
    ids=["σ", "far below σ", "far above σ"],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_inference(isa: str, shape: tuple[int, ...], distance: float, size: float, var: float) -> None:
    """x̂ may lie beyond the range while y does not: x far from the mean beside a small weight."""
    rng = np.random.default_rng(3)
    channels, spread = shape[1], (-1,) + (1,) * (len(shape) - 2)
    deviation = np.sqrt(var) * distance
    with np.errstate(over="ignore"):
        x = np.clip(rng.standard_normal(shape) * deviation, -1.7e308, 1.7e308)
    dy = rng.standard_normal(shape) * size
    weight, bias = rng.standard_normal(channels) * size, rng.standard_normal(channels)
    stats = nk.RunningStats(channels, dtype=np.float64)
    stats.mean, stats.var = 0.0, var
    y, moments = nk.batch_norm(x, weight, bias, stats=stats, training=False, eps=0.0, return_moments=True)
    got = nk.batch_norm_backward(dy, x, moments, weight, training=False)
    with localcontext() as context:
        context.prec = 1000
        d_x, d_dy, d_w, d_b = to_decimal(x), to_decimal(dy), to_decimal(weight), to_decimal(bias)
        exact_rstd = 1 / Decimal(var).sqrt()
        w = d_w.reshape(spread)
        scaled = d_x * exact_rstd * w
        largest = np.maximum(np.maximum(abs(scaled), abs(d_b.reshape(spread))), abs(w) / 256)
        assert_near(y, scaled + d_b.reshape(spread), largest, 4)
        # The gradients take rstd as the forward pass rounded it.
        rstd = Decimal(float(moments.rstd[0]))
        assert abs(rstd / exact_rstd - 1) < Decimal(2.0**-52)
        dx = d_dy * w * rstd
        assert_near(got.dx, dx, abs(dx), 4)
        others = tuple(i for i in range(x.ndim) if i != 1)
        terms = d_dy * d_x * rstd
        assert_near(got.dweight, terms.sum(axis=others), abs(terms).sum(axis=others), 2)
        assert_near(got.dbias, d_dy.sum(axis=others), abs(d_dy).sum(axis=others), 2)


SMALL = [1e-150, 1e-300, 1e-305, 1e-308, 1e-310, 1e-320]
OPERATIONS = ["layer_norm", "rms_norm", "batch_norm", "group_norm", "instance_norm"]


def run(name: str, x: Any, weight: Any, eps: float) -> tuple[Any, Any, Any]:
    """y, moments and backward(dy)."""
    groups = [2] if name == "group_norm" else []
    y, moments = getattr(nk, name)(x, *groups, weight, None, eps=eps, return_moments=True)
    return y, moments, lambda dy: getattr(nk, f"{name}_backward")(dy, x, moments, weight)


@pytest.mark.parametrize("scale", SMALL)
@pytest.mark.parametrize("offset", [0.0, 3.0])
@pytest.mark.parametrize(("shape", "axis"), [((7, 5), 1), ((3, 40), 1), ((3, 4, 40), 1), ((2, 5, 9), -1)])
def test_training_on_small_numbers_without_eps(
    isa: str, shape: tuple[int, ...], axis: int, offset: float, scale: float
) -> None:
    rng = np.random.default_rng(4)
    x = np.round(1000 * (rng.standard_normal(shape) + offset)) * (scale / 1000)
    dy = rng.standard_normal(shape) * max(scale, 1e-290)  # dx is in range, and dy·x̂ is no subnormal number
    weight, bias = rng.standard_normal((2, shape[axis]))
    check(batch_norm_errors(x, dy, weight, bias, axis, 0.0), "batch norm")
    if axis == 1:
        groups = 2 if shape[1] % 2 == 0 else 1
        check(group_norm_errors(x, dy, groups, weight, bias, axis, 0.0), "group norm")
    if len(shape) == 2:
        check(layer_norm_errors(x, dy, weight, bias, -1, 0.0), "layer norm")
        check(layer_norm_errors(x, dy, weight, bias, -1, 0.0, centered=False), "rms norm")


@pytest.mark.parametrize("scale", SMALL)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_rstd_beyond_the_range(isa: str, name: str, scale: float) -> None:
    """Gradients of numbers so small that 1/σ is no double: dx overflows as the exact one does, dweight is finite."""
    rng = np.random.default_rng(4)
    shape = (6, 4) if name in ("layer_norm", "rms_norm", "batch_norm") else (3, 4, 40)
    units = np.round(1000 * rng.standard_normal(shape))
    x, dy = units * LEAST * round(scale / 1000 / LEAST), rng.standard_normal(shape)
    channels = shape[1]
    y, moments, backward = run(name, x, np.ones(channels), 0.0)
    got = backward(dy)
    expected_y, _, expected = run(name, units, np.ones(channels), 0.0)
    wanted = expected(dy)
    step = float(x.flat[0] / units.flat[0])
    np.testing.assert_allclose(y, expected_y, rtol=0, atol=1e-14 * np.abs(expected_y).max())
    for one, other in ((got.dweight, wanted.dweight), (got.dbias, wanted.dbias)):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-13 * np.abs(dy).sum())
    if scale < 1e-308:
        assert np.isinf(moments.rstd).all()
    with np.errstate(over="ignore", divide="ignore"):
        dx = wanted.dx / step
    np.testing.assert_allclose(got.dx, dx, rtol=1e-12, atol=1e-13 * min(np.abs(dx).max(), 1e308))


@pytest.mark.parametrize("eps", [LEAST, 1e-320, 1e-300, 1e-260])
@pytest.mark.parametrize("scale", [1e-310, 1e-162, 1e-160, 1e-150, 1e-100])
def test_an_eps_as_small_as_the_variance(isa: str, scale: float, eps: float) -> None:
    rng = np.random.default_rng(5)
    x, dy = rng.standard_normal((2, 6, 9))
    weight, bias = rng.standard_normal((2, 9))
    check(batch_norm_errors(x * scale, dy, weight, bias, 1, eps), "batch norm")
    check(layer_norm_errors(x * scale, dy, weight, bias, 1, eps), "layer norm")


@pytest.mark.parametrize("size", [1e280, 1e300])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 4, 5), (40, 4)])
def test_sums_that_overflow_though_the_gradients_do_not(
    isa: str, shape: tuple[int, ...], size: float
) -> None:
    """Σ dy·(x − mean) of batch and group norm is beyond the range."""
    rng = np.random.default_rng(8)
    x, dy = 1e60 * rng.standard_normal(shape), size * rng.standard_normal(shape)
    weight, bias = rng.standard_normal((2, shape[1]))
    check(batch_norm_errors(x, dy, weight, bias, 1, 1e-5), "batch norm")
    if shape[-1] == 40:
        check(group_norm_errors(x, dy, 2, weight, bias, 1, 1e-5), "group norm by runs")
    if len(shape) == 3:
        nhwc, upstream = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, dy))
        check(group_norm_errors(nhwc, upstream, 1, weight, bias, -1, 1e-5), "group norm by columns")


def padded(shape: tuple[int, ...], large: float, of_padding: float) -> tuple[Any, Any, Any]:
    """x, dy and where: a third of the elements is padding of this size, whose dy is `of_padding` of the others'."""
    rng = np.random.default_rng(6)
    x, dy = 10 * rng.standard_normal(shape), rng.standard_normal(shape)
    where = rng.random(shape) < 2 / 3
    x[~where] = large * rng.choice([-1.0, 1.0], np.count_nonzero(~where))
    dy[~where] *= of_padding
    return x, dy, where


@pytest.mark.parametrize("of_padding", [0.0, 0.1])
@pytest.mark.parametrize("large", [1e200, 1e300, 1.7e308])
@pytest.mark.parametrize("shape", SHAPES)
def test_padding_near_the_largest_number_in_batch_norm(
    isa: str, shape: tuple[int, ...], large: float, of_padding: float
) -> None:
    x, dy, where = padded(shape, large, of_padding)
    check(batch_norm_errors(x, dy, None, None, 1, 1e-5, where=where), "batch norm")


@pytest.mark.parametrize("of_padding", [0.0, 0.1])
@pytest.mark.parametrize("large", [1e300, 1.7e308])
@pytest.mark.parametrize(("shape", "axis"), [((3, 4, 40), 1), ((2, 5, 7, 4), -1)])
def test_padding_near_the_largest_number_in_group_norm(
    isa: str, shape: tuple[int, ...], axis: int, large: float, of_padding: float
) -> None:
    x, dy, where = padded(shape, large, of_padding)
    for groups in (1, 2, 4):
        check(group_norm_errors(x, dy, groups, None, None, axis, 1e-5, where=where), "group norm")


@pytest.mark.parametrize("dtype", ["float32", "float16", bounds.ml_dtypes.bfloat16])
@pytest.mark.parametrize("sigma", [1.0, 1e-4])
@pytest.mark.parametrize("shape", [(6, 9), (2, 20_000), (3, 4, 5), (3, 4, 40)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_padding_near_the_largest_float(
    isa: str, name: str, shape: tuple[int, ...], sigma: float, dtype: Any
) -> None:
    """Where dy is 0, it adds nothing to the gradients of the parameters, whatever x̂ is."""
    x, dy, where = padded(shape, 1.0, 0.0)
    largest = float(bounds.ml_dtypes.finfo(dtype).max)
    x = np.where(where, x * sigma / 10, x * largest).astype(dtype)
    dy = dy.astype(dtype)
    groups = [2 if shape[1] % 2 == 0 else 3] if name == "group_norm" else []
    if name == "instance_norm" and len(shape) == 2:
        return  # a single element each
    _, moments = getattr(nk, name)(x, *groups, eps=1e-12, where=where, return_moments=True)
    _, dweight, dbias = getattr(nk, f"{name}_backward")(dy, x, moments, where=where)
    assert np.isfinite(dweight.astype(np.float64)).all()
    assert np.isfinite(dbias.astype(np.float64)).all()


@pytest.mark.parametrize("of_padding", [0.0, 1e-3])
@pytest.mark.parametrize("large", [1e200, 1e300])
@pytest.mark.parametrize("cols", [9, 20_000])
@pytest.mark.parametrize("centered", [True, False])
def test_padding_whose_x_hat_is_in_range_in_rows(
    isa: str, centered: bool, cols: int, large: float, of_padding: float
) -> None:
    x, dy, where = padded((3, cols), large, of_padding)
    if cols > 1000:
        y, moments = (nk.layer_norm if centered else nk.rms_norm)(x, where=where, return_moments=True)
        backward = nk.layer_norm_backward if centered else nk.rms_norm_backward
        for result in (y, *backward(dy, x, moments, where=where)):
            assert np.isfinite(result).all()
        return
    check(layer_norm_errors(x, dy, None, None, -1, 1e-5, where=where, centered=centered), "rows")


def test_sixteen_bits_of_subnormal_numbers_without_eps(isa: str) -> None:
    rng = np.random.default_rng(7)
    for dtype, least in (("float16", 2.0**-24), ("bfloat16", 2.0**-133)):
        x = (least * rng.integers(-40, 40, (30, 64))).astype(
            bounds.ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
        )
        dy = rng.standard_normal((30, 64)).astype(x.dtype)
        weight = np.full(64, 2.0**-20, np.float32)
        for axes, name in (((1,), "layer_norm"), ((0,), "batch_norm")):
            y, moments = getattr(nk, name)(x, weight, eps=0.0, return_moments=True)
            got = getattr(nk, f"{name}_backward")(dy, x, moments, weight)
            wide = weight.astype(np.float64)
            exact = bounds.by_reference(dy, x, wide, axes, 0.0)
            exact = bounds.summed(exact, np.zeros(64), (0,), (64,))
            bounds.assert_contract(y, got, exact, wide, 0.0, f"{dtype} {name}")
