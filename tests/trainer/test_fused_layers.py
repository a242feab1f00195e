"""An activation behind a normalization runs in the same pass, with the results of the two layers alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from normkit.layers import (
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    GroupNormalization,
    Input,
    InstanceNormalization,
    Layer,
    LayerNormalization,
    ReLU,
    RMSNormalization,
)
from normkit.models import Sequential, load_model
from normkit.optimizers import SGD
from normkit.small_batches import RenormSchedule
from trainer_support import blobs

FUSED = [
    (BatchNormalization, {}, "relu"),
    (BatchNormalization, {"trainable": False}, "relu"),
    (BatchNormalization, {"scale": False}, "relu"),
    (GroupNormalization, {"groups": 2}, "relu"),
    (InstanceNormalization, {"axis": 1}, "relu"),
    *((cls, {}, name) for cls in (LayerNormalization, RMSNormalization) for name in ("relu", "gelu", "silu")),
]


class Apart(Layer):
    """The identity, which keeps its neighbours from being fused."""

    def forward(self, x: Any, training: bool) -> Any:
        return x

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        return dy if input_gradient else None


def network(norm: Layer, activation: Layer, *between: Layer, dtype: str = "float32") -> Sequential:
    shape = (3, 8)
    front = [Input(shape), Dense(8), norm, *between, activation, Dense(4, "tanh"), Dense(1)]
    model = Sequential(front, seed=3, dtype=dtype)
    model.compile(SGD(0.05), "mse")
    return model


def count_calls(monkeypatch: pytest.MonkeyPatch, layer: Layer) -> list[str]:
    """Return a list that is added to whenever the activation layer itself works."""
    calls: list[str] = []
    for name in ("forward", "backward"):
        method = getattr(layer, name)

        def counted(*given: Any, _name: str = name, _method: Any = method, **named: Any) -> Any:
            calls.append(_name)
            return _method(*given, **named)

        monkeypatch.setattr(layer, name, counted)
    return calls


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cls", "options", "name"), FUSED)
def test_training_is_that_of_two_layers(
    cls: type[Layer], options: dict[str, Any], name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3, 8)).astype(dtype), rng.normal(size=(40, 3, 1)).astype(dtype)
    activation = Activation(name)
    fused, apart = (
        network(cls(**options), activation, dtype=dtype),
        network(cls(**options), Activation(name), Apart(), dtype=dtype),
    )
    calls = count_calls(monkeypatch, activation)
    losses = [
        model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0).history["loss"]
        for model in (fused, apart)
    ]
    results = [model.predict(x, verbose=0) for model in (fused, apart)]
    assert calls == []
    if name == "relu":
        np.testing.assert_array_equal(*results)
        assert losses[0] == losses[1]
        for one, other in zip(fused.get_weights(), apart.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    else:
        few = 200 * np.finfo(dtype).eps
        np.testing.assert_allclose(*results, rtol=few, atol=few)
        np.testing.assert_allclose(*losses, rtol=few)
        for one, other in zip(fused.get_weights(), apart.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=few, atol=few)


def test_the_layers_stay_what_they_are(tmp_path: Any) -> None:
    x, y = blobs(200, features=12, classes=3)
    model = Sequential([Input((12,)), Dense(16), BatchNormalization(), ReLU(), Dense(3, "softmax")], seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=3, verbose=0)
    assert [type(layer).__name__ for layer in model.layers] == [
        "Dense",
        "BatchNormalization",
        "ReLU",
        "Dense",
    ]
    by_hand = x
    for layer in model.layers:
        by_hand = layer(by_hand)
    np.testing.assert_array_equal(model.predict(x, batch_size=200, verbose=0), by_hand)
    assert (model.layers[1](model.layers[0](x)) < 0).any()
    model.save(tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


class Shifted(BatchNormalization):
    """A subclass with a forward pass of its own."""

    def forward(self, x: Any, training: bool) -> Any:  # type: ignore[override]
        return super().forward(x, training) + 1


@pytest.mark.parametrize(
    ("norm", "activation"),
    [
        (lambda: BatchNormalization(), lambda: Activation("gelu")),
        (lambda: BatchNormalization(ghost_size=4), ReLU),
        (lambda: BatchNormalization(renorm=RenormSchedule()), ReLU),
        (lambda: BatchNormalization(dtype="float64"), ReLU),
        (Shifted, ReLU),
        (lambda: LayerNormalization(), lambda: Activation("tanh")),
    ],
)
def test_what_is_not_fused(norm: Any, activation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = activation()
    model = network(norm(), layer)
    calls = count_calls(monkeypatch, layer)
    rng = np.random.default_rng(0)
    model.train_on_batch(rng.normal(size=(8, 3, 8)), rng.normal(size=(8, 3, 1)))
    assert calls == ["forward", "backward"]


def test_a_layer_between_them_keeps_them_apart() -> None:
    model = network(BatchNormalization(), ReLU(), Dropout(0.5))
    rng = np.random.default_rng(0)
    assert np.isfinite(model.train_on_batch(rng.normal(size=(8, 3, 8)), rng.normal(size=(8, 3, 1))))


def test_the_normalization_may_be_the_last_but_one_layer() -> None:
    """With relu behind it, and with an activation that the loss takes along."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 5)).astype(np.float32)
    for last, loss, y in (
        (Activation("relu"), "mse", rng.random((16, 3))),
        (Activation("softmax"), "sparse_categorical_crossentropy", rng.integers(0, 3, 16)),
    ):
        model = Sequential([Input((5,)), Dense(3), LayerNormalization(), last], seed=0)
        model.compile(SGD(0.1), loss)
        history = model.fit(x, y, epochs=20, verbose=0).history["loss"]
        assert history[-1] < history[0]
