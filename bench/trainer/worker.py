"""One contender: ``python -m bench.trainer.worker NAME WORKLOAD [FOLDER]`` trains an epoch for every line that it reads."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.trainer.workloads import CLASSES, FEATURES, WORKLOADS, Workload, rows_of

X = NDArray[np.float32]
Y = NDArray[np.int64]


def keras_like(keras: Any, workload: Workload, x: X, y: Y) -> Callable[[], object]:
    """The tutorial's example, by whichever library has Keras's interface."""
    hidden = []
    for units in workload.hidden:
        hidden += [keras.layers.Dense(units), keras.layers.BatchNormalization()]
    model = keras.Sequential(
        [keras.Input((FEATURES,)), *hidden, keras.layers.Dense(CLASSES, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return lambda: model.fit(x, y, batch_size=workload.batch, epochs=1, verbose=0)


def torch_eager(workload: Workload, x: X, y: Y) -> Callable[[], object]:
    """The loop of torch's tutorials, with loss and accuracy of the epoch."""
    import torch
    from torch import nn

    modules: list[nn.Module] = []
    before = FEATURES
    for units in workload.hidden:
        modules += [nn.Linear(before, units), nn.BatchNorm1d(units, eps=1e-3, momentum=0.01)]
        before = units
    model = nn.Sequential(*modules, nn.Linear(before, CLASSES))
    optimizer = torch.optim.Adam(model.parameters())
    loss_of = nn.CrossEntropyLoss()
    xt, yt = torch.from_numpy(x), torch.from_numpy(y)

    def epoch() -> float:
        order = torch.randperm(len(xt))
        total = correct = 0.0
        for rows in order.split(workload.batch):
            optimizer.zero_grad()
            logits = model(xt[rows])
            loss = loss_of(logits, yt[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
            correct += (logits.argmax(1) == yt[rows]).sum().item()
        return total + correct

    return epoch


def make(name: str, workload: Workload, x: X, y: Y) -> Callable[[], object]:
    """Return what trains one epoch."""
    if name == "torch":
        return torch_eager(workload, x, y)
    if name == "normkit":
        import normkit as keras
    else:
        import keras  # type: ignore[no-redef]
    return keras_like(keras, workload, x, y)


def main(name: str, workload: str, folder: str = "") -> None:
    """Answer every line with the seconds of an epoch; first of all say that it is ready."""
    epoch = make(name, WORKLOADS[workload], *rows_of(Path(folder) if folder else None))
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        epoch()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
