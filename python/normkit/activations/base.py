"""`ActivationFunction`: a function with its gradient.

Called with z it returns y = f(z); `gradient` returns dL/dz for dL/dy. Most gradients need y alone, so a layer may
write y over z; some need z.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit._checks import as_numbers
from normkit._repr import Described

__all__ = ["ActivationFunction"]

Array = NDArray[Any]


def _of_numbers(function: Callable[..., Array]) -> Callable[..., Array]:
    @functools.wraps(function)
    def call(self: ActivationFunction, z: Any, out: Array | None = None) -> Array:
        if type(z) is not np.ndarray or z.dtype.kind != "f":
            z = as_numbers(f"{self.name}: z", z)
            z = z if z.dtype.kind == "f" else z.astype(np.float64)
        return function(self, z, out)

    return call


class ActivationFunction(Described):
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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__call__" in vars(cls):
            cls.__call__ = _of_numbers(cls.__call__)  # type: ignore[method-assign]

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z), in `out` if given, which may be z itself. What is no array of floats is made one of float64."""
        raise NotImplementedError

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz from dL/dy and what `needs_input` says: z, or y."""
        raise NotImplementedError
