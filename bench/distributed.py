"""Rows a second that data-parallel training gets through on 1, 2 and 4 ranks of this machine, and what the collectives cost.

Each measurement is a job of its own by mpiexec, one thread a rank; the jobs take turns, round by round.
``--model`` carries the measured times to larger clusters on paper: see docs/distributed.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROWS, FEATURES, CLASSES = 8192, 784, 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="default: 1 2 4")
    parser.add_argument("--units", type=int, default=512, help="of both hidden layers (default %(default)s)")
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[256, 1024], help="rows of a batch of all ranks"
    )
    parser.add_argument("--rounds", type=int, default=5, help="jobs of each kind (default %(default)s)")
    parser.add_argument("--model", action="store_true", help="print the α-β model instead of measuring")


def run(arguments: argparse.Namespace) -> None:
    if arguments.model:
        from bench import collectives

        collectives.table()
        return
    jobs = [
        (batch, ranks, deterministic)
        for batch in arguments.batch
        for deterministic in (False, True)
        for ranks in arguments.ranks
    ]
    seen: dict[tuple[int, int, bool], list[dict[str, float]]] = {job: [] for job in jobs}
    for _ in range(arguments.rounds):
        for job in jobs:
            seen[job].append(_launch(*job, arguments.units))
    print(
        f"{os.cpu_count()} cores; {FEATURES}-{arguments.units}-bn-{arguments.units}-bn-{CLASSES}, adam, float32;"
    )
    print(f"median of {arguments.rounds} jobs (least to most)")
    print("batch  ranks  deterministic        rows/s                 ms/step  in collectives")
    for (batch, ranks, deterministic), results in seen.items():
        rates = [result["rows"] / result["seconds"] for result in results]
        step = statistics.median(result["seconds"] / result["steps"] for result in results)
        share = statistics.median(result["collectives"] / result["seconds"] for result in results)
        print(
            f"{batch:5}  {ranks:5}  {'yes' if deterministic else 'no':13}  {statistics.median(rates):7.0f} "
            f"({min(rates):.0f} to {max(rates):.0f})".ljust(58)
            + f"{step * 1e3:7.2f}  {share:13.0%}"
        )


def _launch(batch: int, ranks: int, deterministic: bool, units: int) -> dict[str, float]:
    beside = Path(sys.prefix) / "bin" / "mpiexec"
    launcher = str(beside) if beside.exists() else shutil.which("mpiexec")
    if launcher is None:
        raise SystemExit("bench distributed: no mpiexec: pip install --group mpi")
    words = [sys.executable, "-m", "bench.distributed", str(batch), str(units), str(int(deterministic))]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NORMKIT_NUM_THREADS": "1"}
    job = subprocess.run(
        [launcher, "-n", str(ranks), *words],
        env=os.environ | one_thread,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if job.returncode:
        raise SystemExit(f"bench distributed: a job of {ranks} ranks failed:\n{job.stderr}")
    result: dict[str, float] = json.loads(job.stdout)
    return result


def worker(batch: int, units: int, deterministic: bool) -> None:
    """Train an epoch to warm up and one on the clock, and print what the first rank saw."""
    from normkit.distributed import DataParallel
    from normkit.layers import BatchNormalization, Dense, Input
    from normkit.models import Sequential

    shared = DataParallel(deterministic=deterministic)
    clock = _Clock(shared.comm)
    shared.comm = clock
    if shared.chunks is not None:
        shared.chunks.comm = clock
    hidden = [layer for _ in range(2) for layer in (Dense(units, activation="relu"), BatchNormalization())]
    model = Sequential([Input((FEATURES,)), *hidden, Dense(CLASSES, activation="softmax")], seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", distribution=shared)
    rng = np.random.default_rng(0)
    x, y = rng.random((ROWS, FEATURES), dtype=np.float32), rng.integers(0, CLASSES, ROWS)
    model.fit(x, y, batch_size=batch, verbose=0)
    clock.seconds = 0.0
    start = time.perf_counter()
    model.fit(x, y, batch_size=batch, verbose=0)
    seconds = time.perf_counter() - start
    if model.is_first_rank:
        found = {"rows": ROWS, "steps": -(-ROWS // batch), "seconds": seconds, "collectives": clock.seconds}
        print(json.dumps(found))


class _Clock:
    """A communicator that adds up the time in its collectives, waiting for other ranks included."""

    def __init__(self, comm: Any) -> None:
        self._comm, self.seconds = comm, 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._comm, name)
        if not callable(found):
            return found

        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return found(*arguments)
            finally:
                self.seconds += time.perf_counter() - start

        return timed

    def __deepcopy__(self, memo: dict[int, Any]) -> _Clock:
        return self


if __name__ == "__main__":
    worker(int(sys.argv[1]), int(sys.argv[2]), bool(int(sys.argv[3])))
