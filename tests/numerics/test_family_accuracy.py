"""RMS, group and instance norm stay within the contract's bounds; activations, residuals and dropout within theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normkit as nk
from bounds import (
    Errors,
    assert_rounded_once,
    batch_norm_errors,
    group_norm_errors,
    half_unit,
    layer_norm_errors,
)
from cases import (
    BATCH_NORM,
    DATA,
    DTYPES,
    GROUP_NORM,
    LARGE_GROUP_NORM,
    LARGE_LAYER_NORM,
    LAYER_NORM,
    SIXTEEN_BITS,
)
from normkit import reference

Rng = np.random.Generator
EPS = (1e-5, 0.0)


def data(name: str, rng: Rng, shape: tuple[int, ...], dtype: Any) -> Any:
    with np.errstate(under="ignore", over="ignore"):
        return DATA[name](rng, shape).astype(dtype)


def parameters(rng: Rng, shape: tuple[int, ...], dtype: Any) -> list[tuple[Any, Any]]:
    weight, bias = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    return [(weight, bias), (weight, None), (None, bias), (None, None)]


def check(errors: Errors, what: str = "") -> None:
    assert errors.worst() <= 1.0, f"{what}: error over bound {errors}"


def ids(cases: list[Any]) -> list[str]:
    return ["x".join(map(str, shape)) + "@" + ",".join(map(str, rest)) for shape, *rest in cases]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), LAYER_NORM, ids=ids(LAYER_NORM))
def test_rms_norm_shapes(isa: str, dtype: Any, shape: tuple[int, ...], axis: Any, rng: Rng) -> None:
    axes = sorted(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,)))
    x, dy = data("mean 1", rng, shape, dtype), data("normal", rng, shape, dtype)
    combinations = parameters(rng, tuple(shape[a] for a in axes), dtype)
    for weight, bias in combinations if x.size < 2000 else combinations[:1]:
        check(layer_norm_errors(x, dy, weight, bias, axis, 1e-5, centered=False))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("shape", [(9, 33), (2, 700), (1, 5000)])
def test_rms_norm_hostile_data(
    isa: str, dtype: Any, name: str, eps: float, shape: tuple[int, ...], rng: Rng
) -> None:
    x, dy = data(name, rng, shape, dtype), data("normal", rng, shape, dtype)
    weight, bias = parameters(rng, shape[1:], dtype)[0]
    if eps == 0.0 and not x.any(axis=1).all():  # 0 / 0
        assert np.isnan(nk.rms_norm(x, weight, bias, eps=0.0)[~x.any(axis=1)]).all()
        return
    check(layer_norm_errors(x, dy, weight, bias, -1, eps, centered=False), name)


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e6])
@pytest.mark.parametrize(("shape", "axis"), LARGE_LAYER_NORM, ids=ids(LARGE_LAYER_NORM))
def test_rms_norm_large(isa: str, offset: float, shape: tuple[int, ...], axis: int, rng: Rng) -> None:
    x = (rng.standard_normal(shape) + offset).astype(np.float32)
    dy = rng.standard_normal(shape, dtype=np.float32)
    weight, bias = parameters(rng, (shape[axis],), np.float32)[0]
    check(layer_norm_errors(x, dy, weight, bias, axis, 1e-5, centered=False))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis", "groups"), GROUP_NORM, ids=ids(GROUP_NORM))
def test_group_norm_shapes(
    isa: str, dtype: Any, shape: tuple[int, ...], axis: int, groups: int, rng: Rng
) -> None:
    x, dy = data("mean 1", rng, shape, dtype), data("normal", rng, shape, dtype)
    combinations = parameters(rng, (shape[axis],), dtype)
    for weight, bias in combinations if x.size < 2000 else combinations[:1]:
        check(group_norm_errors(x, dy, groups, weight, bias, axis, 1e-5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize(
    ("shape", "axis", "groups"), [((3, 6, 7, 9), 1, 2), ((3, 9, 7, 6), -1, 3), ((2, 4, 1000), 1, 4)]
)
def test_group_norm_hostile_data(
    isa: str, dtype: Any, name: str, eps: float, shape: tuple[int, ...], axis: int, groups: int, rng: Rng
) -> None:
    x, dy = data(name, rng, shape, dtype), data("normal", rng, shape, dtype)
    weight, bias = parameters(rng, (shape[axis],), dtype)[0]
    rows = np.moveaxis(x, axis, 1).reshape(len(x) * groups, -1)
    if eps == 0.0 and (rows.max(axis=1) == rows.min(axis=1)).any():  # 0 / 0
        assert np.isnan(nk.group_norm(x, groups, weight, bias, axis=axis, eps=0.0)).any()
        return
    check(group_norm_errors(x, dy, groups, weight, bias, axis, eps), name)


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e6])
@pytest.mark.parametrize(("shape", "axis", "groups"), LARGE_GROUP_NORM, ids=ids(LARGE_GROUP_NORM))
def test_group_norm_large(
    isa: str, offset: float, shape: tuple[int, ...], axis: int, groups: int, rng: Rng
) -> None:
    x = (rng.standard_normal(shape) + offset).astype(np.float32)
    dy = rng.standard_normal(shape, dtype=np.float32)
    weight, bias = parameters(rng, (shape[axis],), np.float32)[0]
    check(group_norm_errors(x, dy, groups, weight, bias, axis, 1e-5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [1, -1])
def test_masks(isa: str, dtype: Any, axis: int, rng: Rng) -> None:
    """A mask of every element's own, a row that has none, and what it leaves out is anything."""
    x, dy = data("mean 1", rng, (4, 6, 6), dtype), data("normal", rng, (4, 6, 6), dtype)
    where = rng.random(x.shape) < 0.7
    where[1] = False
    x[~where] *= 1e3
    weight, bias = parameters(rng, (6,), dtype)[0]
    check(layer_norm_errors(x, dy, weight, bias, -1, 1e-5, where=where, centered=False), "rms norm")
    check(group_norm_errors(x, dy, 3, weight, bias, axis, 1e-5, where=where), "group norm")


