"""Layers: gradients against finite differences, and Keras's meaning of every argument."""

import math

import numpy as np
import pytest

from gradients import assert_close, numeric_gradient
from normkit import activations, initializers
from normkit.layers import (
    ELU,
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    GroupNormalization,
    Input,
    InstanceNormalization,
    LayerNormalization,
    LeakyReLU,
    ReLU,
    Rescaling,
    Reshape,
    RMSNormalization,
    Softmax,
)
from normkit.regularizers import L2

ACTIVATIONS = (
    *(
        "relu",
        "gelu",
        "sigmoid",
        "tanh",
        "softmax",
        "linear",
        "relu6",
        "leaky_relu",
        "elu",
        "selu",
        "silu",
        "swish",
    ),
    *("mish", "softplus", "softsign", "hard_sigmoid", "exponential", "log_softmax"),
)


def built(layer, shape, seed=0):
    """A layer with random weights, so that no gradient is trivially zero."""
    rng = np.random.default_rng(seed)
    layer.ensure_built((None, *shape[1:]))
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape) + (weight.name in ("gamma", "moving_variance")) * 3)
    return layer


def check_gradients(layer, shape, **kwargs):
    rng = np.random.default_rng(1)
    x, dy = rng.normal(size=shape), None
    y = layer(x, training=True)
    dy = rng.normal(size=y.shape)
    dx = layer.backward(dy).copy()
    computed = [weight.grad.copy() for weight in layer.trainable_weights]

    def value():
        return float((layer(x, training=True) * dy).sum())

    assert_close(dx, numeric_gradient(value, x), **kwargs)
    for weight, gradient in zip(layer.trainable_weights, computed, strict=True):
        assert np.abs(gradient).max() > 0
        assert_close(gradient, numeric_gradient(value, weight.value), **kwargs)
    return x, y


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5)])
def test_dense_gradients(activation, shape):
    layer = built(Dense(6, activation, dtype="float64"), shape)
    x, y = check_gradients(layer, shape)
    z = x @ layer.kernel.value + layer.bias.value
    np.testing.assert_allclose(y, activations.get(activation)(z.copy()), rtol=1e-13)


def test_dense_without_bias():
    layer = built(Dense(2, use_bias=False, dtype="float64"), (4, 3))
    check_gradients(layer, (4, 3))
    assert [w.name for w in layer.weights] == ["kernel"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_gradients_and_input_untouched(activation):
    layer = Activation(activation, dtype="float64")
    x, _ = check_gradients(layer, (3, 4))
    kept = x.copy()
    layer.forward(x, True)
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize(
    ("axis", "shape"), [(-1, (6, 3)), (-1, (3, 2, 2, 4)), (1, (3, 4, 2, 2)), (2, (3, 2, 4))]
)
def test_batch_normalization_gradients(axis, shape):
    check_gradients(built(BatchNormalization(axis=axis, dtype="float64"), shape), shape)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("scale", [False, True])
def test_normalization_without_parameters(center, scale):
    for cls in (BatchNormalization, LayerNormalization, GroupNormalization, InstanceNormalization):
        options = {"groups": 3} if cls is GroupNormalization else {}
        layer = built(cls(center=center, scale=scale, dtype="float64", **options), (5, 4, 3))
        check_gradients(layer, (5, 4, 3))
        names = ["gamma"] * scale + ["beta"] * center
        assert [w.name for w in layer.trainable_weights] == names


def test_frozen_batch_normalization_runs_in_inference_mode():
    layer = built(BatchNormalization(trainable=False, dtype="float64"), (5, 3))
    before = layer.get_weights()
    x, y = check_gradients(layer, (5, 3))
    np.testing.assert_array_equal(y, layer(x, training=False))
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert layer.trainable_weights == []
    assert [w.name for w in layer.non_trainable_weights] == [
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
    ]


def test_batch_normalization_follows_kerass_formulas():
    rng = np.random.default_rng(0)
    layer = BatchNormalization(momentum=0.9)
    x = rng.normal(3, 2, size=(8, 5)).astype(np.float32)
    y = layer(x, training=True)
    mean, var = x.mean(axis=0, dtype=np.float64), x.var(axis=0, dtype=np.float64)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-3), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.moving_mean.value, 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.value, 0.9 + 0.1 * var, rtol=1e-5)
    z = layer(x, training=False)
    expected = (x - layer.moving_mean.value) / np.sqrt(layer.moving_variance.value + 1e-3)
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-6)


