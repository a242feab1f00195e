"""The arrays that every contender of a case gets, and the exact results that theirs are compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.grid import Case

F32, F64 = NDArray[np.float32], NDArray[np.float64]
EPS = 1e-5
# Largest error of a result, as a share of its largest element, with which a contender is still timed. Single precision
# gives 1e-6 on these data; this is there to catch a wrong result, not a poor one.
TOLERANCE = 1e-4


def aligned(shape: tuple[int, ...]) -> F32:
    """An array whose pages exist, beginning at a multiple of 64 bytes, as each peer likes it best."""
    size = 4 * math.prod(shape)
    raw = np.empty(size + 64, np.uint8)
    first = -raw.ctypes.data % 64
    array = raw[first : first + size].view(np.float32).reshape(shape)
    array.fill(0)
    return array


@dataclass
class Inputs:
    """x and dy in the case's memory order; mean and rstd are exact, one per row or channel."""

    case: Case
    x: F32
    dy: F32
    weight: F32
    bias: F32
    mean: F64
    var: F64

    @property
    def rstd(self) -> F64:
        rstd: F64 = 1.0 / np.sqrt(self.var + EPS)
        return rstd


def _moments(x: F32, axes: tuple[int, ...]) -> tuple[F64, F64]:
    mean = x.mean(axis=axes, dtype=np.float64)
    squares = np.zeros(mean.shape)
    # The array piece by piece: its square in double precision would not fit beside it.
    for part in np.array_split(np.arange(x.shape[0]), max(1, x.size // 4_000_000)):
        piece = x[part[0] : part[-1] + 1].astype(np.float64)
        centred = piece - (mean[part[0] : part[-1] + 1, None] if axes == (1,) else np.expand_dims(mean, axes))
        square = np.square(centred, out=centred).sum(axis=axes)
        if axes == (1,):
            squares[part[0] : part[-1] + 1] = square
        else:
            squares += square
    return mean, squares / (x.size // mean.size)


def make(case: Case) -> Inputs:
    rng = np.random.default_rng(20)
    x, dy = aligned(case.memory_shape), aligned(case.memory_shape)
    rng.standard_normal(out=x, dtype=np.float32)
    x += 0.5
    rng.standard_normal(out=dy, dtype=np.float32)
    width = case.shape[1]
    weight, bias = aligned((width,)), aligned((width,))
    weight[:], bias[:] = rng.uniform(0.5, 1.5, (2, width))
    axes = (1,) if case.op == "ln" else tuple(i for i in range(x.ndim) if i != case.axis)
    return Inputs(case, x, dy, weight, bias, *_moments(x, axes))


def _worst(got: Any, exact: F64) -> float:
    scale = float(np.max(np.abs(exact), initial=1e-30))
    return float(np.max(np.abs(np.asarray(got, np.float64) - exact), initial=0.0)) / scale


def error_of(inputs: Inputs, results: tuple[Any, ...]) -> float:
    """Largest error of results (y,) or (dx, dweight, dbias), on a sample of the rows or channels if there are many."""
    case = inputs.case
    if case.op == "ln":
        matrix, across = (lambda a: np.asarray(a)), 0
    else:
        n, c, inner = case.planes
        shape = (n, inner, c) if case.layout == "nhwc" else (n, c, inner)
        moved = 2 if case.layout == "nhwc" else 1
        matrix, across = (lambda a: np.moveaxis(np.reshape(a, shape), moved, 0).reshape(c, -1)), 1
    x, dy, first = matrix(inputs.x), matrix(inputs.dy), matrix(results[0])
    rows = np.unique(
        np.linspace(0, x.shape[0] - 1, max(1, min(x.shape[0], 2_000_000 // x.shape[1]))).astype(int)
    )
    mean, rstd = inputs.mean[:, None], inputs.rstd[:, None]
    weight, bias = inputs.weight.astype(np.float64), inputs.bias.astype(np.float64)
    w, b = (weight[None], bias[None]) if across == 0 else (weight[rows, None], bias[rows, None])
    x_hat = (x[rows] - mean[rows]) * rstd[rows]
    if len(results) == 1:
        return _worst(first[rows], x_hat * w + b)
    g = dy[rows] * w
    dx = rstd[rows] * (g - g.mean(1, keepdims=True) - x_hat * (g * x_hat).mean(1, keepdims=True))
    errors = [_worst(first[rows], dx)]
    if across == 1:
        dy64 = dy[rows].astype(np.float64)
        errors += [
            _worst(np.asarray(results[1])[rows], (dy64 * x_hat).sum(1)),
            _worst(np.asarray(results[2])[rows], dy64.sum(1)),
        ]
    else:
        cols = np.unique(
            np.linspace(0, x.shape[1] - 1, max(1, min(x.shape[1], 2_000_000 // x.shape[0]))).astype(int)
        )
        dy64 = dy[:, cols].astype(np.float64)
        x_hat = (x[:, cols] - mean) * rstd
        errors += [
            _worst(np.asarray(results[1])[cols], (dy64 * x_hat).sum(0)),
            _worst(np.asarray(results[2])[cols], dy64.sum(0)),
        ]
    return max(errors)
