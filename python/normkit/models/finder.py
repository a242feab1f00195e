"""`find_learning_rate`: which learning rate to train with, by trying them all."""

from __future__ import annotations

import copy
import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit._checks import finite, positive_integer
from normkit._numerics import default_float_mode
from normkit.data.minibatches import MiniBatches

if TYPE_CHECKING:
    from normkit.models.sequential import Sequential

__all__ = ["LearningRates", "find_learning_rate"]

# Weight of the old value in the running mean of the losses, and how many times the best one ends the search: Smith's
# test as fastai does it.
SMOOTHING = 0.98
DIVERGED = 4.0


class LearningRates(NamedTuple):
    """What `find_learning_rate` found.

    Attributes
    ----------
    suggestion : float
        The rate at which the loss fell fastest.
    rates : ndarray of float64, shape (steps,)
        The rates that were tried, increasing.
    losses : ndarray of float64, shape (steps,)
        Running mean of the loss at each: to plot over the logarithm of `rates`.
    """

    suggestion: float
    rates: NDArray[np.float64]
    losses: NDArray[np.float64]


@default_float_mode()
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
    """Train a copy of a model with a rate that grows from step to step, and see where the loss falls fastest [1]_.

    The model is left alone.

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
        How many rates, at least 10. The search ends before the last when the loss is 4 times its best.

    Returns
    -------
    LearningRates
        The suggestion, and the curve.

    Raises
    ------
    ValueError
        If an argument is out of range, the model is not compiled, or the loss is not finite from the start.
    TypeError
        If the learning rate follows a schedule.

    References
    ----------
    .. [1] L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, arXiv:1506.01186, section 3.3.
    """
    what = "find_learning_rate"
    if not 0.0 < finite(f"{what}: lowest", lowest) < finite(f"{what}: highest", highest):
        raise ValueError(f"{what}: lowest must be above 0 and below highest, got {lowest:g} and {highest:g}")
    if positive_integer(f"{what}: steps", steps) < 10:
        raise ValueError(f"{what}: steps must be at least 10, got {steps}")
    model.require_compiled(what)
    twin = copy.deepcopy(model)
    rates = np.geomspace(lowest, highest, steps)
    losses = _losses(twin, MiniBatches(x, y, batch_size=batch_size, seed=twin.rng), rates)
    if len(losses) < 2:
        raise ValueError(f"{what}: the loss is not finite from the start; look for NaN in the data")
    return LearningRates(_steepest(rates, losses), rates[: len(losses)], losses)


def _losses(model: Sequential, batches: MiniBatches, rates: NDArray[Any]) -> NDArray[np.float64]:
    """Return the running mean of the loss, as long as it does not diverge."""
    stream = itertools.chain.from_iterable(itertools.repeat(batches))
    mean = 0.0
    losses: list[float] = []
    for step, (rate, batch) in enumerate(zip(rates.tolist(), stream, strict=False), start=1):
        model.optimizer.learning_rate = rate
        x, y = batch
        loss = model.train_on_batch(x, y, return_dict=True)["loss"]
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * loss
        value = mean / (1.0 - SMOOTHING**step)
        if not math.isfinite(value) or (losses and value > DIVERGED * min(losses)):
            break
        losses.append(value)
    return np.array(losses)


def _steepest(rates: NDArray[Any], losses: NDArray[Any]) -> float:
    """Return the rate of the steepest fall up to the lowest loss."""
    end = max(2, int(losses.argmin()) + 1)
    slope = np.gradient(losses[:end])
    return float(rates[int(slope.argmin())])
