"""Adam and its relatives."""

from __future__ import annotations

import math
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from normkit import _core
from normkit._checks import flag
from normkit.optimizers.base import LearningRate, Optimizer, OptimizerOptions

__all__ = ["Adam", "AdamW", "Adamax", "Nadam"]

Array = NDArray[Any]


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015) with "epsilon hat": the form just before section 2.1, as in Keras.

    At step t: m += (1 − beta_1)·(g − m), v += (1 − beta_2)·(g² − v), and
    w −= rate · sqrt(1 − beta_2ᵗ) / (1 − beta_1ᵗ) · m / (sqrt(v) + epsilon).

    Parameters
    ----------
    learning_rate : float or schedule, default 0.001
        See `Optimizer`.
    beta_1, beta_2 : float, default 0.9, 0.999
        Decay of the moments, in [0, 1).
    epsilon : float, default 1e-7
        Note that torch adds it after the bias correction of v, Keras and this class before.
    amsgrad : bool, default False
        Use the largest v so far (Reddi et al. 2018).
    weight_decay, **options
        See `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.beta_1, self.beta_2 = self._decay("beta_1", beta_1), self._decay("beta_2", beta_2)
        self.epsilon = self._finite("epsilon", epsilon)
        self.amsgrad = flag(f"{type(self).__name__}: amsgrad", amsgrad)

    @property
    def slot_names(self) -> tuple[str, ...]:
        """Momentum m, velocity v, and with amsgrad the largest v."""
        return ("momentum", "velocity", "velocity_hat") if self.amsgrad else ("momentum", "velocity")

    def _step_size(self, rate: float) -> float:
        t = self.iterations
        return rate * math.sqrt(1.0 - self.beta_2**t) / (1.0 - self.beta_1**t)

    def _update(self, value: Array, grad: Array, slots: list[Array], scratch: Array, rate: float) -> None:
        momentum, velocity = slots[:2]
        largest = slots[2] if self.amsgrad else None
        _core.adam_step(
            value,
            grad,
            momentum,
            velocity,
            largest,
            1.0 - self.beta_1,
            1.0 - self.beta_2,
            self.epsilon,
            rate,
        )


class AdamW(Adam):
    """`Adam` with decoupled weight decay, 0.004 by default (Loshchilov & Hutter 2019)."""

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        weight_decay: float | None = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, **options)


class Adamax(Optimizer):
    """Adam with the largest gradient, decayed, in place of the second moment (Kingma & Ba 2015, section 7.1).

    m += (1 − beta_1)·(g − m), u = max(beta_2 · u, |g|), and w −= rate / (1 − beta_1ᵗ) · m / (u + epsilon).

    Parameters
    ----------
    learning_rate : float or schedule, default 0.001
        See `Optimizer`.
    beta_1, beta_2 : float, default 0.9, 0.999
        Decay of the moment and of the largest gradient, in [0, 1).
    epsilon : float, default 1e-7
        Added to u.
    weight_decay, **options
        See `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.beta_1, self.beta_2 = self._decay("beta_1", beta_1), self._decay("beta_2", beta_2)
        self.epsilon = self._finite("epsilon", epsilon)

    @property
    def slot_names(self) -> tuple[str, ...]:
        """Momentum m and norm u."""
        return ("momentum", "norm")

    def _step_size(self, rate: float) -> float:
        return rate / (1.0 - self.beta_1**self.iterations)

    def _update(self, value: Array, grad: Array, slots: list[Array], scratch: Array, rate: float) -> None:
        momentum, norm = slots
        np.subtract(grad, momentum, out=scratch)
        scratch *= 1.0 - self.beta_1
        momentum += scratch
        norm *= self.beta_2
        np.abs(grad, out=scratch)
        np.maximum(norm, scratch, out=norm)
        np.add(norm, self.epsilon, out=scratch)
        np.divide(momentum, scratch, out=scratch)
        scratch *= rate
        value -= scratch


class Nadam(Optimizer):
    """Adam with Nesterov's momentum (Dozat 2016), whose weight grows as u_t = beta_1 · (1 − 0.96ᵗ / 2).

    With the moments m and v of Adam and U_t = u_1 · ... · u_t: w −= rate · m̂ / (sqrt(v / (1 − beta_2ᵗ)) + epsilon),
    m̂ = u_{t+1} · m / (1 − U_{t+1}) + (1 − u_t) · g / (1 − U_t).

    Parameters
    ----------
    learning_rate : float or schedule, default 0.001
        See `Optimizer`.
    beta_1, beta_2 : float, default 0.9, 0.999
        Decay of the moments, in [0, 1).
    epsilon : float, default 1e-7
        Added to the root.
    weight_decay, **options
        See `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.beta_1, self.beta_2 = self._decay("beta_1", beta_1), self._decay("beta_2", beta_2)
        self.epsilon = self._finite("epsilon", epsilon)
        self._product = (0, 1.0)

    @property
    def slot_names(self) -> tuple[str, ...]:
        """Momentum m and velocity v."""
        return ("momentum", "velocity")

    def _weight(self, t: int) -> float:
        return self.beta_1 * (1.0 - 0.5 * 0.96**t)

    def _step_size(self, rate: float) -> float:
        """Bring the product of the weights up to this step; after loading a model that is from the first one."""
        t, product = self._product if self._product[0] < self.iterations else (0, 1.0)
        while t < self.iterations:
            t += 1
            product *= self._weight(t)
        self._product = t, product
        return rate

    def _update(self, value: Array, grad: Array, slots: list[Array], scratch: Array, rate: float) -> None:
        momentum, velocity = slots
        t, product = self._product
        np.subtract(grad, momentum, out=scratch)
        scratch *= 1.0 - self.beta_1
        momentum += scratch
        np.square(grad, out=scratch)
        scratch -= velocity
        scratch *= 1.0 - self.beta_2
        velocity += scratch
        ahead = self._weight(t + 1)
        direction = momentum * (rate * ahead / (1.0 - product * ahead))
        direction += grad * (rate * (1.0 - self._weight(t)) / (1.0 - product))
        np.divide(velocity, 1.0 - self.beta_2**t, out=scratch)
        np.sqrt(scratch, out=scratch)
        scratch += self.epsilon
        np.divide(direction, scratch, out=scratch)
        value -= scratch
