"""The cases: an operation on a shape in a layout."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

SHAPES = Path(__file__).with_name("shapes.json")
# One small, one in the nearest caches, one in the last and one beyond, of each kind.
QUICK = re.compile(
    r"ln (32x64|1024x768|4096x1600|2048x8192|1x1048576) |"
    r"bn (32x64|256x1024|4096x512|32x64x56x56|32x512x28x28|8x3x224x224) "
)


@dataclass(frozen=True)
class Case:
    """op "ln": shape (rows, cols). op "bn": x with the channels at axis 1, in the memory order `layout`."""

    op: str
    shape: tuple[int, ...]
    layout: str  # "", "nc", "nchw", "nhwc"
    direction: str  # "fwd", "bwd", "inf" (batch norm with running statistics)

    @cached_property
    def name(self) -> str:
        words = [self.op, "x".join(map(str, self.shape)), self.layout, self.direction]
        return " ".join(word for word in words if word)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def mib(self) -> float:
        return self.size * 4 / 2**20

    @property
    def group(self) -> str:
        kind = "layer norm" if self.op == "ln" else f"batch norm {self.layout.upper()}"
        return f"{kind} {({'fwd': 'forward', 'bwd': 'backward', 'inf': 'inference'})[self.direction]}"

    @property
    def planes(self) -> tuple[int, int, int]:
        """Batch norm: (N, C, H·W)."""
        return self.shape[0], self.shape[1], math.prod(self.shape[2:])

    @property
    def memory_shape(self) -> tuple[int, ...]:
        """The array as it lies in memory, and where the benchmark's own arrays have the channels."""
        if self.op == "ln" or self.layout == "nc":
            return self.shape
        n, c, inner = self.planes
        return (n, c, inner) if self.layout == "nchw" else (n, inner, c)

    @property
    def axis(self) -> int:
        return {"nhwc": 2}.get(self.layout, 1)


def layer_norm_cases(shape: tuple[int, ...], normalized: int = 1) -> list[Case]:
    rows, cols = math.prod(shape[:-normalized]), math.prod(shape[-normalized:])
    return [Case("ln", (rows, cols), "", direction) for direction in ("fwd", "bwd")]


def batch_norm_cases(shape: tuple[int, ...]) -> list[Case]:
    layouts = ["nc"] if len(shape) == 2 else ["nchw", "nhwc"]
    return [Case("bn", shape, layout, d) for layout in layouts for d in ("fwd", "bwd", "inf")]


def standard() -> list[Case]:
    grid = json.loads(SHAPES.read_text())
    cases: list[Case] = []
    for shape in grid["layer_norm"]:
        cases += layer_norm_cases(tuple(shape), grid["normalized"].get("x".join(map(str, shape)), 1))
    for shape in grid["batch_norm"]:
        cases += batch_norm_cases(tuple(shape))
    return cases


def parse(text: str) -> list[Case]:
    """Cases of a shape written as "ln 777x1023" or "bn 8x24x56x56"."""
    match = re.fullmatch(r"(ln|bn) (\d+(?:x\d+)+)", text.strip())
    if not match:
        raise ValueError(f'a shape is written as "ln 777x1023" or "bn 8x24x56x56", got "{text}"')
    shape = tuple(map(int, match[2].split("x")))
    return layer_norm_cases(shape) if match[1] == "ln" else batch_norm_cases(shape)
