"""`add_layer_norm` and `add_rms_norm`: dropout, the sum with a residual and its norm in one pass, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

from numpy.typing import NDArray

from normkit import _core
from normkit.moments import Moments, ResidualGradients
from normkit.ops._context import completed, from_first, require_parameters

__all__ = ["add_layer_norm", "add_layer_norm_backward", "add_rms_norm", "add_rms_norm_backward"]

Array = NDArray[Any]


@overload
def add_layer_norm(
    x: Array,
    residual: Array,
    weight: Array | None = ...,
    bias: Array | None = ...,
    *,
    axis: int | Sequence[int] = ...,
    eps: float = ...,
    dropout: float = ...,
    seed: int = ...,
    activation: str | None = ...,
    out: Array | None = ...,
    return_moments: Literal[False] = ...,
    num_threads: int | None = ...,
) -> tuple[Array, Array]: ...
@overload
def add_layer_norm(
    x: Array,
    residual: Array,
    weight: Array | None = ...,
    bias: Array | None = ...,
    *,
    axis: int | Sequence[int] = ...,
    eps: float = ...,
    dropout: float = ...,
    seed: int = ...,
    activation: str | None = ...,
    out: Array | None = ...,
    return_moments: Literal[True],
    num_threads: int | None = ...,
) -> tuple[Array, Array, Moments]: ...
def add_layer_norm(
    x: Array,
    residual: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    axis: int | Sequence[int] = -1,
    eps: float = 1e-5,
    dropout: float = 0.0,
    seed: int = 0,
    activation: str | None = None,
    out: Array | None = None,
    return_moments: bool = False,
    num_threads: int | None = None,
) -> tuple[Array, Array] | tuple[Array, Array, Moments]:
    """Layer normalization of a sum: total = residual + dropout(x), y = layer_norm(total, weight, bias).

    The step between two parts of a transformer, in one pass over memory.

    Parameters
    ----------
    x, residual : ndarray of float32, float64, float16 or bfloat16 (ml_dtypes)
        One shape, any strides, one dtype. 16-bit sums are rounded once, and their norm is that of the rounded sum.
    weight, bias, axis, eps, activation, num_threads
        As for `layer_norm`.
    dropout : float, default 0
        The probability that an element of x becomes 0; the others are divided by 1 − dropout [1]_.
    seed : int, default 0
        Of the dropout, from 0 to 2**64 − 1; take another one for every step and layer. Which elements are kept is a
        function of the seed and of their position in the rows, and of nothing else: see Notes.
    out : ndarray, optional
        Where to write y: shape and dtype of x, writable; may be x or residual.
    return_moments : bool, default False
        Return the moments too; `add_layer_norm_backward` needs them.

    Returns
    -------
    y : ndarray
        The normalized sum: shape and dtype of x; `out` if that was given.
    total : ndarray
        The sum, in the shape and dtype of x: the next residual, and what the backward pass takes.
    moments : Moments
        Of the sum, as those of `layer_norm`. Only with return_moments.

    Raises
    ------
    TypeError, ValueError
        As for `layer_norm`, and if dropout is not in [0, 1) or seed is not an integer in range.

    Notes
    -----
    The element i of the array whose last axes are those normalized, in C order, is kept if word ``i % 64`` of block
    ``i // 64`` of the counter-based generator Philox 4x32-10 [2]_ with key `seed` is less than (1 − dropout)·2³²; word
    ``16·w + c`` of a block b is word w of the counter ``16·b + c``. No mask is stored: the backward pass makes it
    again.

    References
    ----------
    .. [1] N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout", JMLR 15, 2014.
    .. [2] J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    y, total, *statistics = _core.add_layer_norm(
        x,
        residual,
        weight,
        bias,
        axis,
        eps,
        activation,
        dropout,
        seed,
        out,
        return_moments,
        num_threads,
    )
    if return_moments:
        mean, rstd = statistics
        axes, more = from_first(axis, x.ndim), {"dropout": float(dropout), "seed": int(seed)}
        moments = Moments._of(
            "add_layer_norm", mean, rstd, True, axes, eps, None, activation, weight, bias, more
        )
        return y, total, moments
    return y, total


def add_layer_norm_backward(
    dy: Array,
    total: Array,
    moments: Moments,
    weight: Array | None = None,
    *,
    bias: Array | None = None,
    dtotal: Array | None = None,
    axis: int | Sequence[int] | None = None,
    dropout: float | None = None,
    seed: int | None = None,
    activation: str | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
) -> ResidualGradients:
    """Gradients of `add_layer_norm` with respect to x, residual, weight and bias.

    With the dx of `layer_norm_backward` of the sum, dresidual = dx + dtotal, and the dx returned is dresidual where
    dropout kept the element, divided by 1 − dropout, and 0 elsewhere.

    Parameters
    ----------
    dy : ndarray
        Gradient with respect to y; shape and dtype of total.
    total : ndarray
        The sum that the forward pass returned.
    moments : Moments
        What it returned with ``return_moments=True``. They know the axes, the activation, the dropout and its seed.
    weight, bias, axis, activation, num_threads
        As for `layer_norm_backward`.
    dtotal : ndarray, optional
        Gradient with respect to the sum that comes from where it was used besides; by default there is none.
    dropout, seed
        Those of the forward pass, for moments that do not know them.
    out : ndarray, optional
        Where to write dresidual: shape and dtype of total; may be dy, total or dtotal itself.

    Returns
    -------
    ResidualGradients
        dx and dresidual with the shape and dtype of total (one array, if dropout is 0); dweight and dbias as those of
        `layer_norm_backward`.

    Raises
    ------
    TypeError, ValueError
        As for `add_layer_norm`.
    """
    given = {"axis": axis, "activation": activation, "dropout": dropout, "seed": seed}
    return _backward(
        "add_layer_norm",
        _core.add_layer_norm_backward,
        (dy, dtotal, total),
        moments,
        weight,
        bias,
        given,
        out,
        num_threads,
    )


