"""RMSprop."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from normkit._checks import flag
from normkit.optimizers.base import LearningRate, Optimizer, OptimizerOptions

__all__ = ["RMSprop"]

Array = NDArray[Any]


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012): the gradient divided by a running root mean square of itself.

    v = rho · v + (1 − rho) · g²; increment = rate · g / sqrt(v + epsilon), where `centered` takes the
    square of the running mean of g from v. With momentum: b = momentum · b + increment, w −= b.

    Parameters
    ----------
    learning_rate : float or schedule, default 0.001
        See `Optimizer`.
    rho : float, default 0.9
        Decay of the averages, in [0, 1).
    momentum : float, default 0.0
        Plain, not Nesterov's.
    epsilon : float, default 1e-7
        Inside the root.
    centered : bool, default False
        Divide by an estimate of the standard deviation instead.
    weight_decay, **options
        See `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.rho = self._decay("rho", rho)
        self.momentum = self._finite("momentum", momentum)
        self.epsilon = self._finite("epsilon", epsilon)
        self.centered = flag(f"{type(self).__name__}: centered", centered)

    @property
    def slot_names(self) -> tuple[str, ...]:
        """Velocity v, then what is asked for."""
        names = ["velocity"]
        if self.momentum:
            names.append("momentum")
        if self.centered:
            names.append("average_gradient")
        return tuple(names)

    def _update(self, value: Array, grad: Array, slots: list[Array], scratch: Array, rate: float) -> None:
        velocity = slots[0]
        velocity *= self.rho
        np.square(grad, out=scratch)
        scratch *= 1.0 - self.rho
        velocity += scratch
        if self.centered:
            average = slots[-1]
            average *= self.rho
            np.multiply(grad, 1.0 - self.rho, out=scratch)
            average += scratch
            np.square(average, out=scratch)
            np.subtract(velocity, scratch, out=scratch)
            scratch += self.epsilon
        else:
            np.add(velocity, self.epsilon, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.divide(grad, scratch, out=scratch)
        scratch *= rate
        if self.momentum:
            increment = slots[1]
            increment *= self.momentum
            increment += scratch
            value -= increment
        else:
            value -= scratch