@pytest.mark.parametrize("dtype", SIXTEEN_BITS, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("op", ["rms_norm", "group_norm", "instance_norm"])
def test_sixteen_bits_are_rounded_once(isa: str, dtype: Any, op: str, rng: Rng) -> None:
    shape = (30, 24, 17)
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    channels = 17 if op == "rms_norm" else 24
    weight, bias = (rng.standard_normal(channels).astype(np.float32) for _ in range(2))
    given = (x, 4) if op == "group_norm" else (x,)
    y, moments = getattr(nk, op)(*given, weight, bias, return_moments=True)
    gradients = getattr(nk, f"{op}_backward")(dy, x, moments, weight)
    wide = tuple(np.asarray(a, np.float64) if isinstance(a, np.ndarray) else a for a in given)
    exact, exact_moments = getattr(reference, op)(*wide, weight, bias)
    exact_gradients = getattr(reference, f"{op}_backward")(dy, wide[0], exact_moments, weight)
    assert y.dtype == gradients.dx.dtype == dtype
    eps = float(np.finfo(np.float32).eps)
    assert_rounded_once(y, exact, 8 * eps * (1 + np.abs(exact)), "y")
    assert_rounded_once(gradients.dx, exact_gradients.dx, 32 * eps, "dx")
    for name in ("dweight", "dbias"):
        np.testing.assert_allclose(
            getattr(gradients, name), getattr(exact_gradients, name), rtol=1e-5, atol=1e-4
        )


@pytest.mark.parametrize("op", ["rms_norm", "group_norm"])
@pytest.mark.parametrize("axis", [1, -1])
def test_nan_stays_where_it_is(isa: str, op: str, axis: int, rng: Rng) -> None:
    shape = (3, 6, 50) if axis == 1 else (3, 50, 6)
    x = rng.standard_normal(shape).astype(np.float32)
    clean = x.copy()
    x[1].flat[7 if axis == -1 else 60] = np.nan  # channel 1, group 0 of 3; row 1 or 1 of RMS norm
    if op == "rms_norm":
        y, expected = nk.rms_norm(x), nk.rms_norm(clean)
    else:
        y, expected = nk.group_norm(x, 3, axis=axis), nk.group_norm(clean, 3, axis=axis)
    touched = np.isnan(y)
    if op == "rms_norm":
        row = np.argwhere(np.isnan(x))[0]
        assert touched[row[0], row[1]].all()
        assert touched.sum() == shape[-1]
    else:
        assert np.moveaxis(touched, axis, 1)[1, :2].all()
        assert touched.sum() == 2 * 50
    assert y[~touched].tobytes() == expected[~touched].tobytes()


@pytest.mark.parametrize("dtype", [*DTYPES, *SIXTEEN_BITS], ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("op", ["rms_norm", "group_norm", "instance_norm"])
def test_no_rows_and_one_element(isa: str, dtype: Any, op: str) -> None:
    given = (1,) if op == "group_norm" else ()
    forward, backward = getattr(nk, op), getattr(nk, f"{op}_backward")
    for shape in [(0, 4, 3), (2, 4, 0), (1, 1, 1), (2, 1)]:
        x = np.ones(shape, dtype)
        y, moments = forward(x, *given, return_moments=True)
        dx, dweight, dbias = backward(np.ones(shape, dtype), x, moments)
        assert y.shape == dx.shape == shape
        assert np.isfinite(np.asarray(dweight, float)).all()
        assert (np.asarray(dbias, float) == x.size // max(dbias.size, 1)).all()
        if x.size == 1:  # alone, it is its own mean
            assert float(y.reshape(-1)[0]) == pytest.approx(1.0 if op == "rms_norm" else 0.0, abs=1e-2)
            assert abs(float(dx.reshape(-1)[0])) < 1e-4


LAYOUTS = {
    "contiguous": lambda a: a,
    "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "backwards": lambda a: a[..., ::-1].copy()[..., ::-1],
    "transposed": lambda a: a.T.copy().T,
    "unaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "channels last": lambda a: np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", ["rms_norm", "group_norm", "instance_norm"])
def test_any_layout_and_in_place(isa: str, op: str, layout: str, rng: Rng) -> None:
    x, dy = (rng.standard_normal((3, 6, 4, 9)).astype(np.float32) for _ in range(2))
    weight = rng.standard_normal(9 if op == "rms_norm" else 6).astype(np.float32)
    given = (3,) if op == "group_norm" else ()
    forward, backward = getattr(nk, op), getattr(nk, f"{op}_backward")
    expected, moments = forward(x, *given, weight, return_moments=True)
    gradients = backward(dy, x, moments, weight)
    laid_x, laid_dy = LAYOUTS[layout](x), LAYOUTS[layout](dy)
    np.testing.assert_array_equal(laid_x, x)
    y, own = forward(laid_x, *given, weight, return_moments=True)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
    for one, other in zip(backward(laid_dy, laid_x, own, weight), gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    if layout != "read-only" and layout != "unaligned":
        target, upstream = LAYOUTS[layout](x.copy()), LAYOUTS[layout](dy.copy())
        assert backward(upstream, laid_x, own, weight, out=upstream).dx is upstream
        np.testing.assert_allclose(upstream, gradients.dx, rtol=1e-5, atol=1e-5)
        assert forward(target, *given, weight, out=target) is target
        assert target.tobytes() == y.tobytes()


def activation_errors(name: str, z: Any) -> tuple[Any, Any]:
    """Errors of a(z) and a'(z) in ulp, by a layer norm that leaves its rows as they are.

    A row of z and −z has the mean 0; with rstd put aside by eps, weight gives the row back up to a rounding, and the z that the
    activation sees is what the same call returns without it.
    """
    x = np.stack([z, -z], axis=1).reshape(1, -1)
    weight = np.full(x.shape[1], np.sqrt(np.mean(np.square(x, dtype=np.float64)) + 1e-5)).astype(x.dtype)
    seen = nk.layer_norm(x, weight)
    y, moments = nk.layer_norm(x, weight, activation=name, return_moments=True)
    exact = reference.activate(seen, name)
    least = 128 * float(np.finfo(x.dtype).tiny)  # below, e^z is no normal number, and may be 0
    ulp = np.spacing(np.abs(exact).astype(x.dtype)) + least * (np.abs(exact) < least)
    # dbias sums dy·a'(z) over one row: it is the derivative itself.
    slope = nk.layer_norm_backward(np.ones_like(x), x, moments, weight).dbias
    derivative = reference.activation_gradient(np.ones_like(seen), seen, name)
    unit = np.finfo(x.dtype).eps
    return np.abs(y - exact) / ulp, np.abs(slope - derivative) / unit


# Largest errors allowed: of a(z) in ulp of itself, of a'(z) in units of epsilon (it passes 0 and is 1 where z is large).
ACTIVATION_BOUNDS = {"relu": (0.0, 0.0), "gelu": (10.0, 4.0), "silu": (5.0, 4.0)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATION_BOUNDS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 4.0, 12.0, 40.0, 110.0])
def test_activations_are_right_to_some_ulp(isa: str, name: str, scale: float, dtype: Any, rng: Rng) -> None:
    z = (scale * rng.uniform(-1, 1, 20_000)).astype(dtype)
    of_value, of_slope = activation_errors(name, z)
    assert of_value.max() <= ACTIVATION_BOUNDS[name][0]
    assert of_slope.max() <= ACTIVATION_BOUNDS[name][1]


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_activations_of_what_is_no_number(isa: str, name: str) -> None:
    x = np.zeros((3, 8))
    x[0, 0], x[1, 1] = np.nan, np.inf
    y = nk.rms_norm(x, activation=name)
    assert np.isnan(y[0]).all()
    assert np.isnan(y[1, 1])
    assert (y[2] == 0.0).all()
    ends = nk.rms_norm(np.array([[1.0, -1.0]]), np.array([1e300, 1e300]), activation=name)
    np.testing.assert_allclose(ends, [[1e300 / np.sqrt(1 + 1e-5), 0.0]], rtol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), BATCH_NORM, ids=ids(BATCH_NORM))
def test_batch_norm_with_residual_and_relu(
    isa: str, dtype: Any, shape: tuple[int, ...], axis: int, rng: Rng
) -> None:
    """y is that of the plain batch norm plus a rounding; its gradients are those of the plain one from dy where y > 0."""
    x, dy, residual = (data("mean 1", rng, shape, dtype) for _ in range(3))
    weight, bias = parameters(rng, (shape[axis],), dtype)[0]
    y, moments = nk.batch_norm(
        x, weight, bias, axis=axis, residual=residual, activation="relu", return_moments=True
    )
    plain, own = nk.batch_norm(x, weight, bias, axis=axis, return_moments=True)
    assert y.tobytes() == np.maximum(plain + residual, 0).tobytes()
    check(batch_norm_errors(x, dy, weight, bias, axis, 1e-5))
    passed = np.where(plain + residual > 0, dy, np.zeros((), dtype))
    expected = nk.batch_norm_backward(passed, x, own, weight, axis=axis)
    for one, other in zip(nk.batch_norm_backward(dy, x, moments, weight, axis=axis), expected, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", [*DTYPES, *SIXTEEN_BITS], ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("shape", [(1, 1), (5, 63), (5, 64), (3, 65), (7, 1001), (2, 9000)])
def test_dropout_and_sum(isa: str, dtype: Any, dropout: float, shape: tuple[int, ...], rng: Rng) -> None:
    x, residual = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    seed = 2**63 + 12345
    y, total = nk.add_layer_norm(x, residual, dropout=dropout, seed=seed)
    factors = reference.dropout_factors(shape, dropout, seed)
    product = np.asarray(x, np.float64) * factors
    exact = product + np.asarray(residual, np.float64)
    real = np.float64 if dtype == np.float64 else np.float32
    rounding = np.finfo(real).eps * (np.abs(product) + np.abs(exact)) + half_unit(dtype, exact)
    assert (np.abs(np.asarray(total, np.float64) - exact) <= rounding).all()
    assert y.tobytes() == nk.layer_norm(total).tobytes()
