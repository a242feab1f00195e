"""Every operation on every shape and kind of data stays within the bounds of the numerics contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normkit as nk
from bounds import Errors, batch_norm_errors, layer_norm_errors
from cases import BATCH_NORM, DATA, DTYPES, LARGE_BATCH_NORM, LARGE_LAYER_NORM, LAYER_NORM

# At constant mean and with a vanishing eps the statistics themselves decide; both are used.
EPS = (1e-5, 0.0)


def data(name: str, rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    with np.errstate(under="ignore"):
        return DATA[name](rng, shape).astype(dtype)


def parameters(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> list[tuple[Any, Any]]:
    weight, bias = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    return [(weight, bias), (weight, None), (None, bias), (None, None)]


def check(errors: Errors, what: str) -> None:
    assert errors.worst() <= 1.0, f"{what}: error over bound {errors}"


def ids(cases: list[tuple[tuple[int, ...], Any]]) -> list[str]:
    return ["x".join(map(str, shape)) + f"@{axis}" for shape, axis in cases]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), LAYER_NORM, ids=ids(LAYER_NORM))
def test_layer_norm_shapes(
    isa: str, dtype: Any, shape: tuple[int, ...], axis: Any, rng: np.random.Generator
) -> None:
    axes = sorted(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,)))
    x, dy = data("mean 1", rng, shape, dtype), data("normal", rng, shape, dtype)
    combinations = parameters(rng, tuple(shape[a] for a in axes), dtype)
    for weight, bias in combinations if x.size < 2000 else combinations[:1]:
        check(
            layer_norm_errors(x, dy, weight, bias, axis, 1e-5),
            f"weight {weight is not None} bias {bias is not None}",
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), BATCH_NORM, ids=ids(BATCH_NORM))
def test_batch_norm_shapes(
    isa: str, dtype: Any, shape: tuple[int, ...], axis: int, rng: np.random.Generator
) -> None:
    x, dy = data("mean 1", rng, shape, dtype), data("normal", rng, shape, dtype)
    combinations = parameters(rng, (shape[axis],), dtype)
    for weight, bias in combinations if x.size < 2000 else combinations[:1]:
        check(
            batch_norm_errors(x, dy, weight, bias, axis, 1e-5),
            f"weight {weight is not None} bias {bias is not None}",
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize(("shape", "axis"), [((9, 33), -1), ((2, 700), -1), ((1, 5000), -1)])
def test_layer_norm_hostile_data(
    isa: str, dtype: Any, name: str, eps: float, shape: tuple[int, ...], axis: int, rng: np.random.Generator
) -> None:
    x, dy = data(name, rng, shape, dtype), data("normal", rng, shape, dtype)
    weight, bias = parameters(rng, (shape[1],), dtype)[0]
    if eps == 0.0 and (x.max(axis=1) == x.min(axis=1)).any():  # 0 / 0
        assert np.isnan(nk.layer_norm(x, weight, bias, axis=axis, eps=0.0)).all()
        return
    check(layer_norm_errors(x, dy, weight, bias, axis, eps), name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize(
    ("shape", "axis"), [((40, 5), 1), ((19, 70), 1), ((3, 4, 7, 9), 1), ((2, 2, 3, 1000), 1)]
)
def test_batch_norm_hostile_data(
    isa: str, dtype: Any, name: str, eps: float, shape: tuple[int, ...], axis: int, rng: np.random.Generator
) -> None:
    x, dy = data(name, rng, shape, dtype), data("normal", rng, shape, dtype)
    others = tuple(i for i in range(x.ndim) if i != axis)
    weight, bias = parameters(rng, (shape[axis],), dtype)[0]
    if eps == 0.0 and (x.max(axis=others) == x.min(axis=others)).any():  # 0 / 0
        assert np.isnan(nk.batch_norm(x, weight, bias, axis=axis, eps=0.0)).all()
        return
    check(batch_norm_errors(x, dy, weight, bias, axis, eps), name)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e2, 1e3, 1e4, 1e6])
@pytest.mark.parametrize(("shape", "axis"), LARGE_LAYER_NORM, ids=ids(LARGE_LAYER_NORM))
def test_layer_norm_large(
    isa: str, offset: float, shape: tuple[int, ...], axis: int, rng: np.random.Generator
) -> None:
    x = (rng.standard_normal(shape) + offset).astype(np.float32)
    dy = rng.standard_normal(shape, dtype=np.float32)
    weight, bias = parameters(rng, (shape[axis],), np.float32)[0]
    check(layer_norm_errors(x, dy, weight, bias, axis, 1e-5), f"offset {offset}")


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e2, 1e3, 1e4, 1e6])
@pytest.mark.parametrize(("shape", "axis"), LARGE_BATCH_NORM, ids=ids(LARGE_BATCH_NORM))
def test_batch_norm_large(
    isa: str, offset: float, shape: tuple[int, ...], axis: int, rng: np.random.Generator
) -> None:
    x = (rng.standard_normal(shape) + offset).astype(np.float32)
    dy = rng.standard_normal(shape, dtype=np.float32)
    weight, bias = parameters(rng, (shape[axis],), np.float32)[0]
    check(batch_norm_errors(x, dy, weight, bias, axis, 1e-5), f"offset {offset}")


@pytest.mark.parametrize("term", [0.1, 1 / 3, 1e-3])
def test_parameter_gradients_of_many_equal_terms(isa: str, term: float) -> None:
    """Sums of a constant drift when they are taken in float32 row after row."""
    rows, cols = 20_000, 24
    x = np.tile(np.linspace(-1, 1, cols, dtype=np.float32), (rows, 1))
    dy = np.full((rows, cols), term, np.float32)
    check(layer_norm_errors(x, dy, None, None, -1, 1e-5), f"term {term}")


# Doubles whose squares, or even sums, leave the range of double.
WIDE = {
    "mean 0, 1e200": lambda rng, shape: 1e200 * rng.standard_normal(shape),
    "mean 1e3, 1e200": lambda rng, shape: 1e200 * (rng.standard_normal(shape) + 1e3),
    "mean 1e6, 1e200": lambda rng, shape: 1e200 * (rng.standard_normal(shape) + 1e6),
    "near the largest double": lambda rng, shape: 1e308 * rng.uniform(0.9, 1, shape),
    "constant 1e300": lambda rng, shape: np.full(shape, 1e300),
    "1e-200": lambda rng, shape: 1e-200 * (rng.standard_normal(shape) + 1e3),
}


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize(("shape", "axis"), [((5, 60), 1), ((3, 4, 5, 9), 1), ((1, 40), -1)])
def test_extreme_doubles(
    isa: str, name: str, eps: float, shape: tuple[int, ...], axis: int, rng: np.random.Generator
) -> None:
    x, dy = WIDE[name](rng, shape), rng.standard_normal(shape)
    if eps == 0.0 and (name == "constant 1e300" or shape[0] == 1):
        return  # 0 / 0
    weight, bias = parameters(rng, (shape[axis],), np.float64)[0]
    check(batch_norm_errors(x, dy, weight, bias, axis, eps), f"batch norm, {name}")
    if len(shape) == 2:
        check(layer_norm_errors(x, dy, weight, bias, axis, eps), f"layer norm, {name}")


def test_gradients_of_tiny_upstream_gradients(isa: str, rng: np.random.Generator) -> None:
    """Coefficients of the channel would be subnormal floats though the result is not."""
    x = (1e12 * rng.standard_normal((50, 6))).astype(np.float32)
    dy = (1e-28 * rng.standard_normal((50, 6))).astype(np.float32)
    check(batch_norm_errors(x, dy, np.full(6, 1e12, np.float32), None, 1, 1e-5), "tiny dy")


def test_inference_far_from_the_running_mean(isa: str) -> None:
    x = np.full((4, 3), 3e38, np.float32)
    stats = nk.RunningStats(3)
    stats.mean, stats.var = -3e38, 1e10
    expected = (3e38 + 3e38) / np.sqrt(1e10 + 1e-5)
    np.testing.assert_allclose(nk.batch_norm(x, stats=stats, training=False), np.float32(expected), rtol=1e-6)
