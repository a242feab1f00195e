"""What the tests of the command line share."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

from normkit.cli import main

COLUMNS = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
FILES = ["curves.png", "history.csv", "model.safetensors", "run.json"]


class Command:
    """Runs `normkit` in this process; gives (exit code, stdout, stderr)."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *self._capsys.readouterr()


@pytest.fixture(name="here")
def here_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(name="call")
def call_fixture(here: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, in a temporary folder."""
    return Command(capsys)


@pytest.fixture(name="table")
def table_fixture(here: Path) -> Path:
    """The table of `write_table` in that folder."""
    return write_table(here)


@pytest.fixture(name="model")
def model_fixture(call: Command, table: Path) -> str:
    """A model that `train` has written, trained on that table: the name of its folder."""
    assert call("train", "--data", table, "--epochs", 1, "--out", "run")[0] == 0
    return "run"


def program(*arguments: str) -> list[str]:
    """The command line that runs normkit in a process of its own."""
    return [sys.executable, "-m", "normkit", *arguments]


def write_table(folder: Path) -> Path:
    """Write table.csv: three separable classes, 60 rows of 4 features and a label."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    rows = np.column_stack([rng.normal(3 * labels[:, None], 1, (60, 4)), labels])
    path = folder / "table.csv"
    np.savetxt(path, rows, delimiter=",", header="a,b,c,d,label", comments="", fmt=["%.6f"] * 4 + ["%d"])
    return path


def history(folder: Path) -> list[dict[str, float]]:
    """Read history.csv."""
    with (folder / "history.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        rows = [{name: float(cell) for name, cell in row.items()} for row in reader]
        assert reader.fieldnames == COLUMNS
    return rows


def names(folder: Path) -> list[str]:
    """List a folder."""
    return sorted(path.name for path in folder.iterdir())


def printed(out: str) -> dict[str, float]:
    """Read what `evaluate` printed."""
    return {name: float(value) for name, value in map(str.split, out.splitlines())}
