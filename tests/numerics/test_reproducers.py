"""Inputs on which other libraries failed, as their users reported them; the source of each is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normkit as nk
from normkit import reference

F32 = np.float32


def ulps(got: Any, expected: Any) -> float:
    return float(
        np.max(np.abs(got - expected) / np.spacing(np.maximum(np.abs(expected), 1 / 256).astype(got.dtype)))
    )


@pytest.mark.parametrize("base", [40_000, 80_000])
def test_four_values_far_from_zero(isa: str, base: float) -> None:
    """microsoft/onnxruntime#28463: NaN."""
    x = np.array([[base, base + 1, base + 2, base + 3]], F32)
    assert ulps(nk.layer_norm(x, eps=1e-5), reference.layer_norm(x, eps=1e-5)[0]) <= 4


def test_constant_row_is_exactly_the_bias(isa: str) -> None:
    """microsoft/onnxruntime#21935: NaN for full(256, 1234.0)."""
    x, bias = np.full((3, 256), 1234.0, F32), np.linspace(-1, 1, 256, dtype=F32)
    assert np.array_equal(nk.layer_norm(x, np.full(256, 2, F32), bias), np.tile(bias, (3, 1)))


def test_mean_2000(isa: str, rng: np.random.Generator) -> None:
    """pytorch/pytorch#51102: output variance up to 48425 instead of 1."""
    x = (rng.standard_normal((5, 4)) + 2000).astype(F32)
    assert ulps(nk.layer_norm(x), reference.layer_norm(x)[0]) <= 4


