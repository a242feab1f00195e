"""What is measured: every operation in every layout on lengths from 2 to 1e6 of easy and hostile data."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

SUPPORT = str(Path(__file__).resolve().parents[2] / "tests" / "support")
if SUPPORT not in sys.path:
    sys.path.insert(0, SUPPORT)

import cases

Array = NDArray[Any]
Data = Callable[[np.random.Generator, tuple[int, ...]], Array]

EPS = 1e-5
LENGTHS = (2, 3, 10, 100, 1000, 10_000, 100_000, 1_000_000)
QUICK_LENGTHS = (2, 10, 1000, 10_000)
OFFSETS = ("0", "1", "1e2", "1e3", "1e4", "1e6")
OPS = ("layer norm", "batch norm NC", "batch norm NCHW", "batch norm NHWC")
ELEMENTS = 4096  # that a case has at least: enough for a 99.9th percentile


@dataclass(frozen=True)
class Format:
    """A dtype, and how large its hostile data are."""

    dtype: Any
    huge: tuple[str, ...]
    decades: float = 6.0  # of mixed scales, to either side
    offsets: tuple[str, ...] = OFFSETS

    def data(self) -> dict[str, Data]:
        least = float(ml_dtypes.finfo(self.dtype).smallest_subnormal)
        return {
            **{f"mean/σ {name}": cases.normal(float(name)) for name in self.offsets},
            "constant": cases.DATA["constant"],
            "subnormal": lambda rng, shape: least * rng.integers(-1000, 1000, shape),
            **{f"huge, {size}": _scaled(float(size)) for size in self.huge},
            "mixed scales": lambda rng, shape: (
                rng.standard_normal(shape) * 10.0 ** rng.uniform(-self.decades, self.decades, shape)
            ),
        }


def _scaled(size: float) -> Data:
    return lambda rng, shape: size * rng.standard_normal(shape)


FORMATS = {
    "float32": Format(np.float32, ("1e30",)),
    "float64": Format(np.float64, ("1e30", "1e300")),
    "bfloat16": Format(ml_dtypes.bfloat16, ("1e30",)),
    "float16": Format(np.float16, (), decades=3.0, offsets=OFFSETS[:-1]),  # it ends at 65504
}


@dataclass(frozen=True)
class Problem:
    """One call forward and backward. axis: the normalized axis of a layer norm, the channels of a batch norm."""

    op: str
    format: str
    data: str
    x: Array
    dy: Array
    weight: Array | None
    bias: Array | None
    axis: int
    eps: float = EPS
    source: str = ""  # of a reproducer

    @property
    def is_layer_norm(self) -> bool:
        return self.op == "layer norm"

    @cached_property
    def axes(self) -> tuple[int, ...]:
        """Those that the statistics reduce."""
        channel = self.axis % self.x.ndim
        return (channel,) if self.is_layer_norm else tuple(i for i in range(self.x.ndim) if i != channel)

    @cached_property
    def summed_axes(self) -> tuple[int, ...]:
        """Those that dweight and dbias are summed over."""
        return tuple(i for i in range(self.x.ndim) if i != self.axis % self.x.ndim)

    @cached_property
    def spread(self) -> tuple[int, ...]:
        """The shape in which weight and bias broadcast against x."""
        return tuple(n if i == self.axis % self.x.ndim else 1 for i, n in enumerate(self.x.shape))

    @property
    def length(self) -> int:
        """Values per mean."""
        return int(np.prod([self.x.shape[i] for i in self.axes]))

    @property
    def name(self) -> str:
        return name_of(self.op, self.format, self.data, self.x.shape)


def name_of(op: str, form: str, data: str, shape: tuple[int, ...]) -> str:
    return f"{form} {op} {'x'.join(map(str, shape))} {data}"


def planes(length: int) -> tuple[int, int, int]:
    """(N, H, W) with N·H·W = length."""
    sides = {2: (2, 1, 1), 3: (3, 1, 1), 10: (2, 1, 5), 100: (4, 5, 5), 1000: (10, 10, 10)}
    sides |= {10_000: (4, 50, 50), 100_000: (10, 100, 100), 1_000_000: (4, 500, 500)}
    return sides[length]


def shapes(op: str, length: int) -> list[tuple[tuple[int, ...], int]]:
    """Shape and axis. The layer norms of two values at 1e6 rows are there for dweight and dbias."""
    others = max(2, -(-ELEMENTS // length))
    n, height, width = planes(length)
    if op == "layer norm":
        return [((others, length), -1), *([((length, 2), -1)] if length > 10_000 else [])]
    if op == "batch norm NC":
        return [((length, others), 1)]
    if op == "batch norm NCHW":
        return [((n, others, height, width), 1)]
    return [((n, height, width, others), 3)]


def make(
    op: str, name: str, data: str, shape: tuple[int, ...], axis: int, make_x: Data | None = None, **given: Any
) -> Problem:
    """A problem whose arrays depend on its name alone. `given`: other fields than the defaults."""
    form = FORMATS[name]
    rng = np.random.default_rng(zlib.crc32(f"{op} {name} {data} {shape}".encode()))
    with np.errstate(under="ignore"):
        x = (make_x or form.data()[data])(rng, shape).astype(form.dtype)
    dy = rng.standard_normal(shape).astype(form.dtype)
    weight, bias = (rng.standard_normal(shape[axis]).astype(form.dtype) for _ in range(2))
    return Problem(op, name, data, x, dy, **{"weight": weight, "bias": bias, "axis": axis, **given})


def grid(lengths: tuple[int, ...] = LENGTHS, only: str = "") -> Iterator[Problem]:
    """Those whose name matches, one after the other: the largest arrays do not fit side by side."""
    for length, name, op in product(lengths, FORMATS, OPS):
        for (shape, axis), data in product(shapes(op, length), FORMATS[name].data()):
            if re.search(only, name_of(op, name, data, shape)):
                yield make(op, name, data, shape, axis)
