"""Smooth functions, and the softmax."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit.activations.base import ActivationFunction

__all__ = [
    "Exponential",
    "HardSigmoid",
    "LogSoftmax",
    "Mish",
    "Sigmoid",
    "Silu",
    "Softmax",
    "Softplus",
    "Softsign",
    "Tanh",
]

Array = NDArray[Any]


class Tanh(ActivationFunction):
    """Hyperbolic tangent."""

    name = "tanh"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        return np.tanh(z, out=out)

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        dz = np.square(saved)
        np.subtract(1, dz, out=dz)
        dz *= dy
        return dz


class Sigmoid(ActivationFunction):
    """1 / (1 + exp(−z)), with exp(−|z|) alone, which overflows nowhere and keeps small values exact."""

    name = "sigmoid"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        decay = np.exp(-np.abs(z))
        numerator = np.where(z < 0, decay, 1)
        decay += 1
        return np.divide(numerator, decay, out=out)

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        dz = 1 - saved
        dz *= saved
        dz *= dy
        return dz


class Softmax(ActivationFunction):
    """exp(z − max z) / Σ exp(z − max z) over the last axis."""

    name = "softmax"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        y = np.subtract(z, np.maximum.reduce(z, axis=-1, keepdims=True), out=out)
        np.exp(y, out=y)
        y /= np.add.reduce(y, axis=-1, keepdims=True)
        return y

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        dz = dy * saved
        dz -= saved * np.add.reduce(dz, axis=-1, keepdims=True)
        return dz


class LogSoftmax(ActivationFunction):
    """z − max z − log Σ exp(z − max z) over the last axis."""

    name = "log_softmax"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        y = np.subtract(z, np.maximum.reduce(z, axis=-1, keepdims=True), out=out)
        y -= np.log(np.add.reduce(np.exp(y), axis=-1, keepdims=True))
        return y

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        return np.asarray(dy - np.exp(saved) * np.add.reduce(dy, axis=-1, keepdims=True))


class Softplus(ActivationFunction):
    """log(1 + exp(z)), with exp(−|z|) alone, which overflows nowhere."""

    name = "softplus"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        tail = np.log1p(np.exp(-np.abs(z)))
        y = np.maximum(z, 0, out=out)
        y += tail
        return y

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        return np.asarray(dy * -np.expm1(-saved))


class Softsign(ActivationFunction):
    """z / (1 + |z|)."""

    name = "softsign"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        return np.asarray(np.divide(z, np.abs(z) + 1, out=out))

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        return np.asarray(dy * np.square(1 - np.abs(saved)))


class HardSigmoid(ActivationFunction):
    """z / 6 + 1 / 2, cut to [0, 1]."""

    name = "hard_sigmoid"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        return np.clip(z / 6 + 0.5, 0, 1, out=out)

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        return np.asarray(dy / 6 * ((saved > 0) & (saved < 1)))


class Exponential(ActivationFunction):
    """exp(z)."""

    name = "exponential"

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        return np.exp(z, out=out)

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        return dy * saved


_sigmoid, _softplus = Sigmoid(), Softplus()


class Silu(ActivationFunction):
    """z · sigmoid(z), also called swish (Elfwing et al. 2018)."""

    name = "silu"
    needs_input = True

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        return np.multiply(z, _sigmoid(z), out=out)

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        s = _sigmoid(saved)
        return np.asarray(dy * s * (1 + saved * (1 - s)))


class Mish(ActivationFunction):
    """z · tanh(softplus(z)) (Misra 2019)."""

    name = "mish"
    needs_input = True

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z)."""
        return np.multiply(z, np.tanh(_softplus(z)), out=out)

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz."""
        t = np.tanh(_softplus(saved))
        return np.asarray(dy * (t + saved * (1 - np.square(t)) * _sigmoid(saved)))
