"""find_learning_rate: a rate that works or the word that there is none, a model that is left alone, and errors."""

import pickle

import numpy as np
import pytest

from normkit.data import load
from normkit.layers import Activation, BatchNormalization, Dense, Input
from normkit.models import LearningRateNotFound, Sequential, find_learning_rate
from normkit.optimizers import SGD
from normkit.optimizers.schedules import ExponentialDecay
from trainer_support import assert_same_weights, blobs, classifier


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_suggestion_trains_well(optimizer):
    x, y = blobs()
    model = classifier(optimizer=optimizer)
    found = find_learning_rate(model, x, y, batch_size=16)
    assert found.rates.shape == found.losses.shape
    model.optimizer.learning_rate = found.suggestion
    assert model.fit(x, y, batch_size=16, epochs=10, verbose=0).history["accuracy"][-1] > 0.9


def digits():
    data = load()
    return data.x_train, data.y_train


def stack(inputs, outputs, depth, norm, seed):
    layers = [Input((inputs,))]
    for _ in range(depth - 1):
        layers += [Dense(64), *([BatchNormalization()] if norm else []), Activation("relu")]
    return Sequential([*layers, Dense(outputs, activation="softmax")], seed=seed)


def epochs_at(model, rate, x, y, batch_size, epochs=2):
    """Train at a rate, in another order than that of the search; return the mean loss of the last epoch."""
    model.rng = np.random.default_rng(99)
    model.optimizer.learning_rate = rate
    return model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0).history["loss"][-1]


