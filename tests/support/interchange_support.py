"""What the tests of interchange share: models that have been trained, and files that have been tampered with."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from normkit import layers, regularizers
from normkit.models import Sequential

KERAS_FILE = Path(__file__).parents[1] / "interchange" / "files" / "keras-3.15.keras"


def trained(parts: list[Any], input_shape: tuple[int, ...], dtype: str = "float32") -> Sequential:
    """Return a model of these layers after 10 batches with means and variances far from 0 and 1."""
    model = Sequential([layers.Input(input_shape), *parts], seed=1, dtype=dtype)
    rng = np.random.default_rng(2)
    model.compile("sgd", "mse")
    x = rng.normal(2.0, 3.0, (320, *input_shape))
    model.fit(x, rng.normal(size=(320, *model.output_shape[1:])), epochs=1, verbose=0)
    return model


def every_layer() -> list[Any]:
    """Return one of each of this package's layers, for samples of shape (4, 6)."""
    return [
        layers.Dense(6, "tanh", kernel_initializer="he_normal", kernel_regularizer="l2"),
        layers.LayerNormalization(axis=(1, 2), epsilon=1e-5, gamma_regularizer=regularizers.L1(0.5)),
        layers.BatchNormalization(axis=1, momentum=0.8, scale=False),
        layers.RMSNormalization(epsilon=1e-4),
        layers.GroupNormalization(2, axis=1, epsilon=1e-4),
        layers.InstanceNormalization(axis=1, center=False),
        layers.Flatten(),
        layers.Dense(12, use_bias=False, trainable=False, bias_regularizer="l1_l2"),
        layers.BatchNormalization(momentum=0.9, epsilon=1e-4, name="named"),
        layers.ReLU(),
        layers.Dropout(0.25, seed=3),
        layers.GaussianNoise(0.1),
        layers.Reshape((3, -1)),
        layers.LeakyReLU(0.1),
        layers.Rescaling(0.5, 1.0),
        layers.ELU(0.7),
        layers.LayerNormalization(center=False),
        layers.Flatten(),
        layers.Dense(5),
        layers.Activation("gelu"),
        layers.Softmax(),
    ]


def samples(model: Sequential, count: int = 9) -> np.ndarray:
    """Return inputs for a model."""
    assert model.input_shape is not None
    shape = (count, *(n or 0 for n in model.input_shape[1:]))
    return np.random.default_rng(3).normal(2.0, 3.0, shape).astype(model.layers[0].dtype)


def assert_same_weights(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    """Compare lists of weights bit by bit."""
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)


def tampered(target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Write Keras's file anew with another config.json."""
    with zipfile.ZipFile(KERAS_FILE) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            new.writestr(name, content)
    return target
