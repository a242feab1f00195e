"""Activation functions and their gradients.

Each is an object: called with z it returns y = f(z); `gradient` returns dL/dz for dL/dy. Most gradients
need y alone, so a layer may write y over z; `gelu` needs z.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev
from numpy.polynomial.chebyshev import chebval
from numpy.typing import DTypeLike, NDArray

__all__ = [
    "ActivationFunction",
    "gelu",
    "get",
    "linear",
    "relu",
    "serialize",
    "sigmoid",
    "softmax",
    "tanh",
]

Array = NDArray[Any]

# Where Φ(x) and Φ'(x) have long been 0 or 1, in float64 too; x² beyond it could overflow.
_FLAT = 40.0


class ActivationFunction:
    """An elementwise function (softmax: along the last axis) with its gradient.

    Attributes
    ----------
    name : str
        Keras's name.
    needs_input : bool
        Whether `gradient` wants z (True) or y = f(z) (False).
    """

    name: str
    needs_input = False

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z), in `out` if given, which may be z itself."""
        raise NotImplementedError

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz from dL/dy and what `needs_input` says: z, or y."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<activation {self.name}>"


class _Linear(ActivationFunction):
    name = "linear"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        if out is None or out is z:
            return z
        out[...] = z
        return out

    def gradient(self, dy: Array, saved: Array) -> Array:
        return dy


class _Relu(ActivationFunction):
    name = "relu"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        return np.maximum(z, 0, out=out)

    def gradient(self, dy: Array, saved: Array) -> Array:
        return dy * (saved > 0)


class _Tanh(ActivationFunction):
    name = "tanh"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        return np.tanh(z, out=out)

    def gradient(self, dy: Array, saved: Array) -> Array:
        dz = np.square(saved)
        np.subtract(1, dz, out=dz)
        dz *= dy
        return dz


class _Sigmoid(ActivationFunction):
    """1 / (1 + exp(−z)), with exp(−|z|) alone, which overflows nowhere and keeps small values exact."""

    name = "sigmoid"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        decay = np.exp(-np.abs(z))
        numerator = np.where(z < 0, decay, 1)
        decay += 1
        return np.divide(numerator, decay, out=out)

    def gradient(self, dy: Array, saved: Array) -> Array:
        dz = 1 - saved
        dz *= saved
        dz *= dy
        return dz


class _Softmax(ActivationFunction):
    """exp(z − max z) / Σ exp(z − max z) over the last axis."""

    name = "softmax"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        y = np.subtract(z, np.maximum.reduce(z, axis=-1, keepdims=True), out=out)
        np.exp(y, out=y)
        y /= np.add.reduce(y, axis=-1, keepdims=True)
        return y

    def gradient(self, dy: Array, saved: Array) -> Array:
        dz = dy * saved
        dz -= saved * np.add.reduce(dz, axis=-1, keepdims=True)
        return dz


class _Gelu(ActivationFunction):
    """z · Φ(z) with the exact normal distribution Φ (Hendrycks & Gimpel 2016), not its tanh approximation."""

    name = "gelu"
    needs_input = True

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        return np.multiply(z, _normal_cdf(z), out=out)

    def gradient(self, dy: Array, saved: Array) -> Array:
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


linear = _Linear()
relu = _Relu()
gelu = _Gelu()
sigmoid = _Sigmoid()
tanh = _Tanh()
softmax = _Softmax()

_BY_NAME: dict[str, ActivationFunction] = {f.name: f for f in (relu, gelu, sigmoid, tanh, softmax, linear)}


def get(identifier: str | ActivationFunction | None) -> ActivationFunction:
    """Return the activation of that name; None is linear.

    Raises
    ------
    ValueError
        If there is no such name; the message lists what there is.
    TypeError
        If the identifier is neither a name nor an activation.
    """
    if identifier is None:
        return linear
    if isinstance(identifier, ActivationFunction):
        return identifier
    if not isinstance(identifier, str):
        raise TypeError(
            f"activation must be one of {', '.join(_BY_NAME)} or an ActivationFunction, "
            f"got {type(identifier).__name__}"
        )
    try:
        return _BY_NAME[identifier.lower()]
    except KeyError:
        raise ValueError(f"no activation '{identifier}'; there are: {', '.join(_BY_NAME)}") from None


def serialize(function: ActivationFunction) -> str:
    """Return the name by which `get` finds this activation; ValueError if it is not one of this package."""
    if _BY_NAME.get(function.name) is not function:
        raise ValueError(
            f"cannot save activation '{function.name}' of class {type(function).__module__}."
            f"{type(function).__qualname__}; can: {', '.join(_BY_NAME)}"
        )
    return function.name
