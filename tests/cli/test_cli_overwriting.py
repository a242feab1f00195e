"""One rule for the outputs of every command: what is there stays, under whatever name it is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli_support import FILES, call_fixture, here_fixture, model_fixture, names, table_fixture  # noqa: F401
from normkit.cli import export, predict, train
from normkit.cli.saved import Run


def content(folder):
    """Every name below a folder, what it is, and what is in it."""
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }  # fmt: skip


def spellings(folder, name):
    """Names of one file: as it is, over a detour, absolute, by a link to it, to its folder, and by a hard link."""
    path = folder / name
    (folder / "linked").mkdir()
    by_link, by_folder, hard = (
        folder / "linked" / f"{kind}{path.name}" for kind in ("link-", "folder-", "hard-")
    )
    by_link.symlink_to(path)
    by_folder.symlink_to(path.parent)
    hard.hardlink_to(path)
    return [name, f"./linked/../{name}", path, by_link, by_folder / path.name, hard]


COMMANDS = {
    "train": ("train", "--data", "table.csv", "--epochs", 1, "--out"),
    "predict": ("predict", "run", "--data", "table.csv", "--out"),
    "export": ("export", "run"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "taken", ["run/model.safetensors", "run/run.json", "table.csv", "note.safetensors", "empty.safetensors"]
)
def test_no_command_replaces_a_file(call, model, table, tmp_path, command, taken):
    """Neither one of its own inputs nor another, under whatever name."""
    (tmp_path / "note.safetensors").write_text("mine")
    (tmp_path / "empty.safetensors").touch()
    if command == "export" and not taken.endswith("safetensors"):  # its endings
        (tmp_path / f"{taken}.keras").hardlink_to(taken)
        taken += ".keras"
    elif command == "train" and taken.endswith("safetensors"):  # it writes a folder
        (tmp_path / f"{taken}.x").hardlink_to(tmp_path / taken)
        taken += ".x"
    for name in spellings(tmp_path, taken):
        before = content(tmp_path)
        code, out, err = call(*COMMANDS[command], name)
        assert (code, out) == (2, "")
        assert err == f"normkit: {Path(name)}: is there already; choose another name, or remove it\n"
        assert content(tmp_path) == before


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["folder", "link to a folder", "link to itself"])
def test_no_command_replaces_a_folder_or_a_link(call, model, table, tmp_path, command, kind):
    name = "taken" if command == "train" else "taken.keras"
    if kind == "folder":
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept").touch()
    else:
        (tmp_path / name).symlink_to("run" if "folder" in kind else name)
    before = content(tmp_path)
    code, out, err = call(*COMMANDS[command], name)
    assert (code, out) == (2, "")
    assert err.startswith(f"normkit: {name}: ")
    if kind != "link to itself":
        assert err.endswith("is there already; choose another name, or remove it\n")
    assert content(tmp_path) == before


@pytest.mark.parametrize("command", ["predict", "export"])
def test_a_file_that_appears_meanwhile_is_not_replaced(call, model, table, tmp_path, command, monkeypatch):
    def slow(saved, path):
        (tmp_path / "out.keras").write_text("theirs")
        return Run(saved) if path is None else None

    if command == "predict":
        monkeypatch.setattr(predict, "Run", lambda path: slow(path, None))
    else:
        monkeypatch.setattr(export.formats, "write", lambda saved, path, _: (slow(saved, path), path.touch()))
    code, _, err = call(*COMMANDS[command], "out.keras")
    assert (code, err) == (2, "normkit: out.keras: is there already; choose another name, or remove it\n")
    assert (tmp_path / "out.keras").read_text() == "theirs"
    assert names(tmp_path) == ["out.keras", "run", "table.csv"]


@pytest.mark.parametrize("links", [True, False])
def test_results_that_appear_while_a_model_is_trained_are_not_replaced(
    call, table, tmp_path, monkeypatch, links
):
    """Also on a file system without hard links."""
    if not links:
        monkeypatch.setattr(
            os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "Operation not permitted"))
        )
    fit = train._fit

    def meanwhile(*arguments):
        (tmp_path / "run" / "model.safetensors").write_text("theirs")
        fit(*arguments)

    assert call("train", "--data", table, "--epochs", 1, "--out", "other")[0] == 0
    assert names(tmp_path / "other") == FILES
    monkeypatch.setattr(train, "_fit", meanwhile)
    code, _, err = call("train", "--data", table, "--epochs", 1, "--out", "run")
    assert (code, err) == (2, "normkit: run: is there already; choose another name, or remove it\n")
    assert (tmp_path / "run" / "model.safetensors").read_text() == "theirs"


@pytest.mark.parametrize("command", COMMANDS)
def test_where_nothing_can_be_written_is_told_before_the_work(
    call, model, table, tmp_path, command, monkeypatch
):
    for module, name in ((train, "_fit"), (predict, "Run"), (export, "Run")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("work was done"))
    name = "out" if command == "train" else "out.keras"
    code, out, err = call(*COMMANDS[command], f"table.csv/{name}")
    assert (code, out, err) == (2, "", f"normkit: table.csv/{name}: cannot write there: Not a directory\n")
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        code, out, err = call(*COMMANDS[command], f"locked/{name}")
        assert (code, out, err) == (2, "", f"normkit: locked/{name}: cannot write there: Permission denied\n")


@pytest.mark.parametrize("command", ["predict", "export"])
def test_what_fails_leaves_no_folder(call, model, table, tmp_path, command, monkeypatch):
    monkeypatch.setattr(
        Path, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    code, _, err = call(*COMMANDS[command], "deep/er/out.keras")
    assert (code, err.count("\n")) == (2, 1)
    monkeypatch.undo()
    assert names(tmp_path) == ["run", "table.csv"]


def test_a_long_or_odd_name_is_no_hindrance(call, model, table, tmp_path):
    for name in ("p" * 251 + ".csv", "é" * 125 + ".csv", "lock", ".normkit-unfinished"):
        assert call(*COMMANDS["predict"], name)[0] == 0
        assert (tmp_path / name).read_text().startswith("label,p0,p1,p2\n")
    assert len(names(tmp_path)) == 6


def test_an_export_by_a_link_with_another_ending(call, model, tmp_path):
    (tmp_path / "m.keras").symlink_to("m.bin")
    assert call("export", "run", "m.keras")[0] == 0
    assert call("evaluate", "run")[0] == 0
    assert (tmp_path / "m.bin").read_bytes()[:2] == b"PK"
    assert names(tmp_path) == ["m.bin", "m.keras", "run", "table.csv"]


def test_a_pipe_is_not_replaced_by_an_export(call, model, tmp_path):
    os.mkfifo("out.keras")
    assert call("export", "run", "out.keras")[0] == 2
    assert (tmp_path / "out.keras").is_fifo()


@pytest.mark.parametrize(
    ("backup", "out"), [("run", "run"), ("run/b", "run"), ("link/b", "run"), ("../x/run/b", "run")]
)
def test_a_backup_among_the_results_is_refused(call, table, tmp_path, monkeypatch, backup, out):
    """It would be in the way of the command that goes on from it."""
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    Path("link").symlink_to("run")
    code, _, err = call("train", "--data", table, "--epochs", 1, "--out", out, "--backup", backup)
    assert code == 2
    assert (
        f"--backup {backup} is in --out {out}, which is for results alone; choose a folder elsewhere" in err
    )
    assert names(Path()) == ["link"]
