"""`batch_norm`, forward and backward, and `batch_moments`."""

from __future__ import annotations

from typing import Any, Literal, overload

from numpy.typing import NDArray

from normkit import _core
from normkit.moments import BatchMoments, Moments, NormGradients, ResidualGradients, as_count
from normkit.stats import RunningStats

__all__ = ["batch_moments", "batch_norm", "batch_norm_backward"]

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
    negative_slope: float = ...,
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
    negative_slope: float = ...,
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
    negative_slope: float = 0.01,
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
        in training too: then the moments are constants (`batch_norm_backward` with training=False).
    axis : int, default 1
        The channel axis. Every other axis is reduced.
    eps : float, default 1e-5
        Added to the variance; in units of x².
    where : ndarray of bool, optional
        Broadcasts to x: the elements that mean and variance are taken of, in training, by default all. See
        Notes.
    residual : ndarray, optional
        Added to the normalized x, before the activation, in the same pass: shape and dtype of x.
    activation : {"relu", "leaky_relu"}, optional
        Applied to the result in the same pass. See Notes.
    negative_slope : float, default 0.01
        That of leaky_relu below 0; from 2**-20 to 2**20.
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
        If shapes, axis or eps do not fit, if inference has no `stats`, or if `out` is read-only or
        overlaps an input in part.

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
        dx, dweight, dbias = batch_norm_backward(dy, y, moments, weight, bias=bias, from_output=True)

    References
    ----------
    .. [1] S. Ioffe, C. Szegedy, "Batch Normalization", 2015, arXiv:1502.03167, algorithm 1.
    .. [2] S. Rota Bulò, L. Porzi, P. Kontschieder, "In-Place Activated BatchNorm for Memory-Optimized Training of
       DNNs", 2018, arXiv:1712.02616.
    """
    slope = float(negative_slope) if activation == "leaky_relu" else None
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
        moments = BatchMoments(mean, rstd, var, as_count(samples), float(eps), active, slope)
        if plain is not stats and stats is not None:
            stats.update(moments)
        return (y, moments) if return_moments else y
    if stats is None:
        raise ValueError(
            "batch_norm: training=False normalizes with running statistics; pass stats=RunningStats(...)"
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
    if return_moments:
        y, mean, rstd, _, _, active = result
        return y, Moments(mean, rstd, active, slope)
    return result  # type: ignore[no-any-return]


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
    return BatchMoments(mean, rstd, var, as_count(samples), float(eps))


def batch_norm_backward(
    dy: Array,
    x: Array,
    moments: Moments,
    weight: Array | None = None,
    *,
    bias: Array | None = None,
    from_output: bool = False,
    training: bool = True,
    axis: int = 1,
    where: Array | None = None,
    return_dresidual: bool = False,
    out: Array | None = None,
    num_threads: int | None = None,
) -> NormGradients:
    """Gradients of `batch_norm` with respect to x, weight and bias.

    With x̂ = (x − mean)·rstd and g = dy·weight, per channel::

        dx      = rstd · (g − mean(g) − x̂ · mean(g · x̂))      training
        dx      = rstd · g                                     training=False: the statistics are constants
        dweight = Σ dy · x̂,   dbias = Σ dy

    Where the forward pass had an activation, dy stands for ``dy · moments.active`` in all of them, and that is the
    gradient of a residual.

    Parameters
    ----------
    dy : ndarray
        Gradient with respect to y; shape and dtype of x.
    x : ndarray
        The input of the forward pass; with from_output, its result.
    moments : Moments
        What ``batch_norm(x, ..., return_moments=True)`` returned.
    weight : ndarray of shape (C,), optional
        The weight of the forward pass.
    bias : ndarray of shape (C,), optional
        The bias of the forward pass; it matters to from_output alone.
    from_output : bool, default False
        Take x̂ = (z − bias) / weight, z being y before leaky_relu. No weight may be 0 then, and x̂ has the digits
        that y has left of it: an error of at most eps·(|y − bias| + |bias|)/|weight| with eps that of the dtype.
    training : bool, default True
        Whether the moments were those of x (True) or constants such as running statistics (False).
    axis : int, default 1
        The channel axis.
    where : ndarray of bool, optional
        The mask of the forward pass, in training. The means in dx are sums over the whole channel, divided by the
        number of elements that count; an element that does not has ``dx = rstd · g``. As every element is in
        these sums and in dweight, one whose x is NaN makes them NaN, even where its dy is 0: fill it before.
    return_dresidual : bool, default False
        Give the gradient of `residual` too, as attribute ``dresidual`` of the result.
    out : ndarray, optional
        Where to write dx: shape and dtype of x; may be dy or x itself.
    num_threads : int, optional
        For this call. The bits of the result do not depend on it.

    Returns
    -------
    NormGradients, or with return_dresidual ResidualGradients
        dx with the shape and dtype of x; dweight and dbias with shape (C,) and the dtype of weight, or of x
        without one.

    Raises
    ------
    TypeError, ValueError
        As for `batch_norm`.
    """
    dx, dweight, dbias, dresidual = _core.batch_norm_backward(
        dy,
        x,
        moments[0],
        moments[1],
        weight,
        bias,
        moments.active,
        from_output,
        moments.negative_slope,
        training,
        axis,
        where,
        return_dresidual,
        out,
        num_threads,
    )
    if dresidual is None:
        return NormGradients(dx, dweight, dbias)
    return ResidualGradients(dx, dweight, dbias, dresidual)
