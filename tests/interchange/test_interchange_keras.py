"""Keras's files without Keras: one that it wrote, our own, and ones that are damaged."""

from __future__ import annotations

import io
import json
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from interchange_support import KERAS_FILE, assert_same_weights, every_layer, samples, tampered, trained
from normkit import RenormSchedule, RunningStats, layers
from normkit.interchange import load_keras, load_keras_weights, save_keras, save_keras_weights
from normkit.interchange.keras_config import _KNOWN
from normkit.models import Sequential
from normkit.models.saving import layer_registry

# What Keras printed when tests/interchange/files/make_keras_file.py wrote the file.
PREDICTED = [[0.743851, 0.256149], [0.65765935, 0.34234068], [0.3252569, 0.6747431], [0.8459776, 0.1540224]]
MOVING_MEAN = [1.4710037, 1.9433718, 0.54541093, -1.0217477]
MOVING_VARIANCE = [1.9868702, 2.37122, 2.6063972, 3.2511902]


def test_a_file_of_keras() -> None:
    model = load_keras(KERAS_FILE)
    x = np.random.default_rng(0).normal(3.0, 2.0, (64, 3)).astype(np.float32)
    np.testing.assert_allclose(model.predict(x[:4], verbose=0), PREDICTED, rtol=1e-6)
    first, norm, relu, dropout, last = model.layers
    assert model.input_shape == (None, 3)
    assert (first.name, norm.name, relu.name, dropout.rate) == (
        "first",
        "batch_normalization",
        "re_lu",
        0.1,
    )
    assert (norm.momentum, norm.epsilon, norm.axis) == (0.9, 1e-4, -1)
    assert norm.stats.momentum == pytest.approx(0.1)
    assert not norm.stats.unbiased
    np.testing.assert_array_equal(norm.stats.mean, np.float32(MOVING_MEAN))
    np.testing.assert_array_equal(norm.moving_variance.value, np.float32(MOVING_VARIANCE))
    assert first.kernel_regularizer.l2 == 0.001
    assert type(last.kernel_initializer).__name__ == "HeNormal"
    assert last.activation.name == "softmax"


def test_what_is_read_is_written_with_the_same_bits(tmp_path: Path) -> None:
    model = load_keras(KERAS_FILE)
    save_keras(model, tmp_path / "again.keras")
    again = load_keras(tmp_path / "again.keras")
    assert_same_weights(again.get_weights(), model.get_weights())
    assert [layer.get_config() for layer in again.layers] == [layer.get_config() for layer in model.layers]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_layer_goes_there_and_back(tmp_path: Path, dtype: str) -> None:
    model = trained(every_layer(), (4, 6), dtype)
    assert {type(layer).__name__ for layer in model.layers} == set(layer_registry.names)
    save_keras(model, tmp_path / "model.keras")
    again = load_keras(tmp_path / "model.keras")
    assert again.name == model.name
    assert again.dtype == model.dtype
    # Keras has instance norm as a group norm.
    groups = {layers.InstanceNormalization: {"groups": -1}}
    expected = [layer.get_config() | groups.get(type(layer), {}) for layer in model.layers]
    assert [layer.get_config() for layer in again.layers] == expected
    assert_same_weights(again.get_weights(), model.get_weights())
    np.testing.assert_array_equal(again.predict(samples(model)), model.predict(samples(model)))


def test_every_layer_is_known() -> None:
    assert set(_KNOWN) == set(layer_registry.names) - {"InstanceNormalization"}
    for name, known in _KNOWN.items():
        made = {"Dense": (2,), "Activation": ("relu",), "Dropout": (0.5,), "GaussianNoise": (1.0,)}
        made |= {"Reshape": ((1,),), "Rescaling": (2.0,)}
        config = known.cls(*made.get(name, ())).get_config()
        assert set(config) == {"name", "trainable", "dtype", *known.options.split()}


