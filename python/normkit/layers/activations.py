"""Activation functions as layers: `Activation`, and those with arguments of their own."""

from __future__ import annotations

from typing import Any, Unpack

from numpy.typing import NDArray

from normkit import activations
from normkit.activations import ActivationFunction
from normkit.layers.base import ActivatedLayer, LayerArguments

__all__ = ["ELU", "Activation", "LeakyReLU", "ReLU", "Softmax"]

Array = NDArray[Any]


class _OnlyActivation(ActivatedLayer):
    """y = activation(x)."""

    def preactivation(self, x: Array, training: bool) -> Array:
        """Return x."""
        return x

    def preactivation_backward(self, dz: Array, input_gradient: bool = True) -> Array | None:
        """Return dz."""
        return dz if input_gradient else None


class Activation(_OnlyActivation):
    """An activation function as a layer.

    Parameters
    ----------
    activation : str
        See `normkit.activations`.
    **kwargs
        See `Layer`.
    """

    def __init__(self, activation: str | ActivationFunction, **kwargs: Unpack[LayerArguments]) -> None:
        super().__init__(activation, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {"activation": activations.serialize(self.activation), **super().get_config()}


class ReLU(_OnlyActivation):
    """max(x, 0), as a layer."""

    def __init__(self, **kwargs: Unpack[LayerArguments]) -> None:
        super().__init__("relu", **kwargs)


class Softmax(_OnlyActivation):
    """exp(x) / Σ exp(x) over the last axis, as a layer."""

    def __init__(self, **kwargs: Unpack[LayerArguments]) -> None:
        super().__init__("softmax", **kwargs)


class LeakyReLU(_OnlyActivation):
    """x where it is positive, else negative_slope · x.

    Parameters
    ----------
    negative_slope : float, default 0.3
        Finite, not negative.
    **kwargs
        See `Layer`.
    """

    def __init__(self, negative_slope: float = 0.3, **kwargs: Unpack[LayerArguments]) -> None:
        function = activations.LeakyRelu(negative_slope)
        super().__init__(function, **kwargs)
        self.negative_slope = function.negative_slope

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {"negative_slope": self.negative_slope, **super().get_config()}


class ELU(_OnlyActivation):
    """x where it is positive, else alpha · (exp(x) − 1).

    Parameters
    ----------
    alpha : float, default 1.0
        Finite, not negative.
    **kwargs
        See `Layer`.
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Unpack[LayerArguments]) -> None:
        function = activations.Elu(alpha)
        super().__init__(function, **kwargs)
        self.alpha = function.alpha

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {"alpha": self.alpha, **super().get_config()}
