"""`Variable`: one weight of a layer, with its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit.regularizers import Regularizer

__all__ = ["Variable"]

Array = NDArray[Any]


class Variable:
    """A named array, and for a trainable one the array its gradient is written to.

    The arrays can move (a model keeps all its trainable weights in one buffer), so hold on to the
    variable, not to its value.

    Attributes
    ----------
    name : str
        As in Keras: 'kernel', 'gamma', ...
    value : ndarray
        C order.
    grad : ndarray
        Shape and dtype of `value`; what the last backward pass wrote. Meaningless if not trainable.
    trainable : bool
        Whether an optimizer may change it; moving statistics are not trainable.
    regularizer : Regularizer or None
        Its penalty, added to the loss.
    """

    __slots__ = ("grad", "name", "regularizer", "trainable", "value")

    def __init__(
        self, name: str, value: Array, trainable: bool = True, regularizer: Regularizer | None = None
    ) -> None:
        self.name = name
        self.regularizer = regularizer
        self.value = value
        self.trainable = trainable
        self.grad: Array = np.zeros_like(value) if trainable else value[:0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value."""
        return self.value.shape

    def assign(self, value: ArrayLike) -> None:
        """Copy `value`, which must have the same shape, into the memory of this variable."""
        array = np.asarray(value)
        if array.shape != self.shape:
            raise ValueError(f"'{self.name}' must have shape {self.shape}, got {array.shape}")
        self.value[...] = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.value, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"Variable({self.name!r}, shape={self.shape}, dtype={self.value.dtype})"
