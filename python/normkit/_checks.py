"""Checks of arguments that several modules share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["finite", "float_dtype", "positive_integer", "sample_shape", "truth", "whole"]


def positive_integer(what: str, value: Any) -> int:
    """Return `value` as an int, or raise ValueError: 'Dense: units must be a positive integer, got 0'."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{what} must be a positive integer, got {value!r}")
    return int(value)


def whole(what: str, value: Any) -> int:
    """Return `value` as an int of at least 0, or raise ValueError: 'fit: epochs must be ..., got -1'."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ValueError(f"{what} must be an integer, 0 or more, got {value!r}")
    return int(value)


def truth(what: str, value: Any) -> bool:
    """Return `value` as a bool, or raise TypeError: 'batch_norm: training must be True or False, got None'."""
    if not isinstance(value, (bool, np.bool_)) and not (
        isinstance(value, (int, np.integer)) and value in (0, 1)
    ):
        raise TypeError(f"{what} must be True or False, got {value!r}")
    return bool(value)


def finite(what: str, value: Any) -> float:
    """Return `value` as a float, or raise ValueError: 'Adam: epsilon must be finite and not negative, got -1'."""
    number = float(value)
    if not (math.isfinite(number) and number >= 0.0):
        raise ValueError(f"{what} must be finite and not negative, got {number:g}")
    return number


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64 as a dtype; anything else is a TypeError."""
    resolved = np.dtype(dtype)
    if resolved not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype must be float32 or float64, got {resolved}")
    return resolved


def sample_shape(shape: Any) -> tuple[int, ...]:
    """Return the shape of one sample as a tuple of positive lengths."""
    try:
        return tuple(positive_integer("a length", length) for length in shape)
    except (TypeError, ValueError):
        raise ValueError(
            "the shape of one sample is a tuple of positive integers without the batch axis, "
            f"such as (784,); got {shape!r}"
        ) from None
