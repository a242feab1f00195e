"""`History`, which `fit` returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normkit.callbacks.base import Callback, Logs

__all__ = ["History"]


class History(Callback):
    """The logs of all epochs; `fit` returns one.

    Attributes
    ----------
    history : dict of str to list of float
        'loss', each metric by its name, the same with 'val_' in front, and what callbacks added.
    epoch : list of int
        The epochs that were trained.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def _state(self) -> dict[str, Any]:
        last = {name: values[-1] for name, values in self.history.items() if values}
        return {"epochs": max(map(len, self.history.values()), default=0), **last}

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start a new list of epochs."""
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Append the logs of the epoch."""
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)

    def get_state(self) -> dict[str, Any]:
        """See `Callback.get_state`."""
        return {
            "history": {name: list(values) for name, values in self.history.items()},
            "epoch": list(self.epoch),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See `Callback.set_state`."""
        history = {name: list(values) for name, values in state["history"].items()}
        self.history, self.epoch = history, list(state["epoch"])
