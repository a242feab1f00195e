"""Saving: training goes on bit for bit, and a bad file is a ValueError of one line."""

import errno

import numpy as np
import pytest

from normkit import activations, initializers
from normkit.layers import (
    Activation,
    BatchNormalization,
    Dense,
    Input,
    Layer,
)
from normkit.losses import CategoricalCrossentropy
from normkit.metrics import BinaryAccuracy
from normkit.models import Sequential, load_model, safetensors, save_model
from normkit.optimizers import SGD, Adam, RMSprop
from trainer_support import assert_same_weights, data, network, saved


@pytest.mark.parametrize(
    "optimizer",
    [
        "sgd",
        SGD(0.1, 0.9, True),
        "adam",
        Adam(0.01, amsgrad=True),
        "adamw",
        RMSprop(momentum=0.5, centered=True),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_goes_on_bit_for_bit(tmp_path, optimizer, dtype):
    x, y = data()
    model = network(dtype=dtype)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=2, verbose=0)
    path, _ = saved(tmp_path, model)
    again = load_model(path)
    assert_same_weights(model.get_weights(), again.get_weights())
    assert again.optimizer.iterations == model.optimizer.iterations == 6
    first, second = (m.fit(x, y, epochs=2, verbose=0) for m in (model, again))
    assert first.history == second.history
    assert_same_weights(model.get_weights(), again.get_weights())


def test_everything_is_restored(tmp_path):
    path, model = saved(tmp_path)
    again = load_model(path)
    assert again.name == "net"
    assert again.input_shape == (None, 3, 2)
    assert [layer.get_config() for layer in again.layers] == [layer.get_config() for layer in model.layers]
    assert again.optimizer.get_config() == model.optimizer.get_config()
    x, y = data()
    assert again.evaluate(x, y) == model.evaluate(x, y)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_without_compiling(tmp_path):
    path, model = saved(tmp_path)
    again = load_model(path, compile=False)
    assert not again.compiled
    np.testing.assert_array_equal(again.predict(data()[0]), model.predict(data()[0]))
    path, _ = saved(tmp_path, again)
    assert not load_model(path).compiled


def test_compiled_but_not_trained(tmp_path):
    model = network()
    loss = CategoricalCrossentropy(label_smoothing=0.1)
    model.compile(SGD(0.3), loss, metrics=[BinaryAccuracy("near", 0.4)], weighted_metrics=["accuracy"])
    path, _ = saved(tmp_path, model)
    again = load_model(path)
    assert again.loss.get_config() == loss.get_config()
    x, y = data()
    logs = again.evaluate(x, np.eye(3)[y], return_dict=True)
    assert list(logs) == ["loss", "near", "accuracy"]
    assert logs == model.evaluate(x, np.eye(3)[y], return_dict=True)


def test_frozen_layers_stay_frozen(tmp_path):
    model = network()
    model.layers[1].trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*data(), verbose=0)
    path, _ = saved(tmp_path, model)
    again = load_model(path)
    for m in (model, again):
        m.fit(*data(), verbose=0)
    assert not again.layers[1].trainable
    assert_same_weights(model.get_weights(), again.get_weights())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_frozen_after_training(tmp_path, optimizer):
    """The optimizer's state is that of the weights that were trained; unfrozen again, training goes on."""
    model = network()
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(*data(), verbose=0)
    model.layers[1].trainable = False
    path, _ = saved(tmp_path, model)
    again = load_model(path)
    assert not again.layers[1].trainable
    for m in (model, again):
        with pytest.raises(ValueError, match="changed since compile"):
            m.fit(*data(), verbose=0)
        m.layers[1].trainable = True
        m.fit(*data(), verbose=0)
    assert_same_weights(model.get_weights(), again.get_weights())


def test_replaces_a_file_and_leaves_no_other(tmp_path):
    path, model = saved(tmp_path)
    model.fit(*data(), verbose=0)
    model.save(path)
    assert_same_weights(load_model(path).get_weights(), model.get_weights())
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path, model = saved(tmp_path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("normkit.models.archive.os.fsync", fail)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        model.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_numpy_numbers_among_the_arguments(tmp_path):
    initializer = initializers.GlorotUniform(seed=np.int64(3))
    model = Sequential([Input((2,)), Dense(1, use_bias=np.False_, kernel_initializer=initializer)])
    path, _ = saved(tmp_path, model)
    assert load_model(path).layers[0].get_config() == model.layers[0].get_config()
    initializer.seed = object()
    with pytest.raises(TypeError, match="cannot save <object"):
        model.save(path)
    assert load_model(path).layers[0].kernel_initializer.seed == 3


def test_the_arrays_by_their_names(tmp_path):
    path, model = saved(tmp_path)
    _, arrays = safetensors.parse(path.read_bytes())
    expected = {
        f"weights/{index}/{weight.name}": weight.value
        for index, layer in enumerate(model.layers)
        for weight in layer.weights
    }
    assert len(expected) == 9
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[name], value, strict=True)
    trained = [name.partition("/")[2] for name in expected if "moving" not in name]
    assert arrays.keys() - expected == {
        f"optimizer/{slot}/{key}" for slot in ("momentum", "velocity") for key in trained
    }


def test_what_cannot_be_saved(tmp_path):
    class Mine(Layer):
        pass

    with pytest.raises(ValueError, match="is not built"):
        save_model(Sequential([Dense(2)]), tmp_path / "m.safetensors")
    with pytest.raises(
        ValueError, match=r"cannot save layer of class .*\.Mine; can: Dense, BatchNormalization"
    ):
        save_model(Sequential([Input((2,)), Mine()]), tmp_path / "m.safetensors")


def subclass(cls, name="Mine"):
    return type(name, (cls,), {})


@pytest.mark.parametrize("name", ["Mine", None])
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda cls: {"layer": cls(Dense)(3, "softmax")}, "layer"),
        (lambda cls: {"layer": Dense(3, cls(type(activations.relu))())}, "activation"),
        (lambda cls: {"layer": Activation(cls(type(activations.softmax))())}, "activation"),
        (lambda cls: {"layer": Dense(3, kernel_initializer=cls(initializers.Zeros)())}, "initializer"),
        (lambda cls: {"layer": BatchNormalization(beta_initializer=cls(initializers.Zeros)())}, "initializer"),
        (lambda cls: {"optimizer": cls(Adam)()}, "optimizer"),
        (lambda cls: {"loss": cls(CategoricalCrossentropy)()}, "loss"),
        (lambda cls: {"metric": cls(BinaryAccuracy)()}, "metric"),
    ],
)  # fmt: skip
def test_classes_of_others_are_refused_and_the_file_stays(tmp_path, make, kind, name):
    """Also those with the name of one of this package."""
    path, _ = saved(tmp_path)
    before = path.read_bytes()
    parts = make(lambda cls: subclass(cls, name or cls.__name__))
    model = Sequential([Input((3,)), parts.get("layer", Dense(3, "softmax"))])
    model.compile(
        parts.get("optimizer", "sgd"),
        parts.get("loss", "categorical_crossentropy"),
        metrics=parts.get("metric"),
    )
    with pytest.raises(ValueError, match=f"cannot save {kind} .*of class .*; can: ") as error:
        model.save(path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
