"""`LambdaCallback`: hooks given as functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from normkit._names import choices
from normkit.callbacks.base import HOOKS, Callback

__all__ = ["LambdaCallback"]


class LambdaCallback(Callback):
    """A callback made of functions.

    Parameters
    ----------
    **hooks : callable, optional
        By the names of the hooks of `Callback`, and with their arguments:
        ``LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))``.

    Raises
    ------
    TypeError
        If there is no such hook, or one is not callable.
    """

    def __init__(self, **hooks: Callable[..., Any] | None) -> None:
        for name, function in hooks.items():
            if name not in (*HOOKS, "on_batch_begin", "on_batch_end"):
                raise TypeError(f"LambdaCallback: no hook '{name}'{choices(name, HOOKS)}")
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"LambdaCallback: {name} must be callable, got {type(function).__name__}")
            setattr(self, name, function)

    def _state(self) -> dict[str, Any]:
        return {name: function for name, function in vars(self).items() if name.startswith("on_")}
