"""`layer_norm` and `rms_norm`, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

from numpy.typing import NDArray

from normkit import _core
from normkit.moments import Moments, NormGradients
from normkit.ops._context import completed, from_first, input_or_output, require_parameters

__all__ = ["layer_norm", "layer_norm_backward", "rms_norm", "rms_norm_backward"]

_new = tuple.__new__  # in half the time of NormGradients(...)

Array = NDArray[Any]


@overload
def layer_norm(
    x: Array,
    weight: Array | None = ...,
    bias: Array | None = ...,
    *,
    axis: int | Sequence[int] = ...,
    eps: float = ...,
    where: Array | None = ...,
    activation: str | None = ...,
    out: Array | None = ...,
    return_moments: Literal[False] = ...,
    num_threads: int | None = ...,
) -> Array: ...
@overload
def layer_norm(
    x: Array,
    weight: Array | None = ...,
    bias: Array | None = ...,
    *,
    axis: int | Sequence[int] = ...,
    eps: float = ...,
    where: Array | None = ...,
    activation: str | None = ...,
    out: Array | None = ...,
    return_moments: Literal[True],
    num_threads: int | None = ...,
) -> tuple[Array, Moments]: ...
def layer_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    axis: int | Sequence[int] = -1,
    eps: float = 1e-5,
    where: Array | None = None,
    activation: str | None = None,
    out: Array | None = None,
    return_moments: bool = False,
    num_threads: int | None = None,
) -> Array | tuple[Array, Moments]:
    """Layer normalization: y = (x − mean) / sqrt(var + eps) · weight + bias over the given axes.

    Mean and (biased) variance are those of each row, a row being what remains when all other axes are
    fixed [1]_.

    Parameters
    ----------
    x : ndarray of float32, float64, float16 or bfloat16 (ml_dtypes)
        Any shape, any strides. 16-bit numbers are computed like float32 and rounded once.
    weight, bias : ndarray, optional
        The shape of the normalized axes, in the dtype of x, or float32 where that has 16 bits. Either, both
        or neither.
    axis : int or tuple of int, default -1
        The axes that are normalized.
    eps : float, default 1e-5
        Added to the variance; in units of x².
    where : ndarray of bool, optional
        Broadcasts to x: the elements that mean and variance are taken of, by default all. See Notes.
    activation : {"relu", "gelu", "silu"}, optional
        Applied to the result, in the same pass; gelu with the exact normal distribution [2]_. See Notes.
    out : ndarray, optional
        Where to write the result: shape and dtype of x, writable; may be x itself.
    return_moments : bool, default False
        Return ``(y, moments)``; `layer_norm_backward` needs the moments.
    num_threads : int, optional
        For this call; default: see `set_num_threads`. The bits of the result do not depend on it.

    Returns
    -------
    y : ndarray
        Shape and dtype of x; `out` if that was given.
    moments : Moments
        float64 mean and rstd, in the shape of x without the normalized axes. Only with return_moments.

    Raises
    ------
    TypeError
        If an array has another dtype than those named, or not that of x.
    ValueError
        If shapes, axes or eps do not fit, or if `out` is read-only or overlaps an input in part.

    Notes
    -----
    With `where`, the elements of a row that it leaves out are normalized with the statistics of the others, as
    with the masks of flax; what they hold, NaN too, does not reach these. A row of which nothing is left has
    mean 0 and rstd 0: y is bias there, and no gradient reaches its x.

    With `activation`, ``layer_norm_backward(dy, x, moments, weight, bias=bias)`` computes the argument of the
    activation again from x, so nothing more has to be kept.

    References
    ----------
    .. [1] J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", 2016, arXiv:1607.06450, eq. 4.
    .. [2] D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units (GELUs)", 2016, arXiv:1606.08415. SiLU: S. Elfwing,
       E. Uchibe, K. Doya, 2017, arXiv:1702.03118.
    """
    result = _core.layer_norm(x, weight, bias, axis, eps, where, activation, out, return_moments, num_threads)
    if return_moments:
        y, mean, rstd = result
        axis = from_first(axis, x.ndim)
        return y, Moments._of("layer_norm", mean, rstd, True, axis, eps, where, activation, weight, bias)
    return result  # type: ignore[no-any-return]


def layer_norm_backward(
    dy: Array,
    x: Array | None = None,
    moments: Moments | None = None,
    weight: Array | None = None,
    *,
    bias: Array | None = None,
    y: Array | None = None,
    axis: int | Sequence[int] | None = None,
    where: Array | None = None,
    activation: str | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
) -> NormGradients:
    """Gradients of `layer_norm` with respect to x, weight and bias.

    With x̂ = (x − mean)·rstd and g = dy·weight::

        dx      = rstd · (g − mean(g) − x̂ · mean(g · x̂))      means over the normalized axes
        dweight = Σ dy · x̂,   dbias = Σ dy                    sums over the other axes

    Parameters
    ----------
    dy : ndarray
        Gradient with respect to y; shape and dtype of x.
    x : ndarray
        The input of the forward pass; None where `y` is given.
    moments : Moments
        What ``layer_norm(x, ..., return_moments=True)`` returned. They know the axes, the mask and the activation.
    weight : ndarray, optional
        The weight of the forward pass; required if it had one.
    bias : ndarray, optional
        The bias of the forward pass; required with an activation or with `y` if it had one, else ignored.
    y : ndarray, optional
        The result of the forward pass, which had no activation, in place of x: x̂ = (y − bias) / weight. No weight
        may be 0 then. x̂ carries the error of y, divided by |weight|: at most 5 eps·max(|x̂|, |bias/weight|, 1/256); in
        16 bits, with float32's eps, half a unit of y over |weight| more. With ``out=x`` in the forward pass, no array is
        kept.
    axis : int or tuple of int, optional
        The axes that were normalized. Default: those of the moments, or the last one where they do not know them.
    where : ndarray of bool, optional
        The mask, for moments that do not know it. The means in dx are sums over the whole row, divided by the number
        of elements that count; an element that does not has ``dx = rstd · g``. As every element is in these sums
        and in dweight, one whose x is NaN makes them NaN, even where its dy is 0: fill it before.
    activation : {"relu", "gelu", "silu"}, optional
        For moments that do not know it. dy stands for dy · activation'(x̂ · weight + bias) in all formulas. At 0 the
        derivative of relu is 0.
    out : ndarray, optional
        Where to write dx: shape and dtype of x; may be dy, x or y itself.
    num_threads : int, optional
        For this call. The bits of the result do not depend on it.

    Returns
    -------
    NormGradients
        dx with the shape and dtype of x; dweight and dbias with the shape of the normalized axes and the
        dtype of weight, or of x without one.

    Raises
    ------
    TypeError, ValueError
        As for `layer_norm`; ValueError too if the moments are those of another operation, if an argument contradicts
        them, if the forward pass had a weight and none is given, or if x and y are both given, or neither.
    """
    return _backward(
        "layer_norm",
        _core.layer_norm_backward,
        dy,
        x,
        moments,
        weight,
        bias,
        y,
        axis,
        where,
        activation,
        out,
        num_threads,
    )


@overload
def rms_norm(
    x: Array,
    weight: Array | None = ...,
    bias: Array | None = ...,
    *,
    axis: int | Sequence[int] = ...,
    eps: float = ...,
    where: Array | None = ...,
    activation: str | None = ...,
    out: Array | None = ...,
    return_moments: Literal[False] = ...,
    num_threads: int | None = ...,
) -> Array: ...
@overload
def rms_norm(
    x: Array,
    weight: Array | None = ...,
    bias: Array | None = ...,
    *,
    axis: int | Sequence[int] = ...,
    eps: float = ...,
    where: Array | None = ...,
    activation: str | None = ...,
    out: Array | None = ...,
    return_moments: Literal[True],
    num_threads: int | None = ...,
) -> tuple[Array, Moments]: ...
def rms_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    axis: int | Sequence[int] = -1,
    eps: float = 1e-5,
    where: Array | None = None,
    activation: str | None = None,
    out: Array | None = None,
    return_moments: bool = False,
    num_threads: int | None = None,
) -> Array | tuple[Array, Moments]:
    """Root mean square normalization: y = x / sqrt(mean(x²) + eps) · weight + bias over the given axes.

    Layer normalization without the mean: mean(x²) is that of each row, a row being what remains when all other
    axes are fixed [1]_.

    Parameters
    ----------
    x : ndarray of float32, float64, float16 or bfloat16 (ml_dtypes)
        Any shape, any strides. 16-bit numbers are computed like float32 and rounded once.
    weight, bias : ndarray, optional
        The shape of the normalized axes, in the dtype of x, or float32 where that has 16 bits. Either, both
        or neither.
    axis : int or tuple of int, default -1
        The axes that are normalized.
    eps : float, default 1e-5
        Added to the mean of the squares, inside the root; in units of x².
    where : ndarray of bool, optional
        Broadcasts to x: the elements that mean(x²) is taken of, by default all. The others are normalized with it
        too, as in `layer_norm`.
    activation : {"relu", "gelu", "silu"}, optional
        Applied to the result, as in `layer_norm`.
    out : ndarray, optional
        Where to write the result: shape and dtype of x, writable; may be x itself.
    return_moments : bool, default False
        Return ``(y, moments)``; `rms_norm_backward` needs the moments.
    num_threads : int, optional
        For this call; default: see `set_num_threads`. The bits of the result do not depend on it.

    Returns
    -------
    y : ndarray
        Shape and dtype of x; `out` if that was given.
    moments : Moments
        rstd = 1 / sqrt(mean(x²) + eps), and mean, which is 0: float64, in the shape of x without the normalized
        axes. Only with return_moments.

    Raises
    ------
    TypeError, ValueError
        As for `layer_norm`.

    References
    ----------
    .. [1] B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization", 2019, arXiv:1910.07467, eq. 4.
    """
    result = _core.rms_norm(x, weight, bias, axis, eps, where, activation, out, return_moments, num_threads)
    if return_moments:
        y, mean, rstd = result
        axis = from_first(axis, x.ndim)
        return y, Moments._of("rms_norm", mean, rstd, True, axis, eps, where, activation, weight, bias)
    return result  # type: ignore[no-any-return]


def rms_norm_backward(
    dy: Array,
    x: Array | None = None,
    moments: Moments | None = None,
    weight: Array | None = None,
    *,
    bias: Array | None = None,
    y: Array | None = None,
    axis: int | Sequence[int] | None = None,
    where: Array | None = None,
    activation: str | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
) -> NormGradients:
    """Gradients of `rms_norm` with respect to x, weight and bias.

    With x̂ = x·rstd and g = dy·weight::

        dx      = rstd · (g − x̂ · mean(g · x̂))      mean over the normalized axes
        dweight = Σ dy · x̂,   dbias = Σ dy          sums over the other axes

    Parameters
    ----------
    dy, x, moments, weight, bias, y, axis, where, activation, out, num_threads
        As for `layer_norm_backward`; moments are those of `rms_norm`.

    Returns
    -------
    NormGradients
        dx with the shape and dtype of x; dweight and dbias with the shape of the normalized axes and the
        dtype of weight, or of x without one.

    Raises
    ------
    TypeError, ValueError
        As for `layer_norm_backward`.
    """
    return _backward(
        "rms_norm",
        _core.rms_norm_backward,
        dy,
        x,
        moments,
        weight,
        bias,
        y,
        axis,
        where,
        activation,
        out,
        num_threads,
    )


def _backward(
    forward: str,
    compute: Callable[..., tuple[Array, Array, Array]],
    dy: Array,
    x: Any,
    moments: Any,
    weight: Array | None,
    bias: Array | None,
    y: Any,
    axis: Any,
    where: Any,
    activation: Any,
    out: Array | None,
    num_threads: int | None,
) -> NormGradients:
    source: Any = x if y is None and x is not None else input_or_output(f"{forward}_backward", x, y)
    if (
        type(moments) is Moments
        and moments.operation == forward
        and (axis is None or (type(axis) is int and axis == moments.axis))
        and where is None
        and activation is None
        and moments.axis is not None
    ):
        axis, where, activation = moments.axis, moments.where, moments.activation
    else:
        moments = completed(
            f"{forward}_backward",
            moments,
            (forward,),
            source,
            axis=axis,
            where=where,
            default_axis=-1,
            activation=activation,
        )
        axis, where, activation = moments.axis, moments.where, moments.activation
    needs_bias = y is not None or activation is not None
    if needs_bias or (weight is None) is moments.has_weight:
        require_parameters(f"{forward}_backward", moments, weight, bias, needs_bias=needs_bias)
    return _new(
        NormGradients,
        compute(
            dy,
            source,
            moments.mean,
            moments.rstd,
            weight,
            bias,
            axis,
            where,
            activation,
            y is not None,
            out,
            num_threads,
        ),
    )
