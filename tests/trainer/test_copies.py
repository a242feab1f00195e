"""Copies of models train on their own; an optimizer or a metric is of one model."""

import copy
import pickle

import numpy as np
import pytest

from normkit.callbacks import Callback
from normkit.metrics import SparseCategoricalAccuracy
from normkit.optimizers import SGD, Adam, RMSprop
from trainer_support import assert_same_weights, blobs, classifier, data, network

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model))}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("optimizer", [SGD(0.1, 0.9), Adam(0.01, amsgrad=True), RMSprop(0.01)])
def test_a_copy_trains_as_the_original(how, optimizer):
    model = network()
    model.compile(
        copy.deepcopy(optimizer), "sparse_categorical_crossentropy", metrics=[SparseCategoricalAccuracy()]
    )
    model.fit(*data(), verbose=0)
    again = COPIES[how](model)
    assert_same_weights(model.get_weights(), again.get_weights())
    before = model.get_weights()
    second = again.fit(*data(), epochs=2, verbose=0)
    for kept, weight in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, weight)
    first = model.fit(*data(), epochs=2, verbose=0)
    assert first.history == second.history
    assert_same_weights(model.get_weights(), again.get_weights())
    assert again.optimizer.iterations == model.optimizer.iterations == 9
    assert not np.array_equal(before[0], again.get_weights()[0])


@pytest.mark.parametrize("how", COPIES)
def test_copies_before_training_and_of_an_optimizer_alone(how):
    model = network()
    model.compile("adam", "sparse_categorical_crossentropy")
    again = COPIES[how](model)
    for m in (model, again):
        m.fit(*data(), verbose=0)
    assert_same_weights(model.get_weights(), again.get_weights())
    optimizer = COPIES[how](model.optimizer)
    other = network()
    other.compile(optimizer, "sparse_categorical_crossentropy")
    assert optimizer.iterations == model.optimizer.iterations == 3


@pytest.mark.parametrize("trained", [False, True])
def test_an_optimizer_is_of_one_model(trained):
    x, y = blobs(40)
    optimizer = Adam()
    one, two = classifier(optimizer=optimizer), classifier()
    if trained:
        one.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match=r"this Adam is part of another model.*; give each model its own"):
        two.compile(optimizer, "sparse_categorical_crossentropy")
    two.fit(x, y, verbose=0)
    one.compile(optimizer, "sparse_categorical_crossentropy")
    one.fit(x, y, verbose=0)
    assert optimizer.iterations == 2
    one.compile("sgd", "sparse_categorical_crossentropy")
    two.compile(optimizer, "sparse_categorical_crossentropy")
    two.fit(x, y, verbose=0)
    del one, two
    classifier(optimizer=optimizer).fit(x, y, verbose=0)


def test_a_metric_is_of_one_model():
    metric = SparseCategoricalAccuracy()
    one, two = classifier(metrics=[metric]), classifier()
    with pytest.raises(ValueError, match="this SparseCategoricalAccuracy is part of another model"):
        two.compile("sgd", "sparse_categorical_crossentropy", metrics=[metric])
    one.compile("sgd", "sparse_categorical_crossentropy", metrics=[metric])


def test_a_copied_optimizer_goes_its_own_way():
    """A copy is of no model until it is compiled or trained; that of the copied model counts as well."""
    x, y = blobs(40)
    model = classifier()
    twin = copy.deepcopy(model)
    twin.fit(x, y, verbose=0)
    other = classifier()
    with pytest.raises(ValueError, match="part of another model"):
        other.compile(twin.optimizer, "sparse_categorical_crossentropy")
    other.compile(copy.deepcopy(twin.optimizer), "sparse_categorical_crossentropy")


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_made_while_it_trains(how):
    x, y = blobs(40)
    copies = []

    class Keep(Callback):
        def on_epoch_end(self, epoch, logs=None):
            copies.append(COPIES[how](self.model))

        def __reduce__(self):
            return Callback, ()

    model = classifier()
    model.fit(x, y, epochs=2, verbose=0, callbacks=[Keep()])
    for kept in copies:
        with pytest.raises(ValueError, match="is not training"):
            kept.save_progress("x")
    copies[0].fit(x, y, verbose=0)
    assert_same_weights(copies[0].get_weights(), model.get_weights())
