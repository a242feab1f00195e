"""The command line when something is wrong: one line, an exit code, and nothing half-written; and as a program."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest

from cli_support import FILES, call_fixture, here_fixture, history, names, printed, program, table_fixture  # noqa: F401
from normkit.cli import train
from normkit.cli.progress import EpochTable

# --- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "nothing.csv"], "nothing.csv: No such file or directory"),
        (["train", "--data", "note.txt"], "note.txt: expected a folder of IDX files, a .npz or a .csv"),
        (["train", "--data", "bad.npz"], "bad.npz: not a usable .npz archive: no zip archive"),
        (
            ["train", "--data", "raw.npz"],
            (
                "raw.npz: not a usable .npz archive: its x_train, y_train, x_test, y_test must be NumPy arrays, "
                "not other files"
            ),
        ),
        (["train", "--data", "one.csv"], "one.csv: every label is 2; a classifier needs two classes or more"),
        (["train", "--data", "bad.csv"], "bad.csv: line 2, column 1: 'x' is not a finite number"),
        (
            ["train", "--data", "table.csv", "--layers", "8,bn,10"],
            "--layers must end with the number of classes: the labels are 0 to 2, so 3, got 10",
        ),
        (
            ["train", "--layers", "8,bn"],
            "argument --layers: must end with the number of classes, ends with 'bn' (see normkit train --help)",
        ),
        (
            ["train", "--layers", "8,batchnorm,10"],
            (
                "argument --layers: no layer 'batchnorm'; there are: a number of units, bn, ln, relu, gelu, "
                "sigmoid, tanh, dropout:RATE (see normkit train --help)"
            ),
        ),
        (
            ["train", "--layers", "8,dropout:1,10"],
            (
                "argument --layers: dropout needs a rate from 0 to below 1, as in dropout:0.5, got 'dropout:1' "
                "(see normkit train --help)"
            ),
        ),
        (
            ["train", "--layers", "0,10"],
            "argument --layers: Dense: units must be a positive integer, got 0 (see normkit train --help)",
        ),
        (
            ["train", "--epochs", "0"],
            "argument --epochs: expected a whole number from 1, got '0' (see normkit train --help)",
        ),
        (
            ["train", "--seed", "-1"],
            "argument --seed: expected a whole number from 0, got '-1' (see normkit train --help)",
        ),
        (
            ["train", "--lr", "inf"],
            "argument --lr: expected a number above 0, got 'inf' (see normkit train --help)",
        ),
        (
            ["train", "--validation-split", "1"],
            "argument --validation-split: expected a number between 0 and 1, got '1' (see normkit train --help)",
        ),
        (["train", "--out", "full"], "full: is there already; choose another name, or remove it"),
        (["train", "--out", "note.txt"], "note.txt: is there already; choose another name, or remove it"),
        (["train", "--out", "note.txt/run"], "note.txt/run: cannot write there: Not a directory"),
        (["train", "--speed", "1"], "unrecognized arguments: --speed 1 (see normkit --help)"),
        (["evaluate", "nothing"], "nothing: No such file or directory"),
        (["evaluate", "full"], "full/model.safetensors: No such file or directory"),
        (["evaluate"], "the following arguments are required: MODEL (see normkit evaluate --help)"),
        (["predict", "nothing", "--out", "p.csv"], "nothing: No such file or directory"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(call, table, tmp_path, arguments, message):
    (tmp_path / "note.txt").write_text("hello")
    (tmp_path / "bad.npz").write_bytes(b"hello")
    (tmp_path / "bad.csv").write_text("a,label\nx,0\n")
    (tmp_path / "one.csv").write_text("1,2\n" * 9)
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(name, b"hello")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("hello")
    before = names(tmp_path)
    assert call(*arguments) == (2, "", f"normkit: {message}\n")
    assert names(tmp_path) == before
    assert names(tmp_path / "full") == ["kept"]


def test_errors_about_a_model_and_its_data(call, table, tmp_path):
    call("train", "--data", table, "--epochs", 1, "--out", "run")

    def fails(*arguments: str) -> str:
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("normkit: ")
        assert err.count("\n") == 1
        return err.removeprefix("normkit: ").rstrip("\n")

    (tmp_path / "wide.csv").write_text("1,2,3,4,5,6,0\n1,2,3,4,5,6,1\n")
    (tmp_path / "other.csv").write_text("1,2,3,4,0\n1,2,3,4,3\n")
    before = names(tmp_path)
    assert fails("evaluate", "run", "--data", "wide.csv") == "wide.csv: has 6 features, the model takes 4"
    assert fails("evaluate", "run", "--data", "other.csv") == "other.csv: has label 3, the model knows 0 to 2"
    assert fails("predict", "run", "--data", "wide.csv", "--out", "p.csv") == (
        "wide.csv: expected 4 features, with or without a label column, has 7 columns"
    )
    assert names(tmp_path) == before

    model = tmp_path / "run" / "model.safetensors"
    content = model.read_bytes()
    model.write_bytes(content[: len(content) // 2])
    assert "run/model.safetensors" in fails("evaluate", "run")
    model.write_bytes(content)
    (tmp_path / "run" / "run.json").write_text('{"data": 3')
    assert fails("evaluate", "run") == "run/run.json: not the record of a run"
    (tmp_path / "run" / "run.json").unlink()
    assert fails("evaluate", "run") == "run/model.safetensors: has no run.json beside it, so --data is needed"


def test_a_failure_while_writing_leaves_nothing(call, table, tmp_path, monkeypatch):
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device", "history.csv")

    monkeypatch.setattr(train, "write_history", full_disk)
    code, _, err = call("train", "--data", table, "--epochs", 1, "--out", "deep/run")
    assert (code, err) == (2, "normkit: deep/run: cannot write there: No space left on device\n")
    assert names(tmp_path) == ["table.csv"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told_before_training(call, table, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    code, out, err = call("train", "--data", table, "--out", "locked/run")
    assert (code, out) == (2, "")
    assert err == "normkit: locked/run: cannot write there: Permission denied\n"


def test_digits_without_scikit_learn(call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    code, out, err = call("train")
    assert (code, out) == (2, "")
    assert err == (
        "normkit: the digits come with scikit-learn, which is not installed: pip install 'normkit[train]'\n"
    )
    assert names(tmp_path) == []


# --- Ctrl-C ------------------------------------------------------------------------------------------


def interrupt_in(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come in the second batch of this epoch."""

    class Interrupted(EpochTable):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch
            super().on_epoch_begin(epoch, logs)

        def on_train_batch_end(self, batch, logs=None):
            if (self.epoch, batch) == (epoch, 1):
                raise KeyboardInterrupt

    monkeypatch.setattr(train, "EpochTable", Interrupted)


