"""What BatchNormalization does beyond Keras: statistics with rules of their own, ghosts, renormalization, folding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import normkit as nk
from gradients import assert_close, numeric_gradient
from normkit.layers import BatchNormalization, Dense, fold_batch_norm
from normkit.models import Sequential, load_model

SCHEDULE = nk.RenormSchedule(r_max=2, d_max=1, start=2, r_end=6, d_end=4)
OPTIONS: dict[str, dict[str, Any]] = {
    "ghost": {"ghost_size": 3},
    "renorm": {"renorm": SCHEDULE},
    "stats": {"stats": {"num_channels": 4, "dtype": "float64", "debias": True, "skip_nonfinite": True}},
}


@pytest.mark.parametrize("shape", [(8, 4), (7, 3, 2, 4)])
@pytest.mark.parametrize("option", OPTIONS)
def test_gradients(option: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(5)
    layer = BatchNormalization(dtype="float64", **OPTIONS[option])
    x, dy = (rng.standard_normal(shape) for _ in range(2))
    for _ in range(4):  # so that r and d have room
        layer(rng.standard_normal(shape) * 1.2 + 0.3, training=True)
    layer.gamma.value[...] = rng.standard_normal(4)
    layer.beta.value[...] = rng.standard_normal(4)
    y = layer(x, training=True)
    dx = layer.backward(dy)
    moments = layer.saved()[1]

    def loss() -> float:
        if option != "renorm":
            kept = layer.stats.copy()
            value = float((layer(x, training=True) * dy).sum())
            layer.stats.load_state_dict(kept.state_dict())
            return value
        axes = tuple(range(x.ndim - 1))  # r and d are constants
        x_hat = (x - x.mean(axes)) / np.sqrt(x.var(axes) + layer.epsilon)
        return float((((x_hat * moments.r + moments.d) * layer.gamma.value + layer.beta.value) * dy).sum())

    assert loss() == pytest.approx(float((y * dy).sum()), rel=1e-9)
    assert_close(dx, numeric_gradient(loss, x), 1e-6)
    assert_close(layer.gamma.grad, numeric_gradient(loss, layer.gamma.value), 1e-6)
    assert_close(layer.beta.grad, numeric_gradient(loss, layer.beta.value), 1e-6)


def test_frozen_statistics_stand_still_while_gamma_and_beta_train(rng: np.random.Generator) -> None:
    x = rng.standard_normal((40, 4)).astype(np.float32) * 3 + 1
    model = Sequential([Dense(4, input_shape=(4,)), BatchNormalization(), Dense(1)], dtype="float32")
    norm = model.layers[1]
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], epochs=1, verbose=0)
    norm.stats.freeze()
    mean, gamma = norm.moving_mean.value.copy(), norm.gamma.value.copy()
    inference = norm(x)
    assert np.array_equal(norm(x, training=True), inference)
    model.fit(x, x[:, :1], epochs=1, verbose=0)
    assert np.array_equal(norm.moving_mean.value, mean)
    assert not np.array_equal(norm.gamma.value, gamma)
    dy = rng.standard_normal(x.shape).astype(np.float32)
    norm(x, training=True)
    expected = dy * norm.gamma.value / np.sqrt(norm.moving_variance.value + norm.epsilon)
    np.testing.assert_allclose(norm.backward(dy), expected, rtol=1e-5)


def test_given_statistics_are_those_that_move(rng: np.random.Generator) -> None:
    stats = nk.RunningStats(4, 0.5, debias=True)
    layer = BatchNormalization(stats=stats)
    x = rng.standard_normal((30, 4)).astype(np.float32) + 7
    layer(x, training=True)
    assert layer.stats is stats
    np.testing.assert_allclose(stats.mean, x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(layer.moving_mean.value, stats.mean)
    np.testing.assert_allclose(layer(x).mean(0), 0, atol=1e-5)


def test_a_bad_batch_in_training_is_left_out(rng: np.random.Generator) -> None:
    layer = BatchNormalization(stats=nk.RunningStats.keras(4, skip_nonfinite=True))
    x = rng.standard_normal((6, 4)).astype(np.float32)
    layer(x, training=True)
    before = layer.get_weights()
    layer(np.full((6, 4), np.nan, np.float32), training=True)
    for a, b in zip(layer.get_weights(), before, strict=True):
        assert np.array_equal(a, b)
    assert layer.stats.skipped == 1


@pytest.mark.parametrize("option", OPTIONS)
def test_a_file_keeps_rules_and_counts(option: str, tmp_path: Path, rng: np.random.Generator) -> None:
    def make() -> Sequential:
        model = Sequential(
            [BatchNormalization(input_shape=(4,), **OPTIONS[option]), Dense(1)], dtype="float64"
        )
        model.compile("adam", "mse")
        return model

    x = rng.standard_normal((24, 4))
    model = make()
    model.fit(x, x[:, :1], batch_size=8, epochs=1, verbose=0)
    model.save(tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.layers[0].get_config() == model.layers[0].get_config()
    assert again.layers[0].stats.count == model.layers[0].stats.count > 0
    for m in (model, again):
        m.fit(x, x[:, :1], batch_size=8, epochs=2, verbose=0)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"axis": 1}])
@pytest.mark.parametrize("use_bias", [True, False])
def test_folding_is_exact_to_rounding(
    rng: np.random.Generator, dtype: str, options: Any, use_bias: bool
) -> None:
    dense = Dense(5, use_bias=use_bias, dtype=dtype)
    norm = BatchNormalization(dtype=dtype, **options)
    x = rng.standard_normal((50, 7)).astype(dtype)
    for _ in range(5):
        norm(dense(x), training=True)
    for weight in (*dense.weights, *norm.weights):
        weight.value[...] = rng.uniform(0.5, 2, weight.shape)
    folded = fold_batch_norm(dense, norm)
    before = dense.get_weights()
    exact = x.astype(np.float64) @ dense.kernel.value + (dense.bias.value if use_bias else 0)
    exact = (exact - norm.moving_mean.value) / np.sqrt(
        norm.moving_variance.value.astype(np.float64) + norm.epsilon
    )
    gamma, beta = norm.affine()
    exact = exact * (1 if gamma is None else gamma) + (0 if beta is None else beta)
    eps = np.finfo(dtype).eps
    size = (np.abs(x) @ np.abs(folded.kernel.value) + np.abs(folded.bias.value)).max()
    np.testing.assert_allclose(folded(x), exact, rtol=0, atol=8 * eps * size)
    np.testing.assert_allclose(folded(x), norm(dense(x)), rtol=0, atol=16 * eps * size)
    assert folded.kernel.value.dtype == dtype
    folded.kernel.value[...] = 0
    for a, b in zip(dense.get_weights(), before, strict=True):
        assert np.array_equal(a, b)


def test_errors(rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 5)).astype(np.float32)
    with pytest.raises(ValueError, match="ghost_size and renorm exclude each other"):
        BatchNormalization(ghost_size=2, renorm=SCHEDULE)
    with pytest.raises(ValueError, match="ghost_size must be a positive integer, got 0"):
        BatchNormalization(ghost_size=0)
    with pytest.raises(ValueError, match="stats must be for 5 channels of float32, got 3 of float32"):
        BatchNormalization(stats=nk.RunningStats(3))(x)
    with pytest.raises(ValueError, match="stats must be for 5 channels of float32, got 5 of float64"):
        BatchNormalization(stats=nk.RunningStats(5, dtype="float64"))(x)
    dense, norm, relu = Dense(3), BatchNormalization(), Dense(3, "relu")
    with pytest.raises(ValueError, match="Dense 'dense' has no weights yet"):
        fold_batch_norm(dense, norm)
    norm(dense(x))
    with pytest.raises(TypeError, match="expected a BatchNormalization, got Dense"):
        fold_batch_norm(dense, dense)
    relu(x)
    with pytest.raises(ValueError, match="has the activation 'relu', which comes between the two"):
        fold_batch_norm(relu, norm)
    other = BatchNormalization()
    other(x)
    with pytest.raises(ValueError, match="expected a BatchNormalization of 3 channels, got 5"):
        fold_batch_norm(dense, other)
    along = BatchNormalization(axis=1)
    along(np.zeros((2, 3, 4), np.float32))
    with pytest.raises(ValueError, match="normalizes axis 1 of 3"):
        fold_batch_norm(dense, along)
