"""float16 and bfloat16: stored in 16 bits, computed like float32, rounded once.

NumPy's and ml_dtypes' own casts are the oracle of a rounding, float64 of a result.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import bounds
import normkit as nk
from bounds import assert_rounded_once
from cases import BATCH_NORM, LARGE_BATCH_NORM, LARGE_LAYER_NORM, LAYER_NORM, SIXTEEN_BITS

pytestmark = pytest.mark.parametrize("dtype", SIXTEEN_BITS, ids=["float16", "bfloat16"])

Array = np.ndarray[Any, Any]


def bits(a: Array) -> Array:
    return a.view(np.uint16)


def scaled(x: Array, scale: Array) -> Array:
    """x·scale by way of the kernels: inference with mean 0 and variance 1."""
    channels = x.shape[1]
    return nk.batch_norm(x, scale, stats=nk.RunningStats(channels), training=False, eps=0.0)


def test_every_number_is_read_and_written(isa: str, dtype: Any) -> None:
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype).reshape(1, -1)
    y = scaled(x, np.ones(x.shape[1], np.float32))
    wide = x.astype(np.float32)
    assert np.isnan(y[np.isnan(wide)].astype(np.float32)).all()
    numbers = ~np.isnan(wide) & (wide != 0)
    assert np.array_equal(bits(y)[numbers], bits(x)[numbers])


def test_a_float_is_rounded_to_the_nearest_ties_to_even(
    isa: str, rng: np.random.Generator, dtype: Any
) -> None:
    one = np.ones((1, 1), dtype)
    edges = [
        2 - 2.0**-12,
        1 + 2.0**-11,
        1 + 3 * 2.0**-11,
        1 + 2.0**-8,
        1 + 3 * 2.0**-8,
        65504,
        65519.996,
        65520,
        3.39e38,
    ]
    edges += [2.0**-24, 2.0**-25, 1.5 * 2.0**-25, 6.1e-5, 2.0**-14, 2.0**-126, 2.0**-133, 1.1754944e-38]
    random = rng.integers(0, 1 << 32, 5000, dtype=np.uint32).view(np.float32)
    values = np.concatenate(
        [np.array(edges, np.float32), -np.array(edges, np.float32), random[np.isfinite(random)]]
    )
    # A coefficient beyond 2^±100 sends the channel to the wider type: other code, the same rounding.
    x = np.broadcast_to(one, (1, values.size))
    with np.errstate(over="ignore"):
        expected = values.astype(dtype)
    y = scaled(np.ascontiguousarray(x), values).reshape(-1)
    normal = np.abs(values) >= 2.0**-126
    assert np.array_equal(bits(y)[normal], bits(expected)[normal])


@pytest.mark.parametrize(("shape", "axis"), [*LAYER_NORM[::3], *LARGE_LAYER_NORM])
def test_layer_norm(isa: str, rng: np.random.Generator, dtype: Any, shape: Any, axis: Any) -> None:
    x, dy = ((rng.standard_normal(shape) * 2 + 3).astype(dtype) for _ in range(2))
    axes = tuple(sorted(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,))))
    weight, bias = (rng.standard_normal([shape[a] for a in axes]).astype(np.float32) for _ in range(2))
    y, moments = nk.layer_norm(x, weight, bias, axis=axis, return_moments=True)
    gradients = nk.layer_norm_backward(dy, x, moments, weight, axis=axis)
    assert (y.dtype, gradients.dx.dtype, gradients.dweight.dtype) == (x.dtype, x.dtype, np.float32)
    spread = [shape[i] if i in axes else 1 for i in range(len(shape))]
    wide_weight, wide_bias = (p.astype(np.float64).reshape(spread) for p in (weight, bias))
    others = tuple(i for i in range(len(shape)) if i not in axes)
    exact = bounds.by_reference(dy, x, wide_weight, axes, 1e-5)
    exact = bounds.summed(exact, wide_bias, others, weight.shape)
    bounds.assert_contract(y, gradients, exact, wide_weight, wide_bias)


@pytest.mark.parametrize(("shape", "axis"), [*BATCH_NORM[::3], *LARGE_BATCH_NORM])
def test_batch_norm(isa: str, rng: np.random.Generator, dtype: Any, shape: Any, axis: int) -> None:
    x, dy = ((rng.standard_normal(shape) * 2 + 3).astype(dtype) for _ in range(2))
    weight, bias = (rng.standard_normal(shape[axis]).astype(dtype) for _ in range(2))
    stats = nk.RunningStats(shape[axis], momentum=1.0)
    y, moments = nk.batch_norm(x, weight, bias, stats=stats, axis=axis, return_moments=True)
    gradients = nk.batch_norm_backward(dy, x, moments, weight, axis=axis)
    assert (y.dtype, gradients.dx.dtype, gradients.dweight.dtype) == (x.dtype,) * 3
    axis %= len(shape)
    spread = [shape[i] if i == axis else 1 for i in range(len(shape))]
    wide_weight, wide_bias = (p.astype(np.float64).reshape(spread) for p in (weight, bias))
    reduced = tuple(i for i in range(len(shape)) if i != axis)
    exact = bounds.by_reference(dy, x, wide_weight, reduced, 1e-5)
    exact = bounds.summed(exact, wide_bias, reduced, weight.shape)
    bounds.assert_contract(y, gradients, exact, wide_weight, wide_bias)
    assert stats.mean.dtype == np.float32
    np.testing.assert_allclose(stats.mean, x.astype(np.float64).mean(reduced), rtol=1e-6)


HOSTILE = {
    "normal": lambda x: x,
    "far from 0": lambda x: x + 100,
    "nearly equal": lambda x: 1 + 1e-2 * x,
    "equal": lambda x: 0 * x + 3,
    "small": lambda x: 1e-6 * x,
    "large": lambda x: 6000 * x,
    "one outlier": lambda x: np.where(np.arange(x.size).reshape(x.shape) % 50 == 0, 1000, x),
}


@pytest.mark.parametrize("shape", [(3000, 2), (2, 3000), (2000, 3), (300, 64), (1, 5000), (9, 7)])
@pytest.mark.parametrize("size", [2.0**-24, 2.0**-10, 1.0, 2.0**10])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "batch_norm"])
def test_hostile_data(isa: str, dtype: Any, name: str, size: float, shape: tuple[int, int]) -> None:
    """Statistics of two values and of few, whose dx cancels; weights of any size."""
    rng = np.random.default_rng(9)
    weight, bias = (size * rng.standard_normal((2, shape[1]))).astype(np.float32)
    wide_weight, wide_bias = weight.astype(np.float64), bias.astype(np.float64)
    dy = rng.standard_normal(shape).astype(dtype)
    for what, make in HOSTILE.items():
        x = make(rng.standard_normal(shape)).astype(dtype)
        y, moments = getattr(nk, name)(x, weight, bias, return_moments=True)
        gradients = getattr(nk, f"{name}_backward")(dy, x, moments, weight)
        axes = (0,) if name == "batch_norm" else (1,)
        exact = bounds.by_reference(dy, x, wide_weight, axes, 1e-5, centered=name != "rms_norm")
        exact = bounds.summed(exact, wide_bias, (0,), weight.shape)
        bounds.assert_contract(y, gradients, exact, wide_weight, wide_bias, what, cancels=True)


def test_inference_and_its_gradients(isa: str, rng: np.random.Generator, dtype: Any) -> None:
    for shape, axis in (((9, 7), 1), ((3, 7, 8, 9), 1), ((3, 8, 9, 7), -1)):
        stats = nk.RunningStats(7)
        stats.mean, stats.var = rng.standard_normal(7), rng.uniform(0.5, 2, 7)
        x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
        y, moments = nk.batch_norm(x, stats=stats, training=False, axis=axis, return_moments=True)
        exact, exact_moments = nk.reference.batch_norm(x, mean=stats.mean, var=stats.var, axis=axis)
        assert_rounded_once(y, exact, np.float64(2.0**-20), "y")
        got = nk.batch_norm_backward(dy, x, moments, training=False, axis=axis)
        wanted = nk.reference.batch_norm_backward(dy, x, exact_moments, training=False, axis=axis)
        for name, a, b in zip(got._fields, got, wanted, strict=True):
            assert_rounded_once(a, b, np.float64(2.0**-18), name)


def test_memory_of_any_kind(isa: str, rng: np.random.Generator, dtype: Any) -> None:
    x = rng.standard_normal((37, 61)).astype(dtype)
    expected = bits(nk.layer_norm(x))
    odd = np.empty(x.nbytes + 2, np.uint8)[2:].view(dtype).reshape(x.shape)
    odd[...] = x
    assert np.array_equal(bits(nk.layer_norm(odd)), expected)
    assert np.array_equal(
        bits(nk.layer_norm(x[:, ::-1])[:, ::-1]), bits(nk.layer_norm(x[:, ::-1].copy())[:, ::-1])
    )
    unaligned = np.empty(x.nbytes + 1, np.uint8)[1:].view(dtype).reshape(x.shape)
    unaligned[...] = x
    assert np.array_equal(bits(nk.layer_norm(unaligned)), expected)
    assert np.array_equal(bits(nk.layer_norm(np.asfortranarray(x))), expected)
    out = np.empty_like(x)
    assert nk.layer_norm(x, out=out) is out
    assert np.array_equal(bits(out), expected)
    inplace = x.copy()
    nk.layer_norm(inplace, out=inplace)
    assert np.array_equal(bits(inplace), expected)
    empty = nk.batch_norm(np.empty((0, 5), dtype))
    assert (empty.shape, empty.dtype) == ((0, 5), np.dtype(dtype))


def test_parameters_of_either_type_give_gradients_of_theirs(rng: np.random.Generator, dtype: Any) -> None:
    x = rng.standard_normal((8, 24)).astype(dtype)
    weight = rng.standard_normal(24).astype(dtype)
    y, moments = nk.layer_norm(x, weight, weight, return_moments=True)
    wide, _ = nk.layer_norm(x, weight.astype(np.float32), weight.astype(np.float32), return_moments=True)
    assert np.array_equal(bits(y), bits(wide))
    assert np.array_equal(bits(nk.layer_norm(x, weight, weight.astype(np.float32))), bits(y))
    narrow = nk.layer_norm_backward(x, x, moments, weight)
    wide_gradients = nk.layer_norm_backward(x, x, moments, weight.astype(np.float32))
    assert (narrow.dx.dtype, narrow.dweight.dtype, narrow.dbias.dtype) == (np.dtype(dtype),) * 3
    assert wide_gradients.dweight.dtype == np.float32
    assert np.array_equal(bits(narrow.dweight), bits(wide_gradients.dweight.astype(dtype)))
    assert nk.layer_norm_backward(x, x, nk.Moments(*moments)).dweight.dtype == dtype


def test_sums_over_many_rows_keep_their_digits(dtype: Any) -> None:
    """torch's dbias of bfloat16 is 35 % off at 20,000 rows: it adds up in 16 bits."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 16)).astype(dtype)
    dy = rng.uniform(0, 1, x.shape).astype(dtype)
    _, moments = nk.layer_norm(x, return_moments=True)
    dbias = nk.layer_norm_backward(dy, x, moments).dbias
    assert np.array_equal(bits(dbias), bits(dy.astype(np.float64).sum(0).astype(dtype)))


