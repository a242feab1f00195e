"""`group_norm` and `instance_norm`, forward and backward."""

from __future__ import annotations

from typing import Any, Literal, overload

from numpy.typing import NDArray

from normkit import _core
from normkit.moments import Moments, NormGradients
from normkit.ops._context import completed, from_first, require_parameters

__all__ = ["group_norm", "group_norm_backward", "instance_norm", "instance_norm_backward"]

Array = NDArray[Any]


@overload
def group_norm(
    x: Array,
    num_groups: int,
    weight: Array | None = ...,
    bias: Array | None = ...,
    *,
    axis: int = ...,
    eps: float = ...,
    where: Array | None = ...,
    activation: str | None = ...,
    out: Array | None = ...,
    return_moments: Literal[False] = ...,
    num_threads: int | None = ...,
) -> Array: ...
@overload
def group_norm(
    x: Array,
    num_groups: int,
    weight: Array | None = ...,
    bias: Array | None = ...,
    *,
    axis: int = ...,
    eps: float = ...,
    where: Array | None = ...,
    activation: str | None = ...,
    out: Array | None = ...,
    return_moments: Literal[True],
    num_threads: int | None = ...,
) -> tuple[Array, Moments]: ...
def group_norm(
    x: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    where: Array | None = None,
    activation: str | None = None,
    out: Array | None = None,
    return_moments: bool = False,
    num_threads: int | None = None,
) -> Array | tuple[Array, Moments]:
    """Group normalization: y = (x − mean) / sqrt(var + eps) · weight + bias, weight and bias per channel.

    Mean and (biased) variance are those of each group of neighboring channels of each image of the batch [1]_.

    Parameters
    ----------
    x : ndarray of float32, float64, float16 or bfloat16 (ml_dtypes)
        Axis 0 is the batch, `axis` the channels, any number of others; any strides. (N, C, H, W) and (N, H, W, C)
        are as fast. 16-bit numbers are computed like float32 and rounded once.
    num_groups : int
        How many groups the C channels are cut into; it divides C. 1 normalizes whole images.
    weight, bias : ndarray of shape (C,), optional
        In the dtype of x, or float32 where that has 16 bits. Either, both or neither.
    axis : int, default 1
        The channel axis.
    eps : float, default 1e-5
        Added to the variance; in units of x².
    where : ndarray of bool, optional
        Broadcasts to x: the elements that mean and variance are taken of, by default all. All are normalized, as in
        `layer_norm`.
    activation : {"relu"}, optional
        Applied to the result in the same pass; ``moments.active`` keeps a bit for each element, which
        `group_norm_backward` reads.
    out : ndarray, optional
        Where to write the result: shape and dtype of x, writable; may be x itself.
    return_moments : bool, default False
        Return ``(y, moments)``; `group_norm_backward` needs the moments.
    num_threads : int, optional
        For this call; default: see `set_num_threads`. The bits of the result do not depend on it.

    Returns
    -------
    y : ndarray
        Shape and dtype of x; `out` if that was given.
    moments : Moments
        float64 mean and rstd, shape (N, num_groups). Only with return_moments.

    Raises
    ------
    TypeError
        If an array has another dtype than those named, or not that of x.
    ValueError
        If shapes, axis, num_groups or eps do not fit, or if `out` is read-only or overlaps an input in part.

    References
    ----------
    .. [1] Y. Wu, K. He, "Group Normalization", 2018, arXiv:1803.08494, eq. 7.
    """
    result = _core.group_norm(
        x, num_groups, weight, bias, axis, eps, where, activation, out, return_moments, num_threads
    )
    if return_moments:
        return _with_moments("group_norm", result, x, weight, bias, axis, eps, where, activation)
    return result  # type: ignore[no-any-return]


