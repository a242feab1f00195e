"""Optimizers against the formulas written out plainly, one array at a time."""

import math

import numpy as np
import pytest

import normkit
from normkit import _core, optimizers
from normkit.optimizers import (
    BLOCK,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Lion,
    Nadam,
    RMSprop,
)
from normkit.optimizers.schedules import ExponentialDecay

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


def adagrad(rate=0.001, start=0.1, epsilon=1e-7):
    w, a = np.linspace(-1, 1, SIZE), start
    for g in gradients():
        a = a + g**2
        w = w - rate * g / np.sqrt(a + epsilon)
    return w


def adadelta(rate=0.001, rho=0.95, epsilon=1e-7):
    w, a, b = np.linspace(-1, 1, SIZE), 0.0, 0.0
    for g in gradients():
        a = rho * a + (1 - rho) * g**2
        step = np.sqrt((b + epsilon) / (a + epsilon)) * g
        b = rho * b + (1 - rho) * step**2
        w = w - rate * step
    return w


def adamax(rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    w, m, u = np.linspace(-1, 1, SIZE), 0.0, 0.0
    for t, g in enumerate(gradients(), start=1):
        m, u = beta_1 * m + (1 - beta_1) * g, np.maximum(beta_2 * u, np.abs(g))
        w = w - rate / (1 - beta_1**t) * m / (u + epsilon)
    return w


def nadam(rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    weight = lambda t: beta_1 * (1 - 0.5 * 0.96**t)
    w, m, v = np.linspace(-1, 1, SIZE), 0.0, 0.0
    for t, g in enumerate(gradients(), start=1):
        m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g**2
        product = math.prod(weight(i) for i in range(1, t + 1))
        m_hat = weight(t + 1) * m / (1 - product * weight(t + 1)) + (1 - weight(t)) * g / (1 - product)
        w = w - rate * m_hat / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
    return w


def lion(rate=0.001, beta_1=0.9, beta_2=0.99):
    w, m = np.linspace(-1, 1, SIZE), 0.0
    for g in gradients():
        w = w - rate * np.sign(beta_1 * m + (1 - beta_1) * g)
        m = beta_2 * m + (1 - beta_2) * g
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
        (Adagrad(), adagrad()),
        (Adagrad(0.1, 0.5, 0.01), adagrad(0.1, 0.5, 0.01)),
        (Adadelta(1.0), adadelta(1.0)),
        (Adadelta(0.1, 0.5, 0.01), adadelta(0.1, 0.5, 0.01)),
        (Adamax(), adamax()),
        (Adamax(0.1, 0.8, 0.9, 0.01), adamax(0.1, 0.8, 0.9, 0.01)),
        (Nadam(), nadam()),
        (Nadam(0.1, 0.8, 0.9, 0.01), nadam(0.1, 0.8, 0.9, 0.01)),
        (Lion(), lion()),
        (Lion(0.1, 0.8, 0.7), lion(0.1, 0.8, 0.7)),
    ],
    ids=lambda given: "" if isinstance(given, np.ndarray) else type(given).__name__,
)
def test_formulas(optimizer, expected):
    np.testing.assert_allclose(run(optimizer), expected, rtol=1e-12, atol=1e-14)


def test_weight_decay_of_any_optimizer():
    decayed = SGD(0.1, weight_decay=0.5)
    value, grad = np.ones(3), np.zeros(3)
    decayed.build([(value, grad)])
    decayed.step()
    np.testing.assert_allclose(value, 0.95)


@pytest.mark.parametrize("name", optimizers.registry.names)
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
        Adagrad(0.2, 0.3, 0.4, 0.5),
        Adadelta(0.2, 0.3, 0.4, 0.5),
        Adamax(0.2, 0.3, 0.4, 0.5, 0.6),
        Nadam(0.2, 0.3, 0.4, 0.5, 0.6),
        Lion(0.2, 0.3, 0.4, 0.5),
        SGD(0.2, clipnorm=1.0, gradient_accumulation_steps=3, use_ema=True, ema_momentum=0.5, name="mine"),
        Adam(ExponentialDecay(0.1, 10, 0.5), clipvalue=0.5, ema_overwrite_frequency=2),
    ],
)
def test_configuration_makes_the_same_optimizer(optimizer):
    again = optimizers.get(optimizers.registry.serialize(optimizer))
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()


