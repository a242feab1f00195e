"""Time of training beside other libraries: whole epochs, as a user runs them.

Each contender lives in a process of its own, for Keras takes one backend per process; they take turns, epoch by epoch, and
only one works at a time. The first five epochs of a contender, compilation included, are its first fit.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
from pathlib import Path

from bench.trainer.workloads import WORKLOADS, Workload

__all__ = ["WORKLOADS", "run"]

CONTENDERS = {
    "normkit": "normkit",
    "torch": "torch",
    "keras-jax": "jax",
    "keras-tensorflow": "tensorflow",
    "keras-torch": "torch",
}
FIRST_FIT = 5
ROOT = Path(__file__).resolve().parents[2]


class Contender:
    """One library in its own process, which trains an epoch when it is asked to."""

    def __init__(self, name: str, workload: str, data: Path | None) -> None:
        command = [sys.executable, "-m", "bench.trainer.worker", name, workload, str(data or "")]
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
        if name.startswith("keras-"):
            environment["KERAS_BACKEND"] = CONTENDERS[name]
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment, cwd=ROOT,
        )  # fmt: skip
        self._read()

    def epoch(self) -> float:
        """Train one epoch; return its seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._read())

    def end(self) -> None:
        """End the process."""
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(
                f"{self.name}: has ended with code {self._process.wait()}; "
                f"run it by hand: {' '.join(map(str, self._process.args))}"  # type: ignore[arg-type]
            )
        return line


def run(data: Path | None, rounds: int, names: list[str], peers: list[str] | None) -> None:
    """Print a table for each workload."""
    installed = [name for name in CONTENDERS if _is_installed(name)]
    chosen = installed if peers is None else [n for n in installed if n in ("normkit", *peers)]
    print(
        f"contenders: {', '.join(chosen)}; not installed: {', '.join(CONTENDERS.keys() - set(installed)) or 'none'}"
    )
    for name in names or list(WORKLOADS):
        _table(name, WORKLOADS[name], chosen, data.resolve() if data else None, rounds)


def _is_installed(name: str) -> bool:
    modules = {CONTENDERS[name], "keras"} if name.startswith("keras-") else {CONTENDERS[name]}
    return all(importlib.util.find_spec(module) for module in modules)


def _table(name: str, workload: Workload, chosen: list[str], data: Path | None, rounds: int) -> None:
    contenders = [Contender(one, name, data) for one in chosen]
    seconds: dict[str, list[float]] = {one.name: [] for one in contenders}
    for _ in range(FIRST_FIT + rounds):
        for one in contenders:
            seconds[one.name].append(one.epoch())
    for one in contenders:
        one.end()
    print(f"\n{name}: {workload.describe()}; median of {rounds} rounds (least to most)")
    print(
        f"{'':17} {'epoch, ms':>24} {'us per step':>12} {'ratio':>7} {'first fit of 5, s':>18} {'ratio':>7}"
    )
    ours = seconds["normkit"]
    for one, all_epochs in seconds.items():
        first, values = sum(all_epochs[:FIRST_FIT]), all_epochs[FIRST_FIT:]
        middle = statistics.median(values)
        ratio = statistics.median(t / n for t, n in zip(values, ours[FIRST_FIT:], strict=True))
        spread = f"{middle * 1e3:.1f} ({min(values) * 1e3:.1f} to {max(values) * 1e3:.1f})"
        print(
            f"{one:17} {spread:>24} {middle / workload.steps * 1e6:12.0f} {ratio:7.2f} {first:18.3f} "
            f"{first / sum(ours[:FIRST_FIT]):7.2f}"
        )
