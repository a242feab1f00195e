"""Setters of several things: after an error nothing has changed, and the error names the first thing that differs."""

import re

import numpy as np
import pytest

from normkit import RunningStats
from normkit.layers import (
    BatchNormalization,
    Dense,
    Dropout,
    GroupNormalization,
    Input,
    InstanceNormalization,
    Layer,
    LayerNormalization,
    Reshape,
    RMSNormalization,
)
from normkit.metrics import AUC, Mean
from normkit.models import Sequential, archive
from normkit.optimizers import SGD, Adam
from trainer_support import blobs
from whole_state import assert_same_state, state_of

X, Y = blobs(40)
ARCHITECTURES = {
    "plain": lambda: [Dense(8), Dense(3, "softmax")],
    "wider": lambda: [Dense(9), Dense(3, "softmax")],
    "longer": lambda: [Dense(8), Dense(8), Dense(3, "softmax")],
    "without bias": lambda: [Dense(8, use_bias=False), Dense(3, "softmax")],
    "batch norm": lambda: [Dense(8), BatchNormalization(), Dense(3, "softmax")],
    "batch norm, no scale": lambda: [Dense(8), BatchNormalization(scale=False), Dense(3, "softmax")],
    "layer norm": lambda: [Dense(8), LayerNormalization(), Dense(3, "softmax")],
    "rms norm": lambda: [Dense(8), RMSNormalization(), Dense(3, "softmax")],
    "dropout": lambda: [Dense(8), Dropout(0.5, seed=3), Dense(3, "softmax")],
    "dropout first": lambda: [Dropout(0.5), Dense(8), Dense(3, "softmax")],
    "dropout last": lambda: [Dense(8), Dense(3, "softmax"), Dropout(0.0)],
    "dropout twice": lambda: [Dense(8), Dense(3, "softmax"), Dropout(0.0), Dropout(0.0)],
    "double": lambda: [Dense(8, dtype="float64"), Dense(3, "softmax", dtype="float64")],
}
# The first layer that is another, from 0; "same" where the weights fit.
FIRST = {
    ("plain", "wider"): 0,
    ("plain", "longer"): 1,
    ("batch norm", "layer norm"): 1,
    ("plain", "dropout last"): 2,
}


def made(architecture, state, seed=0, optimizer="adam"):
    layers = ARCHITECTURES[architecture]() if isinstance(architecture, str) else architecture
    model = Sequential(([] if state == "unbuilt" else [Input((6,))]) + layers, seed=seed)
    if state in ("compiled", "trained"):
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    if state == "trained":
        model.fit(X, Y, verbose=0)
    return model


