"""Layers that change the shape or the unit of their input, and nothing else: `Flatten`, `Reshape`, `Rescaling`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack

from numpy.typing import NDArray

from normkit._checks import integers, number
from normkit.layers.base import Layer, LayerArguments, Shape

__all__ = ["Flatten", "Rescaling", "Reshape"]

Array = NDArray[Any]


class Flatten(Layer):
    """(batch, a, b, ...) to (batch, a · b · ...)."""

    def __init__(self, **kwargs: Unpack[LayerArguments]) -> None:
        super().__init__(**kwargs)
        self._x_shape: tuple[int, ...] | None = None

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(batch, product of the others)."""
        return (input_shape[0], _known_size(input_shape))

    def forward(self, x: Array, training: bool) -> Array:
        """Return x with all axes but the first made one; a view."""
        if training:
            self._x_shape = x.shape
        return x.reshape(len(x), math.prod(x.shape[1:]))

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """Return dy in the shape of the input."""
        if self._x_shape is None:
            raise self.fail("backward needs a forward pass with training=True before it")
        return dy.reshape(self._x_shape) if input_gradient else None


def _known_size(shape: Shape) -> int:
    return math.prod(n for n in shape[1:] if n is not None)


class Reshape(Layer):
    """Each sample in another shape.

    Parameters
    ----------
    target_shape : tuple of int
        Shape of one sample; one length can be -1, which is what is left.
    **kwargs
        See `Layer`.

    Raises
    ------
    ValueError
        If a length is neither positive nor the only -1; in use: if the numbers of elements differ.
    """

    def __init__(self, target_shape: Sequence[int], **kwargs: Unpack[LayerArguments]) -> None:
        super().__init__(**kwargs)
        self.target_shape = integers("Reshape: target_shape", target_shape)
        if any(n < 1 and n != -1 for n in self.target_shape) or self.target_shape.count(-1) > 1:
            raise ValueError(
                f"Reshape: target_shape must have positive lengths, one of them can be -1, got {self.target_shape}"
            )
        self._x_shape: tuple[int, ...] | None = None

    def build(self, input_shape: Shape) -> None:
        """Check that it fits."""
        self.check_input(input_shape)

    def check_input(self, input_shape: Shape) -> None:
        """Raise ValueError if the numbers of elements differ."""
        self.compute_output_shape(input_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(batch, *target_shape)."""
        size = _known_size(input_shape)
        known = math.prod(n for n in self.target_shape if n != -1)
        if size % known if -1 in self.target_shape else size != known:
            raise self.fail(f"samples of shape {input_shape[1:]} cannot become {self.target_shape}")
        return (input_shape[0], *(size // known if n == -1 else n for n in self.target_shape))

    def forward(self, x: Array, training: bool) -> Array:
        """Return x in the new shape; a view."""
        if training:
            self._x_shape = x.shape
        return x.reshape(len(x), *(n or 0 for n in self.compute_output_shape(x.shape)[1:]))

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """Return dy in the shape of the input."""
        if self._x_shape is None:
            raise self.fail("backward needs a forward pass with training=True before it")
        return dy.reshape(self._x_shape) if input_gradient else None

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {"target_shape": list(self.target_shape), **super().get_config()}


class Rescaling(Layer):
    """x · scale + offset: ``Rescaling(1 / 255)`` for pixels.

    Parameters
    ----------
    scale, offset : float
        The default of offset is 0.
    **kwargs
        See `Layer`.
    """

    def __init__(self, scale: float, offset: float = 0.0, **kwargs: Unpack[LayerArguments]) -> None:
        super().__init__(**kwargs)
        self.scale, self.offset = number("Rescaling: scale", scale), number("Rescaling: offset", offset)

    def forward(self, x: Array, training: bool) -> Array:
        """Return x · scale + offset."""
        y: Array = x * x.dtype.type(self.scale)
        y += x.dtype.type(self.offset)
        return y

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """Return dy · scale."""
        return dy * dy.dtype.type(self.scale) if input_gradient else None

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {"scale": self.scale, "offset": self.offset, **super().get_config()}