def test_small_deviation_on_a_large_mean(isa: str, rng: np.random.Generator) -> None:
    """pytorch/pytorch#40307: variance 0 for 100 + 0.01·randn over long rows."""
    x = (100 + 0.01 * rng.standard_normal((16, 32_768))).astype(F32)
    y, moments = nk.layer_norm(x, eps=0, return_moments=True)
    np.testing.assert_allclose(1 / moments.rstd**2, x.var(axis=1, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(1 / moments.rstd**2, 1e-4, rtol=0.05)
    assert ulps(y, reference.layer_norm(x, eps=0)[0]) <= 4


def test_uniform_values_in_a_long_row(isa: str, rng: np.random.Generator) -> None:
    """pytorch/pytorch#59987, #54293: errors of 0.03 from naive float32 sums over millions of values."""
    x = rng.random((1, 4 * 1024 * 1024), dtype=F32)
    np.testing.assert_allclose(nk.layer_norm(x), reference.layer_norm(x)[0], rtol=0, atol=1e-6)


def test_rows_of_two_equal_values(isa: str) -> None:
    """pytorch/pytorch#108072: [[2, 2], [14, 14]] must give 0."""
    assert (nk.layer_norm(np.array([[2, 2], [14, 14]], F32), eps=1e-6) == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_one_value(isa: str, dtype: Any) -> None:
    """pytorch/pytorch#188375, #98075: non-zero weight gradient; y must be the bias at any weight."""
    x = np.full((7, 1), 1e6, dtype)
    weight, bias, dy = np.array([1e11], dtype), np.array([0.25], dtype), np.ones((7, 1), dtype)
    y, moments = nk.layer_norm(x, weight, bias, return_moments=True)
    assert (y == bias).all()
    gradients = nk.layer_norm_backward(dy, x, moments, weight)
    assert (gradients.dweight == 0).all()
    assert (gradients.dx == 0).all()
    assert gradients.dbias == 7


def test_tiny_noise_on_a_constant(isa: str, rng: np.random.Generator) -> None:
    """jax-ml/jax#30426: NaN for -11·ones(3) + 2e-6·noise."""
    for _ in range(50):
        x = (-11 * np.ones((1, 3)) + 2e-6 * rng.standard_normal((1, 3))).astype(F32)
        assert ulps(nk.layer_norm(x), reference.layer_norm(x)[0]) <= 4


@pytest.mark.parametrize("mean", [0.0, 1e2, 1e3, 1e4])
def test_sixteen_values_a_thousandth_apart(isa: str, mean: float) -> None:
    """tracel-ai/burn#5607: error 1.33 at mean 1e4."""
    x = (mean + np.arange(16) * 1e-3).astype(F32)[None]
    y = nk.layer_norm(x)
    assert ulps(y, reference.layer_norm(x)[0]) <= 4
    assert -1.3420 <= y[0, 0] <= -1.3300


@pytest.mark.parametrize("offset", [1e4, 1e5, 1e6, 1e7])
@pytest.mark.parametrize(("shape", "axis"), [((4, 8, 8, 1), 3), ((4, 3, 8, 8), 1), ((4, 8, 8, 8), 3)])
def test_batch_norm_far_from_zero(
    isa: str, offset: float, shape: tuple[int, ...], axis: int, rng: np.random.Generator
) -> None:
    """tensorflow/tensorflow#118701: negative variance, NaN in the result and, earlier, in the gradient."""
    x = (rng.standard_normal(shape) + offset).astype(F32)
    dy = rng.standard_normal(shape).astype(F32)
    y, moments = nk.batch_norm(x, axis=axis, return_moments=True)
    expected, exact = reference.batch_norm(x, axis=axis)
    assert ulps(y, expected) <= 4
    dx = nk.batch_norm_backward(dy, x, moments, axis=axis).dx
    np.testing.assert_allclose(
        dx, reference.batch_norm_backward(dy, x, exact, axis=axis).dx, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("value", [1.0, 1e4, 1e7, 1e10])
def test_constant_channels_give_zero(isa: str, value: float) -> None:
    """pytorch/pytorch#5410: saturated to ±1 above 1e7."""
    for shape in ((64, 5), (3, 5, 9, 9)):
        assert (nk.batch_norm(np.full(shape, value, F32)) == 0).all()


def test_empty_batch_leaves_the_statistics_alone() -> None:
    """pytorch/pytorch#12013: running mean NaN for a batch of shape (0, 5, 9)."""
    stats = nk.RunningStats(5)
    x = np.empty((0, 5, 9), F32)
    y, moments = nk.batch_norm(x, stats=stats, return_moments=True)
    gradients = nk.batch_norm_backward(y, x, moments)
    assert y.shape == (0, 5, 9)
    assert (stats.mean == 0).all()
    assert (stats.var == 1).all()
    assert (gradients.dweight == 0).all()
    assert (gradients.dbias == 0).all()


def test_twenty_batch_norms_train_and_infer_alike(rng: np.random.Generator) -> None:
    """pytorch/pytorch#100048: stacked norms drift apart between training and inference."""
    layers = [nk.RunningStats(8) for _ in range(20)]
    batches = [(5 * rng.standard_normal((256, 8)) + 3).astype(F32) for _ in range(64)]
    for step in range(300):
        x = batches[step % 64]
        for stats in layers:
            x = nk.batch_norm(x, stats=stats)
    trained = inferred = batches[0]
    for stats in layers:
        trained = nk.batch_norm(trained)
        inferred = nk.batch_norm(inferred, stats=stats, training=False)
    assert np.abs(trained - inferred).max() < 0.5
    assert abs(float(inferred.std()) - 1) < 0.1


@pytest.mark.parametrize("op", ["layer_norm", "batch_norm"])
def test_weight_only_bias_only_and_neither(isa: str, op: str, rng: np.random.Generator) -> None:
    """pytorch/pytorch#69208: a weight without a bias gave a wrong result."""
    x = rng.standard_normal((37, 50)).astype(F32)
    weight, bias = rng.standard_normal((2, 50)).astype(F32)
    for w, b in ((weight, None), (None, bias), (None, None), (weight, bias)):
        expected, _ = getattr(reference, op)(x, w, b)
        np.testing.assert_allclose(getattr(nk, op)(x, w, b), expected, rtol=2e-6, atol=2e-6)


def test_strided_running_statistics_are_updated_in_place(rng: np.random.Generator) -> None:
    """pytorch/pytorch#33867: the update of a non-contiguous running mean was lost."""
    from normkit import _core

    memory = np.zeros((6, 2), F32)
    memory[:, 1] = 1
    mean, var = memory[:, 0], memory[:, 1]
    x = (rng.standard_normal((20, 6)) + 5).astype(F32)
    _core.batch_norm_training(
        x, None, None, mean, var, 0.1, True, 1, 1e-5, None, None, None, 0.01, None, False, None
    )
    np.testing.assert_allclose(mean, 0.1 * x.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(var, 0.9 + 0.1 * x.var(axis=0, ddof=1, dtype=np.float64), rtol=1e-6)