def test_weights_alone(tmp_path: Path) -> None:
    model = trained(every_layer(), (4, 6))
    other = Sequential([layers.Input((4, 6)), *every_layer()], seed=9)
    save_keras_weights(model, tmp_path / "model.weights.h5")
    load_keras_weights(other, tmp_path / "model.weights.h5")
    assert_same_weights(other.get_weights(), model.get_weights())
    with h5py.File(tmp_path / "model.weights.h5") as file:
        assert list(file["layers/dense_2/vars"]) == ["0", "1"]
        assert file["layers/batch_normalization_1/vars"].attrs["name"] == "named"

    third = Sequential([layers.Input((4, 6)), *every_layer()], seed=10)
    save_keras(model, tmp_path / "model.keras")
    load_keras_weights(third, tmp_path / "model.keras")
    assert_same_weights(third.get_weights(), model.get_weights())


def test_weights_of_a_file_of_a_model() -> None:
    model = load_keras(KERAS_FILE)
    model.set_weights([np.full_like(w, 0.5) for w in model.get_weights()])
    load_keras_weights(model, KERAS_FILE)
    assert_same_weights(model.get_weights(), load_keras(KERAS_FILE).get_weights())


def test_loading_into_a_model_that_trains_keeps_the_optimizer_at_work() -> None:
    model = load_keras(KERAS_FILE)
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = samples(model, 32), np.arange(32) % 2
    model.fit(x, y, verbose=0)
    load_keras_weights(model, KERAS_FILE)
    before = model.get_weights()
    assert_same_weights(before, load_keras(KERAS_FILE).get_weights())
    model.fit(x, y, verbose=0)
    assert not np.array_equal(before[0], model.get_weights()[0])


def nested(config: dict[str, Any]) -> None:
    """Put the last four layers into a Sequential of their own."""
    first, *rest = config["config"]["layers"][-5:]
    inner = {"class_name": "Sequential", "module": "keras", "config": {"name": "inner", "layers": rest}}
    config["config"]["layers"][-5:] = [first, inner]


def test_sequentials_within_are_one_row_of_layers(tmp_path: Path) -> None:
    path = tampered(tmp_path / "nested.keras", nested)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    content = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(content, "a") as file:
        inner = file.create_group("layers/sequential/layers")
        for old, new in (
            ("batch_normalization", "batch_normalization"),
            ("re_lu", "re_lu"),
            ("dropout", "dropout"),
            ("dense_1", "dense"),
        ):
            file.move(f"layers/{old}", f"{inner.name}/{new}")
    parts["model.weights.h5"] = content.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    model = load_keras(path)
    assert_same_weights(model.get_weights(), load_keras(KERAS_FILE).get_weights())
    load_keras_weights(model, path)


def option(index: int, **options: Any) -> Callable[[dict[str, Any]], None]:
    """Set options of a layer, counted from the end."""
    return lambda config: config["config"]["layers"][index]["config"].update(options)


