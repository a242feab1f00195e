"""Whether a saved state is of the same kind as the one that it is to replace, checked before anything is replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["check_alike", "is_foreign"]


def check_alike(what: str, saved: Any, ours: Any, optional: bool = True, grows: bool = False) -> None:
    """Raise ValueError if a saved state is of another kind than ours.

    Numbers take the place of numbers, text of text, and an array that of one of its shape; one of a single element becomes
    any vector when something is added to it. A dict has all that ours has. What is None or empty in ours may be anything:
    it has no value yet.

    Parameters
    ----------
    what : str
        What the state is of, for the message: 'metrics'.
    saved, ours : None, bool, int, float, str, ndarray, or lists and dicts of these
        The states.
    optional : bool, default True
        Whether None may take the place of anything.
    grows : bool, default False
        Whether an array may take the place of a number, to which somebody else's class may have added it.
    """
    if (
        ours is None
        or (saved is None and optional)
        or (isinstance(ours, (list, tuple, Mapping)) and not ours)
    ):
        return
    if isinstance(ours, Mapping) and isinstance(saved, Mapping):
        for name, part in ours.items():
            if name not in saved:
                raise ValueError(f"{what} has no '{name}'")
            check_alike(f"{what}/{name}", saved[name], part, optional, grows)
    elif isinstance(ours, (list, tuple)) and isinstance(saved, (list, tuple)):
        for index, part in enumerate(saved):
            check_alike(f"{what}/{index}", part, ours[min(index, len(ours) - 1)], optional, grows)
    elif _kind(saved) != _kind(ours) and not (isinstance(saved, np.ndarray) and _takes(ours, saved, grows)):
        raise ValueError(f"{what} must be {_kind(ours)}, got {_kind(saved)}")


def _takes(ours: Any, saved: NDArray[Any], grows: bool) -> bool:
    """Whether ours can become this array when something is added to it."""
    if isinstance(ours, np.ndarray):
        return ours.shape == (1,) and saved.ndim == 1
    return grows and _kind(ours) == "a number"


def is_foreign(item: object) -> bool:
    """Whether an object is of somebody else's class, of whose state little is known."""
    return not type(item).__module__.startswith("normkit.")


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, (bool, int, float, np.generic)):
        return "a number"
    if isinstance(value, Mapping):
        return "a dict"
    return "text" if isinstance(value, str) else "nothing" if value is None else "a list"