def test_small_spread_around_a_large_mean(isa: str, dtype: Any) -> None:
    """tt-metal#45968: bfloat16 of mean ±5 and σ 0.1."""
    rng = np.random.default_rng(1)
    x = (
        rng.standard_normal((2, 64, 32, 32)) * 0.1 + np.where(np.arange(64) % 2, 5, -5)[:, None, None]
    ).astype(dtype)
    exact, _ = nk.reference.batch_norm(x)
    assert_rounded_once(nk.batch_norm(x), exact, np.float64(2.0**-20), "y")


def test_zeros_with_a_vanishing_eps_and_constants(isa: str, dtype: Any) -> None:
    """PT#41527: float16 has no 1e-12; here eps is never rounded to it."""
    assert (nk.layer_norm(np.zeros((3, 8), dtype), eps=1e-12) == 0).all()
    assert (nk.layer_norm(np.full((3, 8), 1234, dtype)) == 0).all()
    tiny = np.full((4, 3), 2.0**-24 if dtype == np.float16 else 2.0**-133, dtype)
    tiny[1:] = 0
    exact, _ = nk.reference.batch_norm(tiny, eps=1e-60)
    assert_rounded_once(nk.batch_norm(tiny, eps=1e-60), exact, np.float64(2.0**-20), "subnormal numbers")