def entry(index: int, **parts: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["config"]["layers"][index].update(parts)


L2 = {"module": "keras.regularizers", "class_name": "OrthogonalRegularizer", "config": {}}
LAMBDA = {"module": "builtins", "class_name": "function", "config": "mine", "registered_name": "function"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (entry(-1, class_name="Conv2D"), "layer 'dense' is a keras.layers.Conv2D, which normkit lacks"),
        (entry(-1, module="mine.layers"), "layer 'dense' is a mine.layers.Dense, which normkit lacks"),
        (
            option(-1, bias_constraint={"class_name": "NonNeg"}),
            r"'dense', a Dense, has bias_constraint=.*NonNeg",
        ),
        (option(-1, lora_rank=4), "'dense', a Dense, has lora_rank=4, which normkit lacks"),
        (option(-1, activation=LAMBDA), "'dense' has an activation that is no name"),
        (
            option(-1, activation="glu"),
            "layer 'dense': no activation 'glu'; did you mean 'gelu'\\? There are: relu",
        ),
        (
            option(-1, kernel_regularizer=L2),
            "layer 'dense': no regularizer 'OrthogonalRegularizer'; there are: l1, l2",
        ),
        (option(-1, units=-3), "layer 'dense': Dense: units must be a positive integer, got -3"),
        (
            option(-1, dtype="mixed_float16"),
            "layer 'dense': the dtype must be float32 or float64, got mixed_float16",
        ),
        (
            option(-1, dtype={"class_name": "QuantizedDTypePolicy", "config": {"name": "int8"}}),
            "got QuantizedDTypePolicy",
        ),
        (option(-2, noise_shape=[None, 1]), r"'dropout', a Dropout, has noise_shape=\[None, 1\]"),
        (option(-3, max_value=6.0), "'re_lu', a ReLU, has max_value=6.0"),
        (option(-4, renorm=True), "'batch_normalization', a BatchNormalization, has renorm=True"),
        (option(-4, axis=0), "axis 0 is the batch axis"),
        (option(-4, momentum=1.5), r"momentum must be in \[0, 1\], got 1.5"),
        (
            option(-1, units=10**12),
            r"Dense 'dense': 'kernel' must have shape \(4, 1000000000000\), the file has \(4, 2\)",
        ),
        (
            option(0, batch_shape=[None, 10**12]),
            r"'kernel' must have shape \(1000000000000, 4\), the file has \(3, 4\)",
        ),
        (option(0, ragged=True), "its input is sparse or ragged"),
        (option(0, batch_shape=[None, None]), "the shape of one sample is a tuple of positive integers"),
        (
            option(0, batch_shape=[None, 4]),
            "Dense 'first': 'kernel' must have shape (4, 4), the file has",
        ),
        (
            lambda config: config.update(class_name="Mine"),
            "the model is a Mine; only a Sequential, or a Func",
        ),
        (
            lambda config: config.update(class_name="Functional"),
            "it is damaged: config.json has no 'inbound_nodes' where one is needed$",
        ),
        (
            lambda config: config["config"].pop("layers"),
            "it is damaged: config.json has no 'layers' where one is needed$",
        ),
        (
            lambda config: config.pop("class_name"),
            "it is damaged: config.json has no 'class_name' where one is needed$",
        ),
        (
            lambda config: config.update(config=3),
            "it is damaged: config.json has a value of another kind, or fewer values, than Keras writes$",
        ),
        (
            lambda config: config["config"].update(layers=5),
            "it is damaged: config.json has a value of another kind",
        ),
        (entry(-1, config=7), "it is damaged: layer 4 in config.json has a value of another kind"),
        (
            lambda config: config["config"]["layers"][-1]["config"].pop("units"),
            "it is damaged: the config of layer 'dense', a Dense, has no 'units' where one is needed$",
        ),
        (
            option(-1, kernel_initializer=5),
            "it is damaged: layer 4 in config.json has a value of another kind",
        ),
        (lambda config: config["config"]["layers"].pop(), "it has weights in layers/dense_1/vars, and the"),
        (
            lambda config: config["config"]["layers"].append(config["config"]["layers"][-3]),
            None,
        ),
        (
            lambda config: config["config"]["layers"].append(config["config"]["layers"][-4]),
            r"'gamma' must have shape \(2,\), the file has none",
        ),
        (
            lambda config: (config["config"]["layers"].pop(0), config["config"].pop("build_input_shape")),
            "it was saved before the model had an input shape",
        ),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, change: Any, message: str | None) -> None:
    path = tampered(tmp_path / "other.keras", change)
    if message is None:  # one more ReLU, which has no weights
        assert len(load_keras(path).layers) == 6
        return
    with pytest.raises(ValueError, match=message.replace("(4, 4)", r"\(4, 4\)")) as caught:
        load_keras(path)
    assert str(caught.value).startswith(f"{path}: cannot be read as a .keras file: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        option(-3, max_value=None, threshold=0.0, negative_slope=0.0),
        option(-4, synchronized=True, renorm_clipping=None, renorm_momentum=0.5),
        option(-1, dtype="float32", something_new=None),
        option(-2, seed={"class_name": "SeedGenerator", "config": {"seed": 1}}),
    ],
)
def test_options_that_change_nothing_are_taken(tmp_path: Path, change: Any) -> None:
    model = load_keras(tampered(tmp_path / "other.keras", change))
    assert_same_weights(model.get_weights(), load_keras(KERAS_FILE).get_weights())


