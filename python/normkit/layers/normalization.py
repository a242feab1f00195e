"""What the normalizations have in common; LayerNormalization and RMSNormalization, with Keras's arguments, on `normkit.ops`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from numpy.typing import NDArray

from normkit import activations, initializers, ops, regularizers
from normkit._checks import finite, flag, integers
from normkit.initializers import Initializer
from normkit.layers.activations import Activation, ReLU
from normkit.layers.base import Layer, LayerArguments, Shape
from normkit.layers.variable import Variable
from normkit.moments import NormGradients
from normkit.regularizers import Regularizer

__all__ = [
    "NUM_THREADS",
    "AffineNormalization",
    "InitializerLike",
    "LayerNormalization",
    "Normalization",
    "RMSNormalization",
    "RegularizerLike",
]

# Between two matrix products the waiting threads of OpenMP and of NumPy's BLAS take each other's cores, which costs far
# more than a second thread brings to a normalization (docs/design.md has the figures). The products keep their threads.
NUM_THREADS = 1

Array = NDArray[Any]
InitializerLike = str | dict[str, Any] | Initializer
RegularizerLike = str | dict[str, Any] | Regularizer | None


_NAMES: dict[type, str] = {type(f): f.name for f in (activations.relu, activations.gelu, activations.silu)}


class Normalization(Layer):
    """What all have: an epsilon, the moments of the forward pass, and an activation that they may take along.

    Attributes
    ----------
    fusible : frozenset of str
        Activations that `forward` can apply in the same pass. Of a class itself: a subclass, which may have a
        forward pass of its own, has none unless it says so.
    """

    fusible: frozenset[str] = frozenset()

    def __init__(self, epsilon: float, **kwargs: Unpack[LayerArguments]) -> None:
        super().__init__(**kwargs)
        self.epsilon = finite(f"{type(self).__name__}: epsilon", epsilon)
        self._saved: tuple[Array, Any] | None = None

    def fused_with(self, layer: Layer) -> str | None:
        """Return the name of the activation that `layer` is, if it can be part of this layer's pass, else None."""
        if (
            type(layer) not in (Activation, ReLU)
            or layer.dtype != self.dtype
            or "fusible" not in vars(type(self))
        ):
            return None
        assert isinstance(layer, Activation | ReLU)
        name = _NAMES.get(type(layer.activation))
        return name if name in self.fusible else None

    def forward(self, x: Array, training: bool, activation: str | None = None) -> Array:
        """Return the normalized x, with the activation applied that `fused_with` has named."""
        raise NotImplementedError

    def saved(self) -> tuple[Array, Any]:
        """Input and moments of the forward pass."""
        if self._saved is None:
            raise self.fail("backward needs a forward pass with training=True before it")
        return self._saved

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
        return {"epsilon": self.epsilon, **super().get_config()}


class AffineNormalization(Normalization):
    """A normalization with an optional scale gamma and offset beta."""

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
        super().__init__(epsilon, **kwargs)
        self.center = flag(f"{type(self).__name__}: center", center)
        self.scale = flag(f"{type(self).__name__}: scale", scale)
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.gamma: Variable | None = None
        self.beta: Variable | None = None

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

    def store(self, gradients: NormGradients) -> None:
        """Write the gradients of gamma and beta."""
        if self.trainable:
            if self.gamma is not None:
                self.gamma.grad[...] = gradients.dweight
            if self.beta is not None:
                self.beta.grad[...] = gradients.dbias

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": initializers.registry.serialize(self.beta_initializer),
            "gamma_initializer": initializers.registry.serialize(self.gamma_initializer),
            "beta_regularizer": regularizers.serialize(self.beta_regularizer),
            "gamma_regularizer": regularizers.serialize(self.gamma_regularizer),
            **super().get_config(),
        }


