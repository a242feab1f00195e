"""Training: what the arguments of `fit` mean, and errors of input that change nothing."""

import numpy as np
import pytest

from normkit.callbacks import Callback
from normkit.data import MiniBatches
from normkit.layers import (
    BatchNormalization,
    Dense,
    Flatten,
    Input,
    LayerNormalization,
)
from normkit.metrics import CategoricalAccuracy, SparseCategoricalAccuracy
from normkit.models import Sequential
from normkit.optimizers import SGD
from trainer_support import assert_same_weights, blobs, classifier


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_learns(optimizer):
    x, y = blobs()
    model = classifier(optimizer=optimizer)
    history = model.fit(x, y, batch_size=8, epochs=20, verbose=0)
    assert history.history["accuracy"][-1] > 0.95
    assert model.evaluate(x, y, verbose=0)[1] > 0.9
    assert (model.predict(x, verbose=0).argmax(axis=1) == y).mean() > 0.9


@pytest.mark.parametrize(
    ("loss", "units", "activation"), [("mse", 1, None), ("binary_crossentropy", 1, "sigmoid")]
)
def test_other_tasks(loss, units, activation):
    x, y = blobs(classes=2)
    model = Sequential([Dense(8, "relu"), LayerNormalization(), Dense(units, activation)], seed=0)
    model.compile("adam", loss, metrics=["accuracy", "mae"])
    history = model.fit(x, y.astype(float), epochs=40, batch_size=8, verbose=0)
    assert history.history["accuracy"][-1] > 0.95
    assert history.history["mae"][-1] < 0.3


def test_epoch_figures_are_means_over_samples_with_a_short_last_batch():
    x, y = blobs(70)
    model = classifier(optimizer=SGD(0.0))
    history = model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    model2 = classifier(optimizer=SGD(0.0))
    losses, hits = 0.0, 0.0
    for start, stop in ((0, 32), (32, 64), (64, 70)):
        loss, accuracy = model2.train_on_batch(x[start:stop], y[start:stop])
        losses, hits = losses + loss * (stop - start), hits + accuracy * (stop - start)
    assert history.history["loss"][0] == pytest.approx(losses / 70, rel=1e-12)
    assert history.history["accuracy"][0] == pytest.approx(hits / 70, rel=1e-12)


def test_fit_is_train_on_batch_over_mini_batches():
    x, y = blobs()
    fitted, stepped = classifier(seed=3), classifier(seed=3)
    fitted.fit(x, y, batch_size=64, epochs=2, verbose=0, last="merge")
    batches = MiniBatches(x, y, batch_size=64, seed=stepped.rng, last="merge")
    for _ in range(2):
        for xb, yb in batches:
            stepped.train_on_batch(xb, yb)
    assert_same_weights(fitted.get_weights(), stepped.get_weights())


def test_integer_input_is_converted_batch_by_batch():
    rng = np.random.default_rng(0)
    pixels, y = rng.integers(0, 256, (60, 4, 2), np.uint8), rng.integers(0, 3, (60, 1))
    results = []
    for x in (pixels, pixels.astype(np.float32), pixels.tolist()):
        model = Sequential([Flatten(), BatchNormalization(), Dense(3, "softmax")], seed=0)
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(x, y, epochs=2, verbose=0)
        results.append(model.get_weights())
    assert_same_weights(results[0], results[1])
    assert_same_weights(results[0], results[2])


def test_validation_split_takes_the_end_before_shuffling():
    x, y = blobs(100)
    split, given = classifier(), classifier()
    a = split.fit(x, y, epochs=2, validation_split=0.25, verbose=0)
    b = given.fit(x[:75], y[:75], epochs=2, validation_data=(x[75:], y[75:]), verbose=0)
    assert a.history == b.history


def test_validation_frequency_and_batch_size():
    x, y = blobs(100)
    history = classifier().fit(
        x, y, epochs=5, validation_data=(x, y), validation_freq=2, validation_batch_size=9, verbose=0
    )
    assert len(history.history["loss"]) == 5
    assert len(history.history["val_loss"]) == 2