def test_ctrl_c_keeps_the_finished_epochs(call, table, tmp_path, monkeypatch):
    call("train", "--data", table, "--batch-size", 8, "--epochs", 2, "--out", "two")
    interrupt_in(2, monkeypatch)
    code, _, err = call("train", "--data", table, "--batch-size", 8, "--epochs", 9, "--out", "run")
    assert (code, err) == (130, "normkit: interrupted in epoch 3, wrote run after epoch 2\n")
    assert names(tmp_path / "run") == FILES
    assert history(tmp_path / "run") == history(tmp_path / "two")
    assert printed(call("evaluate", "run")[1]) == printed(call("evaluate", "two")[1])


def test_ctrl_c_in_the_first_epoch_leaves_nothing(call, table, tmp_path, monkeypatch):
    interrupt_in(0, monkeypatch)
    code, _, err = call("train", "--data", table, "--batch-size", 8)
    assert (code, err) == (130, "normkit: interrupted, nothing was written\n")
    assert names(tmp_path) == ["table.csv"]


def test_a_backup_goes_on_after_ctrl_c(table, tmp_path):
    whole = [*program("train", "--data", "table.csv", "--epochs", "400", "--quiet", "--out"), "whole"]
    assert subprocess.run(whole, check=True, capture_output=True, text=True).stdout == "whole\n"
    command = program("train", "--data", "table.csv", "--epochs", "400", "--out", "run", "--backup", "b")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        shown = iter(running.stdout.readline, "")
        assert any(line.startswith("    3  ") for line in shown)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (130, "normkit: interrupted, the same command goes on from b\n")
    assert names(tmp_path) == ["b", "table.csv", "whole"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert re.search(r"\ngoing on after epoch \d+\n", done.stdout)
    assert names(tmp_path) == ["run", "table.csv", "whole"]
    for name in ("history.csv", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


# --- as a program ------------------------------------------------------------------------------------


def test_as_a_program(table, tmp_path):
    done = subprocess.run(
        program("train", "--data", "table.csv", "--epochs", "1", "--out", "run"),
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not re.search(r"[^\x20-\x7e\n]", done.stdout)
    assert names(tmp_path / "run") == FILES
    done = subprocess.run(program("evaluate", "nothing"), check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "normkit: nothing: No such file or directory\n"


def test_ctrl_c_as_a_program(table, tmp_path):
    command = program("train", "--data", "table.csv", "--epochs", "1000000", "--out", "run")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        shown = iter(running.stdout.readline, "")
        assert any(line.startswith("    3  ") for line in shown)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    told = re.fullmatch(r"normkit: interrupted in epoch (\d+), wrote run after epoch (\d+)\n", err)
    assert names(tmp_path / "run") == FILES
    assert len(history(tmp_path / "run")) == int(told[2]) == int(told[1]) - 1


def test_a_reader_that_goes_away_is_no_error(table):
    command = program("train", "--data", "table.csv", "--epochs", "1000000", "--out", "run")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        running.stdout.readline()
        running.stdout.close()
        assert running.wait(timeout=30) == 141
        assert running.stderr.read() == ""
    assert names(Path()) == ["table.csv"]


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so when the other side has closed
        return b""


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end(table):
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = program("train", "--data", "table.csv", "--epochs", "2", "--out", "run")
    with subprocess.Popen(command, stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        shown = b"".join(iter(partial(read, ours), b""))
        assert running.wait() == 0
    os.close(ours)
    assert b"batch/s" in shown
    lines = [line.rpartition(b"\r")[2] for line in shown.replace(b"\r\n", b"\n").split(b"\n")]
    table_rows = [line for line in lines if re.match(rb" +\d  ", line)]
    assert len(table_rows) == 2
    assert not any(b"batch/s" in line for line in lines)
