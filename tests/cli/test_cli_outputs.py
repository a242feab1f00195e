"""Where the command line writes: whole results or none, in whatever stands at their place, however the program ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cli_support import (  # noqa: F401
    FILES,
    call_fixture,
    here_fixture,
    model_fixture,
    names,
    program,
    table_fixture,
)
from normkit.cli import main, train


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        program(*arguments), check=False, capture_output=True, text=True, timeout=60, **options
    )


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'"$0" -m normkit {line}', sys.executable],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


# --- train --out -------------------------------------------------------------------------------------


def test_out_is_the_folder_one_is_in(call, table, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, out, _ = call("train", "--data", table, "--epochs", 1, "--out", ".")
    assert (code, out.splitlines()[-1]) == (
        0,
        "wrote .: curves.png, history.csv, model.safetensors, run.json",
    )
    assert names(tmp_path / "empty") == FILES


@pytest.mark.parametrize("there", [True, False])
def test_out_is_a_link_to_a_folder(call, table, tmp_path, there):
    if there:
        (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    assert call("train", "--data", table, "--epochs", 1, "--out", "link")[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "target") == FILES


def test_an_empty_folder_is_kept_and_not_replaced(call, table, tmp_path):
    """As a mount point must be."""
    folder = tmp_path / "empty"
    folder.mkdir()
    before = folder.stat().st_ino
    assert call("train", "--data", table, "--epochs", 1, "--out", "empty")[0] == 0
    assert folder.stat().st_ino == before


def test_of_two_runs_with_one_out_the_second_fails_before_it_trains(call, table, tmp_path, monkeypatch):
    codes = []
    fit = train._fit
    told = "another process is writing there; wait for it, or choose another name"

    def second_run_meanwhile(*arguments):
        monkeypatch.setattr(train, "_fit", lambda *_: pytest.fail("the second run was trained"))
        codes.append(call("train", "--data", table, "--out", "run"))
        fit(*arguments)

    for exists in (False, True):
        if exists:
            for path in (tmp_path / "run").iterdir():
                path.unlink()
        monkeypatch.setattr(train, "_fit", second_run_meanwhile)
        assert call("train", "--data", table, "--epochs", 1, "--out", "run")[0] == 0
        assert codes.pop() == (2, "", f"normkit: run: {told}\n")
        assert names(tmp_path / "run") == FILES


def test_numbers_of_trainings_at_the_same_time_differ(call, table, tmp_path, monkeypatch):
    fit = train._fit

    def second_run_meanwhile(*arguments):
        monkeypatch.setattr(train, "_fit", fit)
        assert call("train", "--data", table, "--epochs", 1)[0] == 0
        fit(*arguments)

    monkeypatch.setattr(train, "_fit", second_run_meanwhile)
    assert call("train", "--data", table, "--epochs", 1)[0] == 0
    assert [names(tmp_path / "runs" / name) for name in ("table-1", "table-2")] == [FILES, FILES]


def test_a_failure_leaves_an_empty_folder_as_it_was(call, table, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(train, "write_history", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("train", "--data", table, "--epochs", 1, "--out", "empty")
    assert names(tmp_path / "empty") == []


# --- predict --out -----------------------------------------------------------------------------------


def test_predict_into_a_pipe_with_a_name(call, model, table, tmp_path):
    os.mkfifo("pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_text()), daemon=True)
    reader.start()
    assert call("predict", model, "--data", table, "--out", "pipe") == (0, "wrote pipe: 60 rows\n", "")
    assert (tmp_path / "pipe").is_fifo()
    reader.join(timeout=30)
    assert read == [call("predict", model, "--data", table)[1]]


def test_predict_into_a_device(call, model, table, tmp_path):
    (tmp_path / "null").symlink_to(os.devnull)
    before = Path(os.devnull).stat()
    assert call("predict", model, "--data", table, "--out", "null")[0] == 0
    assert (tmp_path / "null").is_char_device()
    assert Path(os.devnull).stat().st_ino == before.st_ino


def test_predict_makes_folders(call, model, table, tmp_path):
    assert call("predict", model, "--data", table, "--out", "deep/er/p.csv")[0] == 0
    assert names(tmp_path / "deep" / "er") == ["p.csv"]


def test_predict_through_a_link_to_nothing(call, model, table, tmp_path):
    (tmp_path / "else").mkdir()
    (tmp_path / "p.csv").symlink_to("else/p.csv")
    assert call("predict", model, "--data", table, "--out", "p.csv")[0] == 0
    assert (tmp_path / "p.csv").is_symlink()
    assert (tmp_path / "else" / "p.csv").read_text() == call("predict", model, "--data", table)[1]
    assert names(tmp_path / "else") == ["p.csv"]


def test_predict_into_dev_stdout(table, tmp_path, model):
    """Whatever the standard output is, it gets the table alone."""
    expected = run("predict", "run", "--data", "table.csv").stdout
    for line in ("--out /dev/stdout", "--out /dev/stdout | cat", "--out /dev/stdout >p.csv && cat p.csv"):
        done = shell(f"predict run --data table.csv {line}")
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, ""), line


# --- no room, no stdout ------------------------------------------------------------------------------

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")


@needs_full
def test_a_full_disk_is_named(call, model, table, tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")  # a link, so that a fault here cannot harm the device
    code, _, err = call("predict", model, "--data", table, "--out", "full")
    assert (code, err) == (2, "normkit: full: cannot write there: No space left on device\n")


def test_a_disk_that_is_full_at_the_end_of_a_training_is_named(call, table, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train, "draw_curves", full)
    code, _, err = call("train", "--data", table, "--epochs", 1, "--out", "run")
    assert (code, err) == (2, "normkit: run: cannot write there: No space left on device\n")
    assert names(tmp_path) == ["table.csv"]


@needs_full
def test_a_stdout_that_is_full_is_named(here):
    done = shell("info >/dev/full")
    assert (done.returncode, done.stderr) == (2, "normkit: standard output: No space left on device\n")
    assert shell("--help >/dev/full").stderr == ""


def test_a_stdout_that_is_closed_is_no_error(table, tmp_path):
    for line in ("info", "train --data table.csv --epochs 1 --out run", "predict run"):
        done = shell(f"{line} >&-")
        assert (done.returncode, done.stderr) == (0, ""), line
    assert names(tmp_path / "run") == FILES
    assert shell("info 2>&-").returncode == 0


# --- signals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_leaves_nothing(table, tmp_path, name):
    command = program("train", "--data", "table.csv", "--epochs", "1000000", "--out", "deep/run")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert any(line.startswith("    3  ") for line in iter(running.stdout.readline, ""))
        running.send_signal(signal.Signals[name])
        _, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (128 + signal.Signals[name], "")
    assert names(tmp_path) == ["table.csv"]


def test_handlers_of_signals_are_put_back(call, monkeypatch):
    def ignored(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, ignored), signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert call("info")[0] == 0
        assert signal.getsignal(signal.SIGTERM) is ignored
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGHUP, before[1])


def test_main_in_another_thread(capsys):
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["info"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_ctrl_c_while_the_commands_are_imported(here):
    """The import of a module that they need is where it comes."""
    (here / "sitecustomize.py").write_text(
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'normkit.models': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
    )
    path = os.pathsep.join(filter(None, (str(here), os.environ.get("PYTHONPATH"))))
    done = run("info", env=os.environ | {"PYTHONPATH": path})
    assert (done.returncode, done.stderr) == (130, "normkit: interrupted, nothing was written\n")


def test_matplotlib_without_a_place_for_its_cache_says_nothing(table):
    nowhere = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), "/dev/null/nowhere")
    environment = {name: value for name, value in os.environ.items() if name != "MPLCONFIGDIR"}
    done = run("train", "--data", "table.csv", "--epochs", "1", "--out", "run", env=environment | nowhere)
    assert (done.returncode, done.stderr) == (0, "")
