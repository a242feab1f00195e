"""What the tests of the trainer share: data that can be learned, and the model of the tutorials in small."""

import numpy as np

from normkit.layers import (
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    Input,
    LayerNormalization,
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
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def data(n=80):
    """Random samples of shape (3, 2) for `network`."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 3, 2)).astype(np.float32), rng.integers(0, 3, n)


def network(seed=0, **kwargs):
    """A model with every kind of layer."""
    return Sequential(
        [
            Input((3, 2)),
            Flatten(),
            Dense(8, "gelu", kernel_initializer="he_normal"),
            BatchNormalization(momentum=0.8),
            Dropout(0.2),
            LayerNormalization(epsilon=1e-5),
            Dense(3, use_bias=False),
            Activation("softmax"),
        ],
        name="net",
        seed=seed,
        **kwargs,
    )


def saved(tmp_path, model=None):
    """Path of a saved model, and the model: that given, or one that was trained."""
    path = tmp_path / "model.safetensors"
    if model is None:
        model = network()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(*data(), verbose=0)
    model.save(path)
    return path, model