COMMON = {
    "weight_decay": None, "clipnorm": None, "clipvalue": None, "global_clipnorm": None, "use_ema": False,
    "ema_momentum": 0.99, "ema_overwrite_frequency": None, "gradient_accumulation_steps": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (SGD, {"learning_rate": 0.01, "momentum": 0.0, "nesterov": False}),
        (Adam, {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False}),
        (AdamW, {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False,
                 "weight_decay": 0.004}),
        (RMSprop, {"learning_rate": 0.001, "rho": 0.9, "momentum": 0.0, "epsilon": 1e-7, "centered": False}),
        (Adagrad, {"learning_rate": 0.001, "initial_accumulator_value": 0.1, "epsilon": 1e-7}),
        (Adadelta, {"learning_rate": 0.001, "rho": 0.95, "epsilon": 1e-7}),
        (Adamax, {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}),
        (Nadam, {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}),
        (Lion, {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.99}),
    ],
)  # fmt: skip
def test_defaults_are_kerass(make, arguments):
    assert make().get_config() == {**COMMON, "name": make.__name__.lower(), **arguments}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: optimizers.get("ftrl"),
            "no optimizer 'ftrl'; there are: sgd, adam, adamw, rmsprop, adagrad",
        ),
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
        (lambda: SGD(clipnorm=-1), "SGD: clipnorm must be finite and not negative, got -1"),
        (
            lambda: SGD(clipnorm=1, clipvalue=2),
            "only one of clipnorm, clipvalue, global_clipnorm can be given",
        ),
        (lambda: SGD(use_ema=True, ema_momentum=2), r"SGD: ema_momentum must be in \[0, 1\], got 2"),
        (lambda: SGD(ema_overwrite_frequency=0), "ema_overwrite_frequency must be a positive integer, got 0"),
        (lambda: SGD(gradient_accumulation_steps=0), "steps must be a positive integer, got 0"),
        (lambda: SGD(gradient_accumulation_steps=1), "must be at least 2, or None for a step at every batch"),
        (lambda: Adagrad(initial_accumulator_value=-1), "initial_accumulator_value must be finite and not"),
        (lambda: Lion(beta_2=1), r"Lion: beta_2 must be in \[0, 1\), got 1"),
        (lambda: SGD(lambda: 0.1).get_config(), "cannot save the learning rate .* a schedule of"),
        (
            lambda: SGD(lambda: -1.0).learning_rate,
            "SGD: learning_rate must be finite and not negative, got -1",
        ),
        (lambda: setattr(SGD(), "learning_rate", -1), "SGD: learning_rate must be finite and not negative"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_schedule_cannot_be_assigned_over():
    optimizer = SGD(ExponentialDecay(1.0, 1, 0.5))
    with pytest.raises(TypeError, match="follows the schedule ExponentialDecay and cannot become"):
        optimizer.learning_rate = 0.5
    optimizer.learning_rate = ExponentialDecay(2.0, 1, 0.5)
    assert optimizer.learning_rate == 2.0


def test_a_schedule_gives_the_rate_of_each_batch():
    optimizer = SGD(ExponentialDecay(1.0, 1, 0.5))
    value, grad = np.zeros(1), np.ones(1)
    optimizer.build([(value, grad)])
    for expected in (-1.0, -1.5, -1.75):
        optimizer.step()
        assert value[0] == expected
    assert optimizer.learning_rate == 0.125


def test_a_function_gives_the_rate():
    rates = iter((1.0, 0.5))
    optimizer = SGD(lambda: next(rates))
    value = np.zeros(1)
    optimizer.build([(value, np.ones(1))])
    optimizer.step()
    optimizer.step()
    assert value[0] == -1.5


GRADIENT = np.array([3.0, 4.0, 0.0, 12.0])


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ({"clipnorm": 1.0}, [0.6, 0.8, 0.0, 1.0]),
        ({"clipnorm": 6.0}, [3.0, 4.0, 0.0, 6.0]),
        ({"clipnorm": 100.0}, GRADIENT),
        ({"clipvalue": 3.5}, [3.0, 3.5, 0.0, 3.5]),
        ({"global_clipnorm": 6.5}, GRADIENT / 2),
        ({"global_clipnorm": 13.0}, GRADIENT),
        ({"global_clipnorm": 0.0}, GRADIENT),
    ],
)
def test_clipping(clip, expected):
    """Two weights of two elements each, in one array."""
    value, grad = np.zeros(4), GRADIENT.copy()
    optimizer = SGD(1.0, **clip)
    optimizer.build([(value, grad)], [[2, 2]])
    optimizer.step()
    np.testing.assert_allclose(-value, expected, rtol=1e-15)


