"""`find_learning_rate`: which learning rate to train with, by trying them all, and then the one that was found."""

from __future__ import annotations

import copy
import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit._checks import finite, positive_integer, shown
from normkit._names import with_keyword_hints
from normkit._numerics import default_float_mode
from normkit._repr import called
from normkit.data.minibatches import MiniBatches

if TYPE_CHECKING:
    from normkit.models.sequential import Sequential

__all__ = ["LearningRateNotFound", "LearningRates", "find_learning_rate"]

# Shares of the batches: without training, to know where the loss starts and how much batches differ; as the standard deviation
# of the Gaussian that smooths the losses; at the end of the trial, where the loss has to be lower.
STILL, SMOOTHING, TAIL = 0.2, 0.03, 0.25
# The search ends when the loss is beyond its start by so many times what it is, or what batches differ by.
DIVERGED, WIDE = 3.0, 10.0
# A fall is one if it is more than so many times what chance makes of a mean, and this share of the start.
CLEAR, LEAST_FALL = 3.0, 0.05
# Where a fall begins: the first tenth may be chance.
BEGUN = 0.1
# If a rate does not train, a third of it is tried, so many times.
BACKED_OFF, TRIALS = 3.0, 5


class LearningRates(NamedTuple):
    """What `find_learning_rate` found.

    Attributes
    ----------
    suggestion : float
        The rate at which the loss fell fastest, or a third, a ninth, ... of it: the first of these that trains.
    rates : ndarray of float64, shape (steps,)
        The rates that were tried, increasing.
    losses : ndarray of float64, shape (steps,)
        The smoothed loss at each: to plot over the logarithm of `rates`.
    """

    suggestion: float
    rates: NDArray[np.float64]
    losses: NDArray[np.float64]

    def __repr__(self) -> str:
        return called(type(self).__name__, self._asdict())


class LearningRateNotFound(ValueError):  # noqa: N818
    """No rate can be suggested, for the reason that the message gives; `rates` and `losses` are those of `LearningRates`."""

    def __init__(self, reason: str, rates: NDArray[np.float64], losses: NDArray[np.float64]) -> None:
        super().__init__(reason)
        self.rates, self.losses = rates, losses

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.rates, self.losses)


