"""Optimizers with Keras's names, defaults and formulas.

An optimizer works in place on a few flat arrays: `build` takes pairs (values, gradients), `step` applies the
update rule to all of them in blocks that fit in cache. The rules are elementwise, so neither the blocks nor the
order of the weights in the arrays change a bit of the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normkit._checks import finite
from normkit._registry import Owned, Registry

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "get"]

Array = NDArray[Any]

# Elements per block: 256 KB of float32. Measured with Adam on 51 000 and 2 000 000 weights, 1 MB of second-level
# cache: smaller blocks pay for more NumPy calls, and without blocks large models wait for memory.
BLOCK = 1 << 16


class _Block(NamedTuple):
    """A stretch of the flat arrays; all have the same length."""

    value: Array
    grad: Array
    slots: list[Array]
    scratch: Array


class Optimizer(Owned):
    """Base of the optimizers.

    A subclass names its `slot_names` and writes `_update`.

    Parameters
    ----------
    learning_rate : float
        Finite, not negative; may be assigned to between steps, as may what does not decide on `slot_names`.
    weight_decay : float, optional
        Before each step value −= learning_rate · weight_decay · value (decoupled: Loshchilov & Hutter 2019).

    Attributes
    ----------
    iterations : int
        Steps done.
    slots : dict of str to list of ndarray
        State by name ('momentum', 'velocity'): one array for each pair given to `build`.
    """

    def __init__(self, learning_rate: float, weight_decay: float | None = None) -> None:
        self.learning_rate = learning_rate
        self.weight_decay = None if weight_decay is None else self._finite("weight_decay", weight_decay)
        self.iterations = 0
        self.slots: dict[str, list[Array]] = {}
        self._arrays: list[tuple[Array, Array]] = []
        self._blocks: list[_Block] = []

    def _finite(self, name: str, value: Any) -> float:
        return finite(f"{type(self).__name__}: {name}", value)

    @property
    def learning_rate(self) -> float:
        """Size of a step."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = self._finite("learning_rate", value)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse a value that needs other state arrays than there are."""
        before = getattr(self, name, None)
        super().__setattr__(name, value)
        if vars(self).get("_blocks") and tuple(self.slots) != self.slot_names:
            super().__setattr__(name, before)
            raise AttributeError(
                f"{type(self).__name__}: {name} decides which state there is, so it cannot become {value!r} "
                "once training has begun; make a new optimizer and compile() with it"
            )

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_blocks": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make views again, which copying and pickling turn into arrays of their own."""
        self.__dict__.update(state)
        self._blocks = self._cut()

    @property
    def slot_names(self) -> tuple[str, ...]:
        """Names of the state arrays, in the order `_update` gets them."""
        return ()

    def build(self, arrays: Sequence[tuple[Array, Array]]) -> None:
        """Start anew on these (values, gradients): flat arrays, equal in length and dtype within a pair."""
        self.iterations = 0
        self._arrays = list(arrays)
        self.slots = {name: [np.zeros_like(value) for value, _ in arrays] for name in self.slot_names}
        self._blocks = self._cut()

    def _cut(self) -> list[_Block]:
        blocks = []
        for index, (value, grad) in enumerate(self._arrays):
            scratch = np.empty(min(BLOCK, value.size), value.dtype)
            for start in range(0, value.size, BLOCK):
                part = slice(start, min(start + BLOCK, value.size))
                slots = [self.slots[name][index][part] for name in self.slot_names]
                blocks.append(_Block(value[part], grad[part], slots, scratch[: part.stop - part.start]))
        return blocks

    def step(self) -> None:
        """Update all values in place from their gradients."""
        self.iterations += 1
        rate = self._step_size()
        for value, grad, slots, scratch in self._blocks:
            if self.weight_decay:
                np.multiply(value, self.learning_rate * self.weight_decay, out=scratch)
                value -= scratch
            self._update(value, grad, slots, scratch, rate)

    def _step_size(self) -> float:
        """Return the learning rate times whatever depends on the number of steps."""
        return self.learning_rate

    def _update(self, value: Array, grad: Array, slots: list[Array], scratch: Array, rate: float) -> None:
        raise NotImplementedError


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

    Without: w −= rate · g. With: v = momentum · v − rate · g, then w += v, or with Nesterov's
    momentum w += momentum · v − rate · g (Sutskever et al. 2013).

    Parameters
    ----------
    learning_rate : float, default 0.01
        See `Optimizer`.
    momentum : float, default 0.0
        In [0, 1].
    nesterov : bool, default False
        Nesterov's variant.
    weight_decay : float, optional
        See `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"SGD: momentum must be in [0, 1], got {momentum}")
        self.momentum = float(momentum)
        self.nesterov = nesterov

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


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015) with "epsilon hat": the form just before section 2.1, as in Keras.

    At step t: m += (1 − beta_1)·(g − m), v += (1 − beta_2)·(g² − v), and
    w −= rate · sqrt(1 − beta_2ᵗ) / (1 − beta_1ᵗ) · m / (sqrt(v) + epsilon).

    Parameters
    ----------
    learning_rate : float, default 0.001
        See `Optimizer`.
    beta_1, beta_2 : float, default 0.9, 0.999
        Decay of the moments, in [0, 1).
    epsilon : float, default 1e-7
        Note that torch adds it after the bias correction of v, Keras and this class before.
    amsgrad : bool, default False
        Use the largest v so far (Reddi et al. 2018).
    weight_decay : float, optional
        See `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        for name, beta in (("beta_1", beta_1), ("beta_2", beta_2)):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"{type(self).__name__}: {name} must be in [0, 1), got {beta}")
        self.beta_1, self.beta_2 = float(beta_1), float(beta_2)
        self.epsilon = self._finite("epsilon", epsilon)
        self.amsgrad = amsgrad

    @property
    def slot_names(self) -> tuple[str, ...]:
        """Momentum m, velocity v, and with amsgrad the largest v."""
        return ("momentum", "velocity", "velocity_hat") if self.amsgrad else ("momentum", "velocity")

    def _step_size(self) -> float:
        t = self.iterations
        return self.learning_rate * math.sqrt(1.0 - self.beta_2**t) / (1.0 - self.beta_1**t)

    def _update(self, value: Array, grad: Array, slots: list[Array], scratch: Array, rate: float) -> None:
        momentum, velocity = slots[:2]
        np.subtract(grad, momentum, out=scratch)
        scratch *= 1.0 - self.beta_1
        momentum += scratch
        np.square(grad, out=scratch)
        scratch -= velocity
        scratch *= 1.0 - self.beta_2
        velocity += scratch
        if self.amsgrad:
            velocity = np.maximum(slots[2], velocity, out=slots[2])
        np.sqrt(velocity, out=scratch)
        scratch += self.epsilon
        np.divide(momentum, scratch, out=scratch)
        scratch *= rate
        value -= scratch


