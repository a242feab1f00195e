"""`normkit train --backup` after SIGKILL at any moment: the same command goes on, and its results have the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from cli_support import (  # noqa: F401
    FILES,
    call_fixture,
    here_fixture,
    names,
    program,
    table_fixture,
    write_table,
)
from normkit.cli import train
from subprocesses import run_python

OPTIONS = ("train", "--data", "table.csv", "--layers", "8,bn,relu,dropout:0.2,3", "--batch-size", "8")


def results(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.timeout(900)  # half a minute where nothing else runs
def test_forty_kills_at_random_moments(here):
    """Trainings that are killed again and again, without any cleaning up, until they end with 0.

    A third of the kills come at any time, a third during the start and the first epochs, a third at the end. Without
    matplotlib, half of whose time the command would spend on importing it.
    """
    write_table(here)
    (here / "sitecustomize.py").write_text("import sys; sys.modules['matplotlib'] = None\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(here), os.environ.get("PYTHONPATH", "")))}
    no_picture = "normkit: no picture: matplotlib is not installed (pip install 'normkit[train]')\n"

    def start(out, *options):
        command = program(*OPTIONS, "--epochs", "12", "--out", out, *options)
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    begun = time.perf_counter()
    with start("undisturbed") as running:
        assert running.communicate(timeout=60)[1] == no_picture
    duration = time.perf_counter() - begun
    expected = results(here / "undisturbed")
    assert sorted(expected) == ["history.csv", "model.safetensors", "run.json"]
    moments = random.Random(3)
    kills = trainings = 0
    while kills < 40:
        trainings += 1
        out = f"run-{trainings}"
        code, told = None, ""
        # What is killed after its last words has ended too: it cannot be told apart from one that has not been killed.
        while code != 0 and f"wrote {out}" not in told:
            earliest, latest = moments.choice([(0.0, 1.1), (0.3, 0.8), (0.8, 1.1)])
            with start(out, "--backup", "backup") as running:
                if kills < 40:
                    with suppress(subprocess.TimeoutExpired):
                        running.wait(duration * moments.uniform(earliest, latest))
                    running.kill()
                told, errors = running.communicate(timeout=60)
            code = running.returncode
            assert code in (0, -signal.SIGKILL), errors
            assert errors in ("", no_picture)
            kills += code != 0
        assert {name: (here / out / name).read_bytes() for name in expected} == expected
        assert code != 0 or names(here / out) == sorted(expected)
        assert code != 0 or not (here / "backup").exists()
    assert trainings > 1


EVERY_STEP = """
import os, pickle, signal, sys, traceback
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
import matplotlib.backends.backend_agg, matplotlib.figure, matplotlib.layout_engine, matplotlib.ticker
from normkit.cli import main
from normkit.cli import commands

EVENTS = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate"}
left = 0

def count(event, arguments):
    # Before each step that changes a file, and each file that is opened, in the folder of this test.
    global left
    if left and event in EVENTS and (os.getcwd() in str(arguments[0]) or not str(arguments[0]).startswith("/")):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

def run(kill_at, folder, log):
    # Returns what the process ended with.
    global left
    child = os.fork()
    if child == 0:
        code = 99
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.addaudithook(count)
            left = kill_at
            code = main([*OPTIONS.split(), "--out", folder, "--backup", folder + "-backup"])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

OPTIONS = os.environ["OPTIONS"]
assert run(0, "whole", "whole.log") == 0, Path("whole.log").read_text()
whole = {path.name: path.read_bytes() for path in Path("whole").iterdir()}
step = 0
while True:
    step += 1
    folder, log = f"cut-{step}", Path(f"cut-{step}.log")
    first = run(step, folder, log)
    if first == 0:
        break
    assert first == -signal.SIGKILL, (step, first, log.read_text())
    told = "wrote cut" in log.read_text()
    again = run(0, folder, log)
    # Killed after its last words, it is finished, and refused as such.
    assert again == (2 if told and not Path(f"{folder}-backup").exists() and "already" in log.read_text() else 0), (step, log.read_text())
    found = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    assert found == whole, (step, sorted(found), log.read_text())
    assert not Path(f"{folder}-backup").exists(), step
