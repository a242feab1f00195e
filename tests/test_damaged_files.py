"""Damaged and foreign model files: each is a ValueError of one line, and nothing in them is executed."""

import io
import json
import math
import pickle
import zipfile

import numpy as np
import pytest

from normkit.layers import Dense, Input
from normkit.models import Sequential, load_model
from trainer_support import assert_same_weights, saved


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
        (lambda c: c.pop("layers"), None, "cannot be read as a normkit model: it has no 'layers'"),
        (
            lambda c: c["layers"][1].update(class_name="os.system"),
            None,
            "no layer 'os.system'; there are: Dense",
        ),
        (lambda c: c["layers"][1]["config"].update(units=9), None, r"'kernel' must have shape \(6, 9\), got"),
        (lambda c: c["layers"][1]["config"].update(color="red"), None, "unexpected keyword argument 'color'"),
        (lambda c: c["compile"].update(loss="x"), None, "no loss 'x'"),
        (lambda c: c["layers"][2]["config"].update(axis=math.inf), None, "cannot convert float infinity"),
        (lambda c: c["random_state"]["state"].update(state=-1), None, "cannot be read as a normkit model: "),
        (
            lambda c: c["random_state"]["state"].update(state=2**200),
            None,
            "cannot be read as a normkit model: ",
        ),
        (lambda c: c.update(iterations=-1), None, "iterations must be an integer, 0 or more, got -1"),
        (lambda c: c.update(trained=["2/moving_mean"]), None, "it has no '2/moving_mean'"),
        (None, lambda m: m.update({"config.json": b"[" * 100_000}), "recursion depth"),
        (
            None,
            lambda m: m.update({KERNEL: m[KERNEL].replace(b"(6, 8)", b"(6, 8(")}),
            "kernel.npy' is damaged: ",
        ),
        (
            None,
            lambda m: m.update({KERNEL: m[KERNEL].replace(b"{'descr", b"{{'desc")}),
            "kernel.npy' is damaged: ",
        ),
        (
            None,
            lambda m: m.update({KERNEL: m[KERNEL].replace(b"'fortran", b"\n fortran")}),
            "kernel.npy' is damaged: ",
        ),
        (lambda c: c.update(random_state={}), None, "cannot be read as a normkit model: "),
        (lambda c: c.update(layers=None), None, "cannot be read as a normkit model: "),
        (None, lambda m: m.pop(KERNEL), "it has no 'weights/1/kernel.npy'"),
        (
            None,
            lambda m: m.pop("optimizer/velocity/1/kernel.npy"),
            "it has no 'optimizer/velocity/1/kernel.npy'",
        ),
        (
            None,
            lambda m: m.update({"optimizer/velocity/1/kernel.npy": npy(np.ones(3))}),
            r"'velocity' of 1/kernel must have shape \(6, 8\), got \(3,\)",
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
        (None, lambda m: m.update({"config.json": b"{"}), "Expecting property name"),
        (None, lambda m: m.update({"config.json": b"\xff\xfe"}), "utf-16|utf-8|Expecting"),
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
        with pytest.raises(ValueError, match="cannot be read as a normkit model: "):
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
            assert_same_weights(again.get_weights(), model.get_weights())


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
        ValueError, match=r"array.npz: cannot be read as a normkit model: it is a zip archive without config"
    ):
        load_model(foreign)
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "missing.normkit")


def test_encrypted_archives_and_other_zip_versions(tmp_path):
    path, _ = saved(tmp_path)
    whole = path.read_bytes()
    entry = whole.index(b"PK\x01\x02")
    for offset, value in ((8, 1), (8, 0x20), (6, 99), (42, 0xFF), (45, 0xFF)):
        damaged = bytearray(whole)
        damaged[entry + offset] = value
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be read as a normkit model: ") as error:
            load_model(path)
        assert "\n" not in str(error.value)


def test_every_altered_byte_of_the_directory_is_an_error_or_harmless(tmp_path):
    model = Sequential([Input((2,)), Dense(1)])
    path, _ = saved(tmp_path, model)
    whole = path.read_bytes()
    for position in range(whole.index(b"PK\x01\x02"), len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            again = load_model(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
        else:
            assert_same_weights(again.get_weights(), model.get_weights())