def test_weights_of_samples_and_of_classes():
    x, y = blobs()
    by_class, by_sample, doubled = classifier(), classifier(), classifier()
    factors = {0: 2.0, 2: 0.5}
    by_class.fit(x, y, class_weight=factors, verbose=0)
    by_sample.fit(x, y, sample_weight=np.array([2.0, 1.0, 0.5])[y], verbose=0)
    assert_same_weights(by_class.get_weights(), by_sample.get_weights())
    doubled.fit(x, y, verbose=0)
    assert not np.array_equal(doubled.get_weights()[0], by_class.get_weights()[0])
    model = classifier(optimizer=SGD(0.0))
    zero = model.train_on_batch(x, y, sample_weight=np.zeros(300))
    assert zero[0] == 0.0
    assert zero[1] > 0.0
    one_hot = Sequential([Input((6,)), Dense(3, "softmax")], seed=0)
    one_hot.compile("sgd", "categorical_crossentropy", weighted_metrics=["accuracy"])
    logs = one_hot.test_on_batch(x, np.eye(3)[y], sample_weight=np.ones(300), return_dict=True)
    assert list(logs) == ["loss", "accuracy"]


def test_weighted_metrics_have_their_own_name():
    x, y = blobs()
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics="accuracy", weighted_metrics=["accuracy"])
    weight = (y == 0).astype(float)
    logs = model.evaluate(x, y, sample_weight=weight, return_dict=True)
    assert list(logs) == ["loss", "accuracy", "weighted_accuracy"]
    correct = model.predict(x).argmax(axis=1) == y
    assert logs["accuracy"] == pytest.approx(correct.mean())
    assert logs["weighted_accuracy"] == pytest.approx(correct[y == 0].mean())


