"""Penalties on weights, added to the loss in training and evaluation, with Keras's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit._checks import finite
from normkit._names import show_public_names
from normkit._registry import Configured, Registry

__all__ = ["L1", "L1L2", "L2", "Regularizer", "get", "l1", "l1_l2", "l2"]

show_public_names(__name__)

Array = NDArray[Any]


class Regularizer(Configured):
    """Base: a function of a weight, with its gradient."""

    def __call__(self, x: Array) -> float:
        """Return the penalty."""
        raise NotImplementedError

    def gradient(self, x: Array) -> Array:
        """Return d penalty / dx."""
        raise NotImplementedError


class L1L2(Regularizer):
    """l1 · Σ |x| + l2 · Σ x².

    Parameters
    ----------
    l1, l2 : float, default 0.0
        Finite, not negative.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = finite(f"{type(self).__name__}: l1", l1)
        self.l2 = finite(f"{type(self).__name__}: l2", l2)

    def __call__(self, x: Array) -> float:
        """Return the penalty, summed in float64."""
        penalty = 0.0
        if self.l1:
            penalty += self.l1 * float(np.abs(x).sum(dtype=np.float64))
        if self.l2:
            penalty += self.l2 * float(np.square(x, dtype=np.float64).sum())
        return penalty

    def gradient(self, x: Array) -> Array:
        """Return l1 · sign(x) + 2 · l2 · x."""
        return np.asarray(self.l1 * np.sign(x) + (2.0 * self.l2) * x)


class L1(L1L2):
    """l1 · Σ |x|, with l1=0.01."""

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(l1=l1)


class L2(L1L2):
    """l2 · Σ x², with l2=0.01."""

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(l2=l2)


# Keras has functions by these names as well.
l1, l2, l1_l2 = L1, L2, L1L2

registry: Registry[Regularizer] = Registry("regularizer", Regularizer, {"l1": L1, "l2": L2, "l1_l2": L1L2})


def get(identifier: str | Mapping[str, Any] | Regularizer | None) -> Regularizer | None:
    """Return the regularizer of that name, or of that saved configuration, or the instance itself; None is None."""
    return None if identifier is None else registry.get(identifier)


def serialize(regularizer: Regularizer | None) -> dict[str, Any] | None:
    """Return the configuration from which `get` makes the regularizer again; None of None."""
    return None if regularizer is None else registry.serialize(regularizer)