def test_norms_do_not_overflow():
    value, grad = np.zeros(2, np.float32), np.full(2, 1e30, np.float32)
    optimizer = SGD(1.0, global_clipnorm=1.0)
    optimizer.build([(value, grad)])
    optimizer.step()
    np.testing.assert_allclose(-value, math.sqrt(0.5), rtol=1e-6)


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm"])
def test_an_infinite_gradient_is_not_hidden(clip):
    value, grad = np.zeros(2), np.array([np.inf, 1.0])
    optimizer = SGD(1.0, **{clip: 1.0})
    optimizer.build([(value, grad)])
    with np.errstate(invalid="ignore"):
        optimizer.step()
    assert np.isnan(value[0])
    assert np.isnan(value[1]) == (clip == "global_clipnorm")


@pytest.mark.parametrize("make", [lambda **o: SGD(0.1, 0.9, **o), Adam, lambda **o: Nadam(clipnorm=0.5, **o)])
def test_accumulation_is_a_step_with_the_mean_gradient(make):
    accumulated, whole = make(gradient_accumulation_steps=3), make()
    values = [np.linspace(-1, 1, SIZE) for _ in range(2)]
    grads = [np.zeros(SIZE) for _ in range(2)]
    for optimizer, value, grad in zip((accumulated, whole), values, grads, strict=True):
        optimizer.build([(value, grad)])
    rng = np.random.default_rng(1)
    for round_ in range(4):
        parts = rng.normal(size=(3, SIZE))
        before = values[0].copy()
        for count, part in enumerate(parts, start=1):
            grads[0][...] = part
            assert accumulated.step() == (count == 3)
            assert count == 3 or np.array_equal(values[0], before)
        grads[1][...] = parts.mean(axis=0)
        whole.step()
        assert accumulated.iterations == whole.iterations == round_ + 1
        np.testing.assert_allclose(values[0], values[1], rtol=1e-12)
    assert accumulated.batches == 12


