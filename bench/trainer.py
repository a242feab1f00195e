"""Time of the tutorial example (Dense 64, batch norm, Dense 10; Adam; batches of 32), beside torch.

The contenders take turns, round by round, in one process, each training one epoch of 8000 samples.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BATCH = 32


def load(folder: Path | None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    if folder is None:
        rng = np.random.default_rng(0)
        return rng.random((8000, 784), dtype=np.float32), rng.integers(0, 10, 8000)
    from normkit.data import load as load_data

    data = load_data(folder)
    return data.x_train.reshape(len(data.x_train), -1), data.y_train.astype(np.int64)


def normkit_epoch(x: NDArray[np.float32], y: NDArray[np.int64]) -> Callable[[], object]:
    from normkit.layers import BatchNormalization, Dense
    from normkit.models import Sequential

    model = Sequential(
        [Dense(64, input_shape=(784,)), BatchNormalization(), Dense(10, activation="softmax")], seed=0
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return lambda: model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)


def torch_epoch(x: NDArray[np.float32], y: NDArray[np.int64]) -> Callable[[], object]:
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(784, 64), nn.BatchNorm1d(64, eps=1e-3, momentum=0.01), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters())
    loss_of = nn.CrossEntropyLoss()
    xt, yt = torch.from_numpy(x), torch.from_numpy(y)

    def epoch() -> float:
        order = torch.randperm(len(xt))
        total = correct = 0.0
        for first in range(0, len(xt), BATCH):
            rows = order[first : first + BATCH]
            optimizer.zero_grad()
            logits = model(xt[rows])
            loss = loss_of(logits, yt[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
            correct += (logits.argmax(1) == yt[rows]).sum().item()
        return total + correct

    return epoch


def run(folder: Path | None, rounds: int) -> None:
    x, y = load(folder)
    contenders = {"normkit": normkit_epoch(x, y)}
    if importlib.util.find_spec("torch"):
        contenders["torch"] = torch_epoch(x, y)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, epoch in contenders.items():
            start = time.perf_counter()
            epoch()
            if turn > 0:
                seconds[name].append(time.perf_counter() - start)
    steps = -(-len(x) // BATCH)
    print(f"{steps} steps of batch {BATCH}, one epoch; median of {rounds} rounds (least to most)")
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(
            f"{name:10} {middle * 1e3:8.1f} ms ({min(values) * 1e3:.1f} to {max(values) * 1e3:.1f})"
            f"  {middle / steps * 1e6:7.0f} us per step"
        )
    if "torch" in seconds:
        ratio = statistics.median(t / n for t, n in zip(seconds["torch"], seconds["normkit"], strict=True))
        print(f"torch takes {ratio:.2f} times as long (median of the rounds' ratios)")
