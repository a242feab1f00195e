"""What was aimed at, and what a run reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bench.contenders.roofline import traffic
from bench.grid import Case
from bench.measure import geometric_mean, median, ratio

Record = dict[str, Any]
ONEDNN = ("oneDNN SYCL", "oneDNN OpenMP")


def of(record: Record) -> Case:
    op, shape, *rest = record["case"].split()
    return Case(op, tuple(map(int, shape.split("x"))), rest[0] if len(rest) == 2 else "", rest[-1])


def best(record: Record, names: Iterable[str]) -> list[float] | None:
    """Seconds per round of whichever of these contenders is the fastest on the whole."""
    there = [record["seconds"][name] for name in names if name in record["seconds"]]
    return min(there, key=median) if there else None


def against(record: Record, ours: str, peers: Iterable[str]) -> float | None:
    """How many times as long as ours the best of the peers takes."""
    peer = best(record, peers)
    return ratio(peer, record["seconds"][ours]) if peer and ours in record["seconds"] else None


@dataclass
class Row:
    number: str
    what: str
    aim: float
    values: dict[str, float] = field(default_factory=dict)
    each: bool = False  # every case has to reach the aim, not their geometric mean

    @property
    def reached(self) -> float:
        if not self.values:
            return float("nan")
        return min(self.values.values()) if self.each else geometric_mean(list(self.values.values()))

    @property
    def misses(self) -> list[str]:
        return sorted(
            (name for name, v in self.values.items() if v < self.aim), key=lambda name: self.values[name]
        )


def _row(number: str, what: str, aim: float, records: list[Record], value: Callable[[Record], float | None],
         keep: Callable[[Case, Record], bool] = lambda case, record: True, *, each: bool = False) -> Row:  # fmt: skip
    found = {r["case"]: value(r) for r in records if keep(of(r), r)}
    return Row(number, what, aim, {name: v for name, v in found.items() if v is not None}, each)


def share_of_memory(record: Record) -> float | None:
    """Share of the streaming bandwidth of as many arrays, for cases where that was timed."""
    if "memory" not in record["seconds"]:
        return None
    return traffic(of(record))[1] * ratio(record["seconds"]["memory"], record["seconds"]["normkit out="])


def rows(records: list[Record]) -> list[Row]:
    everyone = ("torch", *ONEDNN)
    out = lambda r: against(r, "normkit out=", everyone)
    fresh = lambda r: against(r, "normkit", ("torch",))
    avx2 = lambda r: against(r, "normkit avx2", everyone)
    two = lambda r: (
        ratio(r["seconds"]["normkit 1 thread"], r["seconds"]["normkit out="])
        if "normkit 1 thread" in r["seconds"]
        else None
    )
    forward = lambda c, r: c.direction != "bwd"
    backward = lambda c, r: c.direction == "bwd"

    def cached(op: str, layouts: tuple[str, ...], *directions: str) -> Callable[[Case, Record], bool]:
        return lambda c, r: (
            0.25 <= r["mib"] <= 8 and c.op == op and c.layout in layouts and c.direction in directions
        )

    def small(op: str, direction: str) -> Callable[[Case, Record], bool]:
        return lambda c, r: c.op == op and c.shape == (32, 64) and c.direction == direction

    by_columns = ("nc", "nhwc")
    large_8 = lambda c, r: c.direction != "bwd" and not (c.layout in by_columns and c.direction == "fwd")
    large_12 = lambda c, r: c.direction == "bwd" and c.layout not in by_columns
    large_columns = lambda c, r: c.layout in by_columns and c.direction != "inf"
    return [
        _row("1", "out=, the better of torch and oneDNN, each case", 1.0, records, out, each=True),
        _row("1", "the same, forward, geometric mean", 2.0, records, out, forward),
        _row("1", "the same, backward, geometric mean", 1.7, records, out, backward),
        _row("2", "fresh result, torch, each case", 1.0, records, fresh, each=True),
        _row("2", "the same, geometric mean", 4.0, records, fresh),
        _row("2", "the same, results of 32 MiB and more", 8.0, records, fresh, lambda c, r: r["mib"] >= 32),
        _row("3", "share of memory: forward and inference", 0.90, records, share_of_memory, large_8, each=True),
        _row("3", "share of memory: backward", 0.85, records, share_of_memory, large_12, each=True),
        _row("3", "share of memory: batch norm NHWC and NC", 0.85, records, share_of_memory, large_columns, each=True),
        _row("4", "in cache: layer norm forward", 1.2, records, out, cached("ln", ("",), "fwd")),
        _row("4", "in cache: layer norm backward", 1.5, records, out, cached("ln", ("",), "bwd")),
        _row("4", "in cache: batch norm NC and NHWC", 1.6, records, out, cached("bn", by_columns, "fwd", "bwd")),
        _row("4", "in cache: batch norm NCHW forward", 3.0, records, out, cached("bn", ("nchw",), "fwd")),
        _row("4", "in cache: batch norm NCHW backward", 1.5, records, out, cached("bn", ("nchw",), "bwd")),
        _row("5", "32×64: layer norm forward, torch", 2.5, records, fresh, small("ln", "fwd")),
        _row("5", "32×64: batch norm training forward, torch", 5.0, records, fresh, small("bn", "fwd")),
        _row("5", "32×64: layer norm backward, torch", 3.0, records, fresh, small("ln", "bwd")),
        _row("5", "32×64: batch norm backward, torch", 3.0, records, fresh, small("bn", "bwd")),
        _row("6", "2 threads against 1, 1 to 8 MiB", 1.8, records, two),
        _row("7", "AVX2: the better of torch and oneDNN", 1.0, records, avx2),
    ]  # fmt: skip
