"""`TrainingRun`: one `fit`, where it is, and what it takes to go on from there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normkit.callbacks import CallbackList
from normkit.data.minibatches import MiniBatches
from normkit.models.interrupt import StepGuard

if TYPE_CHECKING:
    from normkit.models.sequential import Sequential

__all__ = ["Stream", "TrainingRun", "Validation"]

Array = NDArray[Any]


class Validation(NamedTuple):
    """What to validate on, how many batches of it, and after which epochs, counted from 1."""

    batches: MiniBatches
    steps: int | None
    every: int | frozenset[int]

    def is_due(self, epoch: int) -> bool:
        """Whether this epoch, counted from 0, is validated."""
        done = epoch + 1
        return done % self.every == 0 if isinstance(self.every, int) else done in self.every


class Stream:
    """The batches of `MiniBatches`, pass after pass, which knows where it is.

    Parameters
    ----------
    batches : MiniBatches
        Draw their order from `rng`.
    rng : Generator
        That of the model.
    """

    def __init__(self, batches: MiniBatches, rng: np.random.Generator) -> None:
        self._batches = batches
        self._rng = rng
        self._pass: Iterator[tuple[Array, ...]] = iter(())
        self._before = rng.bit_generator.state
        self._position = len(batches)

    def take(self, count: int) -> Iterator[tuple[Array, ...]]:
        """Yield the next `count` batches."""
        for _ in range(count):
            if self._position >= len(self._batches):
                self._start()
            batch = next(self._pass)
            self._position += 1
            yield batch

    def _start(self) -> None:
        self._before = self._rng.bit_generator.state
        self._pass = iter(self._batches)
        self._position = 0

    def get_state(self) -> dict[str, Any]:
        """Return where it is: the generator before the pass, and batches of it that are over."""
        return {"before": self._before, "position": self._position, "length": len(self._batches)}

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError if a state is of other batches."""
        if state["length"] != len(self._batches):
            raise ValueError(
                f"it was made with {state['length']} batches per pass through the data, and there are "
                f"{len(self._batches)} now; call fit with the same data and batch_size, or remove it"
            )

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go there. The generator is left as it was after the order of the pass was drawn."""
        self._rng.bit_generator.state = state["before"]
        self._start()
        self._position = len(list(islice(self._pass, state["position"])))


class TrainingRun:
    """The epochs of one `fit`.

    Parameters
    ----------
    model : Sequential
        Compiled and built.
    stream : Stream
        What to train on.
    epochs : range
        Which epochs.
    steps : int
        Batches of an epoch.
    validation : Validation, optional
        What to validate on.
    listeners : CallbackList
        What is told.
    """

    def __init__(
        self,
        model: Sequential,
        stream: Stream,
        epochs: range,
        steps: int,
        validation: Validation | None,
        listeners: CallbackList,
    ) -> None:
        self._model = model
        self._compiled = model.require_compiled("fit")
        self._stream = stream
        self._epoch, self._end = epochs.start, epochs.stop
        self._batch = 0
        self._steps = steps
        self._validation = validation
        self._listeners = listeners

    def go(self) -> None:
        """Train."""
        model, listeners = self._model, self._listeners
        model.stop_training = False
        logs: dict[str, float] = {}
        listeners.on_train_begin()
        while self._epoch < self._end and not model.stop_training:
            epoch = self._epoch
            listeners.on_epoch_begin(epoch)
            logs = self._train_epoch()
            if self._validation is not None and self._validation.is_due(epoch):
                batches, steps, _ = self._validation
                val_logs = model.run_test(batches, listeners, steps)
                logs |= {f"val_{name}": value for name, value in val_logs.items()}
            self._epoch, self._batch = epoch + 1, 0
            listeners.on_epoch_end(epoch, logs)
        self._compiled.optimizer.finalize()
        listeners.on_train_end(logs)

    def _train_epoch(self) -> dict[str, float]:
        compiled, listeners = self._compiled, self._listeners
        wants_logs = listeners.listens("on_train_batch_end")
        if self._batch == 0:
            compiled.reset_metrics()
        with StepGuard() as guard:
            for batch in self._stream.take(self._steps - self._batch):
                listeners.on_train_batch_begin(self._batch)
                guard.begin()
                compiled.train_step(*batch)
                guard.end()
                self._batch += 1
                if wants_logs:
                    listeners.on_train_batch_end(self._batch - 1, compiled.logs())
                if self._model.stop_training:
                    break
        return compiled.logs()

    def get_state(self) -> dict[str, Any]:
        """Return where it is, and the state of the metrics and of the callbacks."""
        return {
            "epoch": self._epoch,
            "batch": self._batch,
            "stream": self._stream.get_state(),
            "metrics": self._compiled.metrics_state(),
            "callbacks": [
                {"class_name": type(callback).__name__, "state": callback.get_state()}
                for callback in self._listeners.callbacks
            ],
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError if a state is of other batches or metrics."""
        self._stream.check_state(state["stream"])
        ours, theirs = (sorted(metrics) for metrics in (self._compiled.metrics_state(), state["metrics"]))
        if ours != theirs:
            raise ValueError(
                f"it was made with the metrics {', '.join(theirs)}, and there are {', '.join(ours)} now"
            )

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go there; callbacks take over the state of those of the same class at the same place."""
        self._stream.set_state(state["stream"])
        self._compiled.set_metrics_state(state["metrics"])
        for callback, saved in zip(self._listeners.callbacks, state["callbacks"], strict=False):
            if type(callback).__name__ == saved["class_name"]:
                callback.set_state(saved["state"])
        self._epoch, self._batch = state["epoch"], state["batch"]
