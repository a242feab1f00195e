"""What the tests of the trainer share: data that can be learned, and the model of the tutorials in small."""

import numpy as np

from normkit.layers import (
    BatchNormalization,
    Dense,
)
from normkit.models import Sequential


def blobs(n=300, features=6, classes=3, seed=0):
    """Points around `classes` centers."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    centers = rng.normal(size=(classes, features)) * 3
    return (centers[y] + rng.normal(size=(n, features))).astype(np.float32), y


def classifier(seed=0, optimizer="adam", metrics=("accuracy",), **kwargs):
    model = Sequential(
        [Dense(8, input_shape=(6,)), BatchNormalization(), Dense(3, activation="softmax")],
        seed=seed,
        **kwargs,
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=list(metrics))
    return model


def assert_same_weights(one, two):
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
