"""The examples of docs/data.md run as they are printed."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from guides import blocks, page

GUIDE = page("docs/data.md")


def test_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = np.random.default_rng(0).normal(size=(100, 3)), np.arange(100) % 10
    np.save("x.npy", x)
    np.save("y.npy", y)
    np.savetxt("table.csv", np.column_stack([x, y]), delimiter=",", header="a,b,c,label", comments="")
    pq.write_table(pa.table({"a": x[:, 0], "b": x[:, 1], "label": y}), "table.parquet")
    with h5py.File("data.h5", "w") as file:
        file["x"], file["y"] = x, y
    Path("images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 7, 8]))
    Path("labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 0, 1]))
    examples = blocks("python", GUIDE)
    assert len(examples) == 2
    namespace: dict[str, object] = {}
    for number, example in enumerate(examples, start=1):
        made = example.replace("\nMiniBatches(", "\nmade = MiniBatches(").replace("))\n", "))\nlist(made)\n")
        exec(compile(made, f"docs/data.md, example {number}", "exec"), namespace)  # noqa: S102 - the page is ours
    assert [len(y) for _, y in namespace["rest"]] == [10] * 6