def test_moving_average_of_the_weights():
    optimizer = SGD(1.0, use_ema=True, ema_momentum=0.5)
    value, grad = np.zeros(1), np.ones(1)
    optimizer.build([(value, grad)])
    seen = []
    for _ in range(3):
        optimizer.step()
        seen.append(value[0])
    assert seen == [-1, -2, -3]
    optimizer.finalize()
    assert value[0] == (-1 * 0.25 - 2 * 0.25 - 3 * 0.5)
    often = SGD(1.0, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    value, grad = np.zeros(1), np.ones(1)
    often.build([(value, grad)])
    often.step()
    often.step()
    assert value[0] == -1.5


# By (ema_overwrite_frequency, gradient_accumulation_steps): the weight after each of 12 batches and at the end, as
# keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5, ...) of Keras 3.15 has it, if it starts at 0 and all gradients
# are −1.
AVERAGES = {
    (None, None): [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 11.00048828125],
    (1, None): [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 6.5],
    (2, None): [1, 1.5, 2.5, 2.75, 3.75, 4, 5, 5.25, 6.25, 6.5, 7.5, 7.75, 7.75],
    (3, None): [1, 2, 2.25, 3.25, 4.25, 4.375, 5.375, 6.375, 6.5, 7.5, 8.5, 8.625, 8.625],
    (None, 2): [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 5.333984375],
    (1, 2): [0, 1, 1, 1.5, 1.5, 2, 2, 2.5, 2.5, 3, 3, 3.5, 3.5],
    (2, 2): [0, 1, 1, 1.5, 1.5, 2.5, 2.25, 2.75, 2.75, 3.75, 3.5, 4, 4],
    (3, 2): [0, 1, 1, 2, 1.75, 2.25, 2.25, 3.25, 3.25, 4.25, 3.9375, 4.4375, 4.4375],
    (None, 3): [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 3.4296875],
    (1, 3): [0, 0, 1, 1, 1, 1.5, 1.5, 1.5, 2, 2, 2, 2.5, 2.5],
    (2, 3): [0, 0, 1, 1, 1, 1.5, 1.5, 1.5, 2.5, 2.25, 2.25, 2.75, 2.75],
    (3, 3): [0, 0, 1, 1, 1, 2, 1.75, 1.75, 2.25, 2.25, 2.25, 3.25, 2.75],
    (None, 4): [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 2.46875],
    (1, 4): [0, 0, 0, 1, 1, 1, 1, 1.5, 1.5, 1.5, 1.5, 2, 2],
    (2, 4): [0, 0, 0, 1, 1, 1, 1, 1.5, 1.5, 1.5, 1.5, 2.5, 2],
    (3, 4): [0, 0, 0, 1, 1, 1, 1, 2, 1.75, 1.75, 1.75, 2.25, 2.25],
}


@pytest.mark.parametrize(("frequency", "steps"), AVERAGES)
def test_when_the_average_replaces_the_weights(frequency, steps):
    options = {"ema_overwrite_frequency": frequency, "gradient_accumulation_steps": steps}
    optimizer = SGD(1.0, use_ema=True, ema_momentum=0.5, **options)
    value, grad = np.zeros(1), np.zeros(1)
    optimizer.build([(value, grad)])
    seen = []
    for _ in range(12):
        grad[:] = -1.0
        optimizer.step()
        seen.append(value[0])
    optimizer.finalize()
    assert [*seen, value[0]] == AVERAGES[frequency, steps]


@pytest.mark.parametrize("name", ["gradient_accumulation_steps", "use_ema"])
def test_what_is_kept_cannot_change_during_training(name):
    optimizer = SGD()
    optimizer.build([(np.zeros(1), np.ones(1))])
    with pytest.raises(AttributeError, match=f"{name} decides which state there is"):
        setattr(optimizer, name, 2)


def adam_by_numpy(value, grad, slots, beta_1, beta_2, epsilon, size):
    """The formula, rounded operation by operation; in place."""
    momentum, velocity = slots[:2]
    momentum += (grad - momentum) * (1.0 - beta_1)
    velocity += (np.square(grad) - velocity) * (1.0 - beta_2)
    if len(slots) > 2:
        velocity = np.maximum(slots[2], velocity, out=slots[2])
    value -= momentum / (np.sqrt(velocity) + epsilon) * size


@pytest.mark.parametrize("isa", normkit.isa.available())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("size", [1, 7, 64, 1001, 70_001])
def test_adams_one_pass_has_the_bits_of_the_formula(isa, dtype, amsgrad, size, rng):
    value, grad = (rng.standard_normal(size).astype(dtype) for _ in range(2))
    grad[::13] = 0
    if size > 7:
        grad[3:7] = np.nan, np.inf, 1e-42, 1e19
    expected = value.copy()
    adam = Adam(0.01, amsgrad=amsgrad)
    slots = [np.zeros_like(value) for _ in adam.slot_names]
    adam.build([(value, grad)])
    with normkit.isa.use(isa), np.errstate(all="ignore"):
        for t in range(1, 4):
            adam.step()
            rate = 0.01 * math.sqrt(1.0 - 0.999**t) / (1.0 - 0.9**t)
            adam_by_numpy(expected, grad, slots, 0.9, 0.999, 1e-7, rate)
    for got, wanted in zip(
        [value, *(adam.slots[n][0] for n in adam.slot_names)], [expected, *slots], strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_adams_one_pass_takes_only_arrays_that_it_can_change():
    value = np.zeros(6, np.float32)
    good = [value, value.copy(), value.copy(), value.copy(), None]
    read_only = value.copy()
    read_only.flags.writeable = False
    step = lambda *arrays: _core.adam_step(*arrays, 0.1, 0.001, 1e-7, 0.01)
    step(*good)
    for place, bad, message in [
        (0, read_only, "value is read-only"),
        (1, np.zeros(6), "grad must be float32"),
        (2, np.zeros(5, np.float32), r"momentum must have shape \(6,\)"),
        (3, np.zeros(12, np.float32)[::2], "velocity must be contiguous"),
        (4, read_only, "largest is read-only"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            step(*good[:place], bad, *good[place + 1 :])