def test_batch_normalization_defaults_and_weight_order_are_kerass():
    layer = BatchNormalization()
    layer.build((None, 4))
    assert (layer.axis, layer.momentum, layer.epsilon) == (-1, 0.99, 1e-3)
    assert [w.name for w in layer.weights] == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert [w.value[0] for w in layer.weights] == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("axis", "shape"), [(-1, (3, 5)), ((1, 2), (2, 3, 4)), ((2, 1), (2, 3, 4)), (1, (2, 3, 4))]
)
def test_layer_normalization_gradients(axis, shape):
    layer = built(LayerNormalization(axis=axis, dtype="float64"), shape)
    x, y = check_gradients(layer, shape)
    axes = tuple(sorted(np.atleast_1d(axis) % len(shape)))
    parameter_shape = tuple(n if i in axes else 1 for i, n in enumerate(shape))
    centered = x - x.mean(axis=axes, keepdims=True)
    expected = centered / np.sqrt(x.var(axis=axes, keepdims=True) + 1e-3)
    expected = expected * layer.gamma.value.reshape(parameter_shape) + layer.beta.value.reshape(
        parameter_shape
    )
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("axis", "shape"), [(-1, (3, 5)), ((1, 2), (2, 3, 4)), (1, (2, 3, 4))])
def test_rms_normalization_gradients(axis, shape):
    layer = built(RMSNormalization(axis=axis, dtype="float64"), shape)
    x, y = check_gradients(layer, shape)
    axes = tuple(sorted(np.atleast_1d(axis) % len(shape)))
    scale = layer.scale.value.reshape([n if i in axes else 1 for i, n in enumerate(shape)])
    np.testing.assert_allclose(
        y, x / np.sqrt((x * x).mean(axis=axes, keepdims=True) + 1e-6) * scale, rtol=1e-12
    )
    assert [w.name for w in layer.weights] == ["scale"]


@pytest.mark.parametrize("groups", [1, 3, -1])
@pytest.mark.parametrize(("axis", "shape"), [(-1, (2, 4, 6)), (1, (2, 6, 2, 3)), (2, (2, 3, 6))])
def test_group_normalization_gradients(axis, shape, groups):
    layer = built(GroupNormalization(groups, axis, dtype="float64"), shape)
    x, y = check_gradients(layer, shape)
    moved = np.moveaxis(x, axis, 1)
    rows = moved.reshape(shape[0], groups if groups > 0 else 6, -1)
    x_hat = (rows - rows.mean(axis=2, keepdims=True)) / np.sqrt(rows.var(axis=2, keepdims=True) + 1e-3)
    per_channel = (6,) + (1,) * (len(shape) - 2)
    z = x_hat.reshape(moved.shape) * layer.gamma.value.reshape(per_channel)
    z = z + layer.beta.value.reshape(per_channel)
    np.testing.assert_allclose(y, np.moveaxis(z, 1, axis), rtol=1e-10, atol=1e-12)
    if groups == -1:
        instance = InstanceNormalization(axis, dtype="float64")
        instance.ensure_built((None, *shape[1:]))
        instance.set_weights(layer.get_weights())
        np.testing.assert_array_equal(instance(x), y)


