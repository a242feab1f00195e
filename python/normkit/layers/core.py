"""`Dense`, and `Input`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import DTypeLike, NDArray

from normkit import activations, initializers, regularizers
from normkit._checks import batch_shape, flag, positive_integer, sample_shape
from normkit._repr import Described
from normkit.activations import ActivationFunction
from normkit.initializers import Initializer
from normkit.layers.base import ActivatedLayer, LayerArguments, Shape
from normkit.regularizers import Regularizer

__all__ = ["Dense", "Input"]

Array = NDArray[Any]
RegularizerLike = str | dict[str, Any] | Regularizer | None


class Input(Described):
    """The shape of one sample, as the first item of a model. It is not counted among the layers.

    Parameters
    ----------
    shape : tuple of int
        Without the batch axis.
    batch_size, dtype, name
        Taken for Keras's sake, without effect: batches may have any length, and layers convert what they get.
    """

    def __init__(
        self,
        shape: Sequence[int],
        batch_size: int | None = None,
        dtype: DTypeLike | None = None,
        name: str | None = None,
    ) -> None:
        self.shape = sample_shape(shape)


class Dense(ActivatedLayer):
    """y = activation(x · kernel + bias) on the last axis of x.

    Weights: kernel, shape (features, units); bias, shape (units,).

    Parameters
    ----------
    units : int
        Number of outputs.
    activation : str, optional
        See `normkit.activations`; default: 'linear'.
    use_bias : bool, default True
        Whether there is a bias.
    kernel_initializer, bias_initializer : str or Initializer
        See `normkit.initializers`.
    kernel_regularizer, bias_regularizer : str or Regularizer, optional
        See `normkit.regularizers`.
    **kwargs
        See `Layer`.

    Raises
    ------
    ValueError
        If `units` is not positive; in use: if x has the wrong number of features.
    """

    def __init__(
        self,
        units: int,
        activation: str | ActivationFunction | None = None,
        use_bias: bool = True,
        kernel_initializer: str | dict[str, Any] | Initializer = "glorot_uniform",
        bias_initializer: str | dict[str, Any] | Initializer = "zeros",
        kernel_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(activation, **kwargs)
        self.units = positive_integer("Dense: units", units)
        self.use_bias = flag(f"{type(self).__name__}: use_bias", use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self._x: Array | None = None

    def build(self, input_shape: Shape) -> None:
        """Make kernel and bias."""
        features = input_shape[-1] if len(input_shape) > 1 else None
        if features is None:
            raise self.fail(
                f"expected input of shape (batch, ..., features), got {input_shape}; "
                "one number per sample is given as a column, x[:, None], a single sample as x[None]"
            )
        if features == 0:
            raise self.fail(f"expected input with at least one feature, got shape {input_shape}")
        self.kernel = self.add_weight(
            "kernel", (features, self.units), self.kernel_initializer, regularizer=self.kernel_regularizer
        )
        if self.use_bias:
            self.bias = self.add_weight(
                "bias", (self.units,), self.bias_initializer, regularizer=self.bias_regularizer
            )

    def check_input(self, input_shape: Shape) -> None:
        """Raise ValueError if the number of features is another."""
        features = self.kernel.shape[0]
        if len(input_shape) < 2 or input_shape[-1] != features:
            got = input_shape[-1] if len(input_shape) > 1 else f"input of shape {input_shape}"
            flat = len(input_shape) > 2 and math.prod(n or 1 for n in input_shape[1:]) == features
            raise self.fail(
                f"expected {features} features, got {got}{'; put Flatten() before it' if flat else ''}"
                f"{f' (input of shape {batch_shape(input_shape)})' if len(input_shape) > 2 else ''}"
            )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(batch, ..., units)."""
        return (*input_shape[:-1], self.units)

    def preactivation(self, x: Array, training: bool) -> Array:
        """Return x · kernel + bias."""
        if training:
            self._x = x
        z: Array = np.dot(_rows(x), self.kernel.value)
        if self.use_bias:
            z += self.bias.value
        return z if x.ndim == 2 else z.reshape(*x.shape[:-1], self.units)

    def preactivation_backward(self, dz: Array, input_gradient: bool = True) -> Array | None:
        """Gradients: kernel xᵀ · dz, bias Σ dz, x dz · kernelᵀ."""
        if self._x is None:
            raise self.fail("backward needs a forward pass with training=True before it")
        x, rows = self._x, _rows(dz)
        if self.trainable:
            np.dot(_rows(x).T, rows, out=self.kernel.grad)
            if self.use_bias:
                np.add.reduce(rows, axis=0, out=self.bias.grad)
        if not input_gradient:
            return None
        dx: Array = np.dot(rows, self.kernel.value.T)
        return dx if x.ndim == 2 else dx.reshape(x.shape)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.registry.serialize(self.kernel_initializer),
            "bias_initializer": initializers.registry.serialize(self.bias_initializer),
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            **super().get_config(),
        }


def _rows(x: Array) -> Array:
    """(..., features) as (rows, features)."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
