"""Batch norm of a batch that is spread over ranks: one gathering forward, one backward.

Parts are lists of arrays: those that this rank has, without the empty ones; `positions` are their places among
all parts of the rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit import ops
from normkit._checks import finite, integer
from normkit._numerics import default_arithmetic
from normkit.distributed.chunks import Chunks
from normkit.distributed.communicator import Communicator, world
from normkit.moments import BatchMoments, Moments, NormGradients
from normkit.ops._context import completed, require_parameters
from normkit.stats import RunningStats, require_stats

__all__ = ["PartedBatchNorm", "sync_batch_norm", "sync_batch_norm_backward"]

Array = NDArray[Any]


class PartedBatchNorm:
    """The arithmetic, for one layer.

    Parameters
    ----------
    chunks : Chunks
        Who has what.
    positions : sequence of int
        Places of the parts that are not empty.
    channels : int
        C.
    axis, num_threads
        See `normkit.batch_norm`.
    """

    def __init__(
        self, chunks: Chunks, positions: Sequence[int], channels: int, axis: int, num_threads: int | None
    ) -> None:
        self._chunks, self._positions, self._channels = chunks, positions, channels
        self._options: dict[str, Any] = {"axis": axis, "num_threads": num_threads}

    def moments(self, parts: Sequence[Array], eps: float) -> BatchMoments:
        """Moments of the whole batch: gathered are 2C + 1 numbers of each part, merged in the order of the parts."""
        c = self._channels
        table = np.zeros((len(self._chunks.local), 2 * c + 1))
        for position, x in zip(self._positions, parts, strict=True):
            part = ops.batch_moments(x, eps=eps, **self._options)
            table[position, :c], table[position, c:-1], table[position, -1] = (
                part.mean,
                part.var,
                part.samples,
            )
        rows = self._chunks.gather(table)
        counts = np.broadcast_to(rows[:, -1:], (len(rows), c))
        return BatchMoments.of_rows(rows[:, :c], rows[:, c:-1], counts, eps)

    def normalize(
        self, parts: Sequence[Array], moments: BatchMoments, weight: Array | None, bias: Array | None
    ) -> list[Array]:
        """Return y of each part."""
        stats = _constants(moments)
        return [
            ops.batch_norm(x, weight, bias, stats=stats, training=False, eps=moments.eps, **self._options)
            for x in parts
        ]

    def gradients(
        self, dys: Sequence[Array], parts: Sequence[Array], moments: BatchMoments, weight: Array | None
    ) -> list[NormGradients]:
        """Gradients as if the moments were constants: dx lacks what the moments owe to x, dweight and dbias are sums."""
        constants = Moments(moments.mean, moments.rstd, training=False)
        return [
            ops.batch_norm_backward(dy, x, constants, weight, **self._options)
            for dy, x in zip(dys, parts, strict=True)
        ]

    def finish(
        self,
        gradients: Sequence[NormGradients],
        parts: Sequence[Array],
        moments: BatchMoments,
        weight: Array | None,
    ) -> None:
        """Complete dx in place, from the sums over all parts of 2C numbers.

        dx = rstd · weight · (dy − Σ dy / n − x̂ · Σ (dy · x̂) / n), where the subtrahend is itself a batch norm of x with
        given moments.
        """
        with default_arithmetic():
            c = self._channels
            table = np.zeros((len(self._chunks.local), 2 * c))
            for position, gradient in zip(self._positions, gradients, strict=True):
                table[position, :c], table[position, c:] = gradient.dbias, gradient.dweight
            total = self._chunks.total(table) / np.maximum(moments.samples, 1)
            scale = moments.rstd if weight is None else moments.rstd * weight
            stats = _constants(moments)
            for gradient, x in zip(gradients, parts, strict=True):
                slope, offset = (
                    (scale * mean).astype(gradient.dbias.dtype) for mean in (total[c:], total[:c])
                )
                owed = ops.batch_norm(
                    x, slope, offset, stats=stats, training=False, eps=moments.eps, **self._options
                )
                np.subtract(gradient.dx, owed, out=gradient.dx)


def _constants(moments: BatchMoments) -> RunningStats:
    """Return the moments as the statistics of an inference; these are float64 whatever the type of x."""
    stats = RunningStats(len(moments.mean), dtype=np.float64)
    stats.mean, stats.var = moments.mean, moments.var
    return stats


def _checked(op: str, x: Any, axis: Any) -> int:
    """Return the channel axis from the first, or raise: x must be an array, axis one of its axes."""
    if not isinstance(x, np.ndarray):
        raise TypeError(
            f"{op}: x must be a numpy array, got {type(x).__name__}; convert it with np.asarray(x)"
        )
    if not -x.ndim <= integer(f"{op}: axis", axis) < x.ndim:
        raise ValueError(f"{op}: axis {axis} is out of range for x with {x.ndim} axes")
    return int(axis) % x.ndim


def _alone(x: Array, comm: Any, axis: int, num_threads: int | None) -> tuple[PartedBatchNorm, list[Array]]:
    communicator: Communicator = world(comm)
    chunks = Chunks(communicator, communicator.size, ordered=False)
    parts = [x] if x.size else []
    return PartedBatchNorm(chunks, range(len(parts)), x.shape[axis], axis, num_threads), parts


def sync_batch_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    comm: Any = None,
    stats: RunningStats | None = None,
    axis: int = 1,
    eps: float = 1e-5,
    num_threads: int | None = None,
) -> tuple[Array, BatchMoments]:
    """Batch norm in training of a batch of which each rank has a part; collective.

    Parameters
    ----------
    x : ndarray of float32 or float64
        The part of this rank; it may be empty, and differ in length from the others'.
    weight, bias : ndarray of shape (C,), optional
        The same on every rank.
    comm : Communicator or mpi4py.MPI.Intracomm, optional
        Default: all ranks of the job.
    stats : RunningStats, optional
        Updated with the moments of the whole batch, the same on every rank.
    axis, eps, num_threads
        See `normkit.batch_norm`.

    Returns
    -------
    y : ndarray
        Shape and dtype of x.
    moments : BatchMoments
        Of the whole batch: (mean, variance, count) of each rank are gathered, and merged in rank order by Chan's formula.

    Raises
    ------
    TypeError, ValueError
        As for `normkit.batch_norm`.

    Notes
    -----
    y is within the bound of the contract for float32; for float64 the mean, which travels in float64, adds 2⁻⁵³·|mean|/σ.
    """
    if stats is not None:
        require_stats("sync_batch_norm", stats)
    axis = _checked("sync_batch_norm", x, axis)
    eps = finite("sync_batch_norm: eps", eps)
    if stats is not None and stats.frozen:
        y, used = ops.batch_norm(
            x, weight, bias, stats=stats, axis=axis, eps=eps, return_moments=True, num_threads=num_threads
        )
        constants = BatchMoments(
            used.mean,
            used.rstd,
            stats.var.astype(np.float64),
            0,
            operation="sync_batch_norm",
            training=False,
            axis=axis,
            eps=eps,
            has_weight=weight is not None,
            has_bias=bias is not None,
        )
        return y, constants
    norm, parts = _alone(x, comm, axis, num_threads)
    moments = replace(
        norm.moments(parts, eps),
        operation="sync_batch_norm",
        training=True,
        axis=axis,
        has_weight=weight is not None,
        has_bias=bias is not None,
    )
    ys = norm.normalize(parts, moments, weight, bias)
    if stats is not None:
        stats.update(moments)
    return (ys[0] if ys else np.empty_like(x)), moments


def sync_batch_norm_backward(
    dy: Array,
    x: Array,
    moments: Moments,
    weight: Array | None = None,
    *,
    comm: Any = None,
    axis: int | None = None,
    num_threads: int | None = None,
) -> NormGradients:
    """Gradients of `sync_batch_norm`; collective.

    Parameters
    ----------
    dy, x : ndarray
        The part of this rank.
    moments : BatchMoments
        What `sync_batch_norm` returned.
    weight : ndarray of shape (C,), optional
        The weight of the forward pass; required if it had one.
    comm, num_threads
        See `sync_batch_norm`.
    axis : int, optional
        The channel axis. Default: that of the moments, or 1 where they do not know it.

    Returns
    -------
    NormGradients
        dx of this part, exact for a loss that is summed over all ranks; dweight and dbias are the sums over this part
        alone, which go with the other gradients of a model to their sum over the ranks.

    Raises
    ------
    TypeError
        If the moments are not those of a batch.
    ValueError
        If they are those of another operation, if `axis` contradicts them, or if the forward pass had a weight and none
        is given.
    """
    if not isinstance(moments, BatchMoments):
        raise TypeError(
            f"sync_batch_norm_backward: moments must be the BatchMoments of sync_batch_norm, got {type(moments).__name__}"
        )
    op = "sync_batch_norm_backward"
    _checked(op, x, 0 if axis is None else axis)
    moments = completed(op, moments, ("sync_batch_norm",), x, axis=axis, default_axis=1, training=None)
    require_parameters(op, moments, weight, None, needs_bias=False)
    assert isinstance(moments.axis, int)
    if moments.training is False:
        constants = Moments(moments.mean, moments.rstd, training=False, axis=moments.axis)
        return ops.batch_norm_backward(dy, x, constants, weight, num_threads=num_threads)
    norm, parts = _alone(x, comm, moments.axis, num_threads)
    gradients = norm.gradients([dy] if parts else [], parts, moments, weight)
    norm.finish(gradients, parts, moments, weight)
    if gradients:
        return gradients[0]
    zeros = np.zeros(x.shape[moments.axis], x.dtype if weight is None else weight.dtype)
    return NormGradients(np.empty_like(x), zeros, zeros.copy())