def group_norm_backward(
    dy: Array,
    x: Array,
    moments: Moments,
    weight: Array | None = None,
    *,
    axis: int | None = None,
    where: Array | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
) -> NormGradients:
    """Gradients of `group_norm` with respect to x, weight and bias.

    With x̂ = (x − mean)·rstd and g = dy·weight::

        dx      = rstd · (g − mean(g) − x̂ · mean(g · x̂))      means over the group of each image
        dweight = Σ dy · x̂,   dbias = Σ dy                    sums over all axes but the channels

    Where the forward pass had an activation, dy stands for ``dy · moments.active``.

    Parameters
    ----------
    dy : ndarray
        Gradient with respect to y; shape and dtype of x.
    x : ndarray
        The input of the forward pass.
    moments : Moments
        What ``group_norm(x, ..., return_moments=True)`` returned. They know the axis, the mask, the
        activation and, by their shape, the number of groups.
    weight : ndarray of shape (C,), optional
        The weight of the forward pass; required if it had one.
    axis : int, optional
        The channel axis. Default: that of the moments, or 1 where they do not know it.
    where : ndarray of bool, optional
        The mask, for moments that do not know it; see `layer_norm_backward`.
    out : ndarray, optional
        Where to write dx: shape and dtype of x; may be dy or x itself.
    num_threads : int, optional
        For this call. The bits of the result do not depend on it.

    Returns
    -------
    NormGradients
        dx with the shape and dtype of x; dweight and dbias with shape (C,) and the dtype of weight, or of x
        without one.

    Raises
    ------
    TypeError, ValueError
        As for `group_norm`; ValueError too if the moments are those of another operation, if an argument contradicts
        them, or if the forward pass had a weight and none is given.
    """
    return _backward("group_norm", dy, x, moments, weight, axis, where, out, num_threads)


@overload
def instance_norm(
    x: Array,
    weight: Array | None = ...,
    bias: Array | None = ...,
    *,
    axis: int = ...,
    eps: float = ...,
    where: Array | None = ...,
    activation: str | None = ...,
    out: Array | None = ...,
    return_moments: Literal[False] = ...,
    num_threads: int | None = ...,
) -> Array: ...
@overload
def instance_norm(
    x: Array,
    weight: Array | None = ...,
    bias: Array | None = ...,
    *,
    axis: int = ...,
    eps: float = ...,
    where: Array | None = ...,
    activation: str | None = ...,
    out: Array | None = ...,
    return_moments: Literal[True],
    num_threads: int | None = ...,
) -> tuple[Array, Moments]: ...
def instance_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    where: Array | None = None,
    activation: str | None = None,
    out: Array | None = None,
    return_moments: bool = False,
    num_threads: int | None = None,
) -> Array | tuple[Array, Moments]:
    """Instance normalization: y = (x − mean) / sqrt(var + eps) · weight + bias per image and channel.

    Mean and (biased) variance are those of each channel of each image [1]_: `group_norm` with a group for each channel.
    There are no running statistics.

    Parameters
    ----------
    x : ndarray of float32, float64, float16 or bfloat16 (ml_dtypes)
        Axis 0 is the batch, `axis` the channels, any number of others; any strides. (N, C, H, W) and (N, H, W, C)
        are as fast. 16-bit numbers are computed like float32 and rounded once.
    weight, bias : ndarray of shape (C,), optional
        In the dtype of x, or float32 where that has 16 bits. Either, both or neither.
    axis : int, default 1
        The channel axis.
    eps : float, default 1e-5
        Added to the variance; in units of x².
    where : ndarray of bool, optional
        Broadcasts to x: the elements that mean and variance are taken of, by default all. All are normalized, as in
        `layer_norm`.
    activation : {"relu"}, optional
        Applied to the result in the same pass; ``moments.active`` keeps a bit for each element, which
        `instance_norm_backward` reads.
    out : ndarray, optional
        Where to write the result: shape and dtype of x, writable; may be x itself.
    return_moments : bool, default False
        Return ``(y, moments)``; `instance_norm_backward` needs the moments.
    num_threads : int, optional
        For this call; default: see `set_num_threads`. The bits of the result do not depend on it.

    Returns
    -------
    y : ndarray
        Shape and dtype of x; `out` if that was given.
    moments : Moments
        float64 mean and rstd, shape (N, C). Only with return_moments.

    Raises
    ------
    TypeError
        If an array has another dtype than those named, or not that of x.
    ValueError
        If shapes, axis or eps do not fit, or if `out` is read-only or overlaps an input in part.

    References
    ----------
    .. [1] D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization", 2016, arXiv:1607.08022, eq. 3.
    """
    result = _core.group_norm(
        x, None, weight, bias, axis, eps, where, activation, out, return_moments, num_threads
    )
    if return_moments:
        return _with_moments("instance_norm", result, x, weight, bias, axis, eps, where, activation)
    return result  # type: ignore[no-any-return]


