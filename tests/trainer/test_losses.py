"""Losses and metrics: values against plain formulas, gradients against finite differences, Keras's conventions."""

import math

import numpy as np
import pytest

from gradients import assert_close, numeric_gradient
from normkit import activations, losses, metrics
from normkit.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4))
LABELS = np.array([0, 3, 1, 1, 2, 3])
ONE_HOT = np.eye(4)[LABELS]
BITS = RNG.integers(0, 2, size=(6, 4)).astype(float)
WEIGHT = np.array([0.0, 1.0, 2.0, 0.5, 1.0, 3.0])


def softmax(z):
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


CASES = {
    "mse": (MeanSquaredError(), BITS, LOGITS),
    "sparse": (SparseCategoricalCrossentropy(), LABELS, softmax(LOGITS) * 1.7),
    "sparse logits": (SparseCategoricalCrossentropy(from_logits=True), LABELS, LOGITS),
    "dense": (CategoricalCrossentropy(), ONE_HOT, softmax(LOGITS) * 1.7),
    "dense soft": (CategoricalCrossentropy(), softmax(LOGITS[::-1]), softmax(LOGITS)),
    "dense logits": (CategoricalCrossentropy(from_logits=True), ONE_HOT, LOGITS),
    "dense smoothed": (CategoricalCrossentropy(from_logits=True, label_smoothing=0.2), ONE_HOT, LOGITS),
    "binary": (BinaryCrossentropy(), BITS, 1 / (1 + np.exp(-LOGITS))),
    "binary logits": (BinaryCrossentropy(from_logits=True), BITS, LOGITS),
    "binary smoothed": (BinaryCrossentropy(label_smoothing=0.2), BITS, 1 / (1 + np.exp(-LOGITS))),
    "absolute": (MeanAbsoluteError(), BITS, LOGITS),
    "percentage": (MeanAbsolutePercentageError(), BITS + 1, LOGITS),
    "logarithmic": (MeanSquaredLogarithmicError(), BITS, LOGITS + 0.3),
    "huber": (Huber(0.8), BITS, LOGITS),
    "log cosh": (LogCosh(), BITS, 3 * LOGITS),
    "cosine": (CosineSimilarity(), BITS + 0.5, LOGITS),
    "divergence": (KLDivergence(), softmax(LOGITS[::-1]), softmax(LOGITS)),
    "poisson": (Poisson(), 3 * BITS, np.exp(LOGITS)),
    "hinge": (Hinge(), BITS, LOGITS),
    "hinge of signs": (Hinge(), 2 * BITS - 1, LOGITS),
    "squared hinge": (SquaredHinge(), BITS, LOGITS),
    "categorical hinge": (CategoricalHinge(), ONE_HOT, LOGITS),
    "sparse sequence": (
        SparseCategoricalCrossentropy(from_logits=True), LABELS.reshape(2, 3), LOGITS.reshape(2, 3, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_gradients(case, weighted):
    loss, y, y_pred = CASES[case]
    y_pred = y_pred.copy()
    weight = WEIGHT[: len(y)] if weighted else None
    targets = loss.targets(y, y_pred.shape, y_pred.dtype)
    _, gradient = loss.mean_and_gradient(targets, y_pred, weight)
    expected = numeric_gradient(lambda: loss(y, y_pred, weight), y_pred, step=1e-6)
    assert_close(gradient, expected, 1e-8)


@pytest.mark.parametrize(
    ("loss", "y", "activation"),
    [
        (SparseCategoricalCrossentropy(), LABELS, activations.softmax),
        (CategoricalCrossentropy(), ONE_HOT, activations.softmax),
        (CategoricalCrossentropy(label_smoothing=0.1), ONE_HOT, activations.softmax),
        (BinaryCrossentropy(), BITS, activations.sigmoid),
        (BinaryCrossentropy(label_smoothing=0.1), BITS, activations.sigmoid),
    ],
)
def test_fused_is_the_loss_of_the_activation(loss, y, activation):
    z = LOGITS.copy()
    targets = loss.targets(y, z.shape, z.dtype)
    value, gradient, predictions = loss.from_logits_step(targets, z, WEIGHT)
    np.testing.assert_array_equal(z, LOGITS)
    np.testing.assert_allclose(predictions, activation(z.copy()), rtol=1e-14)
    assert value == pytest.approx(loss(y, activation(z.copy()), WEIGHT), rel=1e-12)
    assert_close(gradient, numeric_gradient(lambda: loss(y, activation(z.copy()), WEIGHT), z), 1e-8)


def test_values_by_hand():
    p = softmax(LOGITS)
    per_sample = -np.log(p[np.arange(6), LABELS])
    assert SparseCategoricalCrossentropy()(LABELS, p) == pytest.approx(per_sample.mean())
    assert SparseCategoricalCrossentropy()(LABELS[:, None], p) == pytest.approx(per_sample.mean())
    assert CategoricalCrossentropy()(ONE_HOT, p) == pytest.approx(per_sample.mean())
    # Keras's sum_over_batch_size: the divisor is the number of samples, not the sum of the weights.
    assert CategoricalCrossentropy()(ONE_HOT, p, WEIGHT) == pytest.approx((per_sample * WEIGHT).sum() / 6)
    q = 1 / (1 + np.exp(-LOGITS))
    expected = -(BITS * np.log(q) + (1 - BITS) * np.log(1 - q)).mean()
    assert BinaryCrossentropy()(BITS, q) == pytest.approx(expected)
    assert MeanSquaredError()([1.0, 2.0], [[2.0], [4.0]]) == pytest.approx(2.5)


def test_fused_losses_are_exact_where_probabilities_vanish():
    z = np.array([[0.0, 500.0]], np.float32)
    value, gradient, _ = SparseCategoricalCrossentropy().from_logits_step(np.array([0]), z, None)
    assert value == 500.0
    np.testing.assert_array_equal(gradient, [[-1, 1]])
    value, gradient, _ = BinaryCrossentropy().from_logits_step(
        np.float32([[1.0]]), np.float32([[-300]]), None
    )
    assert value == 300.0
    np.testing.assert_array_equal(gradient, [[-1]])


def test_probabilities_are_bounded_as_in_keras():
    assert SparseCategoricalCrossentropy()([0], np.array([[0.0, 1.0]])) == pytest.approx(-math.log(1e-7))
    assert BinaryCrossentropy()([[1.0]], np.array([[0.0]])) == pytest.approx(-math.log(1e-7))


def test_loss_keeps_the_dtype_of_its_gradient():
    z = LOGITS.astype(np.float32)
    for loss, y in ((SparseCategoricalCrossentropy(), LABELS), (CategoricalCrossentropy(), ONE_HOT)):
        targets = loss.targets(y, z.shape, z.dtype)
        assert loss.from_logits_step(targets, z, np.ones(6, np.float32))[1].dtype == np.float32
        assert loss.mean_and_gradient(targets, activations.softmax(z), None)[1].dtype == np.float32


@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        (
            SparseCategoricalCrossentropy(),
            [0, 1, 12, 3, 0, 1],
            "labels must be 0 to 3, as the last layer has 4 units, got 12",
        ),
        (
            SparseCategoricalCrossentropy(),
            [0, 1, -1, 3, 0, 1],
            "labels must be 0 to 3, as the last layer has 4 units, got -1",
        ),
        (SparseCategoricalCrossentropy(), [0, 1, 0.5, 3, 0, 1], "labels must be integers, got .*0.5"),
        (SparseCategoricalCrossentropy(), [0, 1, math.nan, 3, 0, 1], "labels must be integers, got .*nan"),
        (SparseCategoricalCrossentropy(), ONE_HOT, "for one-hot rows use 'categorical_crossentropy'"),
        (CategoricalCrossentropy(), LABELS, "for labels as integers use 'sparse_categorical_crossentropy'"),
        (CategoricalCrossentropy(), ONE_HOT[:, :3], r"y must have the shape .* \(batch, 4\), got \(6, 3\)"),
        (CategoricalCrossentropy(), ONE_HOT * 2, r"targets must be in \[0, 1\], got values in \[0, 2\]"),
        (BinaryCrossentropy(), BITS - 1, r"targets must be in \[0, 1\], got values in \[-1, 0\]"),
        (
            MeanSquaredError(),
            np.ones(6),
            r"y must have the shape of the model's output, \(batch, 4\), got \(6,\)",
        ),
    ],
)
def test_targets_are_checked(loss, y, message):
    with pytest.raises(ValueError, match=message):
        loss.targets(y, (None, 4), np.float32)


def test_whole_numbers_as_floats_are_labels():
    targets = SparseCategoricalCrossentropy().targets(np.array([[1.0], [3.0]]), (None, 4), np.float32)
    assert targets.tolist() == [1, 3]
    assert targets.dtype == np.intp


def test_unknown_names_list_what_there_is():
    with pytest.raises(
        ValueError,
        match="no loss 'hinge2'; did you mean 'hinge'\\? There are: sparse_categorical_crossentropy, ",
    ):
        losses.get("hinge2")
    with pytest.raises(ValueError, match="no metric 'aux'; did you mean 'auc'\\? There are: accuracy, "):
        metrics.get("aux")
    with pytest.raises(TypeError, match=r"loss must be one of .* or an instance of Loss, got 3 of type int"):
        losses.get(3)
    with pytest.raises(ValueError, match="label_smoothing must be in"):
        CategoricalCrossentropy(label_smoothing=2)
    assert isinstance(losses.get("MSE"), MeanSquaredError)
    assert isinstance(losses.get("SparseCategoricalCrossentropy"), SparseCategoricalCrossentropy)


def test_accuracies():
    p = np.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]])
    sparse = metrics.SparseCategoricalAccuracy()
    sparse.update_state([1, 0, 0, 0], p)
    assert sparse.result() == 0.75
    sparse.update_state([[0], [1]], p[:2])
    assert sparse.result() == 0.5
    sparse.reset_state()
    assert sparse.result() == 0.0
    sparse.update_state([1, 0, 0, 0], p, sample_weight=[1, 1, 6, 0])
    assert sparse.result() == 0.25
    dense = metrics.CategoricalAccuracy()
    dense.update_state(np.eye(2)[[1, 0, 0, 0]], p)
    assert dense.result() == 0.75
    binary = metrics.BinaryAccuracy(threshold=0.65)
    binary.update_state([1, 1, 0, 0], p[:, :1])
    assert binary.result() == 0.5
    with pytest.raises(ValueError, match="targets and predictions must have the same length, got 2 and 4"):
        metrics.SparseCategoricalAccuracy().update_state([1, 0], p)
    with pytest.raises(ValueError, match="targets and predictions do not match"):
        metrics.MeanAbsoluteError().update_state([1, 0], np.ones((2, 2)))


def test_regression_metrics():
    squared, absolute = metrics.get("mse"), metrics.get("mae")
    for metric in (squared, absolute):
        metric.update_state([1.0, 2.0], [[2.0], [4.0]])
    assert (squared.result(), absolute.result()) == (2.5, 1.5)
    assert (squared.name, absolute.name) == ("mse", "mae")


@pytest.mark.parametrize(
    ("y_shape", "output_shape", "expected"),
    [
        ((8,), (None, 1), metrics.BinaryAccuracy),
        ((8, 1), (None, 1), metrics.BinaryAccuracy),
        ((8,), (None, 3), metrics.SparseCategoricalAccuracy),
        ((8, 1), (None, 3), metrics.SparseCategoricalAccuracy),
        ((8, 3), (None, 3), metrics.CategoricalAccuracy),
    ],
)
def test_accuracy_is_chosen_by_kerass_rule(y_shape, output_shape, expected):
    assert type(metrics.resolve_accuracy("accuracy", y_shape, output_shape)) is expected
