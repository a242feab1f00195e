"""Penalties on weights: values, gradients, and where they count."""

import numpy as np
import pytest

from gradients import assert_close, numeric_gradient
from normkit import regularizers
from normkit.layers import BatchNormalization, Dense, Input, LayerNormalization
from normkit.models import Sequential, load_model
from normkit.optimizers import SGD
from normkit.regularizers import L1, L1L2, L2
from trainer_support import assert_same_weights

X = np.random.default_rng(0).normal(size=(7, 4))
Y = np.random.default_rng(1).integers(0, 3, 7)


def penalized(**kwargs):
    model = Sequential(
        [
            Input((4,)),
            Dense(5, "tanh", kernel_regularizer=L2(0.1), bias_regularizer="l1"),
            BatchNormalization(gamma_regularizer=L1L2(0.2, 0.3)),
            LayerNormalization(beta_regularizer=regularizers.l1(0.4)),
            Dense(3, "softmax", kernel_regularizer=regularizers.l1_l2(l1=0.01, l2=0.02)),
        ],
        seed=0,
        dtype="float64",
        **kwargs,
    )
    model.compile(SGD(0.0), "sparse_categorical_crossentropy", metrics=["sparse_categorical_crossentropy"])
    model.set_weights([w + 0.1 for w in model.get_weights()])
    return model


def penalty(model):
    kernel, bias, gamma, _, _, _, _, beta, kernel_1, _ = model.get_weights()
    return (
        0.1 * (kernel**2).sum() + 0.01 * np.abs(bias).sum() + 0.2 * np.abs(gamma).sum() + 0.3 * (gamma**2).sum()
        + 0.4 * np.abs(beta).sum() + 0.01 * np.abs(kernel_1).sum() + 0.02 * (kernel_1**2).sum()
    )  # fmt: skip


def test_the_loss_has_the_penalties_and_metrics_do_not():
    model = penalized()
    for loss, plain in (model.evaluate(X, Y), model.test_on_batch(X, Y), model.train_on_batch(X, Y)):
        assert loss == pytest.approx(plain + penalty(model), rel=1e-12)


def test_gradients():
    model = penalized()
    model.train_on_batch(X, Y)
    computed = [w.grad.copy() for w in model.trainable_weights]
    for weight, gradient in zip(model.trainable_weights, computed, strict=True):
        expected = numeric_gradient(lambda: model.train_on_batch(X, Y)[0], weight.value)
        assert_close(gradient, expected, 1e-8)


def test_frozen_layers_have_none():
    model = penalized()
    whole = model.evaluate(X, Y)[0]
    model.layers[0].trainable = False
    kernel, bias = model.layers[0].get_weights()
    expected = whole - 0.1 * (kernel**2).sum() - 0.01 * np.abs(bias).sum()
    assert model.evaluate(X, Y)[0] == pytest.approx(expected, rel=1e-12)


def test_they_come_back_from_a_file(tmp_path):
    model = penalized()
    model.save(tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    assert again.evaluate(X, Y) == model.evaluate(X, Y)
    for m in (model, again):
        m.fit(X, Y, epochs=2, verbose=0)
    assert_same_weights(model.get_weights(), again.get_weights())


def test_values():
    x = np.array([1.0, -2.0, 0.0])
    assert L1()(x) == pytest.approx(0.03)
    assert L2()(x) == pytest.approx(0.05)
    assert L1L2()(x) == 0
    np.testing.assert_allclose(L1L2(0.5, 0.25).gradient(x), [1.0, -1.5, 0.0])
    assert regularizers.get(None) is None
    assert regularizers.get("l2").l2 == 0.01
