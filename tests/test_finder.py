"""find_learning_rate: a rate that works, a model that is left alone, and errors."""

import numpy as np
import pytest

from normkit.models import find_learning_rate
from normkit.optimizers import SGD
from normkit.optimizers.schedules import ExponentialDecay
from trainer_support import assert_same_weights, blobs, classifier


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_suggestion_trains_well(optimizer):
    x, y = blobs()
    model = classifier(optimizer=optimizer)
    found = find_learning_rate(model, x, y, batch_size=16)
    assert found.rates.shape == found.losses.shape
    assert found.suggestion in found.rates
    model.optimizer.learning_rate = found.suggestion
    assert model.fit(x, y, batch_size=16, epochs=10, verbose=0).history["accuracy"][-1] > 0.9


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