class AdamW(Adam):
    """`Adam` with decoupled weight decay, 0.004 by default (Loshchilov & Hutter 2019)."""

    def __init__(
        self,
        learning_rate: float = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay)


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012): the gradient divided by a running root mean square of itself.

    v = rho · v + (1 − rho) · g²; increment = rate · g / sqrt(v + epsilon), where `centered` takes the
    square of the running mean of g from v. With momentum: b = momentum · b + increment, w −= b.

    Parameters
    ----------
    learning_rate : float, default 0.001
        See `Optimizer`.
    rho : float, default 0.9
        Decay of the averages, in [0, 1).
    momentum : float, default 0.0
        Plain, not Nesterov's.
    epsilon : float, default 1e-7
        Inside the root.
    centered : bool, default False
        Divide by an estimate of the standard deviation instead.
    weight_decay : float, optional
        See `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        if not 0.0 <= rho < 1.0:
            raise ValueError(f"RMSprop: rho must be in [0, 1), got {rho}")
        self.rho, self.momentum = float(rho), self._finite("momentum", momentum)
        self.epsilon = self._finite("epsilon", epsilon)
        self.centered = centered

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


registry: Registry[Optimizer] = Registry(
    "optimizer", Optimizer, {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop}
)


def get(identifier: str | dict[str, Any] | Optimizer) -> Optimizer:
    """Return the optimizer of that name, or of that saved configuration, or the instance itself."""
    return registry.get(identifier)
