"""Functions that keep what is positive, and what they make of the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit._checks import finite
from normkit.activations.base import ActivationFunction

__all__ = ["Elu", "LeakyRelu", "Linear", "Relu", "Relu6", "Selu"]

Array = NDArray[Any]


class Linear(ActivationFunction):
    """z itself."""

    name = "linear"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        if out is None or out is z:
            return z
        out[...] = z
        return out

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        return dy


class Relu(ActivationFunction):
    """max(z, 0); the derivative at 0 is 0."""

    name = "relu"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        return np.maximum(z, 0, out=out)

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        return dy * (saved > 0)


class Relu6(ActivationFunction):
    """min(max(z, 0), 6)."""

    name = "relu6"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        return np.clip(z, 0, 6, out=out)

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        return dy * ((saved > 0) & (saved < 6))


class LeakyRelu(ActivationFunction):
    """z where it is positive, else negative_slope · z.

    Parameters
    ----------
    negative_slope : float, default 0.2
        Finite, not negative.
    """

    name = "leaky_relu"

    def __init__(self, negative_slope: float = 0.2) -> None:
        self.negative_slope = finite("leaky_relu: negative_slope", negative_slope)

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        return np.multiply(z, self._slopes(z), out=out)

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        return dy * self._slopes(saved)

    def _slopes(self, signed: Array) -> Array:
        return np.asarray(np.where(signed > 0, signed.dtype.type(1), signed.dtype.type(self.negative_slope)))


class Elu(ActivationFunction):
    """z where it is positive, else alpha · (exp(z) − 1) (Clevert et al. 2016).

    Parameters
    ----------
    alpha : float, default 1.0
        Finite, not negative.
    """

    name = "elu"

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = finite("elu: alpha", alpha)

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        negative = self.alpha * np.expm1(np.minimum(z, 0))
        y = np.maximum(z, 0, out=out)
        y += negative
        return y

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        return np.asarray(dy * np.where(saved > 0, saved.dtype.type(1), saved + saved.dtype.type(self.alpha)))


class Selu(Elu):
    """1.0507 · elu(z, 1.6733), which keeps mean 0 and variance 1 from layer to layer (Klambauer et al. 2017)."""

    name = "selu"
    SCALE = 1.0507009873554804934193349852946

    def __init__(self) -> None:
        super().__init__(1.6732632423543772848170429916717)

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        y = super().__call__(z, out)
        y *= self.SCALE
        return y

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        dz = dy * np.where(
            saved > 0, saved.dtype.type(self.SCALE), saved + saved.dtype.type(self.SCALE * self.alpha)
        )
        return np.asarray(dz)
