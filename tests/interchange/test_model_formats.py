"""Files of models: the ending says what is written, the content what is read, and every other file is an error that says what
to do.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors import numpy as safetensors

from interchange_support import KERAS_FILE, tampered
from normkit import interchange, losses, metrics, optimizers
from normkit.callbacks import ModelCheckpoint
from normkit.layers import Activation, BatchNormalization, Dense
from normkit.models import Sequential, load_model, load_weights, save_model, save_weights
from normkit.optimizers import schedules
from trainer_support import assert_same_weights, blobs, classifier

ENDINGS = ".safetensors, .keras, .weights.h5, .onnx"
WEIGHTS = ".safetensors, .weights.h5"


def fitted(**kwargs: Any) -> Sequential:
    model = classifier(**kwargs)
    model.fit(*blobs(), epochs=1, verbose=0)
    return model


def is_of(path: Path, ending: str) -> bool:
    """Whether a file is what its ending promises, by another library."""
    match ending:
        case ".safetensors":
            return "weights/0/kernel" in safetensors.load_file(path)
        case ".keras":
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))["class_name"] == "Sequential"
        case ".weights.h5":
            with h5py.File(path) as file:
                return "layers/dense/vars/0" in file
    import onnx

    onnx.checker.check_model(onnx.load(path), full_check=True)
    return True


# writing


@pytest.mark.parametrize("ending", ENDINGS.split(", "))
@pytest.mark.parametrize("stem", ["model", "a.b", "v1.keras", "naïve modèle", ".hidden"])
@pytest.mark.parametrize("kind", [str, Path])
def test_the_ending_says_what_is_written(tmp_path: Path, ending: str, stem: str, kind: Any) -> None:
    path = tmp_path / (stem + ending)
    fitted().save(kind(path))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert is_of(path, ending)


@pytest.mark.parametrize("ending", WEIGHTS.split(", "))
def test_and_of_weights_alone(tmp_path: Path, ending: str) -> None:
    model, other = fitted(), classifier(seed=5)
    path = tmp_path / f"w{ending}"
    model.save_weights(path)
    assert is_of(path, ending)
    other.load_weights(path)
    assert_same_weights(model.get_weights(), other.get_weights())


NO_ENDING = [
    "model",
    "model.",
    "model.h5",
    "model.npz",
    "model.pt",
    "model.nk",
    "keras",
    "m.keras.bak",
    "m.tf",
    "v1.keras/m",
]


@pytest.mark.parametrize("name", NO_ENDING)
def test_another_ending_is_an_error_that_lists_them(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    message = f"{path}: expected a name that ends in one of "
    for act, endings in (
        (lambda: fitted().save(path), ENDINGS),
        (lambda: save_model(fitted(), str(path)), ENDINGS),
        (lambda: fitted().save_weights(path), WEIGHTS),
        (lambda: save_weights(fitted(), str(path)), WEIGHTS),
        (lambda: ModelCheckpoint(path), ENDINGS),
        (lambda: ModelCheckpoint(path, save_weights_only=True), WEIGHTS),
    ):
        with pytest.raises(ValueError, match="expected a name") as error:
            act()
        assert str(error.value) == message + endings
    assert not path.exists()


@pytest.mark.parametrize("name", ["m.keras", "m.onnx"])
def test_weights_alone_are_no_model(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a name that ends in one of {WEIGHTS}"):
        fitted().save_weights(tmp_path / name)


def test_endings_in_upper_case(tmp_path: Path) -> None:
    model = fitted()
    for name in ("M.SAFETENSORS", "M.Onnx"):
        model.save(tmp_path / name)
        assert is_of(tmp_path / name, os.path.splitext(name)[1].lower())  # noqa: PTH122
    assert_same_weights(load_model(tmp_path / "M.SAFETENSORS").get_weights(), model.get_weights())


@pytest.mark.parametrize("name", ["M.KERAS", "m.Keras", "M.WEIGHTS.H5", "M.Weights.H5", "M.weights.H5"])
def test_keras_opens_lower_case_alone(tmp_path: Path, name: str) -> None:
    """So no file of another name is written, nor is anything done before that is said."""
    path = tmp_path / name
    ending = next(ending for ending in (".keras", ".weights.h5") if name.lower().endswith(ending))
    message = (
        f"{path}: expected a name that ends in {ending}, in lower case; Keras opens no other, "
        f"so write {name[0]}{ending}"
    )
    saving = [lambda: classifier().save(path), lambda: ModelCheckpoint(path)]
    if ending == ".weights.h5":
        saving += [
            lambda: classifier().save_weights(path),
            lambda: ModelCheckpoint(path, save_weights_only=True),
        ]
    for act in saving:
        with pytest.raises(ValueError, match="in lower case") as error:
            act()
        assert str(error.value) == message
    assert list(tmp_path.iterdir()) == []
    model = fitted()
    model.save(tmp_path / f"m{ending}")
    (tmp_path / f"m{ending}").rename(path)  # reading goes by the content
    other = classifier(seed=5)
    other.load_weights(path)
    assert_same_weights(other.get_weights(), model.get_weights())


@pytest.mark.parametrize("ending", ENDINGS.split(", "))
def test_an_existing_file_stays_if_asked_and_if_saving_fails(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"m{ending}"
    path.write_bytes(b"before")
    with pytest.raises(FileExistsError, match="is there already; pass overwrite=True to replace it"):
        fitted().save(path, overwrite=False)
    with pytest.raises(ValueError, match=r"(has no weights yet|is not built); give"):
        Sequential([Dense(2)]).save(path)
    assert path.read_bytes() == b"before"
    fitted().save(path)
    assert is_of(path, ending)


@pytest.mark.parametrize(
    ("ending", "package"), [(".keras", "h5py"), (".weights.h5", "h5py"), (".onnx", "onnx")]
)
def test_a_missing_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, package: str
) -> None:
    path, model = tmp_path / f"m{ending}", fitted()
    model.save(path)
    content = path.read_bytes()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ModuleNotFoundError, match=rf"{package}, which is not installed: pip install 'normkit\["
    ):
        model.save(path)
    assert path.read_bytes() == content
    with pytest.raises(
        ModuleNotFoundError, match=rf"{ending} is written by {package}, which is not installed"
    ):
        ModelCheckpoint(tmp_path / f"{{epoch}}{ending}", save_weights_only=ending == ".weights.h5")
    if ending == ".keras":
        with pytest.raises(
            ModuleNotFoundError, match=r"h5py, which is not installed: pip install 'normkit\["
        ):
            load_model(path)


def test_a_checkpoint_is_of_the_format_of_its_ending(tmp_path: Path) -> None:
    model = classifier()
    names = ["{epoch}.keras", "{epoch}.safetensors", "{epoch}.onnx"]
    callbacks = [ModelCheckpoint(tmp_path / name) for name in names]
    callbacks += [ModelCheckpoint(tmp_path / "{epoch:02d}-w.weights.h5", save_weights_only=True)]
    model.fit(*blobs(), epochs=2, verbose=0, callbacks=callbacks)
    for epoch in (1, 2):
        for name in names:
            assert is_of(tmp_path / name.format(epoch=epoch), name[7:])
        assert is_of(tmp_path / f"{epoch:02d}-w.weights.h5", ".weights.h5")
    assert_same_weights(load_model(tmp_path / "2.keras").get_weights(), model.get_weights())


# reading


@pytest.mark.parametrize("ending", [".safetensors", ".keras"])
@pytest.mark.parametrize("optimizer", optimizers.registry.names)
def test_training_goes_on_after_loading(tmp_path: Path, ending: str, optimizer: str) -> None:
    """A .keras has all but the random generator: without shuffling that makes no difference."""
    model = fitted(
        optimizer=optimizers.get({"class_name": optimizer, "config": {"gradient_accumulation_steps": 2}})
    )
    model.save(tmp_path / f"m{ending}")
    again = load_model(tmp_path / f"m{ending}")
    assert again.optimizer.get_config() == model.optimizer.get_config()
    first, second = (m.fit(*blobs(), epochs=2, shuffle=False, verbose=0).history for m in (model, again))
    assert first == second
    assert list(first) == ["loss", "accuracy"]
    assert_same_weights(again.get_weights(), model.get_weights())
    assert not load_model(tmp_path / f"m{ending}", compile=False).compiled


@pytest.mark.parametrize("name", ["model.safetensors", "model.keras", "model.nk", "model"])
@pytest.mark.parametrize("ending", [".safetensors", ".keras"])
def test_the_content_says_what_is_read(tmp_path: Path, name: str, ending: str) -> None:
    """Files of our format that were written under other endings are opened as well."""
    model = fitted()
    model.save(tmp_path / f"saved{ending}")
    (tmp_path / f"saved{ending}").rename(tmp_path / name)
    assert_same_weights(load_model(tmp_path / name).get_weights(), model.get_weights())
    other = classifier(seed=3)
    load_weights(other, str(tmp_path / name))
    assert_same_weights(other.get_weights(), model.get_weights())


def test_a_file_that_keras_wrote() -> None:
    model = load_model(KERAS_FILE)
    assert (type(model.optimizer).__name__, model.optimizer.iterations) == ("SGD", 10)
    assert type(model.loss).__name__ == "SparseCategoricalCrossentropy"
    x = np.random.default_rng(0).normal(3.0, 2.0, (64, 3)).astype(np.float32)
    np.testing.assert_array_equal(model.predict(x), interchange.load_keras(KERAS_FILE).predict(x))
    assert not load_model(str(KERAS_FILE), compile=False).compiled


def test_what_cannot_be_loaded_says_what_to_do(tmp_path: Path) -> None:
    model = fitted()
    for ending, message in (
        (
            ".weights.h5",
            "is an HDF5 file, which has weights alone; make the model as before and call its load_weights",
        ),
        (
            ".onnx",
            "is an ONNX file, a graph that only predicts; load the .safetensors or .keras of this model",
        ),
    ):
        path = tmp_path / f"m{ending}"
        model.save(path)
        with pytest.raises(ValueError, match=message) as error:
            load_model(path)
        assert str(error.value).startswith(f"{path}: is an ")
    with pytest.raises(
        ValueError, match=r"m\.onnx: is an ONNX file, .*; load the weights of a \.safetensors, "
    ):
        model.load_weights(tmp_path / "m.onnx")
    model.save_weights(tmp_path / "w.safetensors")
    with pytest.raises(
        ValueError, match="it has weights alone; make the model as before and call its load_weights"
    ):
        load_model(tmp_path / "w.safetensors")
    for style, whose, more in (("torch", "torch's", ""), ("keras", "Keras's", ', style="keras"')):
        path = tmp_path / f"{style}.safetensors"
        interchange.save_safetensors(model, path, style=style)
        for act in (load_model, model.load_weights):
            with pytest.raises(ValueError, match="has weights under") as error:
                act(path)
            assert str(error.value).endswith(
                f"it has weights under {whose} names; make the model as before, and load it with "
                f"normkit.interchange.load_safetensors(model, path{more})"
            )


def test_weights_of_keras_need_a_model_that_is_built(tmp_path: Path) -> None:
    fitted().save(tmp_path / "m.keras")
    lazy = Sequential([Dense(8), BatchNormalization(), Dense(3, "softmax")])
    with pytest.raises(
        ValueError, match="has no weights yet; give it an input_shape, or call it on a batch first"
    ):
        lazy.load_weights(tmp_path / "m.keras")


@pytest.mark.parametrize(
    "content", [b"", b"P", b"PK\3\4", b"\x89HDF\r\n\x1a\n", b"{}", b"\0" * 99, b"{" * 99]
)
@pytest.mark.parametrize("name", ["m.safetensors", "m.keras", "m.weights.h5", "m.onnx", "m"])
def test_rubbish_under_every_ending(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    for act in (load_model, classifier().load_weights):
        with pytest.raises(ValueError, match=name) as error:
            act(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(error.value)


# what one of the formats cannot hold


def test_what_keras_lacks_is_told(tmp_path: Path) -> None:
    model = classifier()
    accumulating = optimizers.SGD(gradient_accumulation_steps=2)
    for change, lack in (
        ({"optimizer": optimizers.SGD(schedules.OneCycle(0.1, 10))}, "Keras has no schedule OneCycle"),
        ({"optimizer": accumulating, "merge_statistics": True}, "Keras has no merge_statistics"),
        ({"optimizer": optimizers.SGD(lambda: 0.1)}, "cannot save the learning rate"),
        ({"metrics": [lambda a, b: a.ravel()]}, "cannot save metric of class"),
    ):
        model.compile(**{"optimizer": "sgd", "loss": "sparse_categorical_crossentropy", **change})
        with pytest.warns(
            UserWarning, match=f"{lack}.*has the model without its optimizer, loss and metrics"
        ):
            model.save(tmp_path / "m.keras")
        again = load_model(tmp_path / "m.keras")
        assert not again.compiled
        assert_same_weights(again.get_weights(), model.get_weights())
    ghosts = Sequential([Dense(2, input_shape=(3,)), BatchNormalization(ghost_size=4)])
    with pytest.raises(ValueError, match="Keras has no ghost_size=4"):
        ghosts.save(tmp_path / "g.keras")
    assert not (tmp_path / "g.keras").exists()


def compiled_with(**changed: Any) -> Any:
    return lambda config: config["compile_config"].update(changed)


@pytest.mark.parametrize(
    ("change", "lack"),
    [
        ({"loss": "my_loss"}, "no loss 'my_loss'"),
        ({"loss": None}, "the loss None"),
        ({"loss": {"a": "mse"}}, "the loss"),
        ({"loss": {"module": "mine", "class_name": "Huber", "config": {}}}, r"the loss mine\.Huber"),
        (
            {"loss": {"class_name": "Huber", "config": {"reduction": "sum"}}},
            "reduction='sum' of the loss Huber",
        ),
        ({"loss": ["mse", "mae"]}, "the loss"),
        ({"loss_weights": [2.0]}, r"loss_weights=\[2\.0\]"),
        ({"metrics": {"a": "mse"}}, "metrics="),
        ({"metrics": ["mine"]}, "no metric 'mine'"),
        ({"metrics": [3]}, "the metric 3"),
        (
            {"metrics": [{"class_name": "AUC", "config": {"num_thresholds": 10**11}}]},
            "num_thresholds must be at least",
        ),
        ({"metrics": ["mse", "mse"]}, None),
        ({"optimizer": {"class_name": "Muon", "config": {}}}, "no optimizer 'Muon'"),
        (
            {"optimizer": {"class_name": "SGD", "config": {"learning_rate": -1}}},
            "must be finite and not negative",
        ),
        (
            {"optimizer": {"class_name": "SGD", "config": {"loss_scale_factor": 2.0}}},
            r"loss_scale_factor=2\.0",
        ),
        ({"optimizer": {}}, "the optimizer {}"),
        ({"optimizer": 3}, "the optimizer 3"),
        ({"optimizer": "sgd"}, None),
    ],
)
def test_a_compile_configuration_that_is_not_known(tmp_path: Path, change: Any, lack: str | None) -> None:
    path = tampered(tmp_path / "m.keras", compiled_with(**change))
    if lack is None:
        assert load_model(path).compiled
        return
    with pytest.warns(UserWarning, match=f"normkit lacks.*{lack}.*it is loaded without: call compile"):
        model = load_model(path)
    assert not model.compiled
    assert_same_weights(model.get_weights(), load_model(KERAS_FILE).get_weights())


@pytest.mark.parametrize("config", [3, [], "sgd", {"optimizer": "sgd"}])
def test_a_compile_configuration_of_another_kind(tmp_path: Path, config: Any) -> None:
    """Which is damage, and not something that is lacking here."""
    path = tampered(tmp_path / "m.keras", lambda whole: whole.update(compile_config=config))
    damage = (
        "has no 'loss' where one is needed" if isinstance(config, dict) else "has a value of another kind, .*"
    )
    told = rf"is loaded without optimizer, loss and metrics \(it is damaged: its compile_config {damage}\): call compile"
    with pytest.warns(UserWarning, match=told):
        assert not load_model(path).compiled


def test_the_state_of_another_optimizer(tmp_path: Path) -> None:
    fitted(optimizer="adam").save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as old, zipfile.ZipFile(tmp_path / "n.keras", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["compile_config"]["optimizer"] = "sgd"
                content = json.dumps(config).encode()
            new.writestr(name, content)
    with pytest.warns(
        UserWarning, match="the state of another optimizer than SGD, or of other trainable weights"
    ):
        assert load_model(tmp_path / "n.keras").optimizer.iterations == 0


def test_every_metric_and_loss_comes_back(tmp_path: Path) -> None:
    model = classifier()
    for name in losses.registry.names:
        model.compile("sgd", losses.get(name), metrics=list(metrics.registry.names))
        model.save(tmp_path / "m.keras")
        again = load_model(tmp_path / "m.keras")
        assert again.loss.get_config() == model.loss.get_config()
        assert type(again.loss) is type(model.loss)


def test_pipes_and_devices_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.keras")
    for path, kind in (
        (tmp_path / "pipe.keras", "a pipe"),
        ("/dev/zero", "a device"),
        ("/dev/null", "a device"),
    ):
        for act in (load_model, classifier().load_weights):
            with pytest.raises(
                ValueError, match=f"{path}: is {kind}, and files are read more than once; write"
            ):
                act(path)


def test_a_link_is_followed(tmp_path: Path) -> None:
    shutil.copy(KERAS_FILE, tmp_path / "there")
    (tmp_path / "m.safetensors").symlink_to(tmp_path / "there")
    assert load_model(tmp_path / "m.safetensors").compiled


@pytest.mark.parametrize("state", ["built", "compiled"])
@pytest.mark.parametrize(
    ("write", "name"),
    [
        (save_weights, "m.safetensors"),
        (save_model, "m.safetensors"),
        (save_model, "m.keras"),
    ],
)
def test_other_activations_are_warned_of_by_name(tmp_path, write, name, state):
    def made(first, second, last="softmax"):
        model = Sequential([Dense(4, first, input_shape=(6,)), Activation(second), Dense(3, last)])
        if state == "compiled":
            model.compile("sgd", "mse")
        return model

    source = made("relu", "silu")
    write(source, tmp_path / name)
    for same in (made("relu", "silu"), made("relu", "swish")):
        load_weights(same, tmp_path / name)
    for options, told in (
        (("tanh", "silu"), ["layer 0 is Dense '.*' with tanh, in the file with relu$"]),
        ((None, "silu"), ["layer 0 is Dense '.*' with linear, in the file with relu$"]),
        (("relu", "gelu"), ["layer 1 is Activation '.*' with gelu, in the file with silu$"]),
        (("elu", "silu", None), ["layer 0 .* with relu; layer 2 .* with linear, in the file with softmax$"]),
    ):
        model = made(*options)
        with pytest.warns(UserWarning, match="the model has other activations than the file") as warned:
            load_weights(model, tmp_path / name)
        assert len(warned) == 1
        assert all(re.search(text, str(warned[0].message)) for text in told)
        assert_same_weights(model.get_weights(), source.get_weights())


def test_another_activation_as_an_error_changes_nothing(tmp_path):
    for name in ("m.safetensors", "m.keras"):
        save_model(Sequential([Dense(4, "relu", input_shape=(6,))], seed=1), tmp_path / name)
        model = Sequential([Dense(4, "tanh", input_shape=(6,))], seed=2)
        before = model.get_weights()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserWarning, match="with tanh, in the file with relu"):
                load_weights(model, tmp_path / name)
        assert_same_weights(model.get_weights(), before)
