"""Callbacks: what is told about training while it goes on, with Keras's hook names."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from normkit.models.sequential import Sequential

__all__ = ["Callback", "CallbackList", "History", "ProgressBar"]

Logs = dict[str, float] | None

HOOKS = tuple(
    f"on_{what}_{when}"
    for what in ("train", "test", "predict", "epoch", "train_batch", "test_batch", "predict_batch")
    for when in ("begin", "end")
)


class Callback:
    """Base of the callbacks: every hook does nothing.

    Set ``self.model.stop_training = True`` to end training after this batch. Logs of a batch are the
    means since the start of the epoch.

    Attributes
    ----------
    model : Sequential
        The model at work.
    params : dict
        'verbose', 'epochs' and 'steps' (batches per epoch).
    """

    model: Sequential
    params: dict[str, Any]

    def set_model(self, model: Sequential) -> None:
        """Remember the model; called before any hook."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Remember the parameters; called before any hook."""
        self.params = params

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start of `fit`."""

    def on_train_end(self, logs: Logs = None) -> None:
        """End of `fit`, with the logs of the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Start of an epoch, counted from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """End of an epoch and its validation, whose logs start with 'val_'."""

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before a training step; batches are counted from 0 in each epoch."""

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After a training step."""

    def on_test_begin(self, logs: Logs = None) -> None:
        """Start of `evaluate` or of a validation."""

    def on_test_end(self, logs: Logs = None) -> None:
        """End of `evaluate` or of a validation."""

    def on_test_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before a batch of `evaluate` or of a validation."""

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After a batch of `evaluate` or of a validation."""

    def on_predict_begin(self, logs: Logs = None) -> None:
        """Start of `predict`."""

    def on_predict_end(self, logs: Logs = None) -> None:
        """End of `predict`."""

    def on_predict_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before a batch of `predict`."""

    def on_predict_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After a batch of `predict`."""


class CallbackList:
    """Several callbacks as one. A hook that nobody overrides costs nothing.

    Leaving it as a context manager, in whatever way, closes an open progress bar.

    Parameters
    ----------
    callbacks : iterable of Callback
        Called in this order.
    model : Sequential
        Told to each.
    params : dict
        Told to each.

    Raises
    ------
    TypeError
        If one is not a `Callback`.
    """

    def __init__(self, callbacks: Iterable[Callback], model: Sequential, params: dict[str, Any]) -> None:
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"callbacks must be instances of Callback, got {callback!r}")
            callback.set_model(model)
            callback.set_params(params)
        self._calls = {
            hook: [getattr(callback, hook) for callback in self.callbacks if _overrides(callback, hook)]
            for hook in HOOKS
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for callback in self.callbacks:
            if isinstance(callback, ProgressBar):
                callback.close()

    def listens(self, hook: str) -> bool:
        """Whether any callback overrides this hook."""
        return bool(self._calls[hook])

    def call(self, hook: str, *arguments: Any) -> None:
        """Call this hook of every callback that overrides it."""
        for call in self._calls[hook]:
            call(*arguments)


def _overrides(callback: Callback, hook: str) -> bool:
    return getattr(getattr(callback, hook), "__func__", None) is not getattr(Callback, hook)


class History(Callback):
    """The logs of all epochs; `fit` returns one.

    Attributes
    ----------
    history : dict of str to list of float
        'loss', each metric by its name, and the same with 'val_' in front.
    epoch : list of int
        The epochs that were trained.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Append the logs of the epoch."""
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class ProgressBar(Callback):
    """A bar per epoch on the error stream, by tqdm; nothing if that is not installed."""

    def __init__(self) -> None:
        self._bar: Any = None

    @staticmethod
    def wanted(verbose: int | str) -> bool:
        """Whether `verbose` asks for a bar, standard error is a terminal, and tqdm is there."""
        return (
            verbose in ("auto", 1)
            and sys.stderr is not None
            and sys.stderr.isatty()
            and importlib.util.find_spec("tqdm") is not None
        )

    def _open(self, description: str) -> None:
        from tqdm import tqdm

        self.close()
        self._bar = tqdm(total=self.params["steps"], desc=description, unit="batch", dynamic_ncols=True)

    def _advance(self, logs: Logs) -> None:
        if logs:
            self._bar.set_postfix_str(format_logs(logs), refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Open a bar."""
        self._open(f"Epoch {epoch + 1}/{self.params['epochs']}")

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Advance by one batch."""
        self._advance(logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Show the logs of the epoch and of its validation."""
        self._bar.set_postfix_str(format_logs(logs or {}))
        self.close()

    def on_test_begin(self, logs: Logs = None) -> None:
        """Open a bar, unless that of an epoch is there."""
        if self._bar is None:
            self._open("Evaluate")

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Advance by one batch; in a validation the bar of the epoch is full and stays."""
        if self._bar.n < self._bar.total:
            self._advance(logs)

    def on_test_end(self, logs: Logs = None) -> None:
        """Close a bar of its own."""
        if self.params["epochs"] == 0:
            self.close()

    def on_predict_begin(self, logs: Logs = None) -> None:
        """Open a bar."""
        self._open("Predict")

    def on_predict_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Advance by one batch."""
        self._advance(logs)

    def on_predict_end(self, logs: Logs = None) -> None:
        """Close the bar."""
        self.close()


class EpochLines(Callback):
    """One printed line per epoch: what verbose=2 asks for."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Print the line."""
        seconds = time.perf_counter() - self._start
        print(f"Epoch {epoch + 1}/{self.params['epochs']} - {seconds:.2f}s - {format_logs(logs or {})}")


def format_logs(logs: Mapping[str, float]) -> str:
    """Return 'loss: 0.1234 - accuracy: 0.9876'."""
    return " - ".join(f"{name}: {value:.4f}" for name, value in logs.items())


def progress(verbose: int | str) -> list[Callback]:
    """Return the callbacks for Keras's `verbose`.

    "auto" or 1: a bar if standard error is a terminal; 2: a line per epoch; 0: nothing.
    """
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f"verbose must be 'auto', 0, 1 or 2, got {verbose!r}")
    if verbose == 2:
        return [EpochLines()]
    return [ProgressBar()] if ProgressBar.wanted(verbose) else []
