"""How much of the numerics contract's bounds is used: largest error of every result as a share of its bound.

The bounds and the oracles are those of the tests.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import normkit as nk

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

OFFSETS = [0.0, 1.0, 1e2, 1e4, 1e6]
# layout: shapes and axis for float32, and for float64, whose oracle is slow
CASES: dict[str, tuple[int, list[tuple[int, ...]], list[tuple[int, ...]]]] = {
    "layer norm": (-1, [(64, 768), (33, 1001), (3, 20000), (500, 24)], [(9, 70), (2, 3000)]),
    "batch norm NC": (1, [(64, 64), (4096, 24), (3000, 3)], [(40, 9), (300, 3)]),
    "batch norm NCHW": (1, [(8, 16, 28, 28), (32, 8, 7, 7)], [(2, 3, 9, 9)]),
    "batch norm NHWC": (3, [(8, 28, 28, 16), (4, 40, 40, 3)], [(2, 9, 9, 5)]),
}


def worst_shares(layout: str, dtype: Any, offset: float) -> list[float]:
    """Return the largest share of y, dx, dweight and dbias over all shapes and instruction sets."""
    from bounds import batch_norm_errors, layer_norm_errors

    measure = layer_norm_errors if layout.startswith("layer") else batch_norm_errors
    axis, singles, doubles = CASES[layout]
    rng = np.random.default_rng(7)
    worst = [0.0] * 4
    for shape in singles if dtype is np.float32 else doubles:
        x, dy = (rng.standard_normal(shape) + offset).astype(dtype), rng.standard_normal(shape).astype(dtype)
        weight, bias = rng.standard_normal((2, shape[axis])).astype(dtype)
        for isa in nk.isa.available():
            with nk.isa.use(isa):
                errors = measure(x, dy, weight, bias, axis, 1e-5)
            found = (errors.y, errors.dx, errors.dweight, errors.dbias)
            worst = [max(pair) for pair in zip(worst, found, strict=True)]
    return worst


def run() -> None:
    print(f"largest error as a share of its bound, over {', '.join(nk.isa.available())}")
    print(f"{'':26}{'mean/sigma':>11}{'y':>8}{'dx':>8}{'dweight':>9}{'dbias':>8}")
    for dtype in (np.float32, np.float64):
        for layout in CASES:
            for offset in OFFSETS:
                y, dx, dweight, dbias = worst_shares(layout, dtype, offset)
                name = f"{dtype.__name__} {layout}"
                print(f"{name:26}{offset:>11.0e}{y:>8.2f}{dx:>8.2f}{dweight:>9.2f}{dbias:>8.2f}")
