"""What the norms are tried on: shapes around every boundary of the kernels and plans, and hostile data.

Shared by the tests and the benchmark. A vector holds 4 to 16 floats and 2 to 8 doubles, a sum 32 or 16 lanes, a chunk of a row 4096
floats or 2048 doubles, a backward tile 8 rows, a strip of columns 4 vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

DTYPES = (np.float32, np.float64)
SIXTEEN_BITS = (np.float16, ml_dtypes.bfloat16)

# (shape, axis): the axes that are normalized.
LAYER_NORM = [
    *[((3, cols), -1) for cols in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129)],
    *[((rows, 13), 1) for rows in (1, 2, 7, 8, 9, 16, 17)],
    ((5, 257), -1),
    ((2, 1023), -1),
    ((2, 1025), -1),
    ((9, 1001), -1),
    ((2, 4097), -1),
    ((7, 2051), -1),
    ((1, 10007), -1),
    ((4, 3, 5), (-2, -1)),
    ((4, 3, 5), (0, 1, 2)),
    ((4, 6, 5), 1),
    ((4, 6, 5), (0, 2)),
    ((2, 3, 4, 5), (1, 3)),
    ((64,), 0),
    ((300, 24), -1),
]

# (shape, axis): the channel axis.
BATCH_NORM = [
    *[((rows, 5), 1) for rows in (1, 2, 3, 15, 16, 17, 33)],
    *[((20, channels), 1) for channels in (1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 257)],
    ((200, 3), 1),
    ((501, 24), 1),
    ((1000, 40), -1),
    ((4, 3, 5), 1),
    ((2, 3, 31), 1),
    ((2, 3, 32), 1),
    ((3, 4, 7, 7), 1),
    ((3, 5, 8, 8), 1),
    ((2, 3, 65, 65), 1),
    ((1, 2, 100, 47), 1),
    ((3, 7, 7, 4), 3),
    ((3, 7, 7, 4), -1),
    ((2, 9, 9, 70), 3),
    ((2, 3, 4, 5, 6), 1),
    ((2, 3, 4, 5, 6), 4),
    ((6, 50), 0),
    ((5, 300), 0),
    ((64,), 0),
]

# (shape, axis, groups): the channel axis; groups of one, of some and of all channels.
GROUP_NORM = [
    *[((2, 6, 5), axis, groups) for axis, groups in [(1, 1), (1, 2), (1, 3), (1, 6), (2, 1), (2, 5)]],
    *[((3, channels), 1, 1) for channels in (1, 2, 7, 31, 33, 129)],
    *[((2, 4, inner), 1, 2) for inner in (1, 3, 8, 15, 31, 32, 33, 65, 1025)],
    *[((2, inner, 4), -1, 2) for inner in (1, 3, 15, 33, 129)],
    ((1, 8, 7, 7), 1, 4),
    ((4, 12, 3, 3), 1, 3),
    ((2, 7, 7, 12), -1, 3),
    ((2, 5, 5, 70), -1, 7),
    ((3, 8, 9, 6), -1, 2),
    ((2, 9, 3, 72), -1, 72),
    ((1, 2, 64, 65), 1, 2),
    ((1, 2, 3, 4, 5), 1, 1),
    ((300, 24), 1, 4),
    ((5, 3, 8, 2), 2, 4),
]

# Too large for exact arithmetic; they reach the plans that small ones do not.
LARGE_LAYER_NORM = [((700, 768), -1), ((3, 100_003), -1), ((1, 1_000_003), -1), ((20_011, 24), -1)]
LARGE_BATCH_NORM = [
    ((4099, 512), 1),
    ((100_003, 3), 1),
    ((4, 6, 211, 97), 1),
    ((32, 64, 14, 14), 1),
    ((16, 33, 33, 40), 3),
    ((3, 2, 300_007), 1),
]
LARGE_GROUP_NORM = [
    ((2, 320, 24, 24), 1, 32),
    ((2, 24, 24, 320), -1, 32),
    ((1, 6, 211, 197), 1, 3),
    ((1, 211, 197, 6), -1, 3),
    ((5, 64, 66, 6), -1, 3),
    ((4, 64, 56, 56), 1, 64),
    ((4, 56, 56, 64), -1, 64),
    ((4099, 512), 1, 8),
]


def normal(offset: float) -> Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]:
    return lambda rng, shape: rng.standard_normal(shape) + offset


def _one_outlier(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    x = rng.standard_normal(shape)
    x.flat[0] = 1e6
    return x


def _outlier_over_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """All other values are equally far from the mean: their squares round alike, and errors add up."""
    x = 1e-3 * rng.standard_normal(shape)
    x.flat[0] = 1e6
    return x


def _mixed_scales(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return rng.standard_normal(shape) * 10.0 ** rng.uniform(-6, 6, shape)


# name: data for a shape, in float64, to be rounded to the dtype under test
DATA: dict[str, Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]] = {
    "normal": normal(0.0),
    "mean 1": normal(1.0),
    "mean 1e2": normal(1e2),
    "mean -1e4": normal(-1e4),
    "mean 1e6": normal(1e6),
    "constant": lambda rng, shape: np.full(shape, 1234.567),
    "zeros": lambda rng, shape: np.zeros(shape),
    "small": lambda rng, shape: 1e-3 * rng.standard_normal(shape),
    "tiny": lambda rng, shape: 1e-30 * rng.standard_normal(shape),
    "huge": lambda rng, shape: 1e30 * rng.standard_normal(shape),
    "near the largest float": lambda rng, shape: 3.3e38 * rng.choice([-1.0, 1.0, 0.5], shape),
    "subnormal": lambda rng, shape: 1e-41 * rng.integers(-9, 9, shape),
    "one outlier": _one_outlier,
    "outlier over noise": _outlier_over_noise,
    "plus and minus": lambda rng, shape: 0.1 * rng.choice([-1.0, 1.0], shape),
    "mixed scales": _mixed_scales,
    "ascending": lambda rng, shape: np.arange(np.prod(shape), dtype=np.float64).reshape(shape),
}