def test_steps_per_epoch_goes_on_where_it_stopped():
    x, y = blobs(100)
    seen = []

    class Counter(Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

    model = classifier()
    model.fit(x, y, batch_size=20, epochs=2, steps_per_epoch=3, verbose=0, callbacks=[Counter()])
    assert seen == [0, 1, 2, 0, 1, 2]
    other = classifier()
    stream = iter([*MiniBatches(x, y, batch_size=20, seed=other.rng)])
    for _ in range(5):
        other.train_on_batch(*next(stream))
    other.train_on_batch(*next(iter(MiniBatches(x, y, batch_size=20, seed=other.rng))))
    assert_same_weights(model.get_weights(), other.get_weights())
    assert model.optimizer.iterations == 6
    implied = classifier()
    implied.fit(x, y, steps_per_epoch=3, verbose=0)
    assert implied.optimizer.iterations == 3


def test_frozen_layers_stay_as_they_are_and_the_rest_learns():
    x, y = blobs()
    model = classifier()
    model.layers[0].trainable = False
    model.layers[1].trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    after = model.get_weights()
    assert_same_weights(before[:6], after[:6])
    assert not np.array_equal(before[6], after[6])
    assert [w.name for w in model.trainable_weights] == ["kernel", "bias"]
    model.layers[0].trainable = True
    with pytest.raises(ValueError, match=r"changed since compile\(\); call compile\(\) again"):
        model.fit(x, y, verbose=0)


def test_nothing_to_train():
    x, y = blobs(40)
    model = Sequential([Input((6,)), Dense(3, "softmax", trainable=False)], seed=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    assert_same_weights(before, model.get_weights())


def test_training_goes_on_from_set_weights():
    x, y = blobs()
    one, two = classifier(seed=1, optimizer="sgd"), classifier(seed=2, optimizer="sgd")
    one.fit(x, y, verbose=0)
    two.train_on_batch(x, y)
    two.set_weights(one.get_weights())
    for model in (one, two):
        model.train_on_batch(x, y)
    assert_same_weights(one.get_weights(), two.get_weights())


def test_layers_of_mixed_dtype():
    x, y = blobs()
    model = Sequential([Dense(8, "relu", dtype="float64"), BatchNormalization(), Dense(3, "softmax")], seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, epochs=20, batch_size=8, verbose=0)
    assert [w.dtype for w in model.get_weights()] == [np.float64] * 2 + [np.float32] * 6
    assert history.history["accuracy"][-1] > 0.95


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": np.zeros(39)}, ValueError, "x and y must have the same length, got 40 and 39"),
        ({"y": None}, ValueError, "y is missing"),
        ({"y": np.full(40, 12)}, ValueError, "labels must be 0 to 2, as the last layer has 3 units, got 12"),
        ({"y": np.full(40, 0.5)}, ValueError, r"labels must be integers, got 0\.5 of type float64"),
        (
            {"y": np.full((40, 2), 1)},
            ValueError,
            r"must be integer labels of shape \(batch,\), got \(40, 2\)",
        ),
        ({"y": np.full(40, 1j)}, TypeError, "y must be an array of numbers, got dtype complex128"),
        ({"y": np.full(40, "a")}, TypeError, "y must be an array of numbers, got text such as 'a'"),
        (
            {"sample_weight": np.full(40, "a")},
            TypeError,
            "sample_weight must be an array of numbers, got text such as 'a'",
        ),
        (
            {"class_weight": [1, 2, 3]},
            TypeError,
            "class_weight must be a dict from label to factor, such as .* got list",
        ),
        ({"epochs": -1}, ValueError, "fit: epochs must be an integer, 0 or more, got -1"),
        ({"epochs": 1.5}, ValueError, "fit: epochs must be an integer, 0 or more, got 1.5"),
        ({"epochs": "3"}, ValueError, "fit: epochs must be an integer, 0 or more, got '3'"),
        ({"initial_epoch": -1}, ValueError, "fit: initial_epoch must be an integer, 0 or more, got -1"),
        ({"x": np.ones((40, 5))}, ValueError, "Dense 'dense': expected 6 features, got 5"),
        ({"x": np.ones(40)}, ValueError, r"expected input of shape \(batch, 6\), got \(40,\)"),
        ({"x": np.full((40, 6), "a")}, TypeError, "x must be an array of numbers, got text such as 'a'"),
        ({"x": np.ones((0, 6)), "y": np.ones(0)}, ValueError, "at least one sample"),
        ({"sample_weight": np.ones(3)}, ValueError, r"sample_weight must have shape \(40,\), got \(3,\)"),
        (
            {"sample_weight": np.ones(40), "class_weight": {0: 1}},
            ValueError,
            "sample_weight or class_weight, not both",
        ),
        ({"batch_size": 0}, ValueError, "batch_size must be a positive integer, got 0"),
        ({"last": "pad"}, ValueError, "last must be one of keep, drop, merge, spread"),
        ({"verbose": 3}, ValueError, "verbose must be 'auto', 0, 1 or 2, got 3"),
        ({"validation_split": 1.5}, ValueError, r"validation_split must be in \[0, 1\), got 1.5"),
        ({"validation_split": 0.999}, ValueError, "both need at least one"),
        ({"validation_data": np.ones(2)}, ValueError, r"must be \(x, y\), \(x, y, sample_weight\), or data"),
        (
            {"validation_data": (np.ones((4, 6)), np.full(4, 3))},
            ValueError,
            "labels must be 0 to 2, as the last layer has 3 units, got 3",
        ),
        ({"validation_data": (np.ones((4, 5)), np.zeros(4))}, ValueError, "expected 6 features, got 5"),
        (
            {"validation_data": (np.ones((4, 6)), np.ones(4)), "validation_freq": 0},
            ValueError,
            "validation_freq",
        ),
        (
            {"validation_data": (np.ones((4, 6)), np.ones(4)), "validation_freq": [1, 0]},
            ValueError,
            "each epoch of validation_freq must be a positive integer, got 0",
        ),
        (
            {"validation_data": (np.ones((4, 6)), np.ones(4)), "validation_steps": 0},
            ValueError,
            "fit: validation_steps must be a positive integer, got 0",
        ),
        ({"steps_per_epoch": -1, "batch_size": 8}, ValueError, "steps_per_epoch must be a positive integer"),
        ({"steps_per_epoch": 0}, ValueError, "steps_per_epoch must be a positive integer, got 0"),
        ({"callbacks": [print]}, TypeError, "callbacks must be instances of Callback"),
    ],
)
def test_an_error_of_input_changes_nothing(change, error, message):
    x, y = blobs(40)
    model = classifier()
    model.fit(x, y, verbose=0)
    before, state = model.get_weights(), model.rng.bit_generator.state
    with pytest.raises(error, match=message):
        model.fit(**{"x": x, "y": y, "verbose": 0} | change)
    assert_same_weights(before, model.get_weights())
    assert model.rng.bit_generator.state == state
    assert model.optimizer.iterations == 2


def test_nan_propagates():
    x, y = blobs(40)
    x[3, 2] = np.nan
    model = classifier()
    with pytest.warns(UserWarning, match="x has 1 NaN value in 1 of 40 rows, in column 2"):
        history = model.fit(x, y, batch_size=40, verbose=0)
    assert np.isnan(history.history["loss"][0])


