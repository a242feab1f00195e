"""Checks of arguments that several modules share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = [
    "as_array",
    "as_numbers",
    "batch_shape",
    "finite",
    "flag",
    "float_dtype",
    "integer",
    "integers",
    "number",
    "positive_integer",
    "sample_shape",
    "share",
    "shown",
    "whole",
]


LONGEST = 60  # characters of a value in a message


def shown(value: Any) -> str:
    """Return a value and its type for a message, in short: "'0.01' of type str"."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}; write {value.__name__}() with its arguments"
    return f"{_brief(value)} of type {type(value).__name__}"


def _brief(value: Any) -> str:
    """Return the repr on one line, cut."""
    text = " ".join(repr(value)[:200].split())
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def number(what: str, value: Any) -> float:
    """Return `value` as a float, or raise TypeError: 'SGD: learning_rate must be a number, got ...'."""
    try:
        checked = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{what} must be a number, got {shown(value)}") from None
    if isinstance(value, (str, bytes, bytearray)):
        raise TypeError(f"{what} must be a number, got {shown(value)}; leave out the quotes")
    return checked


def integer(what: str, value: Any) -> int:
    """Return `value` as an int, or raise TypeError: 'BatchNormalization: axis must be an integer, got ...'."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{what} must be an integer, got {shown(value)}")
    return int(value)


def positive_integer(what: str, value: Any) -> int:
    """Return `value` as an int, or raise ValueError: 'Dense: units must be a positive integer, got 0'."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{what} must be a positive integer, got {_brief(value)}")
    return int(value)


def whole(what: str, value: Any) -> int:
    """Return `value` as an int of at least 0, or raise ValueError: 'fit: epochs must be ..., got -1'."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ValueError(f"{what} must be an integer, 0 or more, got {_brief(value)}")
    return int(value)


def flag(what: str, value: Any) -> bool:
    """Return `value` as a bool, or raise TypeError: 'Dense: use_bias must be True or False, got 'no' of type str'."""
    if not isinstance(value, (bool, np.bool_)) and not (
        isinstance(value, (int, np.integer)) and value in (0, 1)
    ):
        raise TypeError(f"{what} must be True or False, got {shown(value)}")
    return bool(value)


def finite(what: str, value: Any) -> float:
    """Return `value` as a float, or raise ValueError: 'Adam: epsilon must be finite and not negative, got -1'."""
    checked = number(what, value)
    if not (math.isfinite(checked) and checked >= 0.0):
        raise ValueError(f"{what} must be finite and not negative, got {checked:g}")
    return checked


def share(what: str, value: Any, below_one: bool = False) -> float:
    """Return `value` as a float, or raise ValueError: 'Dropout: rate must be in [0, 1), got 1.5'."""
    checked = number(what, value)
    if not (0.0 <= checked < 1.0 or (checked == 1.0 and not below_one)):
        raise ValueError(f"{what} must be in [0, 1{')' if below_one else ']'}, got {value}")
    return checked


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64 as a dtype; anything else is a TypeError."""
    try:
        resolved = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be float32 or float64, got {dtype!r}") from None
    if resolved not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype must be float32 or float64, got {resolved}")
    return resolved


def sample_shape(shape: Any) -> tuple[int, ...]:
    """Return the shape of one sample as a tuple of positive lengths."""
    try:
        return tuple(positive_integer("a length", length) for length in shape)
    except (TypeError, ValueError):
        hint = f"; write ({shape},)" if isinstance(shape, int) and shape > 0 else ""
        raise ValueError(
            "the shape of one sample is a tuple of positive integers without the batch axis, "
            f"such as (784,); got {_brief(shape)}{hint}"
        ) from None


def batch_shape(shape: tuple[int | None, ...]) -> str:
    """Return the shape in words, with 'batch' as its first axis."""
    return f"({', '.join(['batch', *(str(n) for n in shape[1:])])}{',' if len(shape) == 1 else ''})"


def integers(what: str, value: Any) -> tuple[int, ...]:
    """Return an integer, or a sequence of them, as a tuple of ints, or raise TypeError."""
    given = value if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) else [value]
    return tuple(integer(f"each of {what}" if given is value else what, one) for one in given)


def as_array(name: str, given: Any) -> NDArray[Any]:
    """Return what is given as an array, or raise ValueError if its rows differ in length or cannot be one.

    A masked array is a TypeError: what its mask hides would be computed with.
    """
    parts = given if isinstance(given, (list, tuple)) else (given,)
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        what = name.rpartition(" ")[2] if given is parts[0] else ""
        raise TypeError(
            f"{name} {'is' if given is parts[0] else 'has'} a masked array, and masks are not supported; "
            f"fill it first with {what if what.isidentifier() else 'its '}.filled(value)"
        )
    try:
        return np.asarray(given)
    except (ValueError, TypeError) as error:
        if isinstance(given, Sequence):
            raise ValueError(f"{name} must be one array, got {_parts(given)}") from error  # noqa: TRY004
        raise ValueError(f"{name} must be an array, got {shown(given)}") from error


def as_numbers(name: str, given: Any, instead_of_text: str = "") -> NDArray[Any]:
    """Return what is given as an array of real numbers, or raise TypeError, ValueError as `as_array` does.

    `instead_of_text`: what to do where it is text, for the end of the message.
    """
    found = as_array(name, given)
    if found.dtype.kind in "buif":
        return found
    text = next((one for one in found.reshape(-1)[:1000].tolist() if isinstance(one, (str, bytes))), None)
    hint = ""
    if found.ndim == 0:
        got = shown(given)
    elif text is not None or found.dtype.kind in "US":
        got = f"text such as {_brief(text)}" if text is not None else "text"
        hint = f"; {instead_of_text}" if instead_of_text else ""
    else:
        got = f"dtype {found.dtype}"
        if found.dtype.kind == "O":
            hint = f"; if all are numbers, give np.asarray({name}, float)"
        elif found.dtype.kind == "c":
            hint = f"; give {name}.real and {name}.imag side by side"
    raise TypeError(f"{name} must be an array of numbers, got {got}{hint}")


def _parts(given: Sequence[Any]) -> str:
    """Say what a sequence that is no array consists of."""
    kind = type(given).__name__
    if any(hasattr(part, "shape") for part in given):
        shapes = ", ".join(str(getattr(part, "shape", type(part).__name__)) for part in given[:4])
        return f"a {kind} of {len(given)} with the shapes {shapes}{', ...' if len(given) > 4 else ''}"
    lengths = {len(part) for part in given if isinstance(part, Sequence)}
    if len(lengths) > 1:
        return f"a {kind} whose rows differ in length: {min(lengths)} and {max(lengths)}; make them equal"
    return f"a {kind} whose rows differ in length; make them equal"
