"""Optimizers against the formulas written out plainly, one array at a time."""

import math

import numpy as np
import pytest

from normkit import optimizers
from normkit.optimizers import BLOCK, SGD, Adam, AdamW, RMSprop

STEPS = 7
SIZE = 11


def gradients():
    rng = np.random.default_rng(0)
    return rng.normal(size=(STEPS, SIZE))


def run(optimizer):
    value, grad = np.linspace(-1, 1, SIZE), np.zeros(SIZE)
    optimizer.build([(value, grad)])
    for gradient in gradients():
        grad[...] = gradient
        optimizer.step()
    assert optimizer.iterations == STEPS
    return value


def sgd(rate=0.01, momentum=0.0, nesterov=False):
    w, v = np.linspace(-1, 1, SIZE), np.zeros(SIZE)
    for g in gradients():
        v = momentum * v - rate * g
        w = w + (momentum * v - rate * g if nesterov else v)
    return w


def adam(rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False, decay=0.0):
    w, m, v, largest = np.linspace(-1, 1, SIZE), 0.0, 0.0, 0.0
    for t, g in enumerate(gradients(), start=1):
        w = w - rate * decay * w
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        largest = np.maximum(largest, v)
        alpha = rate * math.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        w = w - alpha * m / (np.sqrt(largest if amsgrad else v) + epsilon)
    return w


def rmsprop(rate=0.001, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False):
    w, v, mean, b = np.linspace(-1, 1, SIZE), 0.0, 0.0, 0.0
    for g in gradients():
        v = rho * v + (1 - rho) * g**2
        mean = rho * mean + (1 - rho) * g
        b = momentum * b + rate * g / np.sqrt(v - (mean**2 if centered else 0) + epsilon)
        w = w - b
    return w


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (SGD(), sgd()),
        (SGD(0.1, momentum=0.9), sgd(0.1, 0.9)),
        (SGD(0.1, momentum=0.9, nesterov=True), sgd(0.1, 0.9, True)),
        (Adam(), adam()),
        (Adam(0.1, 0.8, 0.9, 0.01), adam(0.1, 0.8, 0.9, 0.01)),
        (Adam(0.1, amsgrad=True, beta_2=0.5), adam(0.1, beta_2=0.5, amsgrad=True)),
        (AdamW(), adam(decay=0.004)),
        (AdamW(0.1, weight_decay=0.3), adam(0.1, decay=0.3)),
        (RMSprop(), rmsprop()),
        (RMSprop(0.1, rho=0.5, momentum=0.9), rmsprop(0.1, 0.5, 0.9)),
        (RMSprop(0.1, centered=True), rmsprop(0.1, centered=True)),
        (RMSprop(0.1, momentum=0.5, centered=True, epsilon=0.1), rmsprop(0.1, 0.9, 0.5, 0.1, True)),
    ],
    ids=repr,
)
def test_formulas(optimizer, expected):
    np.testing.assert_allclose(run(optimizer), expected, rtol=1e-12, atol=1e-14)


def test_weight_decay_of_any_optimizer():
    decayed = SGD(0.1, weight_decay=0.5)
    value, grad = np.ones(3), np.zeros(3)
    decayed.build([(value, grad)])
    decayed.step()
    np.testing.assert_allclose(value, 0.95)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_blocks_do_not_change_a_bit(name):
    """Several arrays, some longer than a block, against one small array for each stretch of values."""
    rng = np.random.default_rng(0)
    sizes = (BLOCK + 3, 5, 2 * BLOCK)
    values = [rng.normal(size=n).astype(np.float32) for n in sizes]
    grads = [rng.normal(size=n).astype(np.float32) for n in sizes]
    pieces = [
        (value[i : i + 1000].copy(), grad[i : i + 1000].copy())
        for value, grad in zip(values, grads, strict=True)
        for i in range(0, len(value), 1000)
    ]
    whole, parts = optimizers.get(name), optimizers.get(name)
    whole.build(list(zip(values, grads, strict=True)))
    parts.build(pieces)
    for _ in range(3):
        whole.step()
        parts.step()
    np.testing.assert_array_equal(np.concatenate(values), np.concatenate([value for value, _ in pieces]))
    assert values[0].dtype == np.float32


