"""Adagrad and Adadelta: gradients divided by what was seen of them."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from normkit.optimizers.base import LearningRate, Optimizer, OptimizerOptions

__all__ = ["Adadelta", "Adagrad"]

Array = NDArray[Any]


class Adagrad(Optimizer):
    """w −= rate · g / sqrt(a + epsilon), where a is the sum of all g² so far (Duchi et al. 2011).

    Parameters
    ----------
    learning_rate : float or schedule, default 0.001
        See `Optimizer`.
    initial_accumulator_value : float, default 0.1
        What a starts with.
    epsilon : float, default 1e-7
        Inside the root.
    weight_decay, **options
        See `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.initial_accumulator_value = self._finite("initial_accumulator_value", initial_accumulator_value)
        self.epsilon = self._finite("epsilon", epsilon)

    @property
    def slot_names(self) -> tuple[str, ...]:
        """Sum of squares."""
        return ("accumulator",)

    def _initial(self, slot: str) -> float:
        return self.initial_accumulator_value if slot == "accumulator" else 0.0

    def _update(self, value: Array, grad: Array, slots: list[Array], scratch: Array, rate: float) -> None:
        (accumulator,) = slots
        np.square(grad, out=scratch)
        accumulator += scratch
        np.add(accumulator, self.epsilon, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.divide(grad, scratch, out=scratch)
        scratch *= rate
        value -= scratch


class Adadelta(Optimizer):
    """Steps of the size of the last ones (Zeiler 2012, arXiv:1212.5701).

    With a = rho · a + (1 − rho) · g²: d = sqrt(b + epsilon) / sqrt(a + epsilon) · g, then
    b = rho · b + (1 − rho) · d² and w −= rate · d.

    Parameters
    ----------
    learning_rate : float or schedule, default 0.001
        1.0 is that of the paper; see `Optimizer`.
    rho : float, default 0.95
        Decay of both averages, in [0, 1).
    epsilon : float, default 1e-7
        Inside both roots.
    weight_decay, **options
        See `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.rho = self._decay("rho", rho)
        self.epsilon = self._finite("epsilon", epsilon)

    @property
    def slot_names(self) -> tuple[str, ...]:
        """Averages of the squares of gradients and of steps."""
        return ("accumulated_grad", "accumulated_delta_var")

    def _update(self, value: Array, grad: Array, slots: list[Array], scratch: Array, rate: float) -> None:
        gradients, steps = slots
        gradients *= self.rho
        np.square(grad, out=scratch)
        scratch *= 1.0 - self.rho
        gradients += scratch
        step = (steps + self.epsilon) / (gradients + self.epsilon)
        np.sqrt(step, out=step)
        step *= grad
        steps *= self.rho
        np.square(step, out=scratch)
        scratch *= 1.0 - self.rho
        steps += scratch
        step *= rate
        value -= step
