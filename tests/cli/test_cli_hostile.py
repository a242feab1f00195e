"""The command line under attack: whatever a value is, the answer is one line that says what to do, and exit code 2."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cli_support import Command, call_fixture, here_fixture, names, program, table_fixture  # noqa: F401
from normkit import layers
from normkit.models import Sequential, load_model

EMPTY = ["", " ", "\t", "--", "\0"]
NO_NUMBERS = [
    *EMPTY, "nan", "inf", "-inf", "NaN", "-1", "-0", "0x10", "1_0", "٣", "３", "½", "one", "None", "true", "1,2", "1 2",
    "+", "1e999", "-1e-3", "🦊", "\udcff", "a\nb", "\x1b[2J", "x" * 5000, "1;rm", "$(x)", "9" * 5000,
]  # fmt: skip
TRAIN = ("train", "--data", "table.csv", "--quiet", "--epochs", "1")
WRONG: list[tuple[tuple[str, ...], str, list[str]]] = [
    (TRAIN, "--data", EMPTY),
    (TRAIN, "--layers", [*NO_NUMBERS, "0", "3,", ",3", "3,,3", "dropout:٣,3", "dropout:0_1,3", "dropout:nan,3", "dropout:,3",
                         "dropout,3", "3;3", "3.0", "1e1", "relu", "4", "-3", "bn:1,3", "99999999999999999999,3", "999999999999,3"]),
    (TRAIN, "--batch-size", [*NO_NUMBERS, "0", "1.5", "10000000000", "9" * 400]),
    (TRAIN, "--epochs", [*NO_NUMBERS, "0", "1.5", "10000000000", "9" * 400]),
    (TRAIN, "--optimizer", [*NO_NUMBERS, "Adam ", "adm", "sgd,adam"]),
    (TRAIN, "--lr", [*(text for text in NO_NUMBERS if text != "9" * 5000), "0", "0.0", "1e-999", "1,5", "0.1f"]),
    (TRAIN, "--last", [*NO_NUMBERS, "kep", "keep,drop"]),
    (TRAIN, "--validation-split", [*NO_NUMBERS, "0", "1", "1.0", "2", "50%"]),
    (TRAIN, "--seed", [*NO_NUMBERS, "1.5", "1e3"]),
    (TRAIN, "--backup", [*EMPTY, "table.csv", "table.csv/b", "/dev/null"]),
    (TRAIN, "--out", [*EMPTY, "table.csv", "table.csv/b", "/dev/null", "m.keras", "m.onnx", "M.SafeTensors", "w.weights.h5"]),
    (("evaluate", "model.keras"), "--data", EMPTY),
    (("predict", "model.keras"), "--data", EMPTY),
    (("predict", "model.keras", "--data", "table.csv"), "--out", [*(text for text in EMPTY), ".", "table.csv/p"]),
]  # fmt: skip


@pytest.fixture(name="model", autouse=True)
def model_fixture(table: Path) -> None:
    Sequential([layers.Dense(3, "softmax", input_shape=(4,))]).save("model.keras")


def one_line(call: Command, *arguments: str) -> str:
    """Run a command that fails, and return what it says."""
    before = names(Path())
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("normkit: ")
    assert err.count("\n") == 1
    assert err.removesuffix("\n").isprintable()
    assert len(err) < 700
    assert "Traceback" not in err
    assert names(Path()) == before
    return err.removeprefix("normkit: ").rstrip("\n")


@pytest.mark.parametrize(("base", "option", "values"), WRONG)
def test_every_option_with_wrong_values(
    call: Command, base: tuple[str, ...], option: str, values: list[str]
) -> None:
    for value in values:
        one_line(call, *base, f"{option}={value}")


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "export", "info", "bench", ""])
@pytest.mark.parametrize(
    "wrong", [["--speed", "1"], ["--epochs"], ["a", "b", "c"], ["-x"], ["--"], ["--quiet=1"]]
)
def test_what_no_command_takes(call: Command, command: str, wrong: list[str]) -> None:
    one_line(call, command, *wrong)


EXPECTED = "expected the name of a file or folder, got an empty string"


@pytest.mark.parametrize("value", ["", " ", "\n"])
@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        (("train", "--data", "?"), "--data"),
        (("train", "--backup", "?"), "--backup"),
        (("train", "--out", "?"), "--out"),
        (("evaluate", "?"), "MODEL"),
        (("evaluate", "model.keras", "--data", "?"), "--data"),
        (("predict", "?"), "MODEL"),
        (("predict", "model.keras", "--data", "?"), "--data"),
        (("predict", "model.keras", "--data", "table.csv", "--out", "?"), "--out"),
        (("export", "?", "m.keras"), "MODEL"),
        (("export", "model.keras", "?"), "OUT"),
    ],
)
def test_a_variable_that_is_not_set(
    call: Command, arguments: tuple[str, ...], argument: str, value: str
) -> None:
    command = [value if part == "?" else part for part in arguments]
    told = f"argument {argument}: {EXPECTED} (see normkit {arguments[0]} --help)"
    assert one_line(call, *command) == told


def test_layers_that_are_not_set(call: Command) -> None:
    assert one_line(call, "train", "--layers", "") == (
        "argument --layers: expected layers separated by commas, as in 64,bn,relu,10, got an empty string "
        "(see normkit train --help)"
    )
    assert one_line(call, "train", "--layers", "3,").endswith("got an empty one (see normkit train --help)")


def test_layers_that_no_memory_holds(call: Command) -> None:
    told = one_line(call, *TRAIN, "--layers", "999999999999,3")
    assert told == "--layers 999999999999,3: its weights need more memory than there is"


@pytest.mark.parametrize("backup", ["run", "run/b", "./run/a/../b", "other/../run"])
def test_a_backup_within_the_results(call: Command, backup: str) -> None:
    told = f"--backup {Path(backup)} is in --out run, which is for results alone; choose a folder elsewhere for one of them"
    assert one_line(call, *TRAIN, "--out", "run", "--backup", backup) == told


def test_a_model_file_is_no_folder_for_results(call: Command) -> None:
    assert one_line(call, *TRAIN, "--out", "m.keras") == (
        "argument --out: expected the name of a folder, got 'm.keras'; train into a folder, then write the .keras with "
        "normkit export (see normkit train --help)"
    )


# what is no file


def special(kind: str, name: str) -> str:
    if kind == "a pipe":
        os.mkfifo(name)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(name)
    else:
        Path(name).symlink_to("/dev/zero")
    return name


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a device"])
@pytest.mark.parametrize("ending", [".csv", ".npz", "", ".keras"])
def test_pipes_sockets_and_devices(call: Command, kind: str, ending: str) -> None:
    name = special(kind, f"x{ending}")
    told = (
        f"{name}: is {kind}, and files are read more than once; write what it gives to a file, and pass that"
    )
    for base in (TRAIN[:1], ("evaluate", "model.keras"), ("predict", "model.keras")):
        assert one_line(call, *base, "--data", name) == told
    for arguments in (("evaluate", name), ("predict", name), ("export", name, "m.onnx")):
        assert one_line(call, *arguments) == told


@pytest.mark.timeout(60)
def test_data_from_another_program(table: Path) -> None:
    """`cat table.csv | normkit train --data /dev/stdin`."""
    told = "/dev/stdin: is a pipe, and files are read more than once; write what it gives to a file, and pass that"
    done = subprocess.run(
        program("train", "--data", "/dev/stdin"),
        input=table.read_text(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"normkit: {told}\n")


def test_a_folder_named_like_a_file(call: Command) -> None:
    for name in ("d.csv", "d.npz", "d.keras", "d.safetensors"):
        Path(name).mkdir()
    assert one_line(call, "train", "--data", "d.csv") == "d.csv: is a folder; name the file in it"
    assert one_line(call, "train", "--data", "d.npz").startswith("d.npz: has no train-images-idx3-ubyte")
    for name in ("d.keras", "d.safetensors"):
        assert one_line(call, "evaluate", name) == f"{name}/model.safetensors: No such file or directory"


# models of every format


def test_every_format_of_a_model(call: Command, here: Path) -> None:
    assert call(*TRAIN, "--layers", "8,bn,relu,3", "--out", "run")[0] == 0
    shutil.copy("run/model.safetensors", "alone.safetensors")
    expected = call("evaluate", "alone.safetensors", "--data", "table.csv")
    predicted = call("predict", "alone.safetensors", "--data", "table.csv")
    assert expected[0] == predicted[0] == 0
    for name in ("m.keras", "run/m.keras", "m.weights.h5", "m.onnx", "m.safetensors"):
        assert call("export", "run", name) == (0, f"wrote {name}\n", "")
    assert call("evaluate", "m.keras", "--data", "table.csv") == expected
    assert call("predict", "m.keras", "--data", "table.csv") == predicted
    assert call("export", "m.keras", "again.onnx")[0] == 0
    assert call("evaluate", "run/m.keras") == call("evaluate", "run")
    for name, reason in (
        ("m.weights.h5", "m.weights.h5: is an HDF5 file, which has weights alone; make the model as before"),
        (
            "m.onnx",
            "m.onnx: is an ONNX file, a graph that only predicts; load the .safetensors or .keras of this",
        ),
        (
            "m.safetensors",
            "m.safetensors: cannot be read as a normkit model: it has weights under torch's names; make the",
        ),
    ):
        for arguments in (("evaluate", name), ("predict", name), ("export", name, "x.keras")):
            assert one_line(call, *arguments).startswith(reason)


@pytest.mark.parametrize(
    "compiled", [None, "mse", "categorical_crossentropy", "sparse_categorical_crossentropy"]
)
def test_a_model_is_evaluated_however_it_was_compiled(call: Command, compiled: str | None) -> None:
    model = load_model("model.keras")
    if compiled is not None:
        model.compile("adam", compiled)
    model.save("model.keras")
    code, out, err = call("evaluate", "model.keras", "--data", "table.csv")
    assert (code, err) == (0, "")
    assert out.startswith("rows      60\nloss  ") or compiled == "sparse_categorical_crossentropy"


@pytest.mark.parametrize(("name", "encoding"), [("naïve 🦊", "ascii"), ("naïve 🦊", "utf-8")])
def test_a_name_that_the_terminal_cannot_show(table: Path, name: str, encoding: str) -> None:
    done = subprocess.run(
        program(*TRAIN, "--out", name),
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding) == f"{name.encode(encoding, 'backslashreplace').decode(encoding)}\n"
    assert np.isfinite(load_model(Path(name) / "model.safetensors").get_weights()[0]).all()
