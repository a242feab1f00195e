"""Whether a saved state is of the same kind as the one that it is to replace, checked before anything is replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["check_alike"]


def check_alike(what: str, saved: Any, ours: Any, optional: bool = True) -> None:
    """Raise ValueError if a saved state is of another kind than ours.

    Numbers take the place of numbers, text of text, and an array that of one of its shape, or of a number that nothing was
    added to; a dict has all that ours has. What is None or empty in ours may be anything: it has no value yet.

    Parameters
    ----------
    what : str
        What the state is of, for the message: 'metrics'.
    saved, ours : None, bool, int, float, str, ndarray, or lists and dicts of these
        The states.
    optional : bool, default True
        Whether None may take the place of anything.
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
            check_alike(f"{what}/{name}", saved[name], part, optional)
    elif isinstance(ours, (list, tuple)) and isinstance(saved, (list, tuple)):
        for index, part in enumerate(saved):
            check_alike(f"{what}/{index}", part, ours[min(index, len(ours) - 1)], optional)
    elif _kind(saved) != _kind(ours) and not (_kind(ours) == "a number" and isinstance(saved, np.ndarray)):
        raise ValueError(f"{what} must be {_kind(ours)}, got {_kind(saved)}")


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, (bool, int, float, np.generic)):
        return "a number"
    if isinstance(value, Mapping):
        return "a dict"
    return "text" if isinstance(value, str) else "nothing" if value is None else "a list"
