"""GroupNormalization and InstanceNormalization, with Keras's arguments, on `normkit.ops`."""

from __future__ import annotations

from typing import Any, Unpack

from numpy.typing import NDArray

from normkit import ops
from normkit._checks import integer
from normkit.layers.base import LayerArguments, Shape
from normkit.layers.normalization import NUM_THREADS, AffineNormalization, InitializerLike, RegularizerLike

__all__ = ["GroupNormalization", "InstanceNormalization"]

Array = NDArray[Any]


class GroupNormalization(AffineNormalization):
    """Group normalization with the defaults of Keras 3.

    y = gamma · (x − mean) / sqrt(var + epsilon) + beta, with the mean and biased variance of each sample's groups of
    neighbouring channels, over these channels and all other axes. Weights: gamma, beta, of shape (channels,).

    Parameters
    ----------
    groups : int, default 32
        Of as many channels each; -1: a group for each channel, which is instance normalization.
    axis : int, default -1
        The channel axis, counted with the batch axis.
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
    Y. Wu, K. He, "Group Normalization", 2018, arXiv:1803.08494.
    """

    fusible = frozenset({"relu"})

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
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
        self.groups = integer(f"{type(self).__name__}: groups", groups)
        if groups < 1 and groups != -1:
            raise ValueError(
                f"{type(self).__name__}: groups must be a positive integer, or -1 for one for each channel, got {groups}"
            )
        self.axis = integer(f"{type(self).__name__}: axis", axis)

    def build(self, input_shape: Shape) -> None:
        """Make gamma and beta."""
        self._channels = self.axis_length(input_shape, self.axis)
        if self._channels % self._count() != 0:
            raise self.fail(
                f"{self._channels} channels cannot be divided into {self.groups} groups; pass groups that divides "
                "them, or -1"
            )
        self.add_affine((self._channels,))

    def _count(self) -> int:
        return self._channels if self.groups == -1 else self.groups

    def check_input(self, input_shape: Shape) -> None:
        """Raise ValueError if the number of channels is another."""
        channels = self.axis_length(input_shape, self.axis)
        if channels != self._channels:
            raise self.fail(f"expected {self._channels} channels along axis {self.axis}, got {channels}")

    def forward(self, x: Array, training: bool, activation: str | None = None) -> Array:
        """Normalize each sample of x."""
        common: dict[str, Any] = {
            "axis": self.axis,
            "eps": self.epsilon,
            "activation": activation,
            "num_threads": NUM_THREADS,
        }
        y: Array
        if not training:
            y = ops.group_norm(x, self._count(), *self.affine(), **common)
            return y
        y, moments = ops.group_norm(x, self._count(), *self.affine(), return_moments=True, **common)
        self._saved = x, moments
        return y

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """See `normkit.ops.group_norm_backward`."""
        x, moments = self.saved()
        gradients = ops.group_norm_backward(dy, x, moments, self.affine()[0], num_threads=NUM_THREADS)
        self.store(gradients)
        return gradients.dx if input_gradient else None

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {"groups": self.groups, "axis": self.axis, **super().get_config()}


class InstanceNormalization(GroupNormalization):
    """Group normalization with a group for each channel.

    Keras 3 has it as ``GroupNormalization(groups=-1)``. The arguments are those of `GroupNormalization`, without
    `groups`.

    References
    ----------
    D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization", 2016, arXiv:1607.08022.
    """

    fusible = frozenset({"relu"})

    def __init__(
        self,
        axis: int = -1,
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
            -1,
            axis,
            epsilon,
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            **kwargs,
        )

    def _arguments(self) -> dict[str, Any]:
        return {name: value for name, value in super()._arguments().items() if name != "groups"}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        config = super().get_config()
        del config["groups"]
        return config
