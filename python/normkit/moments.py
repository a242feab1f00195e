"""What the operations return: `Moments`, `BatchMoments`, `NormGradients` and `ResidualGradients`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["BatchMoments", "Bits", "Count", "Moments", "NormGradients", "ResidualGradients", "as_count"]

F64 = NDArray[np.float64]
Bits = NDArray[np.uint8] | None
# A number that all channels share, or one for each.
Count = int | NDArray[np.int64]


def as_count(numbers: Any) -> Count:
    """Return one int where the number of every channel is the same, else an array that is nobody else's."""
    if isinstance(numbers, int):
        return numbers
    array = np.array(numbers, np.int64)
    return int(array.flat[0]) if array.size and (array == array.flat[0]).all() else array


class _MeanAndRstd(NamedTuple):
    mean: F64
    rstd: F64


class Moments(_MeanAndRstd):
    """The statistics that a forward pass used, as the backward pass wants them.

    Both are float64, whatever the dtype of x: a float32 mean would be wrong by 3 % of a standard
    deviation at mean/σ = 1e6, and the gradient would inherit it.

    It unpacks as ``mean, rstd = moments``.

    Attributes
    ----------
    mean : ndarray of float64
        Batch norm: shape (channels,). Layer norm: the shape of x without the normalized axes. Group norm:
        (batch, groups). RMS norm: zeros.
    rstd : ndarray of float64
        1 / sqrt(variance + eps), with the biased (population) variance; shaped as `mean`.
    active : ndarray of uint8, optional
        Where the operation ended in relu, and had a channel axis: a bit for each element of x in the order of
        memory, 1 where the gradient passes, and some bytes more. None otherwise.
    negative_slope : float, optional
        Where the operation ended in leaky_relu: its slope below 0. None otherwise.
    """

    active: Bits = None
    negative_slope: float | None = None

    def __new__(cls, mean: F64, rstd: F64, active: Bits = None, negative_slope: float | None = None) -> Self:
        """Take arrays as they are."""
        moments = super().__new__(cls, mean, rstd)
        if active is not None:
            moments.active = active
        if negative_slope is not None:
            moments.negative_slope = negative_slope
        return moments

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.mean, self.rstd, self.active, self.negative_slope)


class BatchMoments(Moments):
    """Moments of the channels of a mini-batch, with what it takes to merge them and to keep running statistics.

    It is a `Moments`, and unpacks as one: ``mean, rstd = moments``.

    Attributes
    ----------
    mean, rstd : ndarray of float64, shape (channels,)
        See `Moments`.
    var : ndarray of float64, shape (channels,)
        Biased variance: divided by `samples`.
    samples : int, or ndarray of int64, shape (channels,)
        Values per channel; an array where a mask makes them differ.
    eps : float
        What was added to the variance for `rstd`.

    See Also
    --------
    normkit.batch_moments : computes them without normalizing.
    """

    var: F64
    samples: Count
    eps: float

    def __new__(
        cls,
        mean: F64,
        rstd: F64,
        var: F64,
        samples: Count,
        eps: float,
        active: Bits = None,
        negative_slope: float | None = None,
    ) -> Self:
        """Take arrays as they are."""
        moments = super().__new__(cls, mean, rstd, active, negative_slope)
        moments.var, moments.samples, moments.eps = var, samples, eps
        return moments

    def __reduce__(self) -> tuple[Any, ...]:
        statistics = self.mean, self.rstd, self.var, self.samples, self.eps
        return type(self), (*statistics, self.active, self.negative_slope)

    def __repr__(self) -> str:
        return f"BatchMoments(mean={self.mean}, var={self.var}, samples={self.samples}, eps={self.eps})"

    @staticmethod
    def merged(parts: Iterable[BatchMoments]) -> BatchMoments:
        """Moments of the union of some batches, as if they had been one [1]_.

        Parameters
        ----------
        parts : iterable of BatchMoments
            At least one, for as many channels each and with one eps; empty batches count for nothing.

        Returns
        -------
        BatchMoments
            Exact to rounding of float64, also at large mean/σ. The order matters to the last bit.

        Raises
        ------
        ValueError
            If there is none, or channels or eps differ.

        References
        ----------
        .. [1] T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance",
           The American Statistician 37, 1983, eq. 2.1.
        """
        parts = list(parts)
        if not parts:
            raise ValueError("BatchMoments.merged: there is nothing to merge; pass at least one BatchMoments")
        first = parts[0]
        for part in parts[1:]:
            if part.mean.shape != first.mean.shape:
                raise ValueError(
                    f"BatchMoments.merged: all must have as many channels, got {first.mean.shape[0]} and {part.mean.shape[0]}"
                )
            if part.eps != first.eps:
                raise ValueError(
                    f"BatchMoments.merged: all must have one eps, got {first.eps} and {part.eps}"
                )
        filled = [part for part in parts if np.any(part.samples)] or [first]
        if len(filled) == 1:
            return filled[0]
        return BatchMoments.of_rows(
            np.stack([part.mean for part in filled]),
            np.stack([part.var for part in filled]),
            np.stack([np.broadcast_to(part.samples, first.mean.shape) for part in filled]),
            first.eps,
        )

    @staticmethod
    def of_rows(mean: F64, var: F64, samples: NDArray[Any], eps: float) -> BatchMoments:
        """Moments of the union of batches, each of which is a row; see `merged`.

        Parameters
        ----------
        mean, var : ndarray of float64, shape (batches, channels)
            At least one row.
        samples : ndarray of whole numbers, shape (batches, channels)
            Values per channel; 0 counts for nothing.
        eps : float
            Added to the variance for rstd.
        """
        # Means relative to the first one, so that nothing is lost where the mean is much larger than σ.
        first = (samples > 0).argmax(axis=0)
        pivot = np.take_along_axis(mean, first[None], axis=0)[0]
        total = samples.sum(axis=0)
        share = samples / np.maximum(total, 1)
        shift = np.add.reduce(share * (mean - pivot), axis=0)
        merged = np.add.reduce(share * (var + np.square(mean - pivot - shift)), axis=0)
        with np.errstate(divide="ignore"):  # of equal values without eps it is infinite, as in batch_moments
            rstd = np.where(total > 0, 1.0 / np.sqrt(merged + eps), 0.0)
        return BatchMoments(pivot + shift, rstd, merged, as_count(total), eps)


class NormGradients(NamedTuple):
    """Gradients of a normalization with respect to its input and its parameters.

    Attributes
    ----------
    dx : ndarray
        Gradient with respect to x; shape and dtype of x.
    dweight, dbias : ndarray
        Gradients with respect to weight and bias, in the dtype of weight, or of x without one. They are
        computed whether or not the operation had a weight and a bias (without a weight: the gradient at
        weight = 1).
    """

    dx: NDArray[Any]
    dweight: NDArray[Any]
    dbias: NDArray[Any]


class ResidualGradients(NormGradients):
    """The same where a residual was added; it unpacks as ``dx, dweight, dbias``.

    Attributes
    ----------
    dx, dweight, dbias : ndarray
        See `NormGradients`.
    dresidual : ndarray
        Gradient with respect to the residual; shape and dtype of x.
    """

    dresidual: NDArray[Any]

    def __new__(
        cls, dx: NDArray[Any], dweight: NDArray[Any], dbias: NDArray[Any], dresidual: NDArray[Any]
    ) -> Self:
        """Take arrays as they are."""
        gradients = super().__new__(cls, dx, dweight, dbias)
        gradients.dresidual = dresidual
        return gradients

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self, self.dresidual)
