"""`MonitorCallback`: base of the callbacks that watch one number of the logs."""

from __future__ import annotations

import math
import warnings
from typing import Any

from normkit._checks import number, shown
from normkit._names import did_you_mean
from normkit.callbacks.base import Callback, Logs

__all__ = ["MonitorCallback"]


class MonitorCallback(Callback):
    """Watches one number of the logs, and knows which way is better.

    Parameters
    ----------
    monitor : str
        Its name in the logs, such as 'val_loss' or 'accuracy'.
    mode : {"auto", "min", "max"}
        Whether less or more is better; "auto": less for the loss, else as the metric of that name says.
    baseline : float, optional
        The best value to begin with.
    min_delta : float, default 0
        Less of a change is no improvement.

    Raises
    ------
    ValueError
        If `mode` is none of these; in training if it is "auto" and no metric with a direction has that name.
    """

    def __init__(
        self, monitor: str, mode: str = "auto", baseline: float | None = None, min_delta: float = 0.0
    ) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"{type(self).__name__}: mode must be 'auto', 'min' or 'max', got {mode!r}")
        if not isinstance(monitor, str):
            raise TypeError(
                f"{type(self).__name__}: monitor must be a name of the logs, such as 'val_loss', got {shown(monitor)}"
            )
        self.monitor = monitor
        self.mode = mode
        self.baseline = self.best = baseline
        self.min_delta = abs(number(f"{type(self).__name__}: min_delta", min_delta))
        self._warned = False

    @property
    def state_label(self) -> str:
        """See `Callback.state_label`."""
        return self.monitor

    def monitored(self, logs: Logs) -> float | None:
        """Return the number, or None with a warning, the first time, if the logs do not have it."""
        logs = logs or {}
        if self.monitor in logs:
            return float(logs[self.monitor])
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{type(self).__name__}: monitor='{self.monitor}' is not in the logs, which have "
                f"{', '.join(logs) or 'nothing'}; nothing is done in such an epoch{did_you_mean(self.monitor, logs)}",
                stacklevel=2,
            )
        return None

    def is_better(self, value: float, reference: float | None) -> bool:
        """Whether `value` is better than `reference` by more than `min_delta`; anything is better than NaN or None."""
        more = self._more_is_better()
        if reference is None or math.isnan(reference):
            return True
        return value - self.min_delta > reference if more else value + self.min_delta < reference

    def _more_is_better(self) -> bool:
        if self.mode != "auto":
            return self.mode == "max"
        name = self.monitor.removeprefix("val_")
        direction = "down" if name == "loss" else self.model.metric_direction(name)
        if direction is None:
            raise ValueError(
                f"{type(self).__name__}: whether more or less of '{self.monitor}' is better cannot be told from its "
                "name; pass mode='max' or mode='min'"
            )
        return direction == "up"

    def get_state(self) -> dict[str, Any]:
        """See `Callback.get_state`."""
        return {"best": self.best}

    def set_state(self, state: Any) -> None:
        """See `Callback.set_state`."""
        self.best = None if state["best"] is None else float(state["best"])
