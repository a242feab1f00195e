"""`Callback`, and `CallbackList`, which is several as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from normkit._checks import shown
from normkit._repr import Described

if TYPE_CHECKING:
    from normkit.models.sequential import Sequential

__all__ = ["HOOKS", "Callback", "CallbackList", "Logs"]

Logs = dict[str, Any] | None

HOOKS = (
    *(
        f"on_{what}_{when}"
        for what in ("train", "test", "predict", "epoch", "train_batch", "test_batch", "predict_batch")
        for when in ("begin", "end")
    ),
    "on_train_interrupt",
)

# Keras's older names, called by default by the newer ones.
_ALIASES = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}


class Callback(Described):
    """Base of the callbacks: every hook does nothing.

    Set ``self.model.stop_training = True`` to end training after this batch. Logs of a batch are the
    means since the start of the epoch. What a callback adds to the logs of an epoch, those after it see.

    Attributes
    ----------
    model : Sequential
        The model at work.
    params : dict
        'verbose', 'epochs' and 'steps' (batches per epoch).
    comes_last : bool
        Whether it is called after all others, wherever it is in a list. Of the class.
    writes : bool
        Whether it prints or writes files, so that of several ranks only the first calls its hooks. Of the class.
    """

    model: Sequential
    params: dict[str, Any]
    comes_last: bool = False
    writes: bool = False

    @property
    def state_label(self) -> str:
        """What tells it apart from others of its class in a backup: the file that it writes, the number it watches."""
        return ""

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

    def on_train_interrupt(self, logs: Logs = None) -> None:
        """After Ctrl-C, when `fit` is about to be left at a place from which it can go on."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Start of an epoch, counted from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """End of an epoch and its validation, whose logs start with 'val_'."""

    def on_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Older name of `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Older name of `on_train_batch_end`."""

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before a training step; batches are counted from 0 in each epoch."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After a training step."""
        self.on_batch_end(batch, logs)

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

    def say(self, message: str) -> None:
        """Print a message, on the first rank."""
        if self.model.is_first_rank:
            print(message, flush=True)

    def close(self) -> None:
        """Let go of files and displays. Called when `fit`, `evaluate` or `predict` is left, also by an error."""

    def get_state(self) -> dict[str, Any]:
        """Return what `BackupAndRestore` keeps of this callback: numbers, strings, arrays, lists and dicts."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `get_state` returned; called after `on_train_begin`. After an error nothing has changed."""


class CallbackList(Callback):
    """Several callbacks as one. A hook that nobody overrides costs nothing.

    Leaving it as a context manager, in whatever way, closes all.

    Parameters
    ----------
    callbacks : Callback or iterable of Callback, optional
        Called in this order, those that `comes_last` last.
    add_history, add_progbar : bool, default False
        Append a `History`, a `ProgbarLogger`, if there is none.
    model : Sequential, optional
        Told to each.
    **params
        Told to each: 'verbose', 'epochs', 'steps'.

    Raises
    ------
    TypeError
        If one is not a `Callback`.
    """

    def __init__(
        self,
        callbacks: Callback | Iterable[Callback] | None = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Sequential | None = None,
        **params: Any,
    ) -> None:
        from normkit.callbacks.history import History
        from normkit.callbacks.progress import ProgbarLogger

        if isinstance(callbacks, CallbackList):
            callbacks = list(callbacks.callbacks)
        if callbacks is not None and not isinstance(callbacks, Iterable):
            callbacks = [callbacks]
        self.callbacks: list[Callback] = [] if callbacks is None else list(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"callbacks must be instances of Callback, got {shown(callback)}")
        for kind, wanted in ((History, add_history), (ProgbarLogger, add_progbar)):
            if wanted and not any(isinstance(callback, kind) for callback in self.callbacks):
                self.callbacks.append(kind())
        self.callbacks.sort(key=lambda callback: callback.comes_last)
        first = model is None or model.is_first_rank
        self._calls = {
            hook: [
                getattr(callback, hook)
                for callback in self.callbacks
                if _overrides(callback, hook) and (first or not callback.writes)
            ]
            for hook in HOOKS
        }
        for hook in HOOKS:
            setattr(self, hook, _Together(self._calls[hook], "epoch" in hook or "batch" in hook))
        if model is not None:
            self.set_model(model)
        self.set_params(params)

    def _arguments(self) -> dict[str, Any]:
        return {"callbacks": self.callbacks}

    def set_model(self, model: Sequential) -> None:
        """Tell the model to each."""
        self.model = model
        for callback in self.callbacks:
            callback.set_model(model)

    def set_params(self, params: dict[str, Any]) -> None:
        """Tell the parameters to each."""
        self.params = params
        for callback in self.callbacks:
            callback.set_params(params)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close each."""
        for callback in self.callbacks:
            callback.close()

    def listens(self, hook: str) -> bool:
        """Whether any callback overrides this hook."""
        return bool(self._calls[hook])


class _Together:
    """Calls the hooks of several callbacks. Each gets logs, as a hook may well have no default for them."""

    def __init__(self, functions: list[Any], has_index: bool) -> None:
        self._functions = functions
        self._has_index = has_index

    def __call__(self, *args: Any, logs: Logs = None) -> None:
        if len(args) == self._has_index:
            args = (*args, {} if logs is None else logs)
        for function in self._functions:
            function(*args)


def _overrides(callback: Callback, hook: str) -> bool:
    names = (hook, _ALIASES[hook]) if hook in _ALIASES else (hook,)
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(Callback, name) for name in names
    )