print(step)
"""


@pytest.mark.timeout(900)
def test_killed_before_every_single_step_of_files(here):
    """Every file that is opened, moved or removed, from the first backup to the last mark that goes."""
    write_table(here)
    options = " ".join((*OPTIONS, "--epochs", "2"))
    done = run_python(f"import os; os.chdir({str(here)!r})\n{EVERY_STEP}", OPTIONS=options, timeout=800)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 40


def killed(monkeypatch, call, *arguments):
    """Let the command end without any clearing up, after it has begun to train."""

    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(train, "_fit", kill)
        patch.setattr("normkit.cli.workshop.shutil.rmtree", lambda *_, **__: None)
        patch.setattr("normkit.cli.outputs._remove_empty", lambda *_: None)
        with pytest.raises(Killed):
            call(*arguments)


def test_what_a_killed_training_has_left_is_taken_over_without_a_backup_too(
    call, table, tmp_path, monkeypatch
):
    command = ("train", "--data", table, "--epochs", 1)
    for options in (("--out", "run"), ()):
        killed(monkeypatch, call, *command, *options)
    assert names(tmp_path / "run") == names(tmp_path / "runs" / "table-1") == [".normkit-unfinished"]
    assert call(*command, "--out", "run")[0] == 0
    assert call(*command, "--quiet") == (0, "runs/table-1\n", "")
    assert names(tmp_path / "run") == names(tmp_path / "runs" / "table-1") == FILES


def test_a_folder_that_somebody_has_filled_meanwhile_is_refused_and_stays(call, table, tmp_path, monkeypatch):
    command = ("train", "--data", table, "--epochs", 1, "--out", "run")
    killed(monkeypatch, call, *command)
    (tmp_path / "run" / ".normkit-unfinished" / "half").touch()
    (tmp_path / "run" / "note.txt").write_text("mine")
    told = (2, "", "normkit: run: is there already; choose another name, or remove it\n")
    assert call(*command) == told
    assert names(tmp_path / "run") == [".normkit-unfinished", "note.txt"]
    (tmp_path / "run" / "note.txt").unlink()
    assert call(*command)[0] == 0
    assert names(tmp_path / "run") == FILES
    assert call(*command) == told


def test_a_mark_that_is_a_link_is_not_followed(call, table, tmp_path):
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "kept").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".normkit-unfinished").symlink_to(tmp_path / "else")
    assert call("train", "--data", table, "--epochs", 1, "--out", "run")[0] == 2
    assert names(tmp_path / "else") == ["kept"]


def test_results_that_were_made_are_delivered_and_another_training_is_refused(
    call, table, tmp_path, monkeypatch
):
    """Killed between the results and their place: the same command delivers them, another one does so and is refused."""
    command = ("train", "--data", table, "--epochs", 1, "--out", "run")
    assert call(*command)[0] == 0
    expected = results(tmp_path / "run")

    class Killed(BaseException):
        pass

    def kill(made, place):
        if place.name == "history.csv":
            raise Killed

    for seed, code in ((0, 0), (1, 2)):
        for path in (tmp_path / "run").iterdir():
            path.unlink()
        with monkeypatch.context() as patch:
            patch.setattr("normkit.cli.outputs._move_new", kill)
            with pytest.raises(Killed):
                call(*command)
        monkeypatch.setattr(train, "_fit", lambda *_: pytest.fail("it was trained again"))
        assert call(*command, "--seed", seed)[0] == code
        assert results(tmp_path / "run") == expected
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)


def test_a_signal_while_results_are_delivered_leaves_all_of_them(call, table, tmp_path, monkeypatch):
    from normkit.cli import outputs

    move = outputs._move_new
    signals = iter([signal.SIGTERM])

    def slow(made, place):
        move(made, place)
        for number in signals:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(outputs, "_move_new", slow)
    assert call("train", "--data", table, "--epochs", 1, "--out", "run")[0] == 128 + signal.SIGTERM
    assert names(tmp_path / "run") == FILES


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--lr", 0.1), "was made with no --lr, now --lr 0.1;"),
        (("--seed", 1), "was made with --seed 0, now --seed 1;"),
        (("--batch-size", 9), "was made with --batch-size 32, now --batch-size 9;"),
        (("--optimizer", "sgd"), "was made with --optimizer adam, now --optimizer sgd;"),
        (("--layers", "9,bn,3"), "was made with no --layers, now --layers 9,bn,3;"),
        (("--last", "drop"), "was made with --last keep, now --last drop;"),
        (("--deterministic",), "was made with no --deterministic, now --deterministic;"),
        (("--lr", 0.1, "--seed", 2), "was made with no --lr, --seed 0, now --lr 0.1, --seed 2;"),
        (("--epochs", 1), "is of a training of 2 epochs, which is more than epochs=1;"),
    ],
)
@pytest.mark.parametrize("data", ["d.npz", "table.csv"])
def test_other_options_do_not_go_on_from_a_backup(call, here, monkeypatch, data, option, told):
    """Or the record of the run would not be true. The validation rows of the table depend on the seed."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.normal(3 * y[:, None], 1, (60, 4))
    if data == "d.npz":
        np.savez(here / data, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    else:
        write_table(here)
    command = ("train", "--data", data, "--epochs", 3, "--backup", "b", "--out", "run")

    class Killed(BaseException):
        pass

    def kill(self, epoch, logs=None):
        if epoch == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("normkit.cli.progress.EpochTable.on_epoch_begin", kill)
        with pytest.raises(Killed):
            call(*command)
    code, _, err = call(*command, *option)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("normkit: b/latest.safetensors: ")
    assert told in err
    assert err.endswith("; pass the same options, or remove b to begin anew\n")
    assert "goes on" not in err
    assert names(here) == ["b", data]
    assert call(*command)[0] == 0


@pytest.mark.parametrize("second_out", [("--out", "other"), ()])
def test_of_two_processes_with_one_backup_the_second_is_refused(table, tmp_path, second_out):
    """Whatever its results are called; and a killed one locks nobody out."""
    common = ("train", "--data", "table.csv", "--epochs", "100000", "--backup", "b")
    with subprocess.Popen(
        program(*common, "--out", "run"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert any(line.startswith("    1  ") for line in iter(running.stdout.readline, ""))
        second = subprocess.run(
            program(*common, *second_out), check=False, capture_output=True, text=True, timeout=60
        )
        told = "another process trains with this backup; wait for it, or choose another --backup (if none does, remove .normkit-unfinished in it)"
        assert (second.returncode, second.stderr) == (2, f"normkit: b: {told}\n")
        assert running.poll() is None
        running.kill()
    assert names(tmp_path) == ["b", "run", "table.csv"]
    assert {".normkit-unfinished", "latest.safetensors"} <= set(names(tmp_path / "b"))
    again = subprocess.run(
        program(*common, "--seed", "1", *second_out),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "was made with --seed 0, now --seed 1" in again.stderr  # so the lock is free
    assert names(tmp_path) == ["b", "run", "table.csv"]
    assert ".normkit-unfinished" not in names(tmp_path / "b")


@pytest.mark.parametrize("there", [False, True])
def test_the_folder_of_a_backup_goes_when_training_is_through(call, table, tmp_path, there):
    if there:
        (tmp_path / "b").mkdir()
    assert call("train", "--data", table, "--epochs", 1, "--backup", "b", "--out", "run")[0] == 0
    assert names(tmp_path) == ["run", "table.csv"]


def test_of_two_processes_with_one_out_the_second_is_refused(table, tmp_path):
    command = program("train", "--data", "table.csv", "--epochs", "100000", "--out", "run", "--backup", "b")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert any(line.startswith("    3  ") for line in iter(running.stdout.readline, ""))
        second = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        told = "another process is writing there; wait for it, or choose another name"
        assert (second.returncode, second.stderr) == (2, f"normkit: run: {told}\n")
        assert running.poll() is None
        running.send_signal(signal.SIGTERM)
    assert running.returncode == 128 + signal.SIGTERM
    assert names(tmp_path) == ["b", "table.csv"]


def test_a_killed_prediction_leaves_no_file_and_the_next_one_clears_up(call, table, tmp_path):
    assert call("train", "--data", table, "--epochs", 1, "--out", "run")[0] == 0
    script = "import os, signal; from normkit.cli import main, predict; predict._write = lambda *_: os.kill(os.getpid(), signal.SIGKILL); main(['predict', 'run', '--out', 'p.csv'])"
    assert (
        run_python(f"os = __import__('os'); os.chdir({str(tmp_path)!r})\n{script}").returncode
        == -signal.SIGKILL
    )
    assert names(tmp_path) == [".p.csv.normkit-unfinished", "run", "table.csv"]
    assert call("predict", "run", "--out", "p.csv")[0] == 0
    assert names(tmp_path) == ["p.csv", "run", "table.csv"]
    assert Path("p.csv").read_text() == call("predict", "run")[1]