@pytest.mark.parametrize("seed", range(32))
def test_every_seed_on_the_digits(seed):
    x, y = digits()
    model = Sequential(
        [Dense(64, input_shape=(64,)), BatchNormalization(), Dense(10, activation="softmax")], seed=seed
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    found = find_learning_rate(model, x, y)
    assert 1e-4 < found.suggestion < 1.0
    assert epochs_at(model, found.suggestion, x, y, 32) < 0.3


@pytest.mark.parametrize("batch_size", [8, 128])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize(("depth", "norm"), [(1, False), (2, True), (3, False), (4, True)])
def test_other_networks(depth, norm, optimizer, batch_size):
    """The mean loss of the last epoch is well below the start, of which ln 10 is about the least that there is."""
    x, y = digits()
    model = stack(64, 10, depth, norm, seed=depth + batch_size)
    model.compile(
        SGD(momentum=0.9) if optimizer == "momentum" else optimizer, "sparse_categorical_crossentropy"
    )
    found = find_learning_rate(model, x, y, batch_size)
    assert epochs_at(model, found.suggestion, x, y, batch_size, epochs=4 if batch_size == 128 else 2) < 1.2


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("seed", range(4))
def test_targets_of_any_size(factor, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(400, 5))
    y = factor * (x @ rng.normal(size=(5, 1)) + 2.0)
    model = Sequential([Dense(32, "relu", input_shape=(5,)), Dense(1)], seed=seed)
    model.compile(SGD(momentum=0.9), "mse")
    try:
        found = find_learning_rate(model, x, y, 16)
    except LearningRateNotFound:
        assert factor == 1e3  # where the first network of some seeds survives no rate that moves it
        return
    before = model.evaluate(x, y, verbose=0)
    assert epochs_at(model, found.suggestion, x, y, 16, epochs=4) < 0.5 * before


def cannot_tell(model, x, y, message, **options):
    with pytest.raises(LearningRateNotFound, match=f"find_learning_rate: cannot tell: {message}") as caught:
        find_learning_rate(model, x, y, **options)
    assert len(caught.value.rates) == len(caught.value.losses)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    np.testing.assert_array_equal(again.losses, caught.value.losses)


def test_where_it_cannot_tell():
    x, y = blobs()
    nothing = (
        r"the loss starts at .* and falls by .*; pass more steps, a larger batch_size, or other bounds than"
    )
    cannot_tell(classifier(), x, y, nothing, lowest=1e-12, highest=1e-9)
    cannot_tell(classifier(optimizer="sgd"), 100 * x, y, nothing, lowest=1e5, highest=1e8)
    best = Sequential([Dense(1, input_shape=(2,), kernel_initializer="zeros")])
    best.compile("sgd", "mse")
    cannot_tell(best, np.ones((64, 2)), np.zeros((64, 1)), nothing)


def test_no_rate_survives(monkeypatch):
    """A rate that looks good in the search, and at which training goes wrong."""
    x, y = blobs()
    losses = Sequential.train_on_batch
    rates = []

    def worse(self, *args, **kwargs):
        rates.append(self.optimizer.learning_rate)
        logs = losses(self, *args, **kwargs)
        return {"loss": 1e9} if len(rates) > 2 and rates[-1] == rates[-2] == rates[-3] > 0 else logs

    monkeypatch.setattr(Sequential, "train_on_batch", worse)
    cannot_tell(
        classifier(), x, y, "the loss fell fastest at .*, but neither that rate nor smaller ones, down to"
    )


def test_a_third_of_a_rate_that_does_not_train(monkeypatch):
    x, y = blobs()
    whole = find_learning_rate(classifier(), x, y)
    losses = Sequential.train_on_batch

    def worse(self, *args, **kwargs):
        logs = losses(self, *args, **kwargs)
        return (
            {"loss": np.nan} if self.optimizer.learning_rate == whole.suggestion and len(seen) > 120 else logs
        )

    seen = []
    monkeypatch.setattr(Sequential, "train_on_batch", lambda *a, **k: (seen.append(1), worse(*a, **k))[1])
    assert find_learning_rate(classifier(), x, y).suggestion == whole.suggestion / 3


@pytest.mark.parametrize("steps", [10, 30, 300])
def test_any_number_of_steps(steps):
    x, y = blobs()
    try:
        found = find_learning_rate(classifier(), x, y, 16, steps=steps)
    except LearningRateNotFound:
        assert steps == 10
        return
    assert len(found.rates) <= steps
    assert 1e-5 < found.suggestion < 3.0


def test_the_model_is_left_alone():
    x, y = blobs()
    model = classifier()
    model.fit(x, y, verbose=0)
    before, state = model.get_weights(), model.rng.bit_generator.state
    first, second = (find_learning_rate(model, x, y) for _ in range(2))
    np.testing.assert_array_equal(first.losses, second.losses)
    assert_same_weights(before, model.get_weights())
    assert model.rng.bit_generator.state == state
    assert (model.optimizer.iterations, model.optimizer.learning_rate) == (10, 0.001)


def test_it_ends_when_the_loss_diverges():
    x, y = blobs(classes=2)
    model = classifier(optimizer="sgd")
    model.compile("sgd", "sparse_categorical_crossentropy")
    found = find_learning_rate(model, 100 * x, y, highest=1e4)
    assert len(found.rates) < 100


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lowest": 0.0}, ValueError, "lowest must be above 0 and below highest, got 0 and 10"),
        ({"lowest": 20.0}, ValueError, "lowest must be above 0 and below highest, got 20 and 10"),
        ({"steps": 5}, ValueError, "steps must be at least 10, got 5"),
        ({"x": np.full((300, 6), np.nan)}, ValueError, "the loss is not finite from the start"),
        ({"y": np.full(300, 9)}, ValueError, "labels must be 0 to 2, as the last layer has 3 units, got 9"),
        ({"optimizer": SGD(ExponentialDecay(0.1, 10, 0.5))}, TypeError, "learning_rate follows the schedule"),
    ],
)
@pytest.mark.filterwarnings("ignore:this batch has 192 NaN values")  # besides the error
def test_errors(arguments, error, message):
    x, y = blobs()
    model = classifier(optimizer=arguments.pop("optimizer", "sgd"))
    with pytest.raises(error, match=message):
        find_learning_rate(model, **{"x": x, "y": y, **arguments})
