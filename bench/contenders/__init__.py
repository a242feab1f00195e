"""Who is timed. Each module makes the call that computes a case, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from bench.grid import Case
from bench.inputs import Inputs


@dataclass
class Call:
    """run(n): computes the case n times. results(): (y,) or (dx, dweight, dbias) in the case's memory order."""

    run: Callable[[int], object]
    results: Callable[[], tuple[Any, ...]]
    note: str = ""  # which implementation ran


class Contender(Protocol):
    name: str
    version: str

    def supports(self, case: Case) -> bool: ...

    def prepare(self, inputs: Inputs) -> Call: ...


class AbsentError(Exception):
    """The contender is not here; the text says why and how to get it."""


class UnsupportedError(Exception):
    """The contender is here but does not do this."""


def repeated(call: Callable[[], Any], results: Callable[[Any], tuple[Any, ...]], note: str = "") -> Call:
    """A call from Python, made once for each time."""

    def run(times: int) -> None:
        for _ in range(times):
            call()

    return Call(run, lambda: results(call()), note)
