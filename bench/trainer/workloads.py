"""What is trained: networks with batch norm behind each hidden layer, Adam, on 8000 rows of MNIST's shape."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["WORKLOADS", "Workload", "rows_of"]

ROWS, FEATURES, CLASSES = 8000, 784, 10


class Workload(NamedTuple):
    """Units of the hidden layers, and rows of a mini-batch."""

    hidden: tuple[int, ...]
    batch: int

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return -(-ROWS // self.batch)

    def describe(self) -> str:
        """Say what it is in a line."""
        hidden = "".join(f"{units}-BN-" for units in self.hidden)
        return f"{FEATURES}-{hidden}{CLASSES}, Adam, batches of {self.batch}, {self.steps} steps an epoch"


WORKLOADS = {
    "example": Workload((64,), 32),
    "large-batch": Workload((64,), 1024),
    "wide": Workload((512, 512), 32),
    "wide-large-batch": Workload((512, 512), 1024),
}


def rows_of(folder: Path | None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the training rows of a folder of IDX files, or random ones."""
    if folder is None:
        rng = np.random.default_rng(0)
        return rng.random((ROWS, FEATURES), dtype=np.float32), rng.integers(0, CLASSES, ROWS)
    from normkit.data import load

    data = load(folder)
    x = data.x_train.reshape(len(data.x_train), -1)[:ROWS]
    return np.ascontiguousarray(x, np.float32), data.y_train[:ROWS].astype(np.int64)
