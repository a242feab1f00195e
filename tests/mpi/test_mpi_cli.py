"""`mpiexec -n k normkit train`."""

from __future__ import annotations

import csv
import sys

import numpy as np
import pytest

from cli_support import FILES, history, names, write_table
from normkit.models import load_model

PROGRAM = (
    sys.executable,
    "-m",
    "normkit",
    "train",
    "--epochs",
    "2",
    "--layers",
    "8,bn,relu,dropout:0.1,bn,3",
)


@pytest.fixture(name="table")
def table_fixture(tmp_path):
    return str(write_table(tmp_path))


def test_the_ranks_train_together_and_the_first_tells(command, table, tmp_path):
    alone = command(1, *PROGRAM[:5], "2", "--data", table, "--out", "alone")
    job = command(3, *PROGRAM[:5], "2", "--data", table, "--out", "shared")
    assert job.returncode == 0, job.stderr
    assert alone.returncode == 0, alone.stderr
    assert "3 ranks share every batch" in job.stdout
    assert "ranks" not in alone.stdout
    assert job.stdout.count("wrote shared") == 1
    assert len(job.stdout.splitlines()) == len(alone.stdout.splitlines()) + 1
    assert names(tmp_path / "shared") == FILES
    for one, other in zip(history(tmp_path / "alone"), history(tmp_path / "shared"), strict=True):
        for name, value in one.items():
            assert other[name] == pytest.approx(value, rel=2e-4), name


def test_deterministic(command, table, tmp_path):
    weights, histories = [], []
    for ranks in (1, 2, 4):
        job = command(ranks, *PROGRAM, "--data", table, "--out", f"r{ranks}", "--deterministic", "--quiet")
        assert (job.returncode, job.stdout) == (0, f"r{ranks}\n"), job.stderr
        weights.append(load_model(tmp_path / f"r{ranks}" / "model.safetensors").get_weights())
        with (tmp_path / f"r{ranks}" / "history.csv").open(newline="") as file:
            histories.append(list(csv.reader(file)))
    for other in weights[1:]:
        for a, b in zip(weights[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert histories == histories[:1] * 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--data", "nowhere.csv"], "normkit: nowhere.csv: No such file or directory\n"),
        (["--out", "."], "normkit: .: is there already; choose another name, or remove it\n"),
    ],
)
def test_an_error_is_told_once_and_ends_all(command, table, arguments, text):
    job = command(3, *PROGRAM, "--data", table, *arguments)
    assert job.returncode == 2
    assert text in job.stdout + job.stderr
    assert (job.stdout + job.stderr).count("normkit: ") == 1
