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


def complaints(answer: dict[str, Any]) -> list[str]:
    """What is wrong with how a file was refused."""
    name = answer["name"]
    file = f"/{name}.{name.partition('_')[0]}"
    held = {
        "a ValueError that begins with the file": answer["error"].startswith("ValueError: /"),
        "the file, named once": answer["error"].count(file) == 1,
        f"less than {MEBIBYTES} MiB": answer.get("took", MEBIBYTES) < MEBIBYTES,
        "a small file": answer.get("size", 300_000) < 300_000,
    }
    return [f"{answer}: expected {what}" for what, holds in held.items() if not holds]


def test_each_is_refused_and_takes_no_memory(tmp_path: Path) -> None:
    """One test of all files, as one process opens them: what is imported and warmed up is shared."""
    command = [sys.executable, hostile.__file__, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert run.returncode == 0, run.stderr
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert [answer["name"] for answer in answers] == list(hostile.CASES)
    wrong = [line for answer in answers for line in complaints(answer)]
    assert not wrong, "\n".join(wrong)


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
