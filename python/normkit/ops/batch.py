"""`batch_norm`, forward and backward, and `batch_moments`."""

from __future__ import annotations

from typing import Any, Literal, overload

from numpy.typing import NDArray

from normkit import _core
from normkit._checks import flag
from normkit.moments import BatchMoments, Moments, NormGradients, ResidualGradients, as_count
from normkit.ops._context import completed, from_first, input_or_output, require_parameters
from normkit.stats import RunningStats, require_stats

__all__ = ["batch_moments", "batch_norm", "batch_norm_backward"]

_new = tuple.__new__  # in half the time of NormGradients(...)

Array = NDArray[Any]


@overload
def batch_norm(
    x: Array,
    weight: Array | None = ...,
    bias: Array | None = ...,
    *,
    stats: RunningStats | None = ...,
    training: bool = ...,
    axis: int = ...,
    eps: float = ...,
    where: Array | None = ...,
    residual: Array | None = ...,
    activation: str | None = ...,
    negative_slope: float | None = ...,
    out: Array | None = ...,
    return_moments: Literal[False] = ...,
    num_threads: int | None = ...,
) -> Array: ...
@overload
def batch_norm(
    x: Array,
    weight: Array | None = ...,
    bias: Array | None = ...,
    *,
    stats: RunningStats | None = ...,
    training: bool = ...,
    axis: int = ...,
    eps: float = ...,
    where: Array | None = ...,
    residual: Array | None = ...,
    activation: str | None = ...,
    negative_slope: float | None = ...,
    out: Array | None = ...,
    return_moments: Literal[True],
    num_threads: int | None = ...,
) -> tuple[Array, Moments]: ...
def batch_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    stats: RunningStats | None = None,
    training: bool = True,
    axis: int = 1,
    eps: float = 1e-5,
    where: Array | None = None,
    residual: Array | None = None,
    activation: str | None = None,
    negative_slope: float | None = None,
    out: Array | None = None,
    return_moments: bool = False,
    num_threads: int | None = None,
) -> Array | tuple[Array, Moments]:
    """Batch normalization: y = (x − mean) / sqrt(var + eps) · weight + bias per channel.

    In training, mean and (biased) variance are those of the mini-batch, over all axes but the channel
    axis [1]_, and `stats` takes one step of its moving average; in inference they are those of `stats`.

    Parameters
    ----------
    x : ndarray of float32, float64, float16 or bfloat16 (ml_dtypes)
        Any number of axes, any strides: (N, C), (N, C, H, W), (N, H, W, C), ... 16-bit numbers are computed
        like float32 and rounded once.
    weight, bias : ndarray of shape (C,), optional
        In the dtype of x, or float32 where that has 16 bits. Either, both or neither.
    stats : RunningStats, optional
        Updated in training (after the result is computed, by its own rules), used in inference, where it is
        required.
    training : bool, default True
        Normalize with the statistics of the mini-batch (True) or of `stats` (False). Frozen `stats` are used
        in training too. The moments know which it was, and `batch_norm_backward` goes by them.
    axis : int, default 1
        The channel axis. Every other axis is reduced.
    eps : float, default 1e-5
        Added to the variance; in units of x².
    where : ndarray of bool, optional
        Broadcasts to x: the elements that mean and variance are taken of, by default all. Only in training with
        statistics that are not frozen. See Notes.
    residual : ndarray, optional
        Added to the normalized x, before the activation, in the same pass: shape and dtype of x.
    activation : {"relu", "leaky_relu"}, optional
        Applied to the result in the same pass. See Notes.
    negative_slope : float, optional
        That of leaky_relu below 0, by default 0.01; from 2**-20 to 2**20. Only with leaky_relu.
    out : ndarray, optional
        Where to write the result: shape and dtype of x, writable; may be x itself.
    return_moments : bool, default False
        Return ``(y, moments)``; `batch_norm_backward` needs the moments.
    num_threads : int, optional
        For this call; default: see `set_num_threads`. The bits of the result do not depend on it.

    Returns
    -------
    y : ndarray
        Shape and dtype of x; `out` if that was given.
    moments : Moments
        float64 mean and rstd, shape (C,). Only with return_moments. Those of a mini-batch are `BatchMoments`,
        with its variance and number of samples.

    Raises
    ------
    TypeError
        If an array has another dtype than those named, or not that of x.
    ValueError
        If shapes, axis or eps do not fit, if inference has no `stats`, if `where` is given and no statistics are
        taken, or if `out` is read-only or overlaps an input in part.

    Notes
    -----
    With `where`, the elements of a channel that it leaves out are normalized with the statistics of the others,
    as with the masks of Keras and flax; what they hold, NaN too, does not reach these. A channel of which nothing
    is left has mean 0 and rstd 0: y is bias there, no gradient reaches its x, and `stats` stay as they are. A
    sequence's padding is left out by ``where=np.arange(T) < lengths[:, None]``, with axes added for the channels.

    With an activation, ``moments.active`` has a bit for each element: whether relu passes its gradient.
    `batch_norm_backward` reads them, so neither y nor the residual has to be kept.

    Without an activation or with leaky_relu, which have an inverse, the backward pass can do without x, and
    recover x̂ from y [2]_: with ``out=x`` a layer then keeps no array of its own. leaky_relu takes no residual,
    and has this backward pass alone. ::

        y, moments = batch_norm(x, weight, bias, activation="leaky_relu", out=x, return_moments=True)
        dx, dweight, dbias = batch_norm_backward(dy, moments=moments, weight=weight, bias=bias, y=y)

    References
    ----------
    .. [1] S. Ioffe, C. Szegedy, "Batch Normalization", 2015, arXiv:1502.03167, algorithm 1.
    .. [2] S. Rota Bulò, L. Porzi, P. Kontschieder, "In-Place Activated BatchNorm for Memory-Optimized Training of
       DNNs", 2018, arXiv:1712.02616.
    """
    if stats is not None and type(stats) is not RunningStats:
        require_stats("batch_norm", stats)
    if activation == "leaky_relu":
        negative_slope = 0.01 if negative_slope is None else negative_slope
    elif negative_slope is not None:
        raise ValueError(
            f"batch_norm: negative_slope is that of activation='leaky_relu', got activation={activation!r}; "
            "leave negative_slope out, or pass that activation"
        )
    if training.__class__ is not bool:
        training = flag("batch_norm: training", training)  # type: ignore[unreachable]
    if training and (stats is None or not stats.frozen):
        # Statistics that any batch moves by one weight are moved on the way; others afterwards, by their own rules.
        # Those go along with weight 0, which moves nothing, so that they are checked before anything is written.
        plain = stats if stats is not None and stats.is_plain and where is None else None
        returned = return_moments or plain is not stats
        result = _core.batch_norm_training(
            x,
            weight,
            bias,
            None if stats is None else stats._mean,
            None if stats is None else stats._var,
            0.0 if plain is None else plain.next_momentum,
            False if plain is None else plain.unbiased,
            axis,
            eps,
            where,
            residual,
            activation,
            negative_slope,
            out,
            returned,
            num_threads,
        )
        if plain is not None:
            plain.note_step(x.size // plain.num_channels if plain.num_channels else 0)
        if not returned:
            return result  # type: ignore[no-any-return]
        y, mean, rstd, var, samples, active = result
        more = {
            "var": var,
            "samples": as_count(samples),
            "active": active,
            "negative_slope": None if negative_slope is None else float(negative_slope),
            "has_residual": residual is not None,
        }
        axes = from_first(axis, x.ndim)
        of_batch = BatchMoments._of(
            "batch_norm", mean, rstd, True, axes, eps, where, activation, weight, bias, more
        )
        if plain is not stats and stats is not None:
            stats.update(of_batch)
        return (y, of_batch) if return_moments else y
    if stats is None:
        raise ValueError(
            "batch_norm: training=False normalizes with running statistics; pass stats=RunningStats(...)"
        )
    if where is not None:
        why = "stats are frozen" if training else "training=False"
        raise ValueError(
            f"batch_norm: where chooses the elements that statistics are taken of, and {why}: none are taken; "
            "leave where out"
        )
    result = _core.batch_norm_inference(
        x,
        weight,
        bias,
        stats._mean,
        stats._var,
        axis,
        eps,
        residual,
        activation,
        negative_slope,
        out,
        return_moments,
        num_threads,
    )
    if not return_moments:
        return result  # type: ignore[no-any-return]
    y, mean, rstd, _, _, active = result
    more = {
        "active": active,
        "negative_slope": None if negative_slope is None else float(negative_slope),
        "has_residual": residual is not None,
    }
    axes = from_first(axis, x.ndim)
    return y, Moments._of("batch_norm", mean, rstd, False, axes, eps, None, activation, weight, bias, more)


def batch_moments(
    x: Array,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    where: Array | None = None,
    num_threads: int | None = None,
) -> BatchMoments:
    """Mean and variance of each channel of a mini-batch, which is read once and not normalized.

    Parameters
    ----------
    x : ndarray of float32, float64, float16 or bfloat16 (ml_dtypes)
        Any number of axes, any strides.
    axis : int, default 1
        The channel axis. Every other axis is reduced.
    eps : float, default 1e-5
        Added to the variance for rstd; in units of x².
    where : ndarray of bool, optional
        The elements that count, as in `batch_norm`.
    num_threads : int, optional
        For this call. The bits of the result do not depend on it.

    Returns
    -------
    BatchMoments
        The same bits as those of ``batch_norm(x, ..., return_moments=True)``.

    Raises
    ------
    TypeError, ValueError
        As for `batch_norm`.

    Examples
    --------
    Running statistics of a batch that arrives in parts, as if it had come at once:

    >>> parts = [batch_moments(x[:10]), batch_moments(x[10:])]  # doctest: +SKIP
    >>> stats.update(BatchMoments.merged(parts))  # doctest: +SKIP
    """
    mean, rstd, var, samples = _core.batch_moments(x, axis, eps, where, num_threads)
    more = {"var": var, "samples": as_count(samples)}
    axes = from_first(axis, x.ndim)
    return BatchMoments._of("batch_moments", mean, rstd, True, axes, eps, where, None, None, None, more)


@overload
def batch_norm_backward(
    dy: Array,
    x: Array | None = ...,
    moments: Moments | None = ...,
    weight: Array | None = ...,
    *,
    bias: Array | None = ...,
    y: Array | None = ...,
    training: bool | None = ...,
    axis: int | None = ...,
    where: Array | None = ...,
    return_dresidual: Literal[False] = ...,
    out: Array | None = ...,
    num_threads: int | None = ...,
) -> NormGradients: ...
@overload
def batch_norm_backward(
    dy: Array,
    x: Array | None = ...,
    moments: Moments | None = ...,
    weight: Array | None = ...,
    *,
    bias: Array | None = ...,
    y: Array | None = ...,
    training: bool | None = ...,
    axis: int | None = ...,
    where: Array | None = ...,
    return_dresidual: Literal[True],
    out: Array | None = ...,
    num_threads: int | None = ...,
) -> ResidualGradients: ...
def batch_norm_backward(
    dy: Array,
    x: Array | None = None,
    moments: Any = None,
    weight: Array | None = None,
    *,
    bias: Array | None = None,
    y: Array | None = None,
    training: bool | None = None,
    axis: int | None = None,
    where: Array | None = None,
    return_dresidual: bool = False,
    out: Array | None = None,
    num_threads: int | None = None,
) -> NormGradients | ResidualGradients:
    """Gradients of `batch_norm` with respect to x, weight and bias.

    With x̂ = (x − mean)·rstd and g = dy·weight, per channel::

        dx      = rstd · (g − mean(g) − x̂ · mean(g · x̂))      where the moments are those of x
        dx      = rstd · g                                     where they are constants: running statistics
        dweight = Σ dy · x̂,   dbias = Σ dy

    Where the forward pass had an activation, dy stands for dy · activation' in all of them, and that is the
    gradient of a residual.

    Parameters
    ----------
    dy : ndarray
        Gradient with respect to y; shape and dtype of x.
    x : ndarray
        The input of the forward pass; None where `y` is given.
    moments : Moments
        What ``batch_norm(x, ..., return_moments=True)`` returned. They know which statistics were used, the axis,
        the mask and the activation.
    weight : ndarray of shape (C,), optional
        The weight of the forward pass; required if it had one.
    bias : ndarray of shape (C,), optional
        The bias of the forward pass; required with `y` if it had one, else ignored.
    y : ndarray, optional
        The result of the forward pass, in place of x: x̂ = (z − bias) / weight, z being y before leaky_relu. Not after
        relu or with a residual. No weight may be 0 then. x̂ carries the error of y, divided by |weight|: at most
        5 eps·max(|x̂|, |bias/weight|, 1/256), and 8 eps behind leaky_relu; in 16 bits, with float32's eps, half a unit of
        y over |weight| (times the slope where y ≤ 0) more.
    training : bool, optional
        Whether the moments are those of x (True) or constants (False). Only for moments that do not know: made by
        hand, or merged.
    axis : int, optional
        The channel axis. Default: that of the moments, or 1 where they do not know it.
    where : ndarray of bool, optional
        The mask, for moments that do not know it. The means in dx are sums over the whole channel, divided by the
        number of elements that count; an element that does not has ``dx = rstd · g``. As every element is in
        these sums and in dweight, one whose x is NaN makes them NaN, even where its dy is 0: fill it before.
    return_dresidual : bool, default False
        Give the gradient of `residual` too, as attribute ``dresidual`` of the result.
    out : ndarray, optional
        Where to write dx: shape and dtype of x; may be dy, x or y itself.
    num_threads : int, optional
        For this call. The bits of the result do not depend on it.

    Returns
    -------
    NormGradients, or with return_dresidual ResidualGradients
        dx with the shape and dtype of x; dweight and dbias with shape (C,) and the dtype of weight, or of x
        without one.

    Raises
    ------
    TypeError
        As for `batch_norm`, or if moments are not `Moments`.
    ValueError
        As for `batch_norm`; if the moments are those of another operation, or an argument contradicts them; if the
        forward pass had a weight and none is given; if x and y are both given, or neither.
    """
    source: Any = x if y is None and x is not None else input_or_output("batch_norm_backward", x, y)
    samples: Any
    if (
        type(moments) is BatchMoments
        and moments.operation == "batch_norm"
        and (axis is None or (type(axis) is int and axis == moments.axis))
        and where is None
        and training is None
        and moments.training is True
    ):
        known, axes, where, training, samples = moments, moments.axis, moments.where, True, moments.samples
    else:
        known, axes, where, training = _completed(moments, source, axis, where, training)
        samples = known.samples if training and isinstance(known, BatchMoments) else None
    if y is not None or return_dresidual or (weight is None) is known.has_weight:
        _check_operands(known, weight, bias, y, return_dresidual)
    gradients = _core.batch_norm_backward(
        dy,
        source,
        known.mean,
        known.rstd,
        samples if where is None else None,
        weight,
        bias,
        known.active,
        y is not None,
        known.negative_slope,
        training,
        axes,
        where,
        return_dresidual,
        out,
        num_threads,
    )
    return ResidualGradients(*gradients) if return_dresidual else _new(NormGradients, gradients)


def _check_operands(moments: Moments, weight: Any, bias: Any, y: Any, return_dresidual: bool) -> None:
    """Raise ValueError if operands are missing, or given, that the forward pass had, or had not."""
    op = "batch_norm_backward"
    require_parameters(op, moments, weight, bias, needs_bias=y is not None)
    if y is not None and (moments.has_residual or return_dresidual):
        raise ValueError(f"{op}: y= cannot serve with a residual, which cannot be told from y; pass x")
    if return_dresidual and moments.operation == "batch_norm" and not moments.has_residual:
        raise ValueError(
            f"{op}: return_dresidual=True, and the forward pass had no residual; leave return_dresidual out"
        )


def _completed(moments: Any, source: Any, axis: Any, where: Any, training: Any) -> tuple[Any, Any, Any, Any]:
    """Return moments, axis, where and training, which the moments or the arguments must know."""
    op = "batch_norm_backward"
    known = completed(
        op,
        moments,
        ("batch_norm", "batch_moments"),
        source,
        axis=axis,
        where=where,
        default_axis=1,
        training=training,
    )
    if known.training is None:
        raise ValueError(
            f"{op}: these moments do not know whether they are the statistics of x; pass training=True if they are, "
            "training=False if they are constants, such as running statistics"
        )
    flag(f"{op}: training", known.training)
    needed = {None: True, "relu": known.active is not None, "leaky_relu": known.negative_slope is not None}
    if not needed.get(known.activation, False):
        raise ValueError(
            f"{op}: these moments have activation={known.activation!r} without what its gradient needs; pass the moments "
            "of a forward pass with that activation"
        )
    if known.where is not None and not known.training:
        raise ValueError(f"{op}: where has no effect on constant statistics; leave where out")
    return known, known.axis, known.where, known.training
