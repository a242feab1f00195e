"""The speed of memory, timed among the contenders: reads and streaming writes of arrays of the case's size."""

from __future__ import annotations

import ctypes

from bench.contenders import Call
from bench.contenders.native import compiled
from bench.grid import Case
from bench.inputs import Inputs


class Roofline:
    """reads: 1 (a copy) or 2 arrays, and one that is written."""

    version = ""

    def __init__(self, name: str, reads: int, threads: int, *, streams: bool = True) -> None:
        self.name, self.reads, self.threads, self.streams = name, reads, threads, streams
        self.library = compiled("roofline.cpp")
        self.library.roofline_new.restype = ctypes.c_void_p

    def supports(self, case: Case) -> bool:
        return True

    def prepare(self, inputs: Inputs) -> Call:
        return self.of_bytes(4 * inputs.case.size)

    def of_bytes(self, size: int) -> Call:
        lines = ctypes.c_int64(max(1, size // 64))
        library, threads = self.library, self.threads
        memory = ctypes.c_void_p(library.roofline_new(lines, threads))

        def run(times: int) -> None:
            library.roofline_run(memory, lines, self.reads, int(self.streams), threads, times)

        call = _Owned(run, lambda: (), "")
        call.release = lambda: library.roofline_delete(memory)
        return call


class _Owned(Call):
    release = staticmethod(lambda: None)

    def __del__(self) -> None:
        self.release()


def traffic(case: Case) -> tuple[int, float]:
    """The roofline a large case is held against: how many arrays are read, and its time in units of that roofline's.

    Layer norm, inference and batch norm over planes: an array in and one out, or two in and one out backward. Batch norm
    over columns reads x twice (12 bytes an element), and backward x and dy twice (20 bytes).
    """
    if case.direction == "bwd":
        return 2, (20 / 12 if case.op == "bn" and case.layout != "nchw" else 1.0)
    if case.op == "bn" and case.direction == "fwd" and case.layout != "nchw":
        return 2, 1.0
    return 1, 1.0
