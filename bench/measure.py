"""Times of contenders that take turns, round by round, in one process."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from bench.contenders import Call

SAMPLE = 2e-3  # seconds that a sample lasts, or MOST_CALLS
WARM, WARM_CALLS = 1e-3, 4  # seconds of untimed calls before it, and their least number
MOST_CALLS = 1000
LONGEST_WAIT = 2.0


def quiet() -> None:
    """Wait until no thread of the process computes.

    After its last call a runtime's workers spin, libgomp's for some milliseconds, others longer; they would take a core
    from the next contender.
    """
    deadline = time.perf_counter() + LONGEST_WAIT
    while time.perf_counter() < deadline:
        before = time.process_time()
        time.sleep(0.003)
        if time.process_time() - before < 0.0003:
            return


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def sample(call: Call, times: int) -> float:
    """Seconds per execution, after some that wake the contender's own workers."""
    quiet()
    call.run(WARM_CALLS)
    start = time.perf_counter()
    while time.perf_counter() < start + WARM:
        call.run(1)
    start = time.perf_counter()
    call.run(times)
    return (time.perf_counter() - start) / times


def cold_sample(call: Call, times: int, others: NDArray[np.uint8]) -> float:
    """The same, with other data in the caches before every execution."""
    quiet()
    seconds = 0.0
    for _ in range(times):
        others += 1
        start = time.perf_counter()
        call.run(1)
        seconds += time.perf_counter() - start
    return seconds / times


def calls_for(call: Call) -> int:
    call.run(1)
    start = time.perf_counter()
    call.run(1)
    once = time.perf_counter() - start
    return max(1, min(MOST_CALLS, round(SAMPLE / max(once, 1e-7))))


def interleaved(calls: Mapping[str, Call], rounds: int, *, cold: bool = False) -> dict[str, list[float]]:
    """Seconds per execution of every contender in every round. The order turns, so that none always follows another."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    if not calls:
        return seconds
    others = np.zeros(128 << 20 if cold else 0, np.uint8)  # more than a last-level cache
    with no_garbage_collection():
        times = {name: calls_for(call) for name, call in calls.items()}
        names = list(calls)
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                if cold:
                    seconds[name].append(cold_sample(calls[name], min(5, times[name]), others))
                else:
                    seconds[name].append(sample(calls[name], times[name]))
    return seconds


def median(values: list[float]) -> float:
    return statistics.median(values)


def spread(values: list[float]) -> float:
    """Interquartile range as a share of the median."""
    if len(values) < 4:
        return (max(values) - min(values)) / median(values)
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / median(values)


def ratio(slower: list[float], faster: list[float]) -> float:
    """Median over the rounds of how many times as long the first takes."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def geometric_mean(values: list[float]) -> float:
    return statistics.geometric_mean(values) if values else float("nan")
