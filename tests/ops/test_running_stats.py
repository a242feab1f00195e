"""RunningStats: the moving averages, their conventions and their edge cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normkit as nk


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 0.5, 1.0, None])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_update_is_the_documented_formula(
    unbiased: bool, momentum: Any, dtype: Any, rng: np.random.Generator
) -> None:
    stats = nk.RunningStats(5, momentum=momentum, unbiased=unbiased, dtype=dtype)
    mean, var = np.zeros(5), np.ones(5)
    for step in range(4):
        x = rng.standard_normal((7, 5, 3)).astype(np.float32) * 2 + 1
        nk.batch_norm(x, stats=stats, axis=1)
        m = 1 / (step + 1) if momentum is None else momentum
        mean = (1 - m) * mean + m * x.mean(axis=(0, 2), dtype=np.float64)
        var = (1 - m) * var + m * x.var(axis=(0, 2), dtype=np.float64, ddof=int(unbiased))
    assert stats.count == 4
    assert stats.mean.dtype == dtype
    np.testing.assert_allclose(stats.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(stats.var, var, rtol=1e-6)


def test_conventions_by_name() -> None:
    torch, keras = nk.RunningStats.torch(3), nk.RunningStats.keras(3)
    assert (torch.momentum, torch.unbiased) == (0.1, True)
    assert keras.momentum == pytest.approx(0.01)
    assert keras.unbiased is False
    assert nk.RunningStats.keras(3, momentum=0.9).momentum == pytest.approx(0.1)
    assert nk.RunningStats.torch(3, momentum=None).momentum is None


def test_one_value_per_channel_moves_the_mean_and_keeps_the_variance() -> None:
    for unbiased in (True, False):
        stats = nk.RunningStats(3, unbiased=unbiased)
        y = nk.batch_norm(np.array([[1.0, 2.0, 3.0]], np.float32), stats=stats)
        assert (y == 0).all()
        np.testing.assert_allclose(stats.mean, [0.1, 0.2, 0.3], rtol=1e-6)
        assert (stats.var == 1).all()
        assert stats.count == 1


def test_inference_uses_the_running_statistics(isa: str, rng: np.random.Generator) -> None:
    for shape, axis in (((9, 6), 1), ((3, 6, 8, 9), 1), ((3, 8, 9, 6), -1)):
        stats = nk.RunningStats(6)
        stats.mean, stats.var = rng.standard_normal(6), rng.uniform(0.5, 2, 6)
        before = stats.copy()
        x = rng.standard_normal(shape).astype(np.float32)
        weight, bias = rng.standard_normal((2, 6)).astype(np.float32)
        y, moments = nk.batch_norm(
            x, weight, bias, stats=stats, training=False, axis=axis, return_moments=True
        )
        expected, exact = nk.reference.batch_norm(x, weight, bias, mean=stats.mean, var=stats.var, axis=axis)
        np.testing.assert_allclose(y, expected, rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(moments.rstd, exact.rstd, rtol=1e-15)
        assert np.array_equal(stats.mean, before.mean)
        assert stats.count == before.count

        dy = rng.standard_normal(shape).astype(np.float32)
        got = nk.batch_norm_backward(dy, x, moments, weight, training=False, axis=axis)
        wanted = nk.reference.batch_norm_backward(dy, x, exact, weight, training=False, axis=axis)
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_inference_with_extreme_statistics(isa: str) -> None:
    """Running statistics whose reciprocal deviation leaves float32's range."""
    x = np.array([[1e30, 2e-30], [3e30, -1e-30]], np.float32)
    stats = nk.RunningStats(2)
    stats.mean, stats.var = [2e30, 0.0], [1e38, 1e-38]
    y, moments = nk.batch_norm(x, stats=stats, training=False, eps=0.0, return_moments=True)
    expected, _ = nk.reference.batch_norm(x, mean=stats.mean, var=stats.var, eps=0.0)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    dy = np.ones_like(x)
    for target in (None, dy.copy(), x.copy()):
        source = target if target is not None and target[0, 0] == x[0, 0] else x
        upstream = target if target is not None and target[0, 0] == 1 else dy
        got = nk.batch_norm_backward(upstream, source, moments, training=False, out=target)
        wanted = nk.reference.batch_norm_backward(dy, x, moments, training=False)
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_statistics_are_writable_in_place() -> None:
    stats = nk.RunningStats(3)
    memory = stats.mean
    stats.mean[1] = 5
    stats.mean += 1
    stats.var = [1, 2, 3]
    assert stats.mean is memory
    assert stats.mean.tolist() == [1, 6, 1]
    assert stats.var.tolist() == [1, 2, 3]
    stats.reset()
    assert stats.mean.tolist() == [0, 0, 0]
    assert stats.var.tolist() == [1, 1, 1]


def test_a_clean_batch_after_a_bad_one_in_another_channel(rng: np.random.Generator) -> None:
    stats = nk.RunningStats(4)
    x = rng.standard_normal((8, 4)).astype(np.float32)
    x[2, 1] = np.nan
    nk.batch_norm(x, stats=stats)
    assert np.isnan(stats.mean).tolist() == [False, True, False, False]
    y = nk.batch_norm(rng.standard_normal((8, 4)).astype(np.float32), stats=stats)
    assert np.isfinite(y).all()


def test_repr_and_copy() -> None:
    stats = nk.RunningStats(2, momentum=None)
    assert repr(stats) == "RunningStats(2, momentum=None, unbiased=True, count=0)"
    twin = stats.copy()
    twin.mean[0] = 3
    assert stats.mean[0] == 0
