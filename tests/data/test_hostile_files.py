"""Small files that ask for the world: refused before memory is taken, by an error that names the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read from /proc")
hostile = pytest.importorskip("hostile")  # it takes h5py and pyarrow

MEBIBYTES = 100


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("hostile")
    command = [sys.executable, hostile.__file__, str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode == 0, run.stderr
    return {answer["name"]: answer for answer in map(json.loads, run.stdout.splitlines())}


@pytest.mark.parametrize("name", hostile.CASES)
def test_it_is_refused_and_takes_no_memory(answers: dict[str, Any], name: str) -> None:
    answer = answers[name]
    file = f"/{name}.{name.partition('_')[0]}"
    assert answer["error"].startswith("ValueError: /"), answer
    assert answer["error"].count(file) == 1, answer
    assert answer["took"] < MEBIBYTES, answer
    assert answer["size"] < 300_000


def test_what_compresses_well_is_read(tmp_path: Path) -> None:
    import h5py
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from normkit.data import ArrowFiles, Hdf5File, MiniBatches

    rows = 1 << 20
    zeros = np.zeros((rows, 8))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=zeros, chunks=(1 << 13, 8), compression="gzip", compression_opts=9)
    pq.write_table(pa.table({"x": zeros[:, 0]}), tmp_path / "x.parquet")
    for source in (Hdf5File(tmp_path / "x.h5", "x"), ArrowFiles(tmp_path / "x.parquet")):
        assert (tmp_path / "x.h5").stat().st_size < zeros.nbytes / 500
        assert sum(len(x) for (x,) in MiniBatches(source, batch_size=1 << 14)) == rows
