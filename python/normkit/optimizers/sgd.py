"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from normkit._checks import flag
from normkit.optimizers.base import LearningRate, Optimizer, OptimizerOptions

__all__ = ["SGD"]

Array = NDArray[Any]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

    Without: w −= rate · g. With: v = momentum · v − rate · g, then w += v, or with Nesterov's
    momentum w += momentum · v − rate · g (Sutskever et al. 2013).

    Parameters
    ----------
    learning_rate : float or schedule, default 0.01
        See `Optimizer`.
    momentum : float, default 0.0
        In [0, 1].
    nesterov : bool, default False
        Nesterov's variant.
    weight_decay, **options
        See `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.momentum = self._share("momentum", momentum)
        self.nesterov = flag(f"{type(self).__name__}: nesterov", nesterov)

    @property
    def slot_names(self) -> tuple[str, ...]:
        """Momentum, if there is any."""
        return ("momentum",) if self.momentum else ()

    def _update(self, value: Array, grad: Array, slots: list[Array], scratch: Array, rate: float) -> None:
        np.multiply(grad, rate, out=scratch)
        if not slots:
            value -= scratch
            return
        (velocity,) = slots
        velocity *= self.momentum
        velocity -= scratch
        if self.nesterov:
            value -= scratch
            np.multiply(velocity, self.momentum, out=scratch)
            value += scratch
        else:
            value += velocity
