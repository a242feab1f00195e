"""Saving: training goes on bit for bit, and a bad file is a ValueError of one line."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest

from normkit.layers import (
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    Input,
    Layer,
    LayerNormalization,
)
from normkit.losses import CategoricalCrossentropy
from normkit.metrics import BinaryAccuracy
from normkit.models import Sequential, load_model, save_model
from normkit.optimizers import SGD, Adam, RMSprop


def data(n=80):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 3, 2)).astype(np.float32), rng.integers(0, 3, n)


def network(seed=0, **kwargs):
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
    path = tmp_path / "model.normkit"
    if model is None:
        model = network()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(*data(), verbose=0)
    model.save(path)
    return path, model


def assert_same_weights(one, two):
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


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
    assert_same_weights(model, again)
    assert again.optimizer.iterations == model.optimizer.iterations == 6
    first, second = (m.fit(x, y, epochs=2, verbose=0) for m in (model, again))
    assert first.history == second.history
    assert_same_weights(model, again)


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
    assert_same_weights(model, again)


def test_replaces_a_file_and_leaves_no_other(tmp_path):
    path, model = saved(tmp_path)
    model.fit(*data(), verbose=0)
    model.save(path)
    assert_same_weights(load_model(path), model)
    assert [p.name for p in tmp_path.iterdir()] == ["model.normkit"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path, model = saved(tmp_path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr("normkit.models.saving.npy.write_array", fail)
    with pytest.raises(OSError, match="no space left"):
        model.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.normkit"]


def test_numpy_reads_the_arrays(tmp_path):
    path, model = saved(tmp_path)
    with zipfile.ZipFile(path) as archive:
        kernel = np.load(io.BytesIO(archive.read("weights/1/kernel.npy")), allow_pickle=False)
    np.testing.assert_array_equal(kernel, model.get_weights()[0])


def rewritten(path, change_config=None, change_members=None):
    """The archive again, with its configuration or its members changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if change_config:
        config = json.loads(members["config.json"])
        change_config(config)
        members["config.json"] = json.dumps(config).encode()
    if change_members:
        change_members(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def npy(array, **kwargs):
    file = io.BytesIO()
    np.save(file, array, **kwargs)
    return file.getvalue()


def claiming(length):
    """An .npy file of three numbers whose header claims more."""
    return npy(np.ones(3)).replace(b"(3,), }" + b" " * 12, f"({length},), }}".encode().ljust(19))


class Bomb:
    """Unpickled, it would fail the test."""

    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


KERNEL = "weights/1/kernel.npy"


@pytest.mark.parametrize(
    ("config", "members", "message"),
    [
        (lambda c: c.update(format="other"), None, "config.json is of another kind"),
        (lambda c: c.update(version=99), None, "format version 99, this normkit reads 1"),
        (lambda c: c.pop("layers"), None, "is not a valid model: it has no 'layers'"),
        (
            lambda c: c["layers"][1].update(class_name="os.system"),
            None,
            "no layer 'os.system'; there are: Dense",
        ),
        (lambda c: c["layers"][1]["config"].update(units=9), None, r"'kernel' must have shape \(6, 9\), got"),
        (lambda c: c["layers"][1]["config"].update(color="red"), None, "unexpected keyword argument 'color'"),
        (lambda c: c["compile"].update(loss="x"), None, "no loss 'x'"),
        (lambda c: c.update(random_state={}), None, "is not a valid model"),
        (lambda c: c.update(layers=None), None, "is not a valid model"),
        (None, lambda m: m.pop(KERNEL), "it has no 'weights/1/kernel.npy'"),
        (None, lambda m: m.pop("optimizer/velocity/0.npy"), "it has no 'optimizer/velocity/0.npy'"),
        (
            None,
            lambda m: m.update({"optimizer/velocity/0.npy": npy(np.ones(3))}),
            r"'velocity' 0 must have shape",
        ),
        (None, lambda m: m.update({KERNEL: npy(np.ones((6, 7)))}), r"must have shape \(6, 8\), got \(6, 7\)"),
        (
            None,
            lambda m: m.update({KERNEL: npy(np.array([Bomb()]), allow_pickle=True)}),
            "expected float32 or float64, got object",
        ),
        (
            None,
            lambda m: m.update({KERNEL: pickle.dumps(Bomb())}),
            "kernel.npy' is damaged: the magic string",
        ),
        (None, lambda m: m.update({KERNEL: m[KERNEL][:-10]}), "kernel.npy' is damaged: "),
        (None, lambda m: m.update({KERNEL: claiming(10**12)}), "kernel.npy' is damaged: "),
        (None, lambda m: m.update({"config.json": b"{"}), "is damaged"),
        (None, lambda m: m.update({"config.json": b"\xff\xfe"}), "is damaged"),
        (None, lambda m: m.update({"config.json": b"[]"}), "of another kind"),
        (None, lambda m: m.pop("config.json"), "without config.json"),
    ],
)
def test_bad_archives(tmp_path, config, members, message):
    path, _ = saved(tmp_path)
    rewritten(path, config, members)
    with pytest.raises(ValueError, match=message) as error:
        load_model(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_every_truncation_is_an_error(tmp_path):
    path, _ = saved(tmp_path)
    whole = path.read_bytes()
    for length in [0, 1, 100, *range(200, len(whole), 997), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is not a normkit model or is damaged"):
            load_model(path)


def test_flipped_bytes_never_pass_for_the_arrays(tmp_path):
    path, model = saved(tmp_path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[position] ^= 0x40
        path.write_bytes(damaged)
        try:
            again = load_model(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
        else:
            assert_same_weights(again, model)


def test_compressed_archives_are_refused(tmp_path):
    path, _ = saved(tmp_path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="it is compressed, which those never are"):
        load_model(path)


def test_other_files(tmp_path):
    foreign = tmp_path / "array.npz"
    np.savez(foreign, a=np.ones(3))
    with pytest.raises(
        ValueError, match=r"array.npz: is not a normkit model: a zip archive, but without config"
    ):
        load_model(foreign)
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "missing.normkit")


def test_what_cannot_be_saved(tmp_path):
    class Mine(Layer):
        pass

    with pytest.raises(ValueError, match="is not built"):
        save_model(Sequential([Dense(2)]), tmp_path / "m")
    with pytest.raises(
        ValueError, match="cannot save layer 'mine' of type Mine; can: Dense, BatchNormalization"
    ):
        save_model(Sequential([Input((2,)), Mine()]), tmp_path / "m")
