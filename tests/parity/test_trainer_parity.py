"""The trainer against torch and Keras: the same weights and batches give the same losses, and the same accuracy.

Run with `-m parity -s` to see the figures.
"""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from normkit import optimizers
from normkit.layers import Activation, BatchNormalization, Dense, Dropout, Flatten, Input, LayerNormalization
from normkit.models import Sequential

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

MNIST = Path(__file__).parents[2] / "../shared/data/mnist10k"
STEPS = 200


def batches(steps=STEPS, size=32, dtype=np.float32):
    """Ten noisy clusters in 784 dimensions, hard enough that the loss does not vanish in 200 steps."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(10, 784))
    for _ in range(steps):
        y = rng.integers(0, 10, size)
        x = 0.3 * centers[y] + rng.normal(size=(size, 784)) * 2
        y = np.where(rng.random(size) < 0.2, rng.integers(0, 10, size), y)
        yield x.astype(dtype), y


def example(dtype="float32", seed=0):
    return Sequential(
        [Dense(64, input_shape=(784,)), BatchNormalization(), Dense(10, activation="softmax")],
        seed=seed,
        dtype=dtype,
    )


def torch_step(torch, name):
    """One update of a list of parameters, by torch's own optimizer, or for Adam by Keras's formula.

    torch's Adam adds epsilon after the bias correction of the second moment, Keras's before; the formula is
    written out here so that the comparison is of the whole training and not of that choice.
    """
    if name.startswith("sgd"):
        momentum = 0.0 if name == "sgd" else 0.9

        def make(parameters):
            optimizer = torch.optim.SGD(parameters, 0.05, momentum, nesterov=name == "sgd nesterov")
            return optimizer.step

        return make

    def make_adam(parameters):
        m = [torch.zeros_like(p) for p in parameters]
        v = [torch.zeros_like(p) for p in parameters]
        t = 0

        @torch.no_grad()
        def step():
            nonlocal t
            t += 1
            alpha = 0.001 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            for p, m_i, v_i in zip(parameters, m, v, strict=True):
                m_i.mul_(0.9).add_(p.grad, alpha=0.1)
                v_i.mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
                p.sub_(alpha * m_i / (v_i.sqrt() + 1e-7))

        return step

    return make_adam


OURS = {
    "sgd": lambda: optimizers.SGD(0.05),
    "sgd momentum": lambda: optimizers.SGD(0.05, 0.9),
    "sgd nesterov": lambda: optimizers.SGD(0.05, 0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-10)])
@pytest.mark.parametrize("name", OURS)
def test_losses_follow_torch(torch, name, dtype, tolerance):
    model = example(dtype)
    model.compile(OURS[name](), "sparse_categorical_crossentropy")
    torch_dtype = getattr(torch, dtype)
    net = torch.nn.Sequential(
        torch.nn.Linear(784, 64), torch.nn.BatchNorm1d(64, eps=1e-3, momentum=0.01), torch.nn.Linear(64, 10)
    ).to(torch_dtype)
    weights = model.get_weights()
    kernel, bias, gamma, beta, _, _, kernel_1, bias_1 = (torch.from_numpy(w) for w in weights)
    with torch.no_grad():
        for parameter, value in zip(
            net.parameters(), (kernel.T, bias, gamma, beta, kernel_1.T, bias_1), strict=True
        ):
            parameter.copy_(value)
    step = torch_step(torch, name)(list(net.parameters()))
    ours, theirs = [], []
    for x, y in batches(dtype=dtype):
        ours.append(model.train_on_batch(x, y))
        net.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        step()
        theirs.append(loss.item())
    worst = np.max(np.abs(np.array(ours) / theirs - 1))
    print(f"\n{name} {dtype}: loss {ours[0]:.4f} -> {ours[-1]:.4f}, largest relative difference {worst:.1e}")
    np.testing.assert_allclose(ours, theirs, rtol=tolerance)
    # Adam divides even a gradient of rounding noise by its own size, so the bias before the batch norm, and with it
    # the moving mean, wanders in float32; neither touches the loss.
    np.testing.assert_allclose(
        model.get_weights()[4], net[1].running_mean.numpy(), rtol=0, atol=1e-3 if dtype == "float32" else 1e-8
    )


def keras_example(keras):
    return keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(64),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("SGD", {}),
        ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
        ("Adam", {}),
        ("Adam", {"amsgrad": True, "epsilon": 1e-3}),
        ("AdamW", {}),
        ("RMSprop", {}),
        ("RMSprop", {"momentum": 0.5, "centered": True, "learning_rate": 1e-4}),
    ],
)
def test_training_follows_keras(keras, name, arguments):
    theirs, ours = keras_example(keras), example()
    theirs.set_weights(ours.get_weights())
    theirs.compile(
        getattr(keras.optimizers, name)(**arguments), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    ours.compile(
        getattr(optimizers, name)(**arguments), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    losses = np.array([(ours.train_on_batch(x, y), theirs.train_on_batch(x, y)) for x, y in batches()])
    worst = np.max(np.abs(losses[:, 0, 0] / losses[:, 1, 0] - 1))
    print(f"\n{name} {arguments}: loss {losses[0, 0, 0]:.4f} -> {losses[-1, 0, 0]:.4f}, "
          f"largest relative difference {worst:.1e}")  # fmt: skip
    np.testing.assert_allclose(losses[:, 0, 0], losses[:, 1, 0], rtol=1e-4)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-2, atol=2e-3)
    x, y = next(batches(1, 100))
    np.testing.assert_allclose(ours.evaluate(x, y), theirs.evaluate(x, y, verbose=0), rtol=1e-3)


def test_weights_are_interchangeable_with_keras(keras):
    def layers(source):
        return [
            source.Flatten(),
            source.Dense(12, activation="gelu"),
            source.LayerNormalization(),
            source.Dropout(0.5),
            source.Dense(9, activation="tanh"),
            source.BatchNormalization(),
            source.Activation("relu"),
            source.Dense(7, activation="sigmoid", use_bias=False),
            source.BatchNormalization(center=False),
            source.Dense(5, activation="softmax"),
        ]

    class Ours:
        pass

    for cls in (Activation, BatchNormalization, Dense, Dropout, Flatten, LayerNormalization):
        setattr(Ours, cls.__name__, cls)
    ours = Sequential([Input((4, 3)), *layers(Ours)], seed=0)
    theirs = keras.Sequential([keras.Input((4, 3)), *layers(keras.layers)])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 4, 3)).astype(np.float32)
    weights = [np.abs(rng.normal(size=w.shape)).astype(np.float32) for w in theirs.get_weights()]
    ours.set_weights(weights)
    theirs.set_weights(ours.get_weights())
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    assert ours.count_params() == theirs.count_params()
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x, verbose=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "targets", "activation"),
    [
        ("categorical_crossentropy", "rows", "softmax"),
        ("binary_crossentropy", "rows", "sigmoid"),
        ("mean_squared_error", "rows", "linear"),
        ("sparse_categorical_crossentropy", "labels", "softmax"),
    ],
)
def test_losses_metrics_and_weights_of_samples_follow_keras(keras, loss, targets, activation):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 6)).astype(np.float32), rng.integers(0, 4, 50)
    weight = rng.random(50).astype(np.float32)
    y = np.eye(4, dtype=np.float32)[y] if targets == "rows" else y
    ours = Sequential([Input((6,)), Dense(4, activation)], seed=0)
    theirs = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, activation=activation)])
    theirs.set_weights(ours.get_weights())
    metrics = ["accuracy"] if targets == "labels" else ["accuracy", "mae"]
    ours.compile("sgd", loss, metrics=metrics, weighted_metrics=["accuracy"])
    theirs.compile("sgd", loss, metrics=metrics, weighted_metrics=["accuracy"])
    for kwargs in ({}, {"sample_weight": weight}):
        mine = ours.evaluate(x, y, batch_size=16, return_dict=True, **kwargs)
        other = theirs.evaluate(x, y, batch_size=16, return_dict=True, verbose=0, **kwargs)
        assert mine == pytest.approx(other, rel=1e-5)
    mine = ours.fit(
        x, y, batch_size=16, epochs=3, shuffle=False, sample_weight=weight, validation_split=0.2, verbose=0
    )
    other = theirs.fit(
        x, y, batch_size=16, epochs=3, shuffle=False, sample_weight=weight, validation_split=0.2, verbose=0
    )
    assert set(mine.history) == set(other.history)
    for key, values in mine.history.items():
        assert values == pytest.approx(other.history[key], rel=1e-4), key


def mnist(name, offset):
    with gzip.open(MNIST / name) as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


def test_accuracy_on_mnist_is_kerass(keras):
    """Five epochs of the example at Keras's defaults; both start from the same weights and see the same batches."""
    if not MNIST.is_dir():
        pytest.skip(f"needs the MNIST subset in {MNIST}")
    x, xv = (
        mnist(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 784).astype(np.float32) / 255
        for part in ("train", "t10k")
    )
    y, yv = (mnist(f"{part}-labels-idx1-ubyte.gz", 8).astype(np.int64) for part in ("train", "t10k"))

    accuracies = []
    for seed in range(3):
        ours, theirs = example(seed=seed), keras_example(keras)
        theirs.set_weights(ours.get_weights())
        for model in (ours, theirs):
            model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        rng = np.random.default_rng(seed)
        for _ in range(5):
            order = rng.permutation(len(x))
            for model in (ours, theirs):
                model.fit(x[order], y[order], batch_size=32, shuffle=False, verbose=0)
        accuracies.append([model.evaluate(xv, yv, verbose=0)[1] for model in (ours, theirs)])
    mine, other = np.array(accuracies).T
    print(f"\ntest accuracy after 5 epochs: normkit {np.round(mine, 4)}, Keras {np.round(other, 4)}")
    np.testing.assert_allclose(mine, other, rtol=0, atol=0.01)