def test_dropout_keeps_the_mean_and_its_gradient_uses_the_same_mask():
    layer = Dropout(0.25)
    layer.rng = np.random.default_rng(0)
    x = np.ones((200, 500), np.float32)
    y = layer(x, training=True)
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
    assert abs((y == 0).mean() - 0.25) < 0.005
    np.testing.assert_array_equal(layer.backward(x), y)
    assert (layer(x, training=True) != y).any()
    np.testing.assert_array_equal(layer(x, training=False), x)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_keep_the_dtype_and_write_where_they_are_told(name, dtype):
    function = activations.get(name)
    z = np.linspace(-3, 3, 12, dtype=dtype).reshape(3, 4)
    y = function(z)
    assert y.dtype == dtype
    out = np.empty_like(z)
    assert function(z, out) is out
    np.testing.assert_array_equal(out, y)
    again = z.copy()
    function(again, again)
    np.testing.assert_array_equal(again, y)
    assert function.gradient(np.ones_like(z), z if function.needs_input else y).dtype == dtype


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (ReLU(), lambda x: np.maximum(x, 0)),
        (LeakyReLU(), lambda x: np.where(x > 0, x, 0.3 * x)),
        (LeakyReLU(0.1), lambda x: np.where(x > 0, x, 0.1 * x)),
        (ELU(2.0), lambda x: np.where(x > 0, x, 2 * np.expm1(x))),
        (Softmax(), lambda x: np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)),
        (Rescaling(0.5, 3), lambda x: 0.5 * x + 3),
        (Reshape((2, -1)), lambda x: x.reshape(4, 2, 3)),
        (GaussianNoise(0.5), lambda x: x),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_without_weights(layer, expected):
    x = np.random.default_rng(0).normal(size=(4, 3, 2))
    again = type(layer).from_config({**layer.get_config(), "dtype": "float64"})
    np.testing.assert_allclose(again(x), expected(x), rtol=1e-12)
    assert again.compute_output_shape((None, 3, 2)) == (None, *expected(x).shape[1:])
    if not isinstance(layer, GaussianNoise):
        check_gradients(again, (4, 3, 2))


def test_gaussian_noise():
    layer = GaussianNoise(0.5)
    layer.rng = np.random.default_rng(0)
    x = np.ones((200, 300), np.float32)
    y = layer(x, training=True)
    assert y.dtype == np.float32
    assert abs(y.mean() - 1) < 0.01
    assert abs(y.std() - 0.5) < 0.01
    np.testing.assert_array_equal(layer.backward(x), x)


def test_dropout_with_a_generator_of_its_own():
    x = np.ones((20, 30), np.float32)
    one, two = Dropout(0.5, seed=3), Dropout(0.5, seed=3)
    first = one(x, training=True)
    np.testing.assert_array_equal(two(x, training=True), first)
    two.set_state(one.get_state())
    np.testing.assert_array_equal(one(x, training=True), two(x, training=True))
    assert not np.array_equal(one(x, training=True), first)