def instance_norm_backward(
    dy: Array,
    x: Array,
    moments: Moments,
    weight: Array | None = None,
    *,
    axis: int | None = None,
    where: Array | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
) -> NormGradients:
    """Gradients of `instance_norm` with respect to x, weight and bias.

    With x̂ = (x − mean)·rstd and g = dy·weight::

        dx      = rstd · (g − mean(g) − x̂ · mean(g · x̂))      means over the channel of each image
        dweight = Σ dy · x̂,   dbias = Σ dy                    sums over all axes but the channels

    Where the forward pass had an activation, dy stands for ``dy · moments.active``.

    Parameters
    ----------
    dy : ndarray
        Gradient with respect to y; shape and dtype of x.
    x : ndarray
        The input of the forward pass.
    moments : Moments
        What ``instance_norm(x, ..., return_moments=True)`` returned. They know the axis, the mask and the activation.
    weight : ndarray of shape (C,), optional
        The weight of the forward pass; required if it had one.
    axis : int, optional
        The channel axis. Default: that of the moments, or 1 where they do not know it.
    where : ndarray of bool, optional
        The mask, for moments that do not know it; see `layer_norm_backward`.
    out : ndarray, optional
        Where to write dx: shape and dtype of x; may be dy or x itself.
    num_threads : int, optional
        For this call. The bits of the result do not depend on it.

    Returns
    -------
    NormGradients
        dx with the shape and dtype of x; dweight and dbias with shape (C,) and the dtype of weight, or of x
        without one.

    Raises
    ------
    TypeError, ValueError
        As for `instance_norm`; ValueError too if the moments are those of another operation, if an argument contradicts
        them, or if the forward pass had a weight and none is given.
    """
    return _backward("instance_norm", dy, x, moments, weight, axis, where, out, num_threads)


def _with_moments(
    operation: str,
    result: Any,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    axis: int,
    eps: float,
    where: Array | None,
    activation: str | None,
) -> tuple[Array, Moments]:
    y, mean, rstd, active = result
    axes, more = from_first(axis, x.ndim), {"active": active}
    return y, Moments._of(operation, mean, rstd, True, axes, eps, where, activation, weight, bias, more)


def _backward(
    forward: str,
    dy: Array,
    x: Array,
    moments: Moments,
    weight: Array | None,
    axis: int | None,
    where: Array | None,
    out: Array | None,
    num_threads: int | None,
) -> NormGradients:
    op = f"{forward}_backward"
    known = completed(op, moments, (forward,), x, axis=axis, where=where, default_axis=1)
    require_parameters(op, known, weight, None, needs_bias=False)
    if known.activation is not None and known.active is None:
        raise ValueError(
            f"{op}: these moments have activation={known.activation!r} without the bits that its gradient needs; pass the "
            "moments of a forward pass with that activation"
        )
    if known.mean.ndim != 2:
        wanted = "groups" if forward == "group_norm" else "channels"
        raise ValueError(f"{op}: moments.mean must have shape (batch, {wanted}), got {known.mean.shape}")
    groups = known.mean.shape[1] if forward == "group_norm" else None
    return NormGradients._make(
        _core.group_norm_backward(
            dy,
            x,
            known.mean,
            known.rstd,
            groups,
            weight,
            known.active,
            known.axis,
            known.where,
            out,
            num_threads,
        )
    )
