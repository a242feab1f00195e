"""BatchNormalization, with Keras's arguments, on `normkit.ops`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from normkit import initializers, ops
from normkit._checks import integer, positive_integer, share, shown
from normkit.layers.base import LayerArguments, Shape
from normkit.layers.normalization import NUM_THREADS, AffineNormalization, InitializerLike, RegularizerLike
from normkit.layers.variable import Variable
from normkit.moments import BatchMoments, NormGradients
from normkit.small_batches import (
    RenormMoments,
    RenormSchedule,
    batch_renorm,
    batch_renorm_backward,
    ghost_batch_norm,
    ghost_batch_norm_backward,
)
from normkit.stats import RunningStats

__all__ = ["BatchNormalization"]

Array = NDArray[Any]


class BatchNormalization(AffineNormalization):
    """Batch normalization with the defaults and conventions of Keras 3.

    In training, y = gamma · (x − mean) / sqrt(var + epsilon) + beta with the mean and biased variance
    of the mini-batch, and the moving statistics take a step:
    moving = momentum · moving + (1 − momentum) · batch, with the **biased** variance. A batch with one value
    per channel moves the mean and leaves the variance, of which one value tells nothing (`RunningStats`);
    Keras moves it towards 0. In inference, or with trainable=False, the moving statistics are used and do
    not change.

    Weights, in this order: gamma, beta, moving_mean, moving_variance, each of shape (channels,).

    Parameters
    ----------
    axis : int, default -1
        The channel axis, counted with the batch axis.
    momentum : float, default 0.99
        Weight of the **old** moving value, in [0, 1].
    epsilon : float, default 1e-3
        Added to the variance.
    center, scale : bool, default True
        Whether there are beta and gamma.
    beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer
        See `normkit.initializers`.
    beta_regularizer, gamma_regularizer
        See `normkit.regularizers`.
    stats : RunningStats, optional
        The moving statistics, with rules of their own (debias, skip_nonfinite, the unbiased variance, a cumulative
        average), for as many channels as the input has. `momentum` and the initializers of the moving
        statistics then count for nothing. While they are frozen (``layer.stats.freeze()``) the layer normalizes
        with them, and gamma and beta go on training.
    ghost_size : int, optional
        Samples of a virtual batch: see `normkit.ghost_batch_norm`.
    renorm : RenormSchedule, optional
        Batch renormalization, the schedule going by the batches that the moving statistics have seen: see
        `normkit.batch_renorm`. Not together with `ghost_size`.
    **kwargs
        See `Layer`.

    Attributes
    ----------
    stats : RunningStats
        None before the layer is built, unless it was given.
    holds_statistics : bool
        Whether batches in training leave the moving statistics alone until `release_statistics`.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch Normalization", 2015, arXiv:1502.03167.
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: InitializerLike = "zeros",
        gamma_initializer: InitializerLike = "ones",
        moving_mean_initializer: InitializerLike = "zeros",
        moving_variance_initializer: InitializerLike = "ones",
        beta_regularizer: RegularizerLike = None,
        gamma_regularizer: RegularizerLike = None,
        *,
        stats: RunningStats | dict[str, Any] | None = None,
        ghost_size: int | None = None,
        renorm: RenormSchedule | dict[str, Any] | None = None,
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
        if stats is not None and not isinstance(stats, (RunningStats, dict)):
            raise TypeError(f"BatchNormalization: stats must be a RunningStats, got {shown(stats)}")
        if renorm is not None and not isinstance(renorm, (RenormSchedule, dict)):
            raise TypeError(f"BatchNormalization: renorm must be a RenormSchedule, got {shown(renorm)}")
        self.stats: RunningStats | None = RunningStats(**stats) if isinstance(stats, dict) else stats
        self._has_own_rules = stats is not None
        self.axis = integer("BatchNormalization: axis", axis)
        self.momentum = momentum
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.ghost_size = (
            None if ghost_size is None else positive_integer("BatchNormalization: ghost_size", ghost_size)
        )
        self.renorm = RenormSchedule(**renorm) if isinstance(renorm, dict) else renorm
        if self.ghost_size is not None and self.renorm is not None:
            raise ValueError("BatchNormalization: ghost_size and renorm exclude each other; pass one of them")
        self._holds_statistics = False
        self._held: list[BatchMoments] = []

    @property
    def holds_statistics(self) -> bool:
        """Whether batches in training leave the moving statistics alone until `release_statistics`."""
        return self._holds_statistics

    @holds_statistics.setter
    def holds_statistics(self, value: bool) -> None:
        self._holds_statistics = value
        if not value:
            self._held.clear()

    def release_statistics(self) -> None:
        """Let the moving statistics take one step with all batches held since the last, as if they had been one.

        That step is exact: `BatchMoments.merged` gives the mean and variance of all their values together.
        """
        if self._held and self.stats is not None:
            self.stats.update(BatchMoments.merged(self._held))
        self._held.clear()

    @property
    def uses_batch_moments(self) -> bool:
        """Whether a forward pass in training normalizes with the moments of the batch."""
        return self.trainable and self.stats is not None and not self.stats.frozen

    def take_moments(self, moments: BatchMoments) -> None:
        """Let the moving statistics take a step with the moments of a batch, or hold these if it `holds_statistics`."""
        if self._holds_statistics:
            self._held.append(moments)
        elif self.stats is not None:
            self.stats.update(moments)

    @property
    def momentum(self) -> float:
        """Weight of the old moving value; may be assigned to at any time, unless `stats` was given."""
        return self._momentum

    @momentum.setter
    def momentum(self, value: float) -> None:
        self._momentum = share("BatchNormalization: momentum", value)
        if self.stats is not None and not self._has_own_rules:
            self.stats.momentum = 1.0 - self._momentum

    @property
    def fusible(self) -> frozenset[str]:  # type: ignore[override]
        """See `Normalization`; small batches have none."""
        return frozenset({"relu"} if self.ghost_size is None and self.renorm is None else ())

    def build(self, input_shape: Shape) -> None:
        """Make gamma, beta and the moving statistics."""
        channels = self.axis_length(input_shape, self.axis)
        self.input_axes = len(input_shape)
        self.add_affine((channels,))
        stats = self.stats
        if stats is None:
            self.announce("moving_mean", (channels,))
            stats = RunningStats(channels, 1.0 - self.momentum, unbiased=False, dtype=self.dtype)
            stats.mean = self.moving_mean_initializer((channels,), self.dtype, self.rng)
            stats.var = self.moving_variance_initializer((channels,), self.dtype, self.rng)
        elif (stats.num_channels, stats.mean.dtype) != (channels, self.dtype):
            raise self.fail(
                f"stats must be for {channels} channels of {self.dtype}, got {stats.num_channels} of {stats.mean.dtype}"
            )
        self.stats = stats
        self.moving_mean = self.track(Variable("moving_mean", stats.mean, trainable=False))
        self.moving_variance = self.track(Variable("moving_variance", stats.var, trainable=False))

    def check_input(self, input_shape: Shape) -> None:
        """Raise ValueError if the number of channels is another."""
        channels = self.axis_length(input_shape, self.axis)
        expected = self.moving_mean.shape[0]
        if channels != expected:
            raise self.fail(f"expected {expected} channels along axis {self.axis}, got {channels}")

    def forward(self, x: Array, training: bool, activation: str | None = None) -> Array:
        """Normalize x; in training update the moving statistics."""
        assert self.stats is not None
        gamma, beta = self.affine()
        common: dict[str, Any] = {"axis": self.axis, "eps": self.epsilon, "num_threads": NUM_THREADS}
        y: Array
        moments: Any
        if not training:
            y = ops.batch_norm(
                x, gamma, beta, stats=self.stats, training=False, activation=activation, **common
            )
            return y
        uses_batch = self.uses_batch_moments
        holds = self._holds_statistics and uses_batch
        if uses_batch and self.ghost_size is not None:
            y, moments = ghost_batch_norm(
                x, gamma, beta, ghost_size=self.ghost_size, stats=self.stats, **common
            )
        elif uses_batch and self.renorm is not None:
            r_max, d_max = self.renorm(int(np.max(self.stats.count)))
            y, moments = batch_renorm(x, gamma, beta, stats=self.stats, r_max=r_max, d_max=d_max, **common)
        else:
            y, moments = ops.batch_norm(
                x,
                gamma,
                beta,
                stats=None if holds else self.stats,
                training=uses_batch,
                activation=activation,
                return_moments=True,
                **common,
            )
            if holds:
                self.take_moments(moments)
        self._saved = x, moments
        return y

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """See `normkit.batch_norm_backward`."""
        x, moments = self.saved()
        gamma = self.affine()[0]
        gradients: NormGradients
        if isinstance(moments, list):
            assert self.ghost_size is not None
            gradients = ghost_batch_norm_backward(
                dy, x, moments, gamma, ghost_size=self.ghost_size, num_threads=NUM_THREADS
            )
        elif isinstance(moments, RenormMoments):
            gradients = batch_renorm_backward(dy, x, moments, gamma, num_threads=NUM_THREADS)
        else:
            gradients = ops.batch_norm_backward(dy, x, moments, gamma, num_threads=NUM_THREADS)
        self.store(gradients)
        return gradients.dx if input_gradient else None

    def _arguments(self) -> dict[str, Any]:
        return {**super()._arguments(), "stats": self.stats if self._has_own_rules else None}

    def _goes_by_keras(self, stats: RunningStats) -> bool:
        """Whether nobody has given the moving statistics other rules since they were made."""
        other_rules = stats.unbiased or stats.debias or stats.skip_nonfinite
        return not other_rules and stats.momentum == 1.0 - self.momentum

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        config: dict[str, Any] = {
            "axis": self.axis,
            "momentum": self.momentum,
            "moving_mean_initializer": initializers.registry.serialize(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.registry.serialize(self.moving_variance_initializer),
        }
        if self.stats is not None and (self._has_own_rules or not self._goes_by_keras(self.stats)):
            config["stats"] = self.stats.get_config()
        if self.ghost_size is not None:
            config["ghost_size"] = self.ghost_size
        if self.renorm is not None:
            config["renorm"] = asdict(self.renorm)
        return {**config, **super().get_config()}

    def get_state(self) -> dict[str, Any]:
        """Return the counts of the moving statistics, and batches held; see `Layer.get_state`."""
        if self.stats is None:
            return {}
        counts = self.stats.state_dict()
        state = {name: np.asarray(counts[name]).tolist() for name in counts if name not in ("mean", "var")}
        held = [(m.mean.tolist(), m.rstd.tolist(), m.var.tolist(), m.samples, m.eps) for m in self._held]
        return {**state, "held": held} if held else state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See `Layer.set_state`."""
        if state and self.stats is not None:
            held = [
                BatchMoments(np.array(mean), np.array(rstd), np.array(var), samples, eps=eps)
                for mean, rstd, var, samples, eps in state.get("held", ())
            ]
            self.stats.load_state_dict({"mean": self.stats.mean, "var": self.stats.var, **state})
            self._held = held