def test_an_initializer_that_is_not_known_is_named_and_replaced(tmp_path: Path) -> None:
    orthogonal = {"module": "keras.initializers", "class_name": "Orthogonal", "config": {"gain": 1.0}}
    path = tampered(tmp_path / "other.keras", option(-1, kernel_initializer=orthogonal))
    with pytest.warns(
        UserWarning, match="layer 'dense': kernel_initializer is a Orthogonal of {'gain': 1.0}"
    ):
        model = load_keras(path)
    assert type(model.layers[-1].kernel_initializer).__name__ == "GlorotUniform"
    assert_same_weights(model.get_weights(), load_keras(KERAS_FILE).get_weights())


@pytest.fixture(name="weights")
def weights_fixture(tmp_path: Path) -> Path:
    """The weights of Keras's file as a file of their own."""
    path = tmp_path / "model.weights.h5"
    with zipfile.ZipFile(KERAS_FILE) as archive:
        path.write_bytes(archive.read("model.weights.h5"))
    return path


def refused(path: Path, message: str) -> None:
    """Loading must fail, and leave the model alone."""
    model = load_keras(KERAS_FILE)
    model.set_weights([w + 1 for w in model.get_weights()])
    model.layers[1].stats.count = 7
    before = model.get_weights()
    with pytest.raises(ValueError, match=message) as caught:
        load_keras_weights(model, path)
    assert str(caught.value).startswith(f"{path}: cannot be read as weights of Keras: ")
    assert_same_weights(model.get_weights(), before)
    assert model.layers[1].stats.count == 7


LAST, NORM = "layers/dense_1/vars", "layers/batch_normalization/vars"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            f"{LAST}/1",
            np.zeros(3, "f4"),
            r"Dense 'dense': 'bias' must have shape \(2,\), layers/dense_1/vars/1 has \(3,\)",
        ),
        (f"{LAST}/1", np.zeros(2, "i4"), "vars/1 must be float32 or float64, is int32"),
        (f"{LAST}/1", None, r"expected 2 weights \(kernel, bias\) in layers/dense_1/vars, got 1"),
        (f"{LAST}/1", "group", "layers/dense_1/vars/1 is no array"),
        (f"{LAST}/1", h5py.SoftLink("/layers/dense_1/vars/0"), "'1' is a link"),
        ("layers/dense_1", h5py.ExternalLink("other.h5", "/"), "'layers/dense_1' is a link"),
        ("layers", h5py.ExternalLink("other.h5", "/"), "'layers' is a link"),
        ("layers/re_lu", h5py.ExternalLink("other.h5", "/"), "'layers/re_lu' is a link"),
        ("layers/dense_1", None, r"expected 2 weights \(kernel, bias\) in layers/dense_1/vars, got 0"),
        ("layers/dense_2/vars/0", np.zeros(2), "it has weights in layers/dense_2/vars, and the model has no"),
        ("layers/re_lu/vars/0", np.zeros(2), r"ReLU 're_lu': expected 0 weights \(\) in .*, got 1"),
        (f"{NORM}/3", np.float32([1, 1, -1, 1]), "running_var must be finite and not negative"),
        (f"{NORM}/2", np.float32([1, 1, np.nan, 1]), "running_mean must be finite in every channel"),
        ("layers", None, "it has no group 'layers'"),
        ("model_weights", "group", None),
    ],
)
def test_other_weights_are_refused(weights: Path, path: str, value: Any, message: str | None) -> None:
    with h5py.File(weights, "a") as file:
        if path in file:
            del file[path]
        if isinstance(value, str):
            file.create_group(path)
        elif value is not None:
            file[path] = value
    if message is None:
        with h5py.File(weights, "a") as file:
            del file["layers"]
        message = "older HDF5 format of Keras 2; load it with Keras, and save it as .keras"
    refused(weights, message)