class _OverAxes(Normalization):
    """A normalization of each sample over some axes, in whose shape its weights are."""

    def _set_axes(self, axis: int | Sequence[int]) -> None:
        self.axis = integers(f"{type(self).__name__}: axis", axis)

    def build(self, input_shape: Shape) -> None:
        """Make the weights."""
        self._normalized_shape = self._lengths(input_shape)
        self.add_weights(self._normalized_shape)

    def add_weights(self, shape: tuple[int, ...]) -> None:
        """Make the weights in the shape of the normalized axes."""
        raise NotImplementedError

    def _lengths(self, input_shape: Shape) -> tuple[int, ...]:
        lengths = {a % len(input_shape): self.axis_length(input_shape, a) for a in self.axis}
        return tuple(length for _, length in sorted(lengths.items()))

    def check_input(self, input_shape: Shape) -> None:
        """Raise ValueError if the normalized axes have another shape."""
        lengths = self._lengths(input_shape)
        if lengths != self._normalized_shape:
            raise self.fail(f"expected shape {self._normalized_shape} along axes {self.axis}, got {lengths}")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {"axis": list(self.axis), **super().get_config()}


class LayerNormalization(_OverAxes, AffineNormalization):
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

    fusible = frozenset({"relu", "gelu", "silu"})

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
        self._set_axes(axis)

    def add_weights(self, shape: tuple[int, ...]) -> None:
        """Make gamma and beta."""
        self.add_affine(shape)

    def forward(self, x: Array, training: bool, activation: str | None = None) -> Array:
        """Normalize each sample of x."""
        gamma, beta = self.affine()
        common: dict[str, Any] = {"axis": self.axis, "eps": self.epsilon, "num_threads": NUM_THREADS}
        y: Array
        if not training:
            y = ops.layer_norm(x, gamma, beta, activation=activation, **common)
            return y
        y, moments = ops.layer_norm(x, gamma, beta, activation=activation, return_moments=True, **common)
        self._saved = x, moments
        return y

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """See `normkit.ops.layer_norm_backward`."""
        x, moments = self.saved()
        gamma, beta = self.affine()
        gradients = ops.layer_norm_backward(dy, x, moments, gamma, bias=beta, num_threads=NUM_THREADS)
        self.store(gradients)
        return gradients.dx if input_gradient else None


class RMSNormalization(_OverAxes):
    """Root mean square normalization with the defaults of Keras 3.

    y = scale · x / sqrt(mean(x²) + epsilon), with the mean over `axis` of each sample. Weight: scale, of ones at
    first, in the shape of the normalized axes.

    Parameters
    ----------
    axis : int or sequence of int, default -1
        The axes that are normalized, counted with the batch axis, which cannot be one of them.
    epsilon : float, default 1e-6
        Added to the mean of the squares.
    **kwargs
        See `Layer`.

    References
    ----------
    B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization", 2019, arXiv:1910.07467.
    """

    fusible = frozenset({"relu", "gelu", "silu"})

    def __init__(
        self, axis: int | Sequence[int] = -1, epsilon: float = 1e-6, **kwargs: Unpack[LayerArguments]
    ) -> None:
        super().__init__(epsilon, **kwargs)
        self._set_axes(axis)

    def add_weights(self, shape: tuple[int, ...]) -> None:
        """Make the scale."""
        self.scale = self.add_weight("scale", shape, initializers.get("ones"))

    def forward(self, x: Array, training: bool, activation: str | None = None) -> Array:
        """Normalize each sample of x."""
        common: dict[str, Any] = {"axis": self.axis, "eps": self.epsilon, "num_threads": NUM_THREADS}
        y: Array
        if not training:
            y = ops.rms_norm(x, self.scale.value, activation=activation, **common)
            return y
        y, moments = ops.rms_norm(x, self.scale.value, activation=activation, return_moments=True, **common)
        self._saved = x, moments
        return y

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """See `normkit.ops.rms_norm_backward`."""
        x, moments = self.saved()
        gradients = ops.rms_norm_backward(dy, x, moments, self.scale.value, num_threads=NUM_THREADS)
        if self.trainable:
            self.scale.grad[...] = gradients.dweight
        return gradients.dx if input_gradient else None
