"""What the operations return and keep: `Moments`, `NormGradients` and `RunningStats`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Moments", "NormGradients", "RunningStats"]


class Moments(NamedTuple):
    """The statistics that a forward pass used, as the backward pass wants them.

    Both are float64, whatever the dtype of x: a float32 mean would be wrong by 3 % of a standard
    deviation at mean/σ = 1e6, and the gradient would inherit it.

    Attributes
    ----------
    mean : ndarray of float64
        Batch norm: shape (channels,). Layer norm: the shape of x without the normalized axes.
    rstd : ndarray of float64
        1 / sqrt(variance + eps), with the biased (population) variance; shaped as `mean`.
    """

    mean: NDArray[np.float64]
    rstd: NDArray[np.float64]


class NormGradients(NamedTuple):
    """Gradients of a normalization with respect to its input and its parameters.

    Attributes
    ----------
    dx : ndarray
        Gradient with respect to x; shape and dtype of x.
    dweight, dbias : ndarray
        Gradients with respect to weight and bias, in the dtype of weight, or of x without one. They are computed whether or not
        the operation had a weight and a bias (without a weight: the gradient at weight = 1).
    """

    dx: NDArray[Any]
    dweight: NDArray[Any]
    dbias: NDArray[Any]


class RunningStats:
    """Running mean and variance of the channels of a batch norm, kept by an exponential moving average.

    One step with the statistics of a mini-batch is::

        mean <- (1 - momentum) * mean + momentum * batch_mean
        var  <- (1 - momentum) * var  + momentum * batch_var

    A mini-batch with no element changes nothing; one with a single value per channel has no variance to
    tell, so the mean moves and the variance stays.

    Parameters
    ----------
    num_channels : int
        Number of channels, C.
    momentum : float or None, default 0.1
        Weight of the **new** batch, in [0, 1] (torch's meaning; Keras, flax and ONNX give the weight
        of the old value, 1 − this). None: cumulative average, every batch weighs the same.
    unbiased : bool, default True
        Store the unbiased batch variance (divided by n − 1), as torch does. False: store the
        biased one (divided by n), as Keras, flax and ONNX do.
    dtype : dtype, default float32
        float32 or float64.

    Attributes
    ----------
    mean, var : ndarray, shape (num_channels,)
        The running statistics: 0 and 1 at the start. Assigning to them copies into the same memory.
    count : int
        Number of mini-batches seen.

    Raises
    ------
    ValueError
        If `num_channels` or `momentum` is out of range.
    TypeError
        If `dtype` is neither float32 nor float64.

    See Also
    --------
    RunningStats.torch, RunningStats.keras : the two conventions by name.
    """

    __slots__ = ("_mean", "_var", "count", "momentum", "unbiased")

    def __init__(
        self,
        num_channels: int,
        momentum: float | None = 0.1,
        unbiased: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if isinstance(num_channels, bool) or not isinstance(num_channels, (int, np.integer)):
            raise TypeError(
                f"RunningStats: num_channels must be an integer, got {type(num_channels).__name__}"
            )
        if num_channels < 0:
            raise ValueError(f"RunningStats: num_channels must not be negative, got {num_channels}")
        if momentum is not None and not (math.isfinite(momentum) and 0.0 <= momentum <= 1.0):
            raise ValueError(
                f"RunningStats: momentum must be in [0, 1] (the weight of the new batch) or None, got {momentum}"
            )
        resolved = np.dtype(dtype)
        if resolved not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise TypeError(f"RunningStats: dtype must be float32 or float64, got {resolved}")
        self._mean: NDArray[Any] = np.zeros(num_channels, resolved)
        self._var: NDArray[Any] = np.ones(num_channels, resolved)
        self.count = 0
        self.momentum = momentum
        self.unbiased = bool(unbiased)

    @classmethod
    def torch(cls, num_channels: int, momentum: float | None = 0.1) -> RunningStats:
        """Torch's convention: momentum weighs the new batch (0.1), the stored variance is unbiased."""
        return cls(num_channels, momentum=momentum, unbiased=True)

    @classmethod
    def keras(cls, num_channels: int, momentum: float = 0.99) -> RunningStats:
        """Keras's convention: momentum weighs the old value (0.99), the stored variance is biased."""
        return cls(num_channels, momentum=1.0 - momentum, unbiased=False)

    @property
    def mean(self) -> NDArray[Any]:
        """Running mean, shape (num_channels,); writable."""
        return self._mean

    @mean.setter
    def mean(self, value: Any) -> None:
        self._mean[...] = value

    @property
    def var(self) -> NDArray[Any]:
        """Running variance, shape (num_channels,); writable."""
        return self._var

    @var.setter
    def var(self, value: Any) -> None:
        self._var[...] = value

    @property
    def num_channels(self) -> int:
        """Number of channels."""
        return int(self._mean.shape[0])

    @property
    def next_momentum(self) -> float:
        """Weight that the next batch will get: `momentum`, or 1 / (count + 1) for a cumulative average."""
        return 1.0 / (self.count + 1) if self.momentum is None else float(self.momentum)

    def reset(self) -> None:
        """Forget all batches: mean 0, variance 1, count 0."""
        self._mean[...] = 0
        self._var[...] = 1
        self.count = 0

    def copy(self) -> RunningStats:
        """Return an independent copy."""
        twin = RunningStats(self.num_channels, self.momentum, self.unbiased, self._mean.dtype)
        twin.mean, twin.var, twin.count = self._mean, self._var, self.count
        return twin

    def __repr__(self) -> str:
        return (
            f"RunningStats({self.num_channels}, momentum={self.momentum}, unbiased={self.unbiased}, "
            f"count={self.count})"
        )
