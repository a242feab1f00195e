"""What the normalizations have in common, and LayerNormalization, with Keras's arguments, on `normkit.ops`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from normkit import initializers, ops, regularizers
from normkit._checks import finite
from normkit.initializers import Initializer
from normkit.layers.base import Layer, LayerArguments, Shape
from normkit.layers.variable import Variable
from normkit.moments import NormGradients
from normkit.regularizers import Regularizer

__all__ = ["NUM_THREADS", "InitializerLike", "LayerNormalization", "Normalization", "RegularizerLike"]

# Between two matrix products the waiting threads of OpenMP and of NumPy's BLAS take each other's cores, which costs far
# more than a second thread brings to a normalization (docs/design.md has the figures). The products keep their threads.
NUM_THREADS = 1

Array = NDArray[Any]
InitializerLike = str | dict[str, Any] | Initializer
RegularizerLike = str | dict[str, Any] | Regularizer | None


class Normalization(Layer):
    """What both have: an optional scale gamma and offset beta, and the moments of the forward pass."""

    def __init__(
        self,
        epsilon: float,
        center: bool,
        scale: bool,
        beta_initializer: InitializerLike,
        gamma_initializer: InitializerLike,
        beta_regularizer: RegularizerLike,
        gamma_regularizer: RegularizerLike,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.epsilon = finite(f"{type(self).__name__}: epsilon", epsilon)
        self.center = center
        self.scale = scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.gamma: Variable | None = None
        self.beta: Variable | None = None
        self._saved: tuple[Array, Any] | None = None

    def add_affine(self, shape: tuple[int, ...]) -> None:
        """Make gamma and beta, those that there are."""
        if self.scale:
            self.gamma = self.add_weight(
                "gamma", shape, self.gamma_initializer, regularizer=self.gamma_regularizer
            )
        if self.center:
            self.beta = self.add_weight(
                "beta", shape, self.beta_initializer, regularizer=self.beta_regularizer
            )

    def affine(self) -> tuple[Array | None, Array | None]:
        """Gamma and beta as ops want them."""
        return (
            None if self.gamma is None else self.gamma.value,
            None if self.beta is None else self.beta.value,
        )

    def saved(self) -> tuple[Array, Any]:
        """Input and moments of the forward pass."""
        if self._saved is None:
            raise self.fail("backward needs a forward pass with training=True before it")
        return self._saved

    def store(self, gradients: NormGradients) -> None:
        """Write the gradients of gamma and beta."""
        if self.trainable:
            if self.gamma is not None:
                self.gamma.grad[...] = gradients.dweight
            if self.beta is not None:
                self.beta.grad[...] = gradients.dbias

    def axis_length(self, input_shape: Shape, axis: int) -> int:
        """Length of an axis that is not the batch axis."""
        if not -len(input_shape) <= axis < len(input_shape):
            raise self.fail(f"axis {axis} does not exist in input of shape {input_shape}")
        length = input_shape[axis]
        if length is None or axis % len(input_shape) == 0:
            raise self.fail(f"axis {axis} is the batch axis of input of shape {input_shape}")
        return length

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": initializers.registry.serialize(self.beta_initializer),
            "gamma_initializer": initializers.registry.serialize(self.gamma_initializer),
            "beta_regularizer": regularizers.serialize(self.beta_regularizer),
            "gamma_regularizer": regularizers.serialize(self.gamma_regularizer),
            **super().get_config(),
        }


class LayerNormalization(Normalization):
    """Layer normalization with the defaults of Keras 3.

    y = gamma · (x − mean) / sqrt(var + epsilon) + beta, with the mean and biased variance of each sample
    over `axis`. Weights: gamma, beta, in the shape of the normalized axes.

    Parameters
    ----------
    axis : int or sequence of int, default -1
        The axes that are normalized, counted with the batch axis, which cannot be one of them.
    epsilon : float, default 1e-3
        Added to the variance.
    center, scale : bool, default True
        Whether there are beta and gamma.
    beta_initializer, gamma_initializer
        See `normkit.initializers`.
    beta_regularizer, gamma_regularizer
        See `normkit.regularizers`.
    **kwargs
        See `Layer`.

    References
    ----------
    J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", 2016, arXiv:1607.06450.
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: InitializerLike = "zeros",
        gamma_initializer: InitializerLike = "ones",
        beta_regularizer: RegularizerLike = None,
        gamma_regularizer: RegularizerLike = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(
            epsilon,
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            **kwargs,
        )
        self.axis = (int(axis),) if isinstance(axis, (int, np.integer)) else tuple(int(a) for a in axis)

    def build(self, input_shape: Shape) -> None:
        """Make gamma and beta."""
        self._normalized_shape = self._lengths(input_shape)
        self.add_affine(self._normalized_shape)

    def _lengths(self, input_shape: Shape) -> tuple[int, ...]:
        lengths = {a % len(input_shape): self.axis_length(input_shape, a) for a in self.axis}
        return tuple(length for _, length in sorted(lengths.items()))

    def check_input(self, input_shape: Shape) -> None:
        """Raise ValueError if the normalized axes have another shape."""
        lengths = self._lengths(input_shape)
        if lengths != self._normalized_shape:
            raise self.fail(f"expected shape {self._normalized_shape} along axes {self.axis}, got {lengths}")

    def forward(self, x: Array, training: bool) -> Array:
        """Normalize each sample of x."""
        gamma, beta = self.affine()
        if not training:
            return ops.layer_norm(x, gamma, beta, axis=self.axis, eps=self.epsilon, num_threads=NUM_THREADS)
        y, moments = ops.layer_norm(
            x,
            gamma,
            beta,
            axis=self.axis,
            eps=self.epsilon,
            return_moments=True,
            num_threads=NUM_THREADS,
        )
        self._saved = x, moments
        return y

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """See `normkit.ops.layer_norm_backward`."""
        x, moments = self.saved()
        gradients = ops.layer_norm_backward(
            dy, x, moments, self.affine()[0], axis=self.axis, num_threads=NUM_THREADS
        )
        self.store(gradients)
        return gradients.dx if input_gradient else None

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {"axis": list(self.axis), **super().get_config()}
