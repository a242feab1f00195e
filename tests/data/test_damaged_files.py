"""Damaged and foreign files: each is a ValueError of one line that names it, and nothing in them is executed."""

import json
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest

from normkit.layers import Dense, Input
from normkit.models import Sequential, archive, load_model, safetensors
from normkit.models.alike import check_alike
from trainer_support import assert_same_weights, saved


def rewritten(path, change_config=None, change_arrays=None):
    """The file again, whole and with a right checksum, with its configuration or its arrays changed."""
    config, arrays = archive.read(path)
    arrays = dict(arrays)
    for change, value in ((change_config, config), (change_arrays, arrays)):
        if change:
            change(value)
    archive.write(path, config, arrays)


def with_header(path, change):
    """The file again, with its header changed by hand."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = change(json.loads(content[8 : 8 + length]))
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


class Bomb:
    """Unpickled, it would fail the test."""

    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


KERNEL = "weights/1/kernel"
VELOCITY = "optimizer/velocity/1/kernel"


def refused(path, message):
    with pytest.raises(ValueError, match=message) as error:
        load_model(path)
    assert str(error.value).startswith(f"{path}: cannot be read as a normkit model: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "arrays", "message"),
    [
        (lambda c: c.pop("layers"), None, "it has no 'layers'"),
        (lambda c: c["layers"][1].update(class_name="os.system"), None, "no layer 'os.system'; there are: Dense"),
        (lambda c: c["layers"][1]["config"].update(units=9), None, r"'kernel' must have shape \(6, 9\), got"),
        (lambda c: c["layers"][1]["config"].update(color="red"), None, "unexpected keyword argument 'color'"),
        (lambda c: c["compile"].update(loss="x"), None, "no loss 'x'"),
        (lambda c: c["layers"][2]["config"].update(axis=math.inf), None, "axis must be an integer, got inf"),
        (lambda c: c["random_state"]["state"].update(state=-1), None, "cannot be read"),
        (lambda c: c["random_state"]["state"].update(state=2**200), None, "cannot be read"),
        (lambda c: c.update(iterations=-1), None, "iterations must be an integer, 0 or more, got -1"),
        (lambda c: c.update(trained=["2/moving_mean"]), None, "it has no '2/moving_mean'"),
        (lambda c: c.update(random_state={}), None, "cannot be read"),
        (lambda c: c.update(layers=None), None, "cannot be read"),
        (None, lambda a: a.pop(KERNEL), f"it has no '{KERNEL}'"),
        (None, lambda a: a.pop(VELOCITY), f"it has no '{VELOCITY}'"),
        (None, lambda a: a.update({VELOCITY: np.ones(3)}), r"'velocity' of 1/kernel must have shape \(6, 8\), got \(3,\)"),
        (None, lambda a: a.update({KERNEL: np.ones((6, 7))}), r"must have shape \(6, 8\), got \(6, 7\)"),
        (None, lambda a: a.update({KERNEL: np.ones((6, 8), int)}), f"'{KERNEL}' must be of float32 or float64, got int64"),
    ],
)  # fmt: skip
def test_files_of_other_content(tmp_path, config, arrays, message):
    path, _ = saved(tmp_path)
    rewritten(path, config, arrays)
    refused(path, message)


def entry(name, **changed):
    def change(header):
        header[name].update(changed)
        return header

    return change


def twice(header):
    text = json.dumps(header)
    return f'{text[:-1]}, "{KERNEL}": {json.dumps(header[KERNEL])}}}'.encode()


def without(name):
    return lambda header: {key: value for key, value in header.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("__metadata__"), "it is a safetensors file of another kind"),
        (entry("__metadata__", format="pt"), "it is a safetensors file of another kind"),
        (entry("__metadata__", version="99"), "it has format version 99, this normkit reads 1"),
        (entry("__metadata__", version=1), "its metadata are not strings"),
        (entry("__metadata__", config="{}"), "it is damaged: its checksum is another"),
        (entry("__metadata__", crc32="00000000"), "it is damaged: its checksum is another"),
        (lambda h: {**h, "__metadata__": []}, "its metadata are not strings"),
        (lambda h: [], "it is no safetensors file, or cut off within its header"),
        (lambda h: b"{", "Expecting property name"),
        (lambda h: b"{\xff\xfe", "utf-8"),
        (lambda h: b'{"a":' * 100_000, "recursion"),
        (twice, f"its header has '{KERNEL}' twice"),
        (lambda h: {**h, "more": 1}, "'int' object is not iterable"),
        (lambda h: {**h, "more": {}}, "the entry of 'more' must have dtype, shape and data_offsets"),
        (entry(KERNEL, more=1), f"the entry of '{KERNEL}' must have dtype, shape and data_offsets, got dtype"),
        (entry(KERNEL, dtype="F8_E4M3"), f"'{KERNEL}' is of dtype F8_E4M3; there are: BOOL, I8"),
        (entry(KERNEL, dtype="F64"), rf"the place of '{KERNEL}', \d+ to \d+, is not that of F64 \[6, 8\]"),
        (entry(KERNEL, shape=[6, 7]), rf"the place of '{KERNEL}'"),
        (entry(KERNEL, shape=[-6, -8]), rf"the place of '{KERNEL}'"),
        (entry(KERNEL, shape=[6.0, 8]), rf"the place of '{KERNEL}'"),
        (entry(KERNEL, shape="68"), rf"the place of '{KERNEL}'"),
        (entry(KERNEL, shape=[10**12, 10**12]), rf"the place of '{KERNEL}'"),
        (entry(KERNEL, data_offsets=[-4, 188]), rf"'{KERNEL}' has data_offsets \[-4, 188\]"),
        (entry(KERNEL, data_offsets=[0]), rf"'{KERNEL}' has data_offsets \[0\]"),
        (entry(KERNEL, data_offsets=[10**15, 10**15 + 192]), "the place of '"),
        (entry(KERNEL, data_offsets=[4, 196]), "the place of '"),
        (without(KERNEL), "the place of '"),
        (lambda h: {**h, "more": {"dtype": "F32", "shape": [9], "data_offsets": [10**9, 10**9 + 36]}}, "the place of 'more'"),
    ],
)  # fmt: skip
def test_other_headers(tmp_path, change, message):
    path, _ = saved(tmp_path)
    with_header(path, change)
    refused(path, message)


def test_a_configuration_of_another_kind(tmp_path):
    path, _ = saved(tmp_path)
    archive.write(path, [], {})
    refused(path, "its configuration is of another kind")


def test_every_truncation_is_an_error(tmp_path):
    path, _ = saved(tmp_path)
    whole = path.read_bytes()
    for length in [*range(20), 100, *range(200, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(path, "cut off")
    path.write_bytes(whole + b"x")
    refused(path, "1 bytes follow its last array")


def test_every_altered_byte_is_an_error_or_harmless(tmp_path):
    """Harmless are only those that fill the header, and the case of letters in an escape."""
    path, model = saved(tmp_path, Sequential([Input((2,)), Dense(1)]))
    whole = path.read_bytes()
    harmless = 0
    for position in range(len(whole)):
        for flip in (0x01, 0x20, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            try:
                again = load_model(path)
            except ValueError as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017
            else:
                harmless += 1
                assert_same_weights(again.get_weights(), model.get_weights())
    assert harmless <= 8


def test_other_files(tmp_path):
    foreign = tmp_path / "array.npz"
    np.savez(foreign, a=np.ones(3))
    with pytest.raises(
        ValueError, match=r"array\.npz: cannot be read as a \.keras file: it is a zip archive without"
    ):
        load_model(foreign)
    foreign.write_bytes(pickle.dumps(Bomb()))
    refused(foreign, "it is no safetensors file, or cut off within its header")
    with foreign.open("wb") as file:
        safetensors.dump(file, {"a": np.ones(3)}, {})
    refused(foreign, "it is a safetensors file of another kind")
    with pytest.raises(IsADirectoryError, match="is a folder; name the file in it"):
        load_model(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "missing.safetensors")


def callback_state(name, **changed):
    def change(config):
        for kept in config["progress"]["callbacks"]:
            if kept["class_name"] == name:
                kept["state"].update(changed)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["progress"].update(epoch="1"), "epoch must be an integer, 0 or more, got '1'"),
        (lambda c: c["progress"].update(batch=0.5), "batch must be an integer, 0 or more, got 0.5"),
        (lambda c: c["progress"]["metrics"].update(loss={}), "metrics/loss has no 'total'"),
        (lambda c: c["progress"]["metrics"]["loss"].update(total="1"), "metrics/loss/total must be a number, got text"),
        (lambda c: c["progress"]["metrics"]["accuracy"].update(count=[]), "metrics/accuracy/count must be a number, got a list"),
        (lambda c: c["progress"]["metrics"]["accuracy"].update(count=None), "accuracy/count must be a number, got nothing"),
        (lambda c: c["progress"]["metrics"]["loss"].update(count={"array": "weights/0/kernel"}), r"metrics/loss/count must be a number, got an array of shape \(3, 4\)"),
        (lambda c: c["progress"]["metrics"]["accuracy"].update(total={"array": "weights/0/bias"}), "accuracy/total must be a number, got an array"),
        (callback_state("EarlyStopping", wait={"array": "weights/0/bias"}), "EarlyStopping/wait must be a number, got an array"),
        (lambda c: c.update(iterations=10**30), "iterations must be at most 9007199254740992, got 1"),
        (lambda c: c.update(iterations=1e30), "iterations must be an integer, 0 or more, got 1e"),
        (lambda c: c.pop("iterations"), "it has no 'iterations'"),
        (lambda c: c.update(trained=["rubbish"]), "it has the state of another optimizer than Adam, or of other trainable weights$"),
        (lambda c: c.update(trained=[]), "it has the state of another optimizer than Adam, or of other trainable weights$"),
        (lambda c: c.update(trained=None), "it has the state of another optimizer than Adam, or of other trainable weights$"),
        (lambda c: c.update(optimizer="SGD"), "it has the state of another optimizer than Adam"),
        (lambda c: c["states"][1].update(frozen="x"), "frozen must be True or False, got 'x'"),
        (lambda c: c["states"][1].update(frozen=2), "frozen must be True or False, got 2"),
        (callback_state("ReduceLROnPlateau", wait=None), "cannot be read as a normkit model"),
        (callback_state("EarlyStopping", best_epoch=None), "cannot be read as a normkit model"),
        (lambda c: c["progress"].update(callbacks=[5]), "cannot be read as a normkit model"),
        (callback_state("EarlyStopping", wait={"a": 1}), "EarlyStopping/wait must be a number, got a dict"),
        (callback_state("EarlyStopping", best="low"), "could not convert string to float: 'low'"),
        (callback_state("EarlyStopping", best_weights=[{"array": "weights/0/bias"}]), "the best weights of EarlyStopping have the shapes"),
        (callback_state("ReduceLROnPlateau", best=[]), "cannot be read as a normkit model"),
        (callback_state("History", history=[1]), "cannot be read as a normkit model"),
        (callback_state("History", epoch=5), "cannot be read as a normkit model|History/epoch must be a list"),
    ],
)  # fmt: skip
def test_crafted_backups(tmp_path, change, message):
    path = tmp_path / "file.backup"
    damaged_formats.write_backup(path)
    rewritten(path, change)
    latest = tmp_path / "backup" / "latest.safetensors"
    path.replace(latest)
    model = damaged_formats.model()
    callbacks = damaged_formats.callbacks(latest.parent)
    with pytest.raises(ValueError, match=message) as error:
        model.fit(
            damaged_formats.X, damaged_formats.Y, epochs=3, batch_size=20, verbose=0, callbacks=callbacks
        )
    assert str(error.value).startswith(f"{latest}: cannot be read as a normkit model: ")


def test_states_that_are_alike():
    check_alike("x", {"a": 1, "b": np.ones(3), "more": "y"}, {"a": 0.5, "b": np.zeros(3)})
    check_alike("x", {"a": np.ones(3), "b": 1.0, "c": [1, 2, 3]}, {"a": 0, "b": None, "c": []}, grows=True)
    check_alike("x", np.ones(3), np.zeros(1))
    for theirs, ours, text in (
        ({}, {"a": 1}, "x has no 'a'"),
        ([1, "b"], [1], "x/1 must be a number, got text"),
        (np.ones(3), np.ones(4), r"x must be an array of shape \(4,\), got an array of shape \(3,\)"),
        (1, {"a": 1}, "x must be a dict, got a number"),
        (np.ones(3), 1, r"x must be a number, got an array of shape \(3,\)"),
        (np.ones((1, 3)), np.ones(1), r"x must be an array of shape \(1,\), got an array of shape \(1, 3\)"),
    ):
        with pytest.raises(ValueError, match=text):
            check_alike("x", theirs, ours)


damaged_formats = None if sys.platform == "win32" else pytest.importorskip("damaged_formats")
GROUPS = {
    "models": ("model", "crafted", "weights", "backup"),
    "foreign": ("keras", "keras_weights", "torch"),
    "flat": ("csv", "npy", "npz", "idx", "gz"),
    "arrow": ("arrow", "feather"),
    "parquet": ("parquet", "pq"),
    "hdf5": ("h5", "hdf5", "h5new"),
}


@pytest.mark.skipif(damaged_formats is None, reason="limits of memory are those of POSIX")
@pytest.mark.parametrize("group", GROUPS)
def test_damaged_files_of_every_format(tmp_path, group):
    """In a process of their own, which a reader may end. For thousands of cases, call the program by hand."""
    count = "36" if group == "parquet" else "60"
    command = [sys.executable, damaged_formats.__file__, str(tmp_path), "0", count, *GROUPS[group]]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    at_work = tmp_path / "case"
    assert run.returncode == 0, (
        f"ended by {at_work.read_text() if at_work.exists() else group}: {run.stderr[-2000:]}"
    )
    assert run.stdout == ""


def test_all_formats_are_in_a_group():
    assert sorted(name for group in GROUPS.values() for name in group) == sorted(damaged_formats.FORMATS)
