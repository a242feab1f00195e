"""Learning rates along cosines: down, down again and again, up and down."""

from __future__ import annotations

import math

from normkit._checks import positive_integer, share
from normkit.optimizers.schedules.base import LearningRateSchedule

__all__ = ["CosineDecay", "CosineDecayRestarts", "OneCycle"]


class CosineDecay(LearningRateSchedule):
    """Half a cosine from the initial learning rate down to alpha times it, with a linear warm-up if asked for [1]_.

    With s = min(step, decay_steps) / decay_steps: rate · ((1 − alpha) · (1 + cos(π s)) / 2 + alpha). With a
    `warmup_target` the rate first goes in a straight line from `initial_learning_rate` to it, over
    `warmup_steps`, and the cosine starts there and then.

    Parameters
    ----------
    initial_learning_rate : float
        Finite, not negative.
    decay_steps : float
        Positive, the warm-up not counted.
    alpha : float, default 0.0
        Share of the rate that is left at the end.
    name : str, default 'CosineDecay'
        For the record.
    warmup_target : float, optional
        Rate at the end of the warm-up. None: no warm-up.
    warmup_steps : int, default 0
        Length of the warm-up.

    References
    ----------
    .. [1] I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017,
       arXiv:1608.03983.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: float = 0,
    ) -> None:
        self.initial_learning_rate = self._rate("initial_learning_rate", initial_learning_rate)
        self.decay_steps = self._positive("decay_steps", decay_steps)
        self.alpha = self._rate("alpha", alpha)
        self.name = name
        self.warmup_target = None if warmup_target is None else self._rate("warmup_target", warmup_target)
        self.warmup_steps = self._rate("warmup_steps", warmup_steps)

    def __call__(self, step: int) -> float:
        """See the class."""
        start, since = self.initial_learning_rate, float(step)
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return start + (self.warmup_target - start) * (step / self.warmup_steps)
            start, since = self.warmup_target, step - self.warmup_steps
        return start * _cosine(min(since, self.decay_steps) / self.decay_steps, self.alpha)


class CosineDecayRestarts(LearningRateSchedule):
    """`CosineDecay` that starts again at the end, each time over t_mul times as many steps and at m_mul times the rate.

    Parameters
    ----------
    initial_learning_rate : float
        Finite, not negative.
    first_decay_steps : float
        Steps of the first decay, positive.
    t_mul : float, default 2.0
        Factor of the length, at least 1.
    m_mul : float, default 1.0
        Factor of the rate at each restart.
    alpha : float, default 0.0
        Share of the initial rate below which it does not fall.
    name : str, default 'SGDRDecay'
        For the record.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        self.initial_learning_rate = self._rate("initial_learning_rate", initial_learning_rate)
        self.first_decay_steps = self._positive("first_decay_steps", first_decay_steps)
        self.t_mul = self._positive("t_mul", t_mul)
        if self.t_mul < 1.0:
            raise ValueError(f"CosineDecayRestarts: t_mul must be at least 1, got {self.t_mul:g}")
        self.m_mul = self._rate("m_mul", m_mul)
        self.alpha = self._rate("alpha", alpha)
        self.name = name

    def __call__(self, step: int) -> float:
        """See the class."""
        restarts, completed = self._position(step / self.first_decay_steps)
        return self.initial_learning_rate * _cosine(completed, self.alpha, self.m_mul**restarts)

    def _position(self, periods: float) -> tuple[int, float]:
        """Return the number of restarts, and the share of the present decay that is over."""
        if self.t_mul == 1.0:
            return int(periods), periods - math.floor(periods)
        restarts = int(math.log(1.0 + periods * (self.t_mul - 1.0)) / math.log(self.t_mul))
        # The logarithm can be off by a rounding just where a decay ends.
        while periods >= self._start(restarts + 1):
            restarts += 1
        while periods < self._start(restarts):
            restarts -= 1
        return restarts, (periods - self._start(restarts)) / self.t_mul**restarts

    def _start(self, restarts: int) -> float:
        """Where a decay starts: 1 + t_mul + ... + t_mul ^ (restarts − 1)."""
        return float((self.t_mul**restarts - 1.0) / (self.t_mul - 1.0))


class OneCycle(LearningRateSchedule):
    """Up to `max_learning_rate` and down again to almost nothing, both along half a cosine [1]_.

    Not one of Keras's: torch's `OneCycleLR` with its defaults, which leaves momentum alone.

    Parameters
    ----------
    max_learning_rate : float
        Finite, not negative.
    total_steps : int
        Batches of the whole training, at least 2; the rate stays at the end after them.
    share_up : float, default 0.3
        Share of the steps that go up, in [0, 1].
    div_factor : float, default 25.0
        It starts with the largest rate divided by this.
    final_div_factor : float, default 1e4
        It ends with the first rate divided by this.
    name : str, default 'OneCycle'
        For the record.

    References
    ----------
    .. [1] L. N. Smith, N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
       Rates", 2018, arXiv:1708.07120.
    """

    def __init__(
        self,
        max_learning_rate: float,
        total_steps: int,
        share_up: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        name: str = "OneCycle",
    ) -> None:
        self.max_learning_rate = self._rate("max_learning_rate", max_learning_rate)
        self.total_steps = positive_integer("OneCycle: total_steps", total_steps)
        if self.total_steps < 2:
            raise ValueError(f"OneCycle: total_steps must be at least 2, got {total_steps}")
        self.share_up = share("OneCycle: share_up", share_up)
        self.div_factor = self._positive("div_factor", div_factor)
        self.final_div_factor = self._positive("final_div_factor", final_div_factor)
        self.name = name

    def __call__(self, step: int) -> float:
        """See the class."""
        top = self.max_learning_rate
        first = top / self.div_factor
        peak, end = self.share_up * self.total_steps - 1.0, self.total_steps - 1.0
        if step <= peak:
            return _between(first, top, step / peak if peak else 1.0)
        down = (step - peak) / (end - peak) if end > peak else 1.0
        return _between(top, first / self.final_div_factor, min(1.0, down))


def _between(start: float, end: float, completed: float) -> float:
    """From start to end along half a cosine."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * completed))


def _cosine(completed: float, alpha: float, height: float = 1.0) -> float:
    return (1.0 - alpha) * 0.5 * height * (1.0 + math.cos(math.pi * completed)) + alpha
