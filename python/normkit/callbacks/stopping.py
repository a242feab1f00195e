"""What ends training: `EarlyStopping`, `TerminateOnNaN`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from normkit._checks import flag, whole
from normkit.callbacks.base import Callback, Logs
from normkit.callbacks.monitor import MonitorCallback

__all__ = ["EarlyStopping", "TerminateOnNaN"]


class EarlyStopping(MonitorCallback):
    """Ends training when a monitored number has stopped improving.

    Parameters
    ----------
    monitor : str, default 'val_loss'
        Name in the logs.
    min_delta : float, default 0
        Less of a change is no improvement.
    patience : int, default 0
        Epochs without improvement after which training ends.
    verbose : {0, 1}
        1: say so.
    mode : {"auto", "min", "max"}
        Whether less or more is better.
    baseline : float, optional
        Epochs that do not improve on it count as without improvement.
    restore_best_weights : bool, default False
        At the end of training, give the model the weights and moving statistics of the best epoch, whether or not it
        was better than `baseline`.
    start_from_epoch : int, default 0
        Epochs before this one do not count.

    Attributes
    ----------
    stopped_epoch : int
        The epoch, from 0, after which training was ended; 0 if it was not.
    best_epoch : int
        The best one, from 0.
    best : float or None
        The number then.
    best_weights : list of ndarray or None
        The weights then, with `restore_best_weights`.

    Raises
    ------
    ValueError
        See `MonitorCallback`; if `patience` or `start_from_epoch` is negative or no integer.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        self.patience = whole("EarlyStopping: patience", patience)
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = flag(f"{type(self).__name__}: restore_best_weights", restore_best_weights)
        self.start_from_epoch = whole("EarlyStopping: start_from_epoch", start_from_epoch)
        self._reset()

    def _reset(self) -> None:
        self.wait = 0
        self.stopped_epoch = 0
        self.best = None
        self.best_epoch = 0
        self.best_weights: list[NDArray[Any]] | None = None
        self._best_states: list[dict[str, Any]] = []

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start anew."""
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Compare, and end training if patience is over."""
        current = self.monitored(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self._keep(epoch)
        self.wait += 1
        if self.is_better(current, self.best):
            self.best = current
            self._keep(epoch)
            if self.baseline is None or self.is_better(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def _keep(self, epoch: int) -> None:
        self.best_epoch = epoch
        if self.restore_best_weights:
            self.best_weights = self.model.get_weights()
            self._best_states = [layer.get_state() for layer in self.model.layers]

    def on_train_end(self, logs: Logs = None) -> None:
        """Give the model its best weights."""
        if self.stopped_epoch > 0 and self.verbose:
            self.say(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose:
                self.say(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.")
            self.model.set_weights(self.best_weights)
            for layer, state in zip(self.model.layers, self._best_states, strict=True):
                layer.set_state(state)

    def get_state(self) -> dict[str, Any]:
        """See `Callback.get_state`."""
        return {
            **super().get_state(),
            "wait": self.wait,
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
            "best_states": self._best_states,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See `Callback.set_state`."""
        wait, epoch, weights, states = (
            state[name] for name in ("wait", "best_epoch", "best_weights", "best_states")
        )
        shapes, ours = ([w.shape for w in one or ()] for one in (weights, self.model.weights))
        if shapes and shapes != ours:
            raise ValueError(
                f"the best weights of EarlyStopping have the shapes {shapes}, the model's {ours}"
            )
        super().set_state(state)
        self.wait, self.best_epoch = int(wait), int(epoch)
        self.best_weights, self._best_states = weights, states


class TerminateOnNaN(Callback):
    """Ends training when the loss is NaN or infinite.

    Parameters
    ----------
    raise_error : bool, default False
        Raise RuntimeError instead, which leaves the model as it is and calls no other hook.
    """

    def __init__(self, raise_error: bool = False) -> None:
        self.raise_error = flag("TerminateOnNaN: raise_error", raise_error)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Look at the loss."""
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        if self.raise_error:
            raise RuntimeError(
                f"TerminateOnNaN: the loss is {loss} after batch {batch}; a smaller learning rate, clipnorm, or data "
                "without NaN may help"
            )
        self.say(f"Batch {batch}: Invalid loss, terminating training")
        self.model.stop_training = True