def test_weights_that_are_elsewhere_are_refused(weights: Path) -> None:
    with h5py.File(weights, "a") as file:
        del file[f"{LAST}/1"]
        file[LAST].create_dataset("1", (2,), "f4", external=[("/dev/zero", 0, 8)])
    refused(weights, "layers/dense_1/vars/1 is no array in this file")


def test_states_of_random_generators_are_left_alone(weights: Path) -> None:
    with h5py.File(weights, "a") as file:
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)
        assert len(file["optimizer/vars"]) > 0
    load_keras_weights(load_keras(KERAS_FILE), weights)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_files_that_were_cut_off_are_refused(tmp_path: Path, weights: Path, share: float) -> None:
    content = KERAS_FILE.read_bytes()
    cut = tmp_path / "cut.keras"
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"cut\.keras: cannot be read as a \.keras file: "):
        load_keras(cut)
    content = weights.read_bytes()
    weights.write_bytes(content[: int(len(content) * min(share, 0.9))])
    refused(weights, ".")


def test_bytes_that_were_changed_never_give_anything_but_a_model_or_an_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    content = KERAS_FILE.read_bytes()
    path = tmp_path / "changed.keras"
    outcomes = set()
    for _ in range(150):
        changed = bytearray(content)
        for place in rng.integers(0, len(content), 20):
            changed[place] = rng.integers(0, 256)
        path.write_bytes(changed)
        try:
            load_keras(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: cannot be read as a .keras file: ")  # noqa: PT017
            outcomes.add("refused")
        else:
            outcomes.add("read")
    assert "refused" in outcomes


def test_other_files_are_refused(tmp_path: Path) -> None:
    model = load_keras(KERAS_FILE)
    model.save(tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match="it is no zip archive"):
        load_keras(tmp_path / "own.safetensors")
    with zipfile.ZipFile(KERAS_FILE) as old, zipfile.ZipFile(tmp_path / "zip.keras", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match=r"config\.json is compressed"):
        load_keras(tmp_path / "zip.keras")
    with pytest.raises(FileNotFoundError):
        load_keras(tmp_path / "none.keras")
    with pytest.raises(IsADirectoryError):
        load_keras(tmp_path)
    other = Sequential([layers.Dense(4, input_shape=(3,))])
    with pytest.raises(
        ValueError, match=r"it has the layers Dense, BatchNormalization, .*; the model has Dense"
    ):
        load_keras_weights(other, KERAS_FILE)


def norm(**options: Any) -> Sequential:
    return trained([layers.Dense(4), layers.BatchNormalization(**options)], (3,))


@pytest.mark.parametrize(
    ("options", "lacks"),
    [
        ({"stats": RunningStats.torch(4)}, "unbiased=True"),
        ({"stats": RunningStats(4, 0.1, unbiased=False, debias=True)}, "debias=True"),
        ({"stats": RunningStats(4, 0.1, unbiased=False, skip_nonfinite=True)}, "skip_nonfinite=True"),
        ({"stats": RunningStats(4, None, unbiased=False)}, "momentum=None"),
        ({"ghost_size": 8}, "ghost_size=8"),
        ({"renorm": RenormSchedule()}, "renorm=RenormSchedule"),
    ],
)
def test_what_keras_cannot_be_told_is_refused(tmp_path: Path, options: Any, lacks: str) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(b"as it was")
    with pytest.raises(
        ValueError, match=f"BatchNormalization 'batch_normalization': Keras has no {lacks}.*take"
    ):
        save_keras(norm(**options), path)
    assert path.read_bytes() == b"as it was"
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]


