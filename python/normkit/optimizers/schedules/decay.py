"""Learning rates that fall: exponentially, inversely, in steps, along a polynomial."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np

from normkit._checks import flag, number, shown
from normkit.optimizers.schedules.base import LearningRateSchedule

__all__ = ["ExponentialDecay", "InverseTimeDecay", "PiecewiseConstantDecay", "PolynomialDecay"]


class _Decay(LearningRateSchedule):
    """What the decays by a rate share: step / decay_steps, whole numbers only with `staircase`."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str | None = None,
    ) -> None:
        self.initial_learning_rate = self._rate("initial_learning_rate", initial_learning_rate)
        self.decay_steps = self._positive("decay_steps", decay_steps)
        self.decay_rate = self._rate("decay_rate", decay_rate)
        self.staircase = flag(f"{type(self).__name__}: staircase", staircase)
        self.name = name if name is not None else type(self).__name__

    def _periods(self, step: int) -> float:
        periods = step / self.decay_steps
        return math.floor(periods) if self.staircase else periods


class ExponentialDecay(_Decay):
    """initial_learning_rate · decay_rate ^ (step / decay_steps).

    Parameters
    ----------
    initial_learning_rate : float
        Finite, not negative.
    decay_steps : float
        Positive.
    decay_rate : float
        Factor per `decay_steps`.
    staircase : bool, default False
        Round step / decay_steps down: the rate falls in steps.
    name : str, optional
        Default: the class name.
    """

    def __call__(self, step: int) -> float:
        """See the class."""
        return float(self.initial_learning_rate * self.decay_rate ** self._periods(step))


class InverseTimeDecay(_Decay):
    """initial_learning_rate / (1 + decay_rate · step / decay_steps).

    Parameters
    ----------
    initial_learning_rate : float
        Finite, not negative.
    decay_steps : float
        Positive.
    decay_rate : float
        How fast the divisor grows.
    staircase : bool, default False
        Round step / decay_steps down: the rate falls in steps.
    name : str, optional
        Default: the class name.
    """

    def __call__(self, step: int) -> float:
        """See the class."""
        return self.initial_learning_rate / (1.0 + self.decay_rate * self._periods(step))


class PiecewiseConstantDecay(LearningRateSchedule):
    """``values[0]`` up to and with step ``boundaries[0]``, then ``values[1]`` up to ``boundaries[1]``, and so on.

    Parameters
    ----------
    boundaries : sequence of int
        Increasing.
    values : sequence of float
        One more than boundaries.
    name : str, default 'PiecewiseConstant'
        For the record.
    """

    def __init__(
        self, boundaries: Sequence[float], values: Sequence[float], name: str = "PiecewiseConstant"
    ) -> None:
        for name_of, given in (("boundaries", boundaries), ("values", values)):
            if not isinstance(given, (Sequence, np.ndarray)):
                raise TypeError(
                    f"PiecewiseConstantDecay: {name_of} must be a list of numbers, got {shown(given)}"
                )
        if len(values) != len(boundaries) + 1:
            raise ValueError(
                "PiecewiseConstantDecay: values must be one more than boundaries, "
                f"got {len(values)} values and {len(boundaries)} boundaries"
            )
        self.boundaries = [
            number("PiecewiseConstantDecay: each boundary", boundary) for boundary in boundaries
        ]
        if self.boundaries != sorted(self.boundaries):
            raise ValueError(
                f"PiecewiseConstantDecay: boundaries must increase, got {', '.join(map(str, boundaries))}"
            )
        self.values = [self._rate("each of values", value) for value in values]
        self.name = name

    def __call__(self, step: int) -> float:
        """See the class."""
        return self.values[bisect.bisect_left(self.boundaries, step)]


class PolynomialDecay(LearningRateSchedule):
    """(initial − end) · (1 − step / decay_steps) ^ power + end, where step stops at decay_steps.

    Parameters
    ----------
    initial_learning_rate : float
        Finite, not negative.
    decay_steps : float
        Positive.
    end_learning_rate : float, default 1e-4
        Reached after `decay_steps`.
    power : float, default 1.0
        1: a straight line.
    cycle : bool, default False
        At the end start again, over the next multiple of `decay_steps` that is beyond step.
    name : str, default 'PolynomialDecay'
        For the record.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        self.initial_learning_rate = self._rate("initial_learning_rate", initial_learning_rate)
        self.decay_steps = self._positive("decay_steps", decay_steps)
        self.end_learning_rate = self._rate("end_learning_rate", end_learning_rate)
        self.power = number("PolynomialDecay: power", power)
        self.cycle = flag(f"{type(self).__name__}: cycle", cycle)
        self.name = name

    def __call__(self, step: int) -> float:
        """See the class."""
        steps = self.decay_steps
        if self.cycle:
            steps *= max(1, math.ceil(step / steps))
        remaining = 1.0 - min(step, steps) / steps
        drop = self.initial_learning_rate - self.end_learning_rate
        return float(drop * remaining**self.power + self.end_learning_rate)
