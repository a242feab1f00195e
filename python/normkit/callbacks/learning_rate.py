"""What changes the learning rate: `ReduceLROnPlateau`, `LearningRateScheduler`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from normkit._checks import finite, share, whole
from normkit.callbacks.base import Callback, Logs
from normkit.callbacks.monitor import MonitorCallback

__all__ = ["LearningRateScheduler", "ReduceLROnPlateau"]


class ReduceLROnPlateau(MonitorCallback):
    """Lowers the learning rate when a monitored number has stopped improving.

    The logs, and so the history, get a 'learning_rate'.

    Parameters
    ----------
    monitor : str, default 'val_loss'
        Name in the logs.
    factor : float, default 0.1
        The new learning rate is the old one times this; below 1.
    patience : int, default 10
        Epochs without improvement after which it is lowered.
    verbose : {0, 1}
        1: say so.
    mode : {"auto", "min", "max"}
        Whether less or more is better.
    min_delta : float, default 1e-4
        Less of a change is no improvement.
    cooldown : int, default 0
        Epochs after a change that do not count.
    min_lr : float, default 0
        It is never lower.

    Raises
    ------
    ValueError
        See `MonitorCallback`; if `factor`, `patience`, `cooldown` or `min_lr` is out of range.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        self.factor = share("ReduceLROnPlateau: factor", factor, below_one=True)
        self.patience = whole("ReduceLROnPlateau: patience", patience)
        self.verbose = verbose
        self.cooldown = whole("ReduceLROnPlateau: cooldown", cooldown)
        self.min_lr = finite("ReduceLROnPlateau: min_lr", min_lr)
        self.wait = self.cooldown_counter = 0

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start anew."""
        self.best = None
        self.wait = self.cooldown_counter = 0

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Compare, and lower the learning rate if patience is over."""
        logs = {} if logs is None else logs
        rate = logs["learning_rate"] = self.model.optimizer.learning_rate
        current = self.monitored(logs)
        if current is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.is_better(current, self.best):
            self.best = current
            self.wait = 0
        elif self.cooldown_counter == 0:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                lower = self.model.optimizer.learning_rate = max(rate * self.factor, self.min_lr)
                self.cooldown_counter = self.cooldown
                self.wait = 0
                if self.verbose:
                    self.say(f"Epoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {lower}.")

    def get_state(self) -> dict[str, Any]:
        """See `Callback.get_state`."""
        return {**super().get_state(), "wait": self.wait, "cooldown_counter": self.cooldown_counter}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See `Callback.set_state`."""
        super().set_state(state)
        self.wait, self.cooldown_counter = int(state["wait"]), int(state["cooldown_counter"])


class LearningRateScheduler(Callback):
    """Sets the learning rate at the start of each epoch; the logs, and so the history, get a 'learning_rate'.

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch, learning_rate)``, or ``schedule(epoch)``, with the epoch from 0 and the present rate, returns
        the new rate as a float.
    verbose : {0, 1}
        1: say so.

    Raises
    ------
    TypeError
        If `schedule` is not callable; in training, if it returns something else than a float.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        if not callable(schedule):
            raise TypeError(
                "LearningRateScheduler: schedule must be a function of epoch and learning rate, "
                f"got {type(schedule).__name__}"
            )
        self.schedule = schedule
        self.verbose = verbose
        self._takes_rate = _takes_two(schedule)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Set the learning rate."""
        optimizer = self.model.optimizer
        arguments = (epoch, optimizer.learning_rate) if self._takes_rate else (epoch,)
        rate = self.schedule(*arguments)
        if not isinstance(rate, (float, np.floating)):
            raise TypeError(
                f"LearningRateScheduler: schedule must return a float, got {rate!r} of type {type(rate).__name__}"
            )
        optimizer.learning_rate = float(rate)
        if self.verbose:
            self.say(f"Epoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}.")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Add the learning rate to the logs."""
        if logs is not None:
            logs["learning_rate"] = self.model.optimizer.learning_rate


def _takes_two(function: Callable[..., Any]) -> bool:
    """Whether a function can be called with two positional arguments."""
    try:
        inspect.signature(function).bind(0, 0.0)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True
