"""Batch norms for small or unlike mini-batches: ghost batch norm and batch renormalization.

Both are made of `batch_norm` and its gradient: ghost batch norm on parts of the batch, batch renormalization with other
weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit import ops
from normkit._checks import number, positive_integer
from normkit._numerics import default_arithmetic
from normkit.moments import BatchMoments, Moments, NormGradients
from normkit.ops._context import completed, require_parameters
from normkit.stats import RunningStats, require_stats

__all__ = [
    "RenormMoments",
    "RenormSchedule",
    "batch_renorm",
    "batch_renorm_backward",
    "ghost_batch_norm",
    "ghost_batch_norm_backward",
]

Array = NDArray[Any]


def ghost_batch_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    ghost_size: int,
    stats: RunningStats | None = None,
    axis: int = 1,
    eps: float = 1e-5,
    out: Array | None = None,
    num_threads: int | None = None,
) -> tuple[Array, list[Moments]]:
    """Batch norm in training over virtual mini-batches: each `ghost_size` samples have statistics of their own [1]_.

    Parameters
    ----------
    x : ndarray
        See `normkit.batch_norm`. Samples lie along axis 0.
    weight, bias : ndarray of shape (C,), optional
        See `normkit.batch_norm`.
    ghost_size : int
        Samples of a virtual batch, 1 or more. The last one has what is left.
    stats : RunningStats, optional
        Takes one step for each virtual batch, in order, as in [1]_. Frozen statistics are used as they are, as by
        `batch_norm`, whose inference is that of ghost batch norm too.
    axis : int, default 1
        The channel axis; not 0.
    eps, out, num_threads
        See `normkit.batch_norm`.

    Returns
    -------
    y : ndarray
        Shape and dtype of x; `out` if that was given.
    moments : list of Moments
        One for each virtual batch, `BatchMoments` unless `stats` are frozen; `ghost_batch_norm_backward` needs them.

    Raises
    ------
    TypeError
        As for `batch_norm`.
    ValueError
        As for `batch_norm`, or if `ghost_size` is not positive or the channel axis is the first.

    References
    ----------
    .. [1] E. Hoffer, I. Hubara, D. Soudry, "Train longer, generalize better", 2017, arXiv:1705.08741,
       algorithm 1.
    """
    starts = _starts("ghost_batch_norm", x, ghost_size, axis)
    if stats is not None:
        require_stats("ghost_batch_norm", stats)
    if stats is not None and axis in range(-x.ndim, x.ndim) and stats.num_channels != x.shape[axis]:
        raise ValueError(
            f"ghost_batch_norm: stats must have {x.shape[axis]} channels like x, got {stats.num_channels}"
        )
    y = np.empty_like(x) if out is None else out
    _check_out("ghost_batch_norm", x, y)
    frozen = stats if stats is not None and stats.frozen else None
    moments = []
    for start in starts:
        part = slice(start, start + ghost_size)
        _, its_moments = ops.batch_norm(
            x[part],
            weight,
            bias,
            stats=frozen,
            axis=axis,
            eps=eps,
            out=y[part],
            return_moments=True,
            num_threads=num_threads,
        )
        moments.append(its_moments)
    if stats is not None and frozen is None:
        for its_moments in moments:
            assert isinstance(its_moments, BatchMoments)
            stats.update(its_moments)
    return y, moments


def ghost_batch_norm_backward(
    dy: Array,
    x: Array,
    moments: Sequence[Moments],
    weight: Array | None = None,
    *,
    ghost_size: int,
    axis: int | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
) -> NormGradients:
    """Gradients of `ghost_batch_norm` with respect to x, weight and bias.

    Parameters
    ----------
    dy, x, weight, axis, out, num_threads
        See `normkit.batch_norm_backward`.
    moments : sequence of Moments
        What ``ghost_batch_norm(x, ...)`` returned.
    ghost_size : int
        The same as there.

    Returns
    -------
    NormGradients
        dweight and dbias are summed over the virtual batches in float64 and rounded once more.

    Raises
    ------
    TypeError, ValueError
        As for `ghost_batch_norm`, or if there are not as many moments as virtual batches.
    """
    op = "ghost_batch_norm_backward"
    if not isinstance(moments, (list, tuple)):
        raise TypeError(
            f"{op}: moments must be a list of Moments, one for each virtual batch, got {type(moments).__name__}; "
            "pass what ghost_batch_norm returned"
        )
    if axis is None:
        own = moments[0].axis if moments and isinstance(moments[0], Moments) else None
        axis = own if isinstance(own, int) else 1
    starts = _starts(op, x, ghost_size, axis)
    if len(moments) != len(starts):
        raise ValueError(
            f"{op}: moments must be a list of {len(starts)}, one for each virtual batch, got {len(moments)}; "
            "pass what ghost_batch_norm returned for this x and ghost_size"
        )
    given: Any = dy
    if not isinstance(given, np.ndarray) or given.shape != x.shape:
        got = given.shape if isinstance(given, np.ndarray) else type(given).__name__
        raise ValueError(f"{op}: dy must have shape {x.shape}, got {got}")
    for start, part in zip(starts, moments, strict=True):
        values = x[start : start + ghost_size].size // max(x.shape[axis], 1)
        if isinstance(part, BatchMoments) and np.any(np.asarray(part.samples) != values):
            raise ValueError(
                f"{op}: moments are of virtual batches of another size than ghost_size={ghost_size}; pass the ghost_size "
                "and the x of the forward pass"
            )
    dx = np.empty_like(x) if out is None else out
    _check_out(op, x, dx, dy)
    gradients = []
    for start, its_moments in zip(starts, moments, strict=True):
        part = slice(start, start + ghost_size)
        gradients.append(
            ops.batch_norm_backward(
                dy[part], x[part], its_moments, weight, axis=axis, out=dx[part], num_threads=num_threads
            )
        )
    if not gradients:
        return ops.batch_norm_backward(dy, x, ops.batch_moments(x, axis=axis), weight, axis=axis, out=out)
    with default_arithmetic():
        sums = (np.sum([g[k].astype(np.float64) for g in gradients], axis=0) for k in (1, 2))
        return NormGradients(dx, *(s.astype(gradients[0].dweight.dtype) for s in sums))


def _starts(op: str, x: Any, ghost_size: int, axis: int) -> range:
    """Return the first sample of each virtual batch."""
    positive_integer(f"{op}: ghost_size", ghost_size)
    if not isinstance(x, np.ndarray):
        raise TypeError(
            f"{op}: x must be a numpy array, got {type(x).__name__}; convert it with np.asarray(x)"
        )
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(f"{op}: axis must be an integer, got {axis!r}")
    if x.ndim > 0 and axis % x.ndim == 0:
        raise ValueError(f"{op}: axis {axis} is that of the samples; the channel axis must be another")
    return range(0, len(x), ghost_size)


def _check_out(op: str, x: Array, out: Any, *others: Array) -> None:
    if not isinstance(out, np.ndarray) or out.shape != x.shape or out.dtype != x.dtype:
        raise ValueError(f"{op}: out must be {x.dtype} of shape {x.shape} like x")
    for operand in (x, *others):
        same = out.ctypes.data == operand.ctypes.data and out.strides == operand.strides
        if not same and np.may_share_memory(out, operand) and _share_memory(out, operand):
            raise ValueError(
                f"{op}: out overlaps an operand in part; pass the operand itself or other memory"
            )


def _share_memory(one: Array, other: Array) -> bool:
    try:
        return bool(np.shares_memory(one, other, 1 << 16))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _check_parameters(op: str, x: Any, axis: Any, **parameters: Any) -> None:
    """Raise an error unless x is an array, and weights and biases are in its dtype and of its channels."""
    if not isinstance(x, np.ndarray):
        raise TypeError(
            f"{op}: x must be a numpy array, got {type(x).__name__}; convert it with np.asarray(x)"
        )
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)) or not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{op}: axis must be that of one of the {x.ndim} axes of x, got {axis!r}")
    for name, value in parameters.items():
        if value is None:
            continue
        if not isinstance(value, np.ndarray):
            raise TypeError(
                f"{op}: {name} must be a numpy array, got {type(value).__name__}; convert it with np.asarray({name})"
            )
        if value.dtype not in (x.dtype, _parameter_dtype(x)):
            raise TypeError(f"{op}: {name} must be {x.dtype} like x, got {value.dtype}")
        if value.shape != (x.shape[axis],):
            raise ValueError(f"{op}: {name} must have shape ({x.shape[axis]},), got {value.shape}")


@dataclass(frozen=True, eq=False, repr=False)
class RenormMoments(BatchMoments):
    """Moments of a batch renormalization, with the factors that its gradient takes as constants.

    Attributes
    ----------
    r, d : ndarray of float64, shape (channels,)
        x̂·r + d is what weight and bias are applied to.
    """

    r: NDArray[np.float64]
    d: NDArray[np.float64]


@dataclass(frozen=True)
class RenormSchedule:
    """Bounds of r and d by the number of steps taken: a plain batch norm at first, relaxed linearly [1]_.

    The defaults are the paper's: r_max goes from 1 at step 5,000 to 3 at step 40,000, d_max from 0 to 5 at step
    25,000.

    Attributes
    ----------
    r_max, d_max : float
        The bounds in the end; at least 1 and 0.
    start : int
        Steps with a plain batch norm.
    r_end, d_end : int
        Steps from which on the bounds stay.

    References
    ----------
    .. [1] S. Ioffe, "Batch Renormalization", 2017, arXiv:1702.03275, section 4.
    """

    r_max: float = 3.0
    d_max: float = 5.0
    start: int = 5_000
    r_end: int = 40_000
    d_end: int = 25_000

    def __post_init__(self) -> None:
        _check_bounds("RenormSchedule", self.r_max, self.d_max)
        if not 0 <= self.start <= min(self.r_end, self.d_end):
            raise ValueError(
                f"RenormSchedule: start must be between 0 and r_end and d_end, got {self.start}, {self.r_end}, {self.d_end}"
            )

    def __call__(self, step: int) -> tuple[float, float]:
        """Return (r_max, d_max) for a step, the first one being 0."""

        def share(end: int) -> float:
            return (
                min(1.0, max(0.0, (step - self.start) / (end - self.start)))
                if end > self.start
                else float(step >= end)
            )

        return 1.0 + (self.r_max - 1.0) * share(self.r_end), self.d_max * share(self.d_end)


def batch_renorm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    stats: RunningStats,
    r_max: float,
    d_max: float,
    axis: int = 1,
    eps: float = 1e-5,
    out: Array | None = None,
    num_threads: int | None = None,
) -> tuple[Array, RenormMoments]:
    """Batch renormalization in training: what inference will do, with the gradient of a batch norm [1]_.

    With the statistics of the batch (mean, σ = sqrt(var + eps)) and the running ones (μ, s) before their step::

        r = clip(σ / s, 1/r_max, r_max),   d = clip((mean − μ) / s, −d_max, d_max)
        y = (x̂ · r + d) · weight + bias

    Parameters
    ----------
    x, weight, bias, axis, eps, out, num_threads
        See `normkit.batch_norm`.
    stats : RunningStats
        Takes its step afterwards. Inference is that of `batch_norm`; so is training while they are frozen, with r = 1
        and d = 0.
    r_max, d_max : float
        At least 1 and 0, where it is a plain batch norm; see `RenormSchedule`.

    Returns
    -------
    y : ndarray
        Shape and dtype of x; `out` if that was given.
    moments : RenormMoments
        `batch_renorm_backward` needs them.

    Raises
    ------
    TypeError, ValueError
        As for `batch_norm`, or if `r_max` or `d_max` is out of range.

    References
    ----------
    .. [1] S. Ioffe, "Batch Renormalization", 2017, arXiv:1702.03275, algorithm 1.
    """
    _check_bounds("batch_renorm", r_max, d_max)
    require_stats("batch_renorm", stats)
    _check_parameters("batch_renorm", x, axis, weight=weight, bias=bias)
    channels = x.shape[axis]
    if channels != stats.num_channels:
        raise ValueError(
            f"batch_renorm: stats must have {channels} channels like x, got {stats.num_channels}"
        )
    options: dict[str, Any] = {"axis": axis, "eps": eps, "out": out, "num_threads": num_threads}
    if stats.frozen:
        y, used = ops.batch_norm(x, weight, bias, stats=stats, return_moments=True, **options)
        r, d = np.ones_like(used.mean), np.zeros_like(used.mean)
        var, samples = stats.var.astype(np.float64), x.size // max(channels, 1)
    else:
        batch = ops.batch_moments(x, axis=axis, eps=eps, num_threads=num_threads)
        with default_arithmetic():
            running = np.sqrt(stats.var.astype(np.float64) + eps)
            r = np.clip(1.0 / (batch.rstd * running), 1.0 / r_max, r_max)
            d = np.clip((batch.mean - stats.mean) / running, -d_max, d_max)
            dtype = _parameter_dtype(x)
            scale = (r if weight is None else r * weight).astype(dtype)
            shift = (d if weight is None else d * weight).astype(np.float64)
            shift = (shift if bias is None else shift + bias).astype(dtype)
        y, used = ops.batch_norm(x, scale, shift, return_moments=True, **options)
        var, samples = batch.var, batch.samples
        stats.update(batch)
    context = {f.name: getattr(used, f.name) for f in fields(Moments) if f.name not in ("mean", "rstd")}
    context |= {"operation": "batch_renorm", "has_weight": weight is not None, "has_bias": bias is not None}
    return y, RenormMoments(used.mean, used.rstd, var, samples, r, d, **context)


def batch_renorm_backward(
    dy: Array,
    x: Array,
    moments: RenormMoments,
    weight: Array | None = None,
    *,
    axis: int | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
) -> NormGradients:
    """Gradients of `batch_renorm` with respect to x, weight and bias; r and d are constants.

    Parameters
    ----------
    dy, x, weight, axis, out, num_threads
        See `normkit.batch_norm_backward`.
    moments : RenormMoments
        What ``batch_renorm(x, ...)`` returned.

    Returns
    -------
    NormGradients
        See `normkit.batch_norm_backward`.

    Raises
    ------
    TypeError, ValueError
        As for `batch_norm_backward`.
    """
    if not isinstance(moments, RenormMoments):
        raise TypeError(
            f"batch_renorm_backward: moments must be RenormMoments, got {type(moments).__name__}; "
            "pass what batch_renorm returned"
        )
    op = "batch_renorm_backward"
    known = completed(op, moments, ("batch_renorm",), x, axis=axis, default_axis=1, training=None)
    require_parameters(op, known, weight, None, needs_bias=False)
    assert isinstance(known.axis, int)
    _check_parameters(op, x, known.axis, weight=weight)
    with default_arithmetic():
        scale = (known.r if weight is None else known.r * weight).astype(_parameter_dtype(x))
    of_batch_norm = Moments(known.mean, known.rstd, training=known.training is not False, axis=known.axis)
    dx, dweight, dbias = ops.batch_norm_backward(
        dy, x, of_batch_norm, scale, out=out, num_threads=num_threads
    )
    wanted = x.dtype if weight is None else weight.dtype
    with default_arithmetic():
        total = known.r * dweight.astype(np.float64) + known.d * dbias.astype(np.float64)
        return NormGradients(dx, total.astype(wanted), dbias.astype(wanted))


def _parameter_dtype(x: Array) -> np.dtype[Any]:
    """Return the dtype of weights that are computed: wider than 16 bits."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def _check_bounds(op: str, r_max: float, d_max: float) -> None:
    r_max, d_max = number(f"{op}: r_max", r_max), number(f"{op}: d_max", d_max)
    if not (math.isfinite(r_max) and r_max >= 1.0):
        raise ValueError(f"{op}: r_max must be finite and at least 1, got {r_max}")
    if not (math.isfinite(d_max) and d_max >= 0.0):
        raise ValueError(f"{op}: d_max must be finite and not negative, got {d_max}")