def test_flatten():
    layer = Flatten()
    assert layer.compute_output_shape((None, 2, 3, 4)) == (None, 24)
    assert layer.compute_output_shape((None,)) == (None, 1)
    x = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    y = layer(x, training=True)
    np.testing.assert_array_equal(y, x.reshape(2, 12))
    np.testing.assert_array_equal(layer.backward(y), x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_and_input_conversion(dtype):
    layer = Dense(3, "relu", dtype=dtype)
    y = layer(np.arange(8, dtype=np.uint8).reshape(2, 4), training=True)
    assert y.dtype == layer.kernel.value.dtype == dtype
    assert layer.backward(np.ones_like(y)).dtype == dtype
    assert y.flags.c_contiguous


def test_frozen_dense_computes_no_weight_gradient():
    layer = Dense(3, trainable=False)
    layer(np.ones((2, 4)), training=True)
    assert layer.backward(np.ones((2, 3), np.float32)).shape == (2, 4)
    assert not layer.kernel.grad.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_is_exact(dtype):
    x = np.linspace(-10, 10, 4001).astype(dtype)
    exact = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.astype(float)])
    tolerance = 1e-6 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(activations.gelu(x), exact, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(activations.gelu(np.array([1e30, -1e30], dtype)), [1e30, 0], rtol=1e-6)


def test_activations_do_not_overflow():
    z = np.array([[-1e4, 0, 1e4]], np.float32)
    np.testing.assert_array_equal(activations.softplus(z), [[0, np.log(np.float32(2)), 1e4]])
    np.testing.assert_array_equal(activations.silu(z), [[0, 0, 1e4]])
    np.testing.assert_array_equal(activations.mish(z), [[0, 0, 1e4]])
    np.testing.assert_array_equal(activations.elu(z), [[-1, 0, 1e4]])
    np.testing.assert_array_equal(activations.log_softmax(z), [[-2e4, -1e4, 0]])
    np.testing.assert_array_equal(activations.sigmoid(z), [[0, 0.5, 1]])
    np.testing.assert_array_equal(activations.softmax(z), [[0, 0, 1]])
    np.testing.assert_allclose(activations.sigmoid(np.float32([-50.0])), np.exp(-50.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "variance", "bound"),
    [
        ("glorot_uniform", 2 / 500, math.sqrt(6 / 500)),
        ("he_uniform", 2 / 300, math.sqrt(6 / 300)),
        ("lecun_uniform", 1 / 300, math.sqrt(3 / 300)),
        ("glorot_normal", 2 / 500, 2 * math.sqrt(2 / 500) / 0.8796),
        ("he_normal", 2 / 300, 2 * math.sqrt(2 / 300) / 0.8796),
        ("lecun_normal", 1 / 300, 2 * math.sqrt(1 / 300) / 0.8796),
        ("random_normal", 0.05**2, math.inf),
        ("truncated_normal", (0.05 * 0.8796) ** 2, 0.1),
        ("random_uniform", 0.1**2 / 12, 0.05),
    ],
)
def test_initializers(name, variance, bound):
    values = initializers.get(name)((300, 200), np.float32, np.random.default_rng(0))
    assert values.dtype == np.float32
    assert abs(values.var() / variance - 1) < 0.03
    assert abs(values.mean()) < 0.02 * math.sqrt(variance)
    assert np.abs(values).max() <= bound * 1.0001


def test_constant_initializers_and_seed():
    rng = np.random.default_rng(0)
    assert (initializers.get("zeros")((3,), "f", rng) == 0).all()
    assert (initializers.get("ones")((3,), "f", rng) == 1).all()
    assert (initializers.Constant(2.5)((3,), "f", rng) == 2.5).all()
    seeded = initializers.HeNormal(seed=4)
    np.testing.assert_array_equal(seeded((3, 2), "f", rng), seeded((3, 2), "f", rng))
    again = initializers.get(initializers.registry.serialize(seeded))
    np.testing.assert_array_equal(seeded((3, 2), "f", rng), again((3, 2), "f", rng))


def test_set_weights_changes_all_or_nothing():
    layer = Dense(3, name="hidden")
    layer(np.ones((2, 4)))
    before = layer.get_weights()
    with pytest.raises(
        ValueError, match=r"Dense 'hidden': weight 1 'bias' must have shape \(3,\), got \(4,\)"
    ):
        layer.set_weights([np.ones((4, 3)), np.ones(4)])
    with pytest.raises(ValueError, match=r"expected 2 weights \(kernel \(4, 3\), bias \(3,\)\), got 1"):
        layer.set_weights([np.ones((4, 3))])
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Dense(0), ValueError, "Dense: units must be a positive integer, got 0"),
        (
            lambda: Dense(2, "swish2"),
            ValueError,
            "no activation 'swish2'; did you mean 'swish'\\? There are: relu, gelu",
        ),
        (lambda: Dense(2, activation=3), TypeError, "activation must be one of"),
        (lambda: Dense(2, kernel_initializer="x"), ValueError, "no initializer 'x'; there are: zeros, ones"),
        (lambda: Dense(2, dtype="int8"), TypeError, "dtype must be float32 or float64, got int8"),
        (lambda: Dense(2, input_shape=(None,)), ValueError, "without the batch axis, such as"),
        (lambda: Input(784), ValueError, "without the batch axis, such as"),
        (lambda: Dropout(1.0), ValueError, r"rate must be in \[0, 1\), got 1.0"),
        (lambda: BatchNormalization(momentum=1.5), ValueError, r"momentum must be in \[0, 1\], got 1.5"),
        (
            lambda: BatchNormalization(epsilon=-1),
            ValueError,
            "epsilon must be finite and not negative, got -1",
        ),
        (lambda: BatchNormalization(axis=0)(np.ones((2, 3))), ValueError, "axis 0 is the batch axis"),
        (lambda: LayerNormalization(axis=3)(np.ones((2, 3))), ValueError, "axis 3 does not exist"),
        (lambda: RMSNormalization(axis=0)(np.ones((2, 3))), ValueError, "axis 0 is the batch axis"),
        (lambda: GroupNormalization(0), ValueError, "groups must be a positive integer, or -1"),
        (
            lambda: GroupNormalization(4, name="g")(np.ones((2, 6))),
            ValueError,
            "GroupNormalization 'g': 6 channels cannot be divided into 4 groups; pass groups that divides them, or -1",
        ),
        (
            lambda: Dense(2, name="d")(np.ones(3)),
            ValueError,
            r"Dense 'd': expected input of shape .*x\[:, None\]",
        ),
        (lambda: Dense(2).backward(np.ones((1, 2))), ValueError, "needs a forward pass with training=True"),
        (lambda: Dropout(0.5).backward(np.ones((1, 2))), ValueError, "needs a forward pass"),
        (lambda: Flatten().backward(np.ones((1, 2))), ValueError, "needs a forward pass"),
        (lambda: LayerNormalization().backward(np.ones((1, 2))), ValueError, "needs a forward pass"),
        (
            lambda: Dense(2, input_dim=3, input_shape=(3,)),
            ValueError,
            r"Dense: give input_shape or input_dim, not both; got \(3,\) and 3",
        ),
        (lambda: LeakyReLU(-1), ValueError, "negative_slope must be finite and not negative, got -1"),
        (
            lambda: GaussianNoise(-1),
            ValueError,
            "GaussianNoise: stddev must be finite and not negative, got -1",
        ),
        (lambda: Reshape((-1, -1)), ValueError, "Reshape: target_shape must have positive lengths"),
        (
            lambda: Reshape((4,), name="r")(np.ones((2, 3))),
            ValueError,
            r"Reshape 'r': samples of shape \(3,\) cannot become \(4,\)",
        ),
        (
            lambda: Dense(2, kernel_regularizer="l3"),
            ValueError,
            "no regularizer 'l3'; there are: l1, l2, l1_l2",
        ),
        (lambda: L2(-1), ValueError, "L2: l2 must be finite and not negative, got -1"),
        (lambda: initializers.VarianceScaling(scale=0), ValueError, "scale must be positive"),
        (lambda: initializers.VarianceScaling(mode="x"), ValueError, "mode must be one of"),
        (lambda: initializers.VarianceScaling(distribution="x"), ValueError, "distribution must be one of"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_wrong_features_in_use():
    dense, bn, ln = Dense(2, name="d"), BatchNormalization(name="b"), LayerNormalization(name="l")
    for layer in (dense, bn, ln):
        layer(np.ones((2, 4)))
    with pytest.raises(ValueError, match="Dense 'd': expected 4 features, got 3"):
        dense(np.ones((2, 3)))
    with pytest.raises(ValueError, match="BatchNormalization 'b': expected 4 channels along axis -1, got 3"):
        bn(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"LayerNormalization 'l': expected shape \(4,\) along axes"):
        ln(np.ones((2, 3)))


def test_momentum_of_batch_normalization_can_be_assigned():
    x = np.array([[1.0], [3.0]])
    layer = BatchNormalization(momentum=0.5)
    layer(x, training=True)
    np.testing.assert_allclose(layer.moving_mean.value, 1.0)
    layer.momentum = 0.0
    layer(x, training=True)
    np.testing.assert_allclose(layer.moving_mean.value, 2.0)
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\], got 2"):
        layer.momentum = 2
    assert layer.momentum == 0.0
    assert layer.get_config()["momentum"] == 0.0


def test_one_value_per_channel_moves_the_mean_alone():
    layer = BatchNormalization(momentum=0.5)
    layer(np.array([[4.0]]), training=True)
    np.testing.assert_array_equal(layer.moving_mean.value, 2.0)
    np.testing.assert_array_equal(layer.moving_variance.value, 1.0)
