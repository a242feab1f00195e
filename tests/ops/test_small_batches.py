"""Ghost batch norm and batch renormalization, against the definition applied part by part and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normkit as nk

Array = np.ndarray[Any, Any]
LAYOUTS = [((70, 5), 1), ((7, 5, 3, 4), 1), ((7, 3, 4, 5), -1), ((6, 5, 50), 1)]


def given(rng: np.random.Generator, shape: Any, dtype: Any = np.float64) -> tuple[Array, Array, Array, Array]:
    x, dy = ((rng.standard_normal(shape) * 2 + 1).astype(dtype) for _ in range(2))
    weight, bias = rng.standard_normal((2, 5)).astype(dtype)
    return x, dy, weight, bias


@pytest.mark.parametrize("ghost_size", [1, 2, 3, 32, 70, 1000])
@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_ghosts_are_batches_of_their_own(
    rng: np.random.Generator, shape: Any, axis: int, ghost_size: int
) -> None:
    x, dy, weight, bias = given(rng, shape)
    stats, expected_stats = (nk.RunningStats(5, dtype=np.float64) for _ in range(2))
    y, moments = nk.ghost_batch_norm(x, weight, bias, ghost_size=ghost_size, stats=stats, axis=axis)
    got = nk.ghost_batch_norm_backward(dy, x, moments, weight, ghost_size=ghost_size, axis=axis)
    dweight, dbias = np.zeros(5), np.zeros(5)
    for start in range(0, shape[0], ghost_size):
        part = slice(start, start + ghost_size)
        exact, exact_moments = nk.reference.batch_norm(x[part], weight, bias, axis=axis)
        np.testing.assert_allclose(y[part], exact, rtol=1e-12, atol=1e-12)
        gradients = nk.reference.batch_norm_backward(dy[part], x[part], exact_moments, weight, axis=axis)
        np.testing.assert_allclose(got.dx[part], gradients.dx, rtol=1e-11, atol=1e-11)
        dweight, dbias = dweight + gradients.dweight, dbias + gradients.dbias
        nk.batch_norm(x[part], stats=expected_stats, axis=axis)
    np.testing.assert_allclose(got.dweight, dweight, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(got.dbias, dbias, rtol=1e-11, atol=1e-11)
    assert np.array_equal(stats.mean, expected_stats.mean)
    assert np.array_equal(stats.var, expected_stats.var)
    assert stats.count == len(moments) == -(-shape[0] // ghost_size)


def test_a_ragged_last_ghost_and_inference_of_any_length(rng: np.random.Generator) -> None:
    """KR#15790: ghosts of 32 in a batch of 70, and inference with any number of rows."""
    x, *_ = given(rng, (70, 5), np.float32)
    stats = nk.RunningStats(5)
    y, moments = nk.ghost_batch_norm(x, ghost_size=32, stats=stats)
    assert [m.samples for m in moments] == [32, 32, 6]
    np.testing.assert_allclose(y[64:].mean(0), 0, atol=1e-6)
    for rows in (1, 31, 33):
        assert nk.batch_norm(x[:rows], stats=stats, training=False).shape == (rows, 5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_one_ghost_is_the_batch(rng: np.random.Generator, dtype: Any) -> None:
    x, dy, weight, bias = given(rng, (8, 5, 6), dtype)
    out, dx = np.empty_like(x), np.empty_like(x)
    y, moments = nk.ghost_batch_norm(x, weight, bias, ghost_size=8, out=out)
    expected, its_moments = nk.batch_norm(x, weight, bias, return_moments=True)
    assert y is out
    assert y.tobytes() == expected.tobytes()
    got = nk.ghost_batch_norm_backward(dy, x, moments, weight, ghost_size=8, out=dx)
    assert got.dx is dx
    for a, b in zip(got, nk.batch_norm_backward(dy, x, its_moments, weight), strict=True):
        assert a.tobytes() == b.tobytes()
        assert a.dtype == dtype


def test_empty_batches(rng: np.random.Generator) -> None:
    x = np.empty((0, 5), np.float32)
    stats = nk.RunningStats(5)
    y, moments = nk.ghost_batch_norm(x, ghost_size=4, stats=stats)
    got = nk.ghost_batch_norm_backward(x, x, moments, ghost_size=4)
    assert (y.shape, got.dx.shape, moments, stats.count) == ((0, 5), (0, 5), [], 0)
    assert not got.dweight.any()
    y, renorm_moments = nk.batch_renorm(x, stats=stats, r_max=3, d_max=5)
    assert y.shape == (0, 5)
    assert not nk.batch_renorm_backward(x, x, renorm_moments).dbias.any()
    assert stats.count == 0


def by_definition(
    x: Array, weight: Array, bias: Array, mean: Array, var: Array, r_max: float, d_max: float
) -> Array:
    """Ioffe 2017, algorithm 1, for (N, C)."""
    batch_mean, sigma, s = x.mean(0), np.sqrt(x.var(0) + 1e-5), np.sqrt(var + 1e-5)
    r = np.clip(sigma / s, 1 / r_max, r_max)
    d = np.clip((batch_mean - mean) / s, -d_max, d_max)
    return ((x - batch_mean) / sigma * r + d) * weight + bias


@pytest.mark.parametrize(("r_max", "d_max"), [(1, 0), (1.5, 0.3), (3, 5), (100, 100)])
def test_renorm_is_algorithm_1(rng: np.random.Generator, r_max: float, d_max: float) -> None:
    x, dy, weight, bias = given(rng, (9, 5))
    stats = nk.RunningStats(5, dtype=np.float64)
    stats.mean, stats.var = rng.standard_normal(5), rng.uniform(0.2, 9, 5)
    mean, var = stats.mean.copy(), stats.var.copy()
    y, moments = nk.batch_renorm(x, weight, bias, stats=stats, r_max=r_max, d_max=d_max)
    np.testing.assert_allclose(
        y, by_definition(x, weight, bias, mean, var, r_max, d_max), rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(stats.mean, 0.9 * mean + 0.1 * x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(stats.var, 0.9 * var + 0.1 * x.var(0, ddof=1), rtol=1e-12)

    got = nk.batch_renorm_backward(dy, x, moments, weight)
    step = 1e-6

    def loss(x: Array, weight: Array, bias: Array) -> float:
        x_hat = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)  # r and d as constants
        return float((dy * ((x_hat * moments.r + moments.d) * weight + bias)).sum())

    for name, array, gradient in (
        ("x", x, got.dx),
        ("weight", weight, got.dweight),
        ("bias", bias, got.dbias),
    ):
        for index in np.ndindex(array.shape):
            values = {"x": x, "weight": weight, "bias": bias}
            up, down = array.copy(), array.copy()
            up[index] += step
            down[index] -= step
            slope = (loss(**{**values, name: up}) - loss(**{**values, name: down})) / (2 * step)
            assert gradient[index] == pytest.approx(slope, rel=1e-5, abs=1e-7), f"{name}{index}"


@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_renorm_without_room_is_batch_norm(
    rng: np.random.Generator, shape: Any, axis: int, dtype: Any
) -> None:
    x, dy, weight, bias = given(rng, shape, dtype)
    y, moments = nk.batch_renorm(x, weight, bias, stats=nk.RunningStats(5), r_max=1, d_max=0, axis=axis)
    expected, its_moments = nk.batch_norm(x, weight, bias, axis=axis, return_moments=True)
    assert y.tobytes() == expected.tobytes()
    got = nk.batch_renorm_backward(dy, x, moments, weight, axis=axis)
    for a, b in zip(got, nk.batch_norm_backward(dy, x, its_moments, weight, axis=axis), strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


def test_renorm_with_room_is_inference(rng: np.random.Generator) -> None:
    x, _, weight, bias = given(rng, (40, 5))
    stats = nk.RunningStats(5, dtype=np.float64)
    stats.mean, stats.var = rng.standard_normal(5), rng.uniform(0.5, 2, 5)
    expected = nk.batch_norm(x, weight, bias, stats=stats, training=False)
    y, _ = nk.batch_renorm(x, weight, bias, stats=stats, r_max=1e6, d_max=1e6)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


def test_the_schedule_of_the_paper() -> None:
    schedule = nk.RenormSchedule()
    assert schedule(0) == schedule(5000) == (1, 0)
    assert schedule(15_000) == pytest.approx((1 + 2 * 10 / 35, 2.5))
    assert schedule(25_000) == pytest.approx((1 + 2 * 20 / 35, 5))
    assert schedule(40_000) == schedule(10**9) == (3, 5)
    assert nk.RenormSchedule(start=0, r_end=0, d_end=0)(0) == (3, 5)


def test_errors(rng: np.random.Generator) -> None:
    x, *_ = given(rng, (9, 5))
    stats = nk.RunningStats(5)
    for size in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="ghost_batch_norm: ghost_size must be a positive integer, got"):
            nk.ghost_batch_norm(x, ghost_size=size)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="axis 0 is that of the samples"):
        nk.ghost_batch_norm(x, ghost_size=4, axis=0)
    with pytest.raises(TypeError, match="x must be a numpy array, got list"):
        nk.ghost_batch_norm([[1.0]], ghost_size=4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"out must be float64 of shape \(9, 5\) like x"):
        nk.ghost_batch_norm(x, ghost_size=4, out=x.astype(np.float32))
    _, moments = nk.ghost_batch_norm(x, ghost_size=4)
    with pytest.raises(ValueError, match="moments must be a list of 2, one for each virtual batch, got 3"):
        nk.ghost_batch_norm_backward(x, x, moments, ghost_size=5)
    with pytest.raises(ValueError, match=r"dy must have shape \(9, 5\), got \(8, 5\)"):
        nk.ghost_batch_norm_backward(x[:8], x, moments, ghost_size=4)
    with pytest.raises(ValueError, match="r_max must be finite and at least 1, got 0"):
        nk.batch_renorm(x, stats=stats, r_max=0.5, d_max=0)
    with pytest.raises(ValueError, match="d_max must be finite and not negative, got -1"):
        nk.RenormSchedule(d_max=-1)
    with pytest.raises(ValueError, match="start must be between 0 and r_end and d_end"):
        nk.RenormSchedule(start=10, d_end=5)
    with pytest.raises(ValueError, match="stats must have 5 channels like x, got 3"):
        nk.batch_renorm(x, stats=nk.RunningStats(3), r_max=1, d_max=0)
    with pytest.raises(TypeError, match="moments must be RenormMoments, got BatchMoments"):
        nk.batch_renorm_backward(x, x, moments[0])  # type: ignore[arg-type]
