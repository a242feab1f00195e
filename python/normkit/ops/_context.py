"""What a backward pass knows: the moments of its forward pass, and the arguments, which must agree with them."""

from __future__ import annotations

import operator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from normkit.moments import Moments

__all__ = ["completed", "from_first", "input_or_output", "require_parameters"]

SomeMoments = TypeVar("SomeMoments", bound=Moments)
Axes = int | tuple[int, ...]


def from_first(axis: Any, ndim: int) -> Axes:
    """Return an axis, or axes in order, counted from the first of `ndim`."""
    if type(axis) is int:
        return axis + ndim if axis < 0 else axis
    try:
        index = operator.index(axis)
    except TypeError:
        return tuple(sorted(int(from_first(one, ndim)) for one in axis))  # type: ignore[arg-type]
    return index + ndim if index < 0 else index


def input_or_output(op: str, x: Any, y: Any) -> Any:
    """Return the one of x and y that was given."""
    if (x is None) == (y is None):
        given = "neither" if x is None else "both"
        raise ValueError(
            f"{op}: pass x, the input of the forward pass, or y=, its result, with x=None; got {given}"
        )
    return x if y is None else y


def require_parameters(op: str, moments: Moments, weight: Any, bias: Any, *, needs_bias: bool) -> None:
    """Raise ValueError unless there is a weight, and a bias where it matters here, if the forward pass had them.

    Moments that no forward pass with these made say nothing of them.
    """
    for name, had, given in (("weight", moments.has_weight, weight), ("bias", moments.has_bias, bias)):
        if name == "bias" and not needs_bias:
            continue
        if had and given is None:
            raise ValueError(
                f"{op}: the forward pass had a {name}, which the gradient depends on; pass {name}= as it was there"
            )
        if given is not None and not had and moments.operation not in (None, "batch_moments"):
            raise ValueError(
                f"{op}: the forward pass had no {name}, which the gradient depends on; leave {name} out, or pass "
                f"the moments of a forward pass with it"
            )


def completed(
    op: str,
    moments: SomeMoments | None,
    makers: tuple[str, ...],
    x: Any,
    *,
    axis: Any,
    where: Any = None,
    default_axis: int,
    **given: Any,
) -> SomeMoments:
    """Return the moments with what the arguments add to them, or raise where the two contradict each other.

    Parameters
    ----------
    op : str
        The backward operation, for messages.
    moments : Moments
        Of the forward pass.
    makers : tuple of str
        The operations whose moments these may be.
    x : ndarray
        Of the shape of the forward pass.
    axis, where, **given
        Arguments of the backward pass; None where they are left to the moments.
    default_axis : int
        For moments that do not know it.

    Raises
    ------
    TypeError
        If `moments` are none.
    ValueError
        If they were made by another operation, or an argument contradicts them.
    """
    if not isinstance(moments, Moments):
        raise TypeError(
            f"{op}: moments must be Moments, got {type(moments).__name__}; "
            f"pass what {makers[0]}(..., return_moments=True) returned, or Moments(mean, rstd)"
        )
    known = moments.operation is not None
    if known and moments.operation not in makers:
        raise ValueError(
            f"{op}: moments must be those of {makers[0]}, got those of {moments.operation}; "
            f"call {moments.operation}_backward, or pass the moments of {makers[0]}"
        )
    if moments.training is False and "training" not in given:
        raise ValueError(
            f"{op}: these moments are said to be constants, and {makers[0]} has none; make them without training=False"
        )
    if not isinstance(x, np.ndarray):
        return moments  # the operation itself says what x must be
    told: dict[str, Any] = {}
    if axis is not None:
        given["axis"] = from_first(_integers(op, axis), x.ndim)
    elif moments.axis is None:
        told["axis"] = default_axis
    for name, value in given.items():
        if value is None:
            continue
        own = getattr(moments, name)
        if not known or (own is None and name != "activation"):
            told[name] = value
        elif not _same(name, own, value):
            raise ValueError(
                f"{op}: {name}={value!r} contradicts the moments, which were made with {name}={own!r}; "
                f"leave {name} out, or pass the moments of a forward pass with {name}={value!r}"
            )
    if where is not None and where is not moments.where:
        if not known:
            told["where"] = where
        elif not _same_mask(where, moments.where, x):
            raise ValueError(
                f"{op}: where contradicts the moments, which were made with "
                f"{'no mask' if moments.where is None else 'another mask'}; leave where out"
            )
    return moments._with(**told) if told else moments


def _integers(op: str, axis: Any) -> Any:
    """Return an axis, or a list of axes, or raise TypeError."""
    axes = axis.tolist() if isinstance(axis, np.ndarray) else axis
    several = axes if isinstance(axes, (tuple, list)) else (axes,)
    if not all(isinstance(one, (int, np.integer)) and not isinstance(one, bool) for one in several):
        raise TypeError(f"{op}: axis must be an integer or a tuple of integers, got {axis!r}")
    return axes


def _same(name: str, own: Any, value: Any) -> bool:
    if name != "axis":
        return bool(own == value)
    both = [axes if isinstance(axes, tuple) else (axes,) for axes in (own, value)]
    return both[0] == both[1]


def _same_mask(one: Any, other: Any, x: NDArray[Any]) -> bool:
    """Return whether two masks choose the same elements of x; None chooses all."""
    try:
        first, second = (np.broadcast_to(True if mask is None else mask, x.shape) for mask in (one, other))
    except ValueError:
        return False
    return first.dtype == second.dtype == np.bool_ and np.array_equal(first, second)
