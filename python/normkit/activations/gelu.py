"""GELU, with the exact normal distribution."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev
from numpy.polynomial.chebyshev import chebval
from numpy.typing import DTypeLike, NDArray

from normkit.activations.base import ActivationFunction

__all__ = ["Gelu"]

Array = NDArray[Any]

# Where Φ(x) and Φ'(x) have long been 0 or 1, in float64 too; x² beyond it could overflow.
_FLAT = 40.0


class Gelu(ActivationFunction):
    """z · Φ(z) with the exact normal distribution Φ (Hendrycks & Gimpel 2016), not its tanh approximation."""

    name = "gelu"
    needs_input = True

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        return np.multiply(z, _normal_cdf(z), out=out)

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        density: Array = np.exp(-0.5 * np.square(np.clip(saved, -_FLAT, _FLAT)))
        density *= 1 / math.sqrt(2 * math.pi)
        density *= saved
        density += _normal_cdf(saved)
        density *= dy
        return density


def _normal_cdf(x: Array) -> Array:
    """Φ(x) by erfc(z) = exp(−z²) · p(t) with z = |x|/√2 and t = 2 / (2 + z).

    Absolute error a few units in the last place of 1. Relative error grows in the lower tail, where exp
    multiplies the rounding of z² by z²: in float32 7 units in the last place at |x| ≤ 2, 230 at x = −12.
    """
    z = np.minimum(np.abs(x), _FLAT)
    z *= 1 / math.sqrt(2)
    t = 4 / (z + 2) - 1
    upper: Array = chebval(t, _erfcx_series(x.dtype), tensor=False)
    upper *= 0.5 * np.exp(-np.square(z))
    return np.where(x < 0, upper, 1 - upper)


@cache
def _erfcx_series(dtype: DTypeLike) -> Array:
    """Chebyshev series of exp(z²)·erfc(z) as a function of 2t − 1, where t = 2 / (2 + z) is in (0, 1]."""

    def erfcx(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([_erfcx(4.0 / (point + 1.0) - 2.0) for point in points])

    degree = 12 if np.dtype(dtype) == np.float32 else 40
    return Chebyshev.interpolate(erfcx, degree).coef.astype(dtype)


def _erfcx(z: float) -> float:
    """exp(z²)·erfc(z); from z = 25, near the underflow of erfc, by its asymptotic series to 3e-15."""
    if z < 25.0:
        return math.exp(z * z) * math.erfc(z)
    r = 1.0 / (2.0 * z * z)
    series = 1.0 - r * (1.0 - 3.0 * r * (1.0 - 5.0 * r * (1.0 - 7.0 * r * (1.0 - 9.0 * r))))
    return series / (z * math.sqrt(math.pi))
