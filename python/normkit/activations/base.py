"""`ActivationFunction`: a function with its gradient.

Called with z it returns y = f(z); `gradient` returns dL/dz for dL/dy. Most gradients need y alone, so a layer may
write y over z; some need z.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from normkit._repr import Described

__all__ = ["ActivationFunction"]

Array = NDArray[Any]


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

    def __call__(self, z: Array, out: Array | None = None) -> Array:
        """Return f(z), in `out` if given, which may be z itself."""
        raise NotImplementedError

    def gradient(self, dy: Array, saved: Array) -> Array:
        """Return dL/dz from dL/dy and what `needs_input` says: z, or y."""
        raise NotImplementedError