@default_float_mode()
@with_keyword_hints
def find_learning_rate(
    model: Sequential,
    x: ArrayLike,
    y: ArrayLike,
    batch_size: int = 32,
    *,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
) -> LearningRates:
    """Train a copy of a model with a rate that grows from step to step, see where the loss falls fastest [1]_, and try that.

    The model is left alone. The rule:

    1. A fifth of `steps` batches at rate 0 tells where the loss starts, and how much batches differ.
    2. The rate then grows, one batch a rate. The losses are smoothed by a Gaussian of 3 % of the steps, on both sides of a rate:
       a running mean [2]_ lags behind, and begins with the noise of a few batches.
    3. The fall has to be clear: more than 5 % of the start, and than three times what chance makes of such a mean.
    4. The rate is that of the steepest slope [1]_ between the first tenth of the fall and its lowest point. What comes before is
       noise, what comes after the beginning of the end [2]_.
    5. Another copy trains at this rate for `steps` batches. If its loss has not fallen clearly in the last quarter, a third of the
       rate is tried, up to five times: a rate at which single batches still do well may be one that many do not survive.

    Parameters
    ----------
    model : Sequential
        Compiled, with a number as its learning rate.
    x, y : array_like
        See `Sequential.fit`.
    batch_size : int, default 32
        Samples per step.
    lowest, highest : float
        First and last rate; those between are evenly spaced on a logarithmic scale.
    steps : int, default 100
        How many rates, at least 10. The search ends before the last when the loss is far above its start.

    Returns
    -------
    LearningRates
        The suggestion, and the curve.

    Raises
    ------
    LearningRateNotFound
        A ValueError: the loss did not fall clearly, or nowhere near the suggestion did training go well. The message says which, and
        what may help; it carries the curve.
    ValueError
        If an argument is out of range, the model is not compiled, or the loss is not finite from the start.
    TypeError
        If the learning rate follows a schedule.

    References
    ----------
    .. [1] L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, arXiv:1506.01186, section 3.3.
    .. [2] J. Howard, S. Gugger, "fastai: A Layered API for Deep Learning", 2020, arXiv:2002.04688, whose `lr_find` takes the
       steepest slope, or a point of the longest fall, of a running mean. Lightning's leaves out the first ten losses.
    """
    what = "find_learning_rate"
    if not 0.0 < finite(f"{what}: lowest", lowest) < finite(f"{what}: highest", highest):
        raise ValueError(f"{what}: lowest must be above 0 and below highest, got {lowest:g} and {highest:g}")
    if positive_integer(f"{what}: steps", steps) < 10:
        raise ValueError(f"{what}: steps must be at least 10, got {steps}")
    if not hasattr(model, "require_compiled"):
        raise TypeError(f"{what}: the first argument must be a Sequential, got {shown(model)}")
    model.require_compiled(what)
    count = max(5, round(STILL * steps))
    still = _losses(model, x, y, batch_size, np.zeros(count))
    if len(still) < count:
        raise ValueError(f"{what}: the loss is not finite from the start; look for NaN in the data")
    start, noise = float(still.mean()), float(still.std(ddof=1))
    far = start + DIVERGED * max(abs(start), WIDE * noise)
    rates = np.geomspace(lowest, highest, steps)
    raw = _losses(model, x, y, batch_size, rates, far)
    losses, rates = _smoothed(raw, SMOOTHING * steps), rates[: len(raw)]

    def clear(count: float) -> float:
        """Return how far below the start the mean of so many losses has to be."""
        by_chance = noise * math.sqrt(1.0 / count + 1.0 / len(still))
        return max(CLEAR * by_chance, LEAST_FALL * abs(start))

    def give_up(reason: str) -> NoReturn:
        raise LearningRateNotFound(f"{what}: {reason}", rates, losses)

    fall = start - float(losses.min()) if len(losses) else 0.0
    if not fall > clear(2.0 * math.sqrt(math.pi) * SMOOTHING * steps):
        give_up(
            f"cannot tell: the loss starts at {start:.4g} and falls by {max(fall, 0.0):.2g}, and that of batches "
            f"differs by {noise:.2g}; pass more steps, a larger batch_size, or other bounds than {lowest:g} and {highest:g}"
        )
    suggestion = _steepest(rates, losses, start - BEGUN * fall)
    tail = max(1, round(TAIL * steps))
    for _ in range(TRIALS):
        trial = _losses(model, x, y, batch_size, np.full(steps, suggestion), far)
        if len(trial) == steps and start - trial[-tail:].mean() > clear(tail):
            return LearningRates(suggestion, rates, losses)
        suggestion /= BACKED_OFF
    give_up(
        f"cannot tell: the loss fell fastest at {suggestion * BACKED_OFF**TRIALS:.2g}, but neither that rate nor smaller ones, "
        f"down to {suggestion * BACKED_OFF:.2g}, bring it below its start of {start:.4g} in {steps} batches; "
        "scale the data, or pass more steps"
    )


def _losses(
    model: Sequential, x: ArrayLike, y: ArrayLike, batch_size: int, rates: NDArray[Any], far: float = math.inf
) -> NDArray[np.float64]:
    """Train a copy with these rates, one a batch; return the losses, as long as they are below `far`."""
    twin = copy.deepcopy(model)
    batches = MiniBatches(x, y, batch_size=batch_size, seed=twin.rng)
    stream = itertools.chain.from_iterable(itertools.repeat(batches))
    losses: list[float] = []
    for rate, batch in zip(rates.tolist(), stream, strict=False):
        twin.optimizer.learning_rate = rate
        features, targets = batch
        loss = twin.train_on_batch(features, targets, return_dict=True)["loss"]
        if not loss < far:
            break
        losses.append(loss)
    return np.array(losses)


def _smoothed(losses: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Return means weighted by a Gaussian of this standard deviation, in steps."""
    index = np.arange(len(losses))
    weights = np.exp(-0.5 * ((index[:, None] - index) / width) ** 2)
    smoothed: NDArray[np.float64] = weights @ losses / weights.sum(axis=1)
    return smoothed


def _steepest(rates: NDArray[Any], losses: NDArray[Any], begun: float) -> float:
    """Return the rate of the steepest slope of the fall to the lowest loss, from where that is below `begun`."""
    lowest = int(losses.argmin())
    above = np.flatnonzero(losses[: lowest + 1] > begun)
    first = int(above[-1]) if len(above) else 0
    slope = np.gradient(losses)[first : lowest + 1] if len(losses) > 1 else np.zeros(1)
    return float(rates[first + int(slope.argmin())])