def test_what_exceeds_the_dtype_is_infinite_and_stays_in_its_row(isa: str, dtype: Any) -> None:
    x = np.tile(np.array([-1, 1], dtype), (3, 8))
    weight = np.full(16, 1e6 if dtype == np.float16 else 3.3e38, np.float32)
    bias = np.full(16, 0 if dtype == np.float16 else 3.3e38, np.float32)
    with np.errstate(over="ignore"):
        y = nk.layer_norm(x, weight, bias).astype(np.float32)
    assert np.isinf(y[:, 1::2]).all()
    x[1, 3] = np.nan
    y = nk.layer_norm(x)
    assert np.isnan(y[1].astype(np.float32)).all()
    assert np.isfinite(y[[0, 2]].astype(np.float32)).all()


def test_errors(dtype: Any) -> None:
    name = np.dtype(dtype).name
    x = np.zeros((3, 4), dtype)
    with pytest.raises(
        TypeError, match=f"weight must be {name} like x, or float32, got float64; convert it with"
    ):
        nk.layer_norm(x, np.ones(4))
    with pytest.raises(TypeError, match=f"out must be {name} like x, got float32"):
        nk.layer_norm(x, out=np.zeros((3, 4), np.float32))
    with pytest.raises(TypeError, match=f"dy must be {name} like x, got float32"):
        nk.layer_norm_backward(np.zeros((3, 4), np.float32), x, nk.layer_norm(x, return_moments=True)[1])
    with pytest.raises(TypeError, match="RunningStats: dtype must be float32 or float64"):
        nk.RunningStats(4, dtype=dtype)
    other = ml_dtypes.bfloat16 if dtype == np.float16 else np.float16
    with pytest.raises(TypeError, match="weight must be"):
        nk.layer_norm(x, np.ones(4, other))


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e19, 1e30, 1e37])
def test_bfloat16_where_sums_in_float_have_no_room(isa: str, dtype: Any, scale: float) -> None:
    if dtype == np.float16:
        return  # its sums are in double, and it has no such numbers
    rng = np.random.default_rng(0)
    for op, shape, axis in (
        ("layer_norm", (5, 700), -1),
        ("batch_norm", (700, 5), 1),
        ("batch_norm", (700, 128), 1),
        ("batch_norm", (3, 4, 40, 40), 1),
    ):
        x = (rng.standard_normal(shape) * scale).astype(dtype)
        eps = 1e-5 if scale > 1 else 1e-80
        exact, _ = getattr(nk.reference, op)(x, axis=axis, eps=eps)
        assert_rounded_once(getattr(nk, op)(x, axis=axis, eps=eps), exact, np.float64(2.0**-20), op)