@overload
def add_rms_norm(
    x: Array,
    residual: Array,
    weight: Array | None = ...,
    bias: Array | None = ...,
    *,
    axis: int | Sequence[int] = ...,
    eps: float = ...,
    dropout: float = ...,
    seed: int = ...,
    activation: str | None = ...,
    out: Array | None = ...,
    return_moments: Literal[False] = ...,
    num_threads: int | None = ...,
) -> tuple[Array, Array]: ...
@overload
def add_rms_norm(
    x: Array,
    residual: Array,
    weight: Array | None = ...,
    bias: Array | None = ...,
    *,
    axis: int | Sequence[int] = ...,
    eps: float = ...,
    dropout: float = ...,
    seed: int = ...,
    activation: str | None = ...,
    out: Array | None = ...,
    return_moments: Literal[True],
    num_threads: int | None = ...,
) -> tuple[Array, Array, Moments]: ...
def add_rms_norm(
    x: Array,
    residual: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    axis: int | Sequence[int] = -1,
    eps: float = 1e-5,
    dropout: float = 0.0,
    seed: int = 0,
    activation: str | None = None,
    out: Array | None = None,
    return_moments: bool = False,
    num_threads: int | None = None,
) -> tuple[Array, Array] | tuple[Array, Array, Moments]:
    """RMS normalization of a sum: total = residual + dropout(x), y = rms_norm(total, weight, bias).

    Parameters
    ----------
    x, residual, weight, bias, axis, eps, dropout, seed, activation, out, return_moments, num_threads
        As for `add_layer_norm`.

    Returns
    -------
    y, total : ndarray
        The normalized sum, and the sum.
    moments : Moments
        Of the sum, as those of `rms_norm`. Only with return_moments.

    Raises
    ------
    TypeError, ValueError
        As for `add_layer_norm`.
    """
    y, total, *statistics = _core.add_rms_norm(
        x,
        residual,
        weight,
        bias,
        axis,
        eps,
        activation,
        dropout,
        seed,
        out,
        return_moments,
        num_threads,
    )
    if return_moments:
        mean, rstd = statistics
        axes, more = from_first(axis, x.ndim), {"dropout": float(dropout), "seed": int(seed)}
        moments = Moments._of(
            "add_rms_norm", mean, rstd, True, axes, eps, None, activation, weight, bias, more
        )
        return y, total, moments
    return y, total


def add_rms_norm_backward(
    dy: Array,
    total: Array,
    moments: Moments,
    weight: Array | None = None,
    *,
    bias: Array | None = None,
    dtotal: Array | None = None,
    axis: int | Sequence[int] | None = None,
    dropout: float | None = None,
    seed: int | None = None,
    activation: str | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
) -> ResidualGradients:
    """Gradients of `add_rms_norm` with respect to x, residual, weight and bias.

    Parameters
    ----------
    dy, total, moments, weight, bias, dtotal, axis, dropout, seed, activation, out, num_threads
        As for `add_layer_norm_backward`; moments are those of `add_rms_norm`.

    Returns
    -------
    ResidualGradients
        As those of `add_layer_norm_backward`.

    Raises
    ------
    TypeError, ValueError
        As for `add_layer_norm`.
    """
    given = {"axis": axis, "activation": activation, "dropout": dropout, "seed": seed}
    return _backward(
        "add_rms_norm",
        _core.add_rms_norm_backward,
        (dy, dtotal, total),
        moments,
        weight,
        bias,
        given,
        out,
        num_threads,
    )


def _backward(
    forward: str,
    compute: Callable[..., tuple[Array, ...]],
    operands: tuple[Array, Array | None, Array],
    moments: Moments,
    weight: Array | None,
    bias: Array | None,
    given: dict[str, Any],
    out: Array | None,
    num_threads: int | None,
) -> ResidualGradients:
    op = f"{forward}_backward"
    known = completed(op, moments, (forward,), operands[-1], default_axis=-1, **given)
    require_parameters(op, known, weight, bias, needs_bias=known.activation is not None)
    return ResidualGradients(
        *compute(
            *operands,
            known.mean,
            known.rstd,
            weight,
            bias,
            known.axis,
            known.activation,
            known.dropout,
            known.seed,
            out,
            num_threads,
        )
    )