@pytest.mark.parametrize(
    ("optimizer", "name", "value"),
    [
        (Adam(), "amsgrad", True),
        (SGD(), "momentum", 0.9),
        (SGD(momentum=0.9), "momentum", 0.0),
        (RMSprop(), "centered", True),
        (RMSprop(), "momentum", 0.5),
    ],
)
def test_what_needs_other_state_cannot_change_during_training(optimizer, name, value):
    before = getattr(optimizer, name)
    setattr(optimizer, name, value)
    setattr(optimizer, name, before)
    optimizer.build([(np.zeros(1), np.ones(1))])
    with pytest.raises(
        AttributeError, match=f"{name} decides which state there is, so it cannot become {value}"
    ):
        setattr(optimizer, name, value)
    assert getattr(optimizer, name) == before
    optimizer.step()


def test_momentum_can_be_another_positive_one():
    optimizer = SGD(0.1, momentum=0.5)
    optimizer.build([(np.zeros(1), np.ones(1))])
    optimizer.momentum = 0.9
    optimizer.step()
    assert optimizer.momentum == 0.9


def test_learning_rate_can_be_assigned():
    optimizer = SGD(1.0)
    value, grad = np.zeros(1), np.ones(1)
    optimizer.build([(value, grad)])
    optimizer.step()
    optimizer.learning_rate = 0.5
    optimizer.step()
    assert value[0] == -1.5


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.2, 0.3, True, 0.1),
        Adam(0.2, 0.3, 0.4, 0.5, True, 0.1),
        AdamW(0.2, 0.3),
        RMSprop(0.2, 0.3, 0.4, 0.5, True),
    ],
)
def test_configuration_makes_the_same_optimizer(optimizer):
    again = optimizers.get(optimizers.registry.serialize(optimizer))
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()


def test_defaults_are_kerass():
    assert SGD().get_config() == {
        "learning_rate": 0.01, "momentum": 0.0, "nesterov": False, "weight_decay": None,
    }  # fmt: skip
    assert AdamW().get_config() == {
        "learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False,
        "weight_decay": 0.004,
    }  # fmt: skip
    assert RMSprop().get_config() == {
        "learning_rate": 0.001, "rho": 0.9, "momentum": 0.0, "epsilon": 1e-7, "centered": False,
        "weight_decay": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.get("adagrad"), "no optimizer 'adagrad'; there are: sgd, adam, adamw, rmsprop"),
        (lambda: Adam(-1), "Adam: learning_rate must be finite and not negative, got -1"),
        (lambda: Adam(beta_1=1.0), r"Adam: beta_1 must be in \[0, 1\), got 1.0"),
        (lambda: AdamW(beta_2=-0.1), r"AdamW: beta_2 must be in \[0, 1\), got -0.1"),
        (lambda: SGD(momentum=2), r"SGD: momentum must be in \[0, 1\], got 2"),
        (lambda: RMSprop(rho=1), r"RMSprop: rho must be in \[0, 1\), got 1"),
        (lambda: SGD(weight_decay=-1), "SGD: weight_decay must be finite and not negative, got -1"),
        (lambda: SGD(float("nan")), "learning_rate must be finite and not negative, got nan"),
        (lambda: Adam(float("inf")), "Adam: learning_rate must be finite and not negative, got inf"),
        (lambda: Adam(epsilon=-1), "Adam: epsilon must be finite and not negative, got -1"),
        (lambda: RMSprop(epsilon=-1), "RMSprop: epsilon must be finite and not negative, got -1"),
        (lambda: RMSprop(momentum=-1), "RMSprop: momentum must be finite and not negative, got -1"),
        (lambda: setattr(SGD(), "learning_rate", -1), "SGD: learning_rate must be finite and not negative"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
