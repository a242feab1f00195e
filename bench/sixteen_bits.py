"""Time of 16-bit arrays beside float32 arrays of the same shape, where memory is the limit."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

import normkit as nk
from bench import measure
from bench.contenders import Call

SHAPES = [
    ("layer_norm", (32768, 1024), -1),
    ("layer_norm", (8192, 4096), -1),
    ("batch_norm", (65536, 512), 1),
    ("batch_norm", (32, 256, 56, 56), 1),
    ("batch_norm", (32, 56, 56, 256), -1),
]
DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16)


def calls(op: str, shape: tuple[int, ...], axis: int, dtype: Any) -> tuple[Call, Call]:
    """Forward and backward into memory that is there."""
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape, np.float32).astype(dtype) for _ in range(2))
    weight, bias = (rng.standard_normal(shape[axis], np.float32) for _ in range(2))
    forward, backward = getattr(nk, op), getattr(nk, f"{op}_backward")
    out = np.zeros_like(x)
    _, moments = forward(x, weight, bias, axis=axis, return_moments=True)

    def run_forward(times: int) -> None:
        for _ in range(times):
            forward(x, weight, bias, axis=axis, out=out)

    def run_backward(times: int) -> None:
        for _ in range(times):
            backward(dy, x, moments, weight, axis=axis, out=out)

    return Call(run_forward, lambda: ()), Call(run_backward, lambda: ())


def run(rounds: int) -> None:
    """Print the table: median times, and 16 bits as a share of float32."""
    print(f"{'ms (share of float32)':46}" + "".join(f"{np.dtype(t).name:>15}" for t in DTYPES))
    for op, shape, axis in SHAPES:
        both = {np.dtype(t).name: calls(op, shape, axis, t) for t in DTYPES}
        for which, name in enumerate(("forward", "backward")):
            seconds = measure.interleaved({t: pair[which] for t, pair in both.items()}, rounds)
            line = f"{op} {'x'.join(map(str, shape))} {name}"
            print(f"{line:46}", end="")
            for t in both:
                share = 1 / measure.ratio(seconds["float32"], seconds[t])
                print(f"{measure.median(seconds[t]) * 1e3:8.2f} ({share:.2f})", end="")
            print(flush=True)