def test_rules_that_keras_has_are_written_as_its_momentum(tmp_path: Path) -> None:
    save_keras(norm(stats=RunningStats(4, 0.25, unbiased=False)), tmp_path / "model.keras")
    assert load_keras(tmp_path / "model.keras").layers[1].momentum == 0.75
    unbiased = norm(stats=RunningStats.torch(4, 0.25))
    unbiased.layers[1].stats.unbiased = False  # what the message says
    save_keras(unbiased, tmp_path / "model.keras")
    again = load_keras(tmp_path / "model.keras")
    assert again.layers[1].stats.momentum == 0.25
    assert_same_weights(again.get_weights(), unbiased.get_weights())


def test_wrong_arguments(tmp_path: Path) -> None:
    model, unbuilt = load_keras(KERAS_FILE), Sequential([layers.Dense(2)])
    with pytest.raises(ValueError, match=r"save_keras: Keras wants a name that ends in \.keras, got .*m\.h5"):
        save_keras(model, tmp_path / "m.h5")
    with pytest.raises(ValueError, match=r"Keras wants a name that ends in \.weights\.h5, got .*m\.h5"):
        save_keras_weights(model, tmp_path / "m.h5")
    with pytest.raises(
        ValueError, match="save_keras: model 'sequential' has no weights yet; give it an input"
    ):
        save_keras(unbuilt, tmp_path / "m.keras")
    with pytest.raises(ValueError, match="load_keras_weights: model 'sequential' has no weights yet"):
        load_keras_weights(unbuilt, KERAS_FILE)
    with pytest.raises(TypeError, match="save_keras: model must be a Sequential, got list"):
        save_keras([], tmp_path / "m.keras")
    slash = Sequential([layers.Dense(2, input_shape=(3,), name="a/b")])
    with pytest.raises(ValueError, match="Dense 'a/b': Keras allows no '/' in a name"):
        save_keras(slash, tmp_path / "m.keras")

    class Mine(layers.Dense):
        pass

    with pytest.raises(ValueError, match=r"cannot save layer of class .*Mine"):
        save_keras(Sequential([Mine(2, input_shape=(3,))]), tmp_path / "m.keras")
    assert list(tmp_path.iterdir()) == []


def test_without_h5py_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_keras(KERAS_FILE)
    monkeypatch.setitem(sys.modules, "h5py", None)
    what = "Keras's format is {} by h5py, which is not installed: pip install 'normkit\\[interchange\\]'"
    with pytest.raises(ModuleNotFoundError, match=what.format("read")):
        load_keras(KERAS_FILE)
    with pytest.raises(ModuleNotFoundError, match=what.format("written")):
        save_keras(model, tmp_path / "m.keras")


PYTHONS_OWN = re.compile(
    r"object is not|positional argument|indices must be|has no attribute|not supported between|operand"
    r"|not iterable|unhashable|not subscriptable|argument of type|object cannot be|must be str|NoneType|unpack|a real number"
)
OTHERS = (None, 5, -1.5, "x", "", [], [None], {}, {"class_name": "x"}, {"config": 3}, True, [[1], 2])


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in nested lists and dicts, as what it is in and its key."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from places(value[key])


def told_of(path: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            load_keras(path)
        except ValueError as error:
            return [str(error)]
    return [str(one.message) for one in warned]


def test_whatever_is_damaged_in_a_configuration_is_told_in_plain_words(tmp_path: Path) -> None:
    """Each value in turn is gone, or another."""
    with zipfile.ZipFile(KERAS_FILE) as archive:
        whole = json.loads(archive.read("config.json"))
    path, strange = tmp_path / "damaged.keras", {}
    rng = np.random.default_rng(0)
    count = sum(1 for _ in places(whole))
    for index in range(count):
        for other in ("gone", *rng.choice(len(OTHERS), 2, replace=False).tolist()):

            def change(config: dict[str, Any], index: int = index, other: Any = other) -> None:
                parent, key = list(places(config))[index]
                if other == "gone":
                    del parent[key]
                else:
                    parent[key] = OTHERS[other]

            for text in told_of(tampered(path, change)):
                assert "\n" not in text
                if PYTHONS_OWN.search(text):
                    strange[index, other] = text
    assert not strange, "\n".join(f"{where}: {text}" for where, text in strange.items())