def refused(model, path, message="cannot be read as a normkit model: "):
    before = state_of(model)
    with pytest.raises(ValueError, match=message) as error:
        model.load_weights(path)
    assert_same_state(state_of(model), before)
    assert "\n" not in str(error.value)
    assert "zip()" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A trained model of each architecture as weights alone, and as a whole."""
    folder = tmp_path_factory.mktemp("files")
    for name in ARCHITECTURES:
        model = made(name, "trained", seed=5)
        model.save_weights(folder / f"{name} weights.safetensors")
        model.save(folder / f"{name} model.safetensors")
    return folder


@pytest.mark.parametrize("state", ["unbuilt", "built", "compiled", "trained"])
@pytest.mark.parametrize("ours", ARCHITECTURES)
def test_a_file_of_another_architecture(files, ours, state):
    """Each with each: all is refused, but weights into the same architecture."""
    for theirs in ARCHITECTURES:
        for kind in ("weights.safetensors", "model.safetensors"):
            model, path = made(ours, state), files / f"{theirs} {kind}"
            if ours == theirs:
                model.load_weights(path)
                continue
            message = refused(model, path)
            assert str(path) in message
            for pair in ((ours, theirs), (theirs, ours)):
                if pair in FIRST:
                    assert re.search(rf"layer {FIRST[pair]}\b|weights/{FIRST[pair]}/", message), message


MESSAGES = [
    ("wider", "plain", r"layer 0 is Dense 'dense', whose 'kernel' must have shape \(6, 9\), got \(6, 8\)"),
    ("double", "plain", "layer 0 is Dense 'dense', whose 'kernel' must be float64, got float32; make the model with that"),
    ("plain", "without bias", "it has no 'weights/0/bias', and in the model layer 0 is Dense 'dense' with 'bias' of shape"),
    ("without bias", "plain", "it has 'weights/0/bias', and the model has no such weight: its layer 0 is Dense 'dense' with kernel"),
    ("batch norm", "layer norm", "in the model layer 1 is BatchNormalization 'batch_normalization', in the file LayerNormalization"),
    ("dropout last", "plain", "the model has 3 layers, the file 2: as layer 2 expected Dropout 'dropout', got none"),
    ("dropout last", "dropout twice", "the model has 3 layers, the file 4: as layer 3 expected none, got Dropout"),
    ("plain", "longer", r"layer 1 is Dense 'dense_1', whose 'kernel' must have shape \(8, 3\), got \(8, 8\)"),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs", "message"), MESSAGES)
def test_the_error_names_the_first_difference(files, ours, theirs, message):
    refused(made(ours, "trained"), files / f"{theirs} weights.safetensors", message)


def test_layers_of_other_classes_whose_weights_have_the_same_names_and_shapes(tmp_path):
    kinds = [GroupNormalization(groups=2), InstanceNormalization(), LayerNormalization()]
    models = [Sequential([Input((6,)), Reshape((3, 2)), kind]) for kind in kinds]
    for i, model in enumerate(models):
        model.save_weights(tmp_path / f"{i}.safetensors")
    for i, model in enumerate(models):
        for j in range(3):
            if i == j:
                model.load_weights(tmp_path / f"{j}.safetensors")
            else:
                refused(model, tmp_path / f"{j}.safetensors", "in the model layer 1 is")


# --- files with defects ------------------------------------------------------------------------------

DEFECTS = {
    "a weight is missing": lambda c, a: a.pop("weights/3/bias"),
    "a weight is too many": lambda c, a: a.update({"weights/3/more": np.ones(3, np.float32)}),
    "a layer is too many": lambda c, a: a.update({"weights/9/kernel": np.ones(3, np.float32)}),
    "the last weight has another shape": lambda c, a: a.update({"weights/3/bias": np.ones((3, 1), np.float32)}),
    "the last weight has another dtype": lambda c, a: a.update({"weights/3/bias": np.ones(3)}),
    "a name is no number": lambda c, a: a.update({"weights/x/bias": np.ones(3, np.float32)}),
    "states are missing": lambda c, a: c["states"].pop(),
    "states are too many": lambda c, a: c["states"].append({}),
    "states are none": lambda c, a: c.update(states=None),
    "a count is negative": lambda c, a: c["states"][1].update(count=-1),
    "a count has another shape": lambda c, a: c["states"][1].update(samples=[1, 2, 3]),
    "a count is missing": lambda c, a: c["states"][1].pop("count"),
    "a generator's state is none": lambda c, a: c["states"][2].update(random_state={"bit_generator": "x"}),
    "a generator has no state": lambda c, a: c["states"][2].update(other=1) or c["states"][2].pop("random_state"),
    "a slot is missing": lambda c, a: a.pop("optimizer/velocity/3/bias"),
    "a slot has another shape": lambda c, a: a.update({"optimizer/velocity/3/bias": np.ones((3, 1), np.float32)}),
    "a slot has another dtype": lambda c, a: a.update({"optimizer/velocity/3/bias": np.ones(3)}),
    "iterations are negative": lambda c, a: c.update(iterations=-1),
    "iterations are no number": lambda c, a: c.update(iterations="many"),
    "the learning rate is negative": lambda c, a: c.update(learning_rate=-1.0),
    "the learning rate is a word": lambda c, a: c.update(learning_rate="fast"),
    "a trained weight is unknown": lambda c, a: c.pop("trained"),
}  # fmt: skip


def dropout_network():
    return [Dense(8), BatchNormalization(), Dropout(0.5, seed=3), Dense(3, "softmax")]


@pytest.mark.parametrize("state", ["unbuilt", "built", "compiled", "trained"])
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_file_with_a_defect(tmp_path, defect, state):
    made(dropout_network(), "trained", seed=5).save_weights(tmp_path / "w.safetensors")
    config, arrays = archive.read(tmp_path / "w.safetensors")
    arrays = dict(arrays)
    DEFECTS[defect](config, arrays)
    archive.write(tmp_path / "w.safetensors", config, arrays)
    model = made(dropout_network(), state)
    of_the_optimizer = any(word in defect for word in ("slot", "iterations", "learning", "trained"))
    if of_the_optimizer and state in ("unbuilt", "built"):
        model.load_weights(tmp_path / "w.safetensors")  # nobody asks for it
    else:
        refused(model, tmp_path / "w.safetensors")


def test_a_layer_that_fails_when_it_takes_its_state(tmp_path):
    class Fails(Layer):
        def forward(self, x, training):
            return x

        def backward(self, dy, input_gradient=True):
            return dy

        def set_state(self, state):
            if state:
                raise ValueError("no")

        def get_state(self):
            return {"some": 1} if self.full else {}

    def model(full):
        layer = Fails()
        layer.full = full
        return made([Dense(8), BatchNormalization(), layer, Dense(3, "softmax")], "trained")

    model(True).save_weights(tmp_path / "w.safetensors")
    refused(model(False), tmp_path / "w.safetensors", "no$")


def test_an_optimizer_of_another_kind_starts_anew_as_the_warning_says(tmp_path):
    made("plain", "trained", optimizer=SGD(0.1, 0.9)).save_weights(tmp_path / "w.safetensors")
    model = made("plain", "trained")
    before = state_of(model)
    with pytest.raises(UserWarning, match="starts anew"):  # as the tests make errors of warnings
        model.load_weights(tmp_path / "w.safetensors")
    assert_same_state(state_of(model), before)
    with pytest.warns(UserWarning, match="starts anew"):
        model.load_weights(tmp_path / "w.safetensors")
    assert model.optimizer.batches == 0
    assert not any(slot.any() for slots in model.optimizer.slots.values() for slot in slots)


# --- weights from a list -----------------------------------------------------------------------------

NOT_WEIGHTS = {
    "words": [["a"] * 3] * 8,
    "objects": np.array([[None] * 3] * 8),
    "complex": np.ones((8, 3), complex),
    "ragged": [[1.0], [1.0, 2.0]],
    "dates": np.zeros((8, 3), "datetime64[s]"),
    "shape": np.ones((3, 8)),
    "nothing": None,
}


@pytest.mark.parametrize("bad", NOT_WEIGHTS)
@pytest.mark.parametrize("state", ["built", "trained"])
def test_weights_that_are_none(bad, state):
    model = made("batch norm", state)
    weights = [w + 1 for w in model.get_weights()]
    before = state_of(model)
    for wrong in ([*weights[:-2], NOT_WEIGHTS[bad], weights[-1]], weights[:-1], [*weights, weights[0]], []):
        with pytest.raises((ValueError, TypeError)):
            model.set_weights(wrong)
        assert_same_state(state_of(model), before)
    layer = model.layers[-1]
    with pytest.raises((ValueError, TypeError)):
        layer.set_weights([NOT_WEIGHTS[bad], np.ones(3)])
    with pytest.raises((ValueError, TypeError)):
        layer.set_weights([np.ones((8, 3)), NOT_WEIGHTS[bad]])
    assert_same_state(state_of(model), before)


def test_weights_that_do_not_fit_into_the_dtype_where_that_is_an_error():
    model = made("plain", "trained")
    weights = [w.astype(np.float64) + 1 for w in model.get_weights()]
    weights[-1][0] = 1e300
    before = state_of(model)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        model.set_weights(weights)
    assert_same_state(state_of(model), before)


def test_weights_that_are_the_memory_of_others():
    """Two layers change places; and a layer gets a part of itself."""
    model = made([Dense(6), Dense(6), Dense(3, "softmax")], "trained")
    first, second = model.layers[0].get_weights(), model.layers[1].get_weights()
    values = [w.value for w in model.weights]
    model.set_weights([*values[2:4], *values[:2], *values[4:]])
    for found, expected in zip(model.get_weights(), [*second, *first], strict=False):
        np.testing.assert_array_equal(found, expected)
    kernel = model.layers[0].kernel.value
    flipped = kernel[::-1].copy()
    model.layers[0].set_weights([kernel[::-1], model.layers[0].bias.value])
    np.testing.assert_array_equal(model.layers[0].kernel.value, flipped)


# --- other states ------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [Mean(), AUC(10)])
def test_a_metric_takes_all_of_its_state_or_none(metric):
    metric.update_state(
        *([[1.0, 2.0]] if isinstance(metric, Mean) else [np.array([0, 1]), np.array([0.2, 0.7])])
    )
    before = {name: np.copy(value) for name, value in metric.get_state().items()}
    for name in before:
        state = {other: value * 0 for other, value in before.items() if other != name}
        with pytest.raises(KeyError):
            metric.set_state(state)
        np.testing.assert_equal(metric.get_state(), before)


def test_running_statistics_take_all_of_a_state_or_none():
    stats, other = RunningStats(3), RunningStats(3)
    other.mean, other.var, other.count = [1, 2, 3], [4, 5, 6], 7
    state, before = other.state_dict(), stats.state_dict()
    for name in state:
        for wrong in (np.ones(4), -1, "x", None):
            if name == "frozen":
                continue
            with pytest.raises((ValueError, TypeError)):
                stats.load_state_dict({**state, name: wrong})
            np.testing.assert_equal(stats.state_dict(), before)
    with np.errstate(all="raise"):
        stats.load_state_dict({**state, "mean": np.array([1e-300, 1e-320, 1e300])})
    assert stats.count == 7


def test_an_optimizer_keeps_its_settings_after_a_refusal():
    model = made("plain", "trained", optimizer=Adam(0.01))
    before = state_of(model)
    for name, value in (("learning_rate", -1), ("learning_rate", "fast"), ("use_ema", True)):
        with pytest.raises((ValueError, TypeError, AttributeError)):
            setattr(model.optimizer, name, value)
        assert_same_state(state_of(model), before)
