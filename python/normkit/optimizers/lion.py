"""Lion: steps of one size, in the direction of the sign."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from normkit.optimizers.base import LearningRate, Optimizer, OptimizerOptions

__all__ = ["Lion"]

Array = NDArray[Any]


class Lion(Optimizer):
    """w −= rate · sign(beta_1 · m + (1 − beta_1) · g), then m = beta_2 · m + (1 − beta_2) · g (Chen et al. 2023).

    Parameters
    ----------
    learning_rate : float or schedule, default 0.001
        See `Optimizer`.
    beta_1, beta_2 : float, default 0.9, 0.99
        Weights of the momentum in the direction and in its own average, in [0, 1).
    weight_decay, **options
        See `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        weight_decay: float | None = None,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.beta_1, self.beta_2 = self._decay("beta_1", beta_1), self._decay("beta_2", beta_2)

    @property
    def slot_names(self) -> tuple[str, ...]:
        """Momentum m."""
        return ("momentum",)

    def _update(self, value: Array, grad: Array, slots: list[Array], scratch: Array, rate: float) -> None:
        (momentum,) = slots
        np.multiply(momentum, self.beta_1, out=scratch)
        scratch += (1.0 - self.beta_1) * grad
        np.sign(scratch, out=scratch)
        scratch *= rate
        value -= scratch
        momentum *= self.beta_2
        np.multiply(grad, 1.0 - self.beta_2, out=scratch)
        momentum += scratch