def test_compile_again_starts_the_optimizer_anew_and_keeps_the_weights():
    x, y = blobs()
    model = classifier()
    model.fit(x, y, verbose=0)
    before = model.get_weights()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[SparseCategoricalAccuracy(), "acc"])
    assert model.optimizer.iterations == 0
    assert_same_weights(before, model.get_weights())
    assert list(model.evaluate(x, np.zeros(300, int), return_dict=True)) == [
        "loss",
        "sparse_categorical_accuracy",
        "acc",
    ]


def test_sequences():
    """Dense on the last axis of (batch, time, features), one label per step."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 5, 4)).astype(np.float32)
    y = (x[..., 0] > 0).astype(int)
    model = Sequential([Dense(8, "relu"), LayerNormalization(), Dense(2, "softmax")], seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, epochs=200, sample_weight=np.ones(30), verbose=0)
    assert history.history["accuracy"][-1] > 0.9
    assert model.predict(x[:, :3]).shape == (30, 3, 2)


@pytest.mark.parametrize("metric", ["categorical_accuracy", "mse", CategoricalAccuracy()])
def test_a_metric_that_does_not_fit_changes_nothing(metric):
    x, y = blobs(40)
    model = classifier(metrics=[metric])
    before, state = model.get_weights(), model.rng.bit_generator.state
    for call in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="targets and predictions do not match"):
            call(x, y, verbose=0)
    for call in (model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match="targets and predictions do not match"):
            call(x, y)
    assert_same_weights(before, model.get_weights())
    assert model.rng.bit_generator.state == state
    assert model.optimizer.iterations == 0


def test_one_metric_need_not_be_in_a_list():
    x, y = blobs(40)
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=SparseCategoricalAccuracy("hits"))
    assert list(model.evaluate(x, y, return_dict=True)) == ["loss", "hits"]


def test_metrics_keep_their_names():
    x, y = blobs(40)
    metrics = [SparseCategoricalAccuracy() for _ in range(3)]
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=metrics[:2], weighted_metrics=metrics[2:])
    name = "sparse_categorical_accuracy"
    assert list(model.evaluate(x, y, return_dict=True)) == ["loss", name, f"{name}_1", f"weighted_{name}"]
    assert [metric.name for metric in metrics] == [name] * 3


def test_positions_are_kerass():
    """Arguments that Keras does not have, have no position."""
    x, y = blobs(40)
    model = classifier()
    with pytest.raises(TypeError, match="positional arguments"):
        model.fit(x, y, 8, 1, 0, None, 0.0, None, True, None, None, 0, 2, None, None, 1, "keep")
    model.fit(x, y, 8, 1, 0, None, 0.0, (x, y), True, None, None, 0, 2, 1, 8, 1)
    assert model.optimizer.iterations == 2
    model.evaluate(x, y, 8, 0, None, 2, None, True)
    model.predict(x, 8, 0, 2, None)


def test_steps_of_validation_evaluation_and_prediction():
    x, y = blobs(100)
    model = classifier()
    short = model.evaluate(x, y, batch_size=16, steps=2, return_dict=True)
    assert short == pytest.approx(model.evaluate(x[:32], y[:32], return_dict=True), rel=1e-6)
    assert model.evaluate(x, y, steps=99) == model.evaluate(x, y)
    assert model.predict(x, batch_size=16, steps=2).shape == (32, 3)
    history = model.fit(
        x, y, validation_data=(x, y), validation_steps=2, validation_batch_size=16, epochs=2, verbose=0
    )
    expected = model.evaluate(x[:32], y[:32], return_dict=True)
    assert history.history["val_loss"][-1] == pytest.approx(expected["loss"], rel=1e-6)
    for call in (model.evaluate, lambda x, y, steps: model.predict(x, steps=steps)):
        with pytest.raises(ValueError, match="steps must be a positive integer, got 0"):
            call(x, y, steps=0)


def test_epochs_to_validate_by_number():
    x, y = blobs(100)
    seen = []

    class Epochs(Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((epoch, "val_loss" in logs))

    model = classifier()
    history = model.fit(
        x, y, epochs=4, validation_data=(x, y), validation_freq=[1, 4], verbose=0, callbacks=[Epochs()]
    )
    assert seen == [(0, True), (1, False), (2, False), (3, True)]
    assert len(history.history["val_loss"]) == 2


def test_a_column_of_sample_weights():
    x, y = blobs(40)
    weight = np.linspace(0, 2, 40)
    one, two = classifier(), classifier()
    one.fit(x, y, sample_weight=weight, verbose=0)
    two.fit(x, y, sample_weight=weight[:, None], verbose=0)
    assert_same_weights(one.get_weights(), two.get_weights())
