"""`TrainingRun`: one `fit`, where it is, and what it takes to go on from there."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normkit._checks import whole
from normkit.callbacks import BackupAndRestore, Callback, CallbackList
from normkit.data.minibatches import MiniBatches
from normkit.models.alike import check_alike, is_foreign
from normkit.models.blas import blas_threads
from normkit.models.interrupt import Interrupts
from normkit.models.setup import Setup, differences, told

if TYPE_CHECKING:
    from normkit.models.sequential import Sequential

__all__ = ["Passes", "TrainingRun", "Validation"]

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


class Passes:
    """The batches of `MiniBatches`, pass after pass, which know where they are.

    Parameters
    ----------
    batches : MiniBatches
        Their number may be unknown.

    Attributes
    ----------
    length : int or None
        Batches of a pass, if that is known.
    batch_size : int
        Samples of a batch, as far as that is up to them.
    batches : MiniBatches
    """

    def __init__(self, batches: MiniBatches) -> None:
        self.batches = batches
        self._pass: Iterator[tuple[Array, ...]] | None = None
        self.length = batches.length
        self.batch_size = batches.batch_size

    def take(self, count: int | None) -> Iterator[tuple[Array, ...]]:
        """Yield the next `count` batches, or with None what is left of the pass."""
        taken = 0
        fresh = self._pass is None
        while count is None or taken < count:
            if self._pass is None:
                self._pass = iter(self.batches)
            batch = next(self._pass, None)
            if batch is None:
                self._pass = None
                if count is None:
                    return
                if fresh:
                    raise ValueError("x must have at least one batch, got none")
                fresh = True
                continue
            taken, fresh = taken + 1, False
            if (
                self.batches.position == self.length
            ):  # over, which it is to know before anyone asks where it is
                next(self._pass, None)
                self._pass = None
            yield batch
            if self._pass is None and count is None:
                return

    def close(self) -> None:
        """Leave the pass at work; a thread that reads ahead for it ends."""
        if isinstance(self._pass, Generator):
            self._pass.close()

    def get_state(self) -> dict[str, Any]:
        """Return where they are: see `MiniBatches.state_dict`."""
        return {"batches": self.batches.state_dict(), "length": self.length}

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError if a state is of other batches."""
        if state["length"] != self.length:
            raise ValueError(
                f"it was made with {state['length']} batches per pass through the data, and there are "
                f"{self.length} now; call fit with the same data and batch_size, or remove it"
            )

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go there. Of a pass that had begun the order is drawn at once, as it was."""
        self.batches.load_state_dict(state["batches"])
        self._pass = iter(self.batches) if self.batches.position else None


class TrainingRun:
    """The epochs of one `fit`.

    Parameters
    ----------
    model : Sequential
        Compiled and built.
    passes : Passes
        What to train on.
    epochs : range
        Which epochs.
    steps : int or None
        Batches of an epoch; None: as many as a pass has.
    validation : Validation, optional
        What to validate on.
    listeners : CallbackList
        What is told.
    setup : Setup
        What `fit` was called with.
    """

    def __init__(
        self,
        model: Sequential,
        passes: Passes,
        epochs: range,
        steps: int | None,
        validation: Validation | None,
        listeners: CallbackList,
        setup: Setup,
    ) -> None:
        self._model = model
        self._compiled = model.require_compiled("fit")
        self._passes = passes
        self._epoch, self._end = epochs.start, epochs.stop
        self._batch = 0
        self._steps = steps
        self._validation = validation
        self._listeners = listeners
        self._setup = setup
        self._interrupts = Interrupts()
        self._trained: dict[str, Any] | None = (
            None  # while it validates: the state of the metrics of the epoch
        )

    def go(self) -> None:
        """Train."""
        matrices = (w.value for w in self._model.trainable_weights if w.value.ndim == 2)
        with closing(self._passes), blas_threads(self._passes.batch_size, matrices), self._interrupts:
            try:
                self._train()
            except KeyboardInterrupt:
                # Several ranks would save at different places.
                if self._interrupts.resumable and self._compiled.distribution.comm.size == 1:
                    self._listeners.on_train_interrupt()
                raise

    def _train(self) -> None:
        model, listeners, distribution = self._model, self._listeners, self._compiled.distribution
        model.stop_training = False
        logs: dict[str, float] = {}
        if any(isinstance(callback, BackupAndRestore) for callback in listeners.callbacks):
            self._setup.look()
        listeners.on_train_begin()
        distribution.require_same("where training begins", (self._epoch, self._batch, self._end))
        while self._epoch < self._end and not model.stop_training:
            self._interrupts.check()
            epoch = self._epoch
            listeners.on_epoch_begin(epoch)
            logs = self._train_epoch()
            logs |= self._validate(epoch)
            self._epoch, self._batch = epoch + 1, 0
            listeners.on_epoch_end(epoch, logs)
            model.stop_training = distribution.any(model.stop_training)
            distribution.require_same("the state after an epoch", self._checksum())
        self._compiled.optimizer.finalize()
        listeners.on_train_end(logs)

    def _train_epoch(self) -> dict[str, float]:
        compiled, listeners, distribution = self._compiled, self._listeners, self._compiled.distribution
        wants_logs = distribution.any(listeners.listens("on_train_batch_end"))
        may_stop = distribution.any(wants_logs or listeners.listens("on_train_batch_begin"))
        batches = self._passes.take(None if self._steps is None else self._steps - self._batch)
        if self._batch == 0:
            compiled.reset_metrics()
        for batch in distribution.together(batches):
            listeners.on_train_batch_begin(self._batch)
            compiled.train_step(*batch)
            self._batch += 1
            if wants_logs:
                listeners.on_train_batch_end(self._batch - 1, compiled.logs())
            self._interrupts.check()
            if may_stop:
                self._model.stop_training = distribution.any(self._model.stop_training)
            if self._model.stop_training:
                break
        return compiled.logs()

    def _validate(self, epoch: int) -> dict[str, float]:
        if self._validation is None or not self._validation.is_due(epoch):
            return {}
        batches, steps, _ = self._validation
        self._trained = copy.deepcopy(self._compiled.metrics_state())
        with self._interrupts.allowed():
            logs = self._model.run_test(batches, self._listeners, steps)
        self._trained = None
        return {f"val_{name}": value for name, value in logs.items()}

    def _checksum(self) -> tuple[int, int]:
        """Tell apart ranks whose weights or generators have drifted from each other's."""
        if self._compiled.distribution.comm.size == 1:
            return 0, 0
        weights = 0
        for variable in self._model.weights:
            weights = zlib.crc32(np.ascontiguousarray(variable.value).data, weights)
        return weights, zlib.crc32(repr(self._model.rng.bit_generator.state).encode())

    def get_state(self) -> dict[str, Any]:
        """Return where it is, how it was called, and the state of the metrics and of the callbacks."""
        return {
            "epoch": self._epoch,
            "batch": self._batch,
            "passes": self._passes.get_state(),
            "metrics": self._trained or self._compiled.metrics_state(),
            "setup": self._setup.values,
            "callbacks": [
                {
                    "class_name": type(callback).__name__,
                    "name": callback.state_label,
                    "state": callback.get_state(),
                }
                for callback in self._listeners.callbacks
            ],
        }

    def compare(self, state: Mapping[str, Any], rate: float | None) -> tuple[str, list[tuple[str, str]]]:
        """Compare a state with this training; `rate` is the learning rate that it goes on with.

        Returns
        -------
        refusal : str
            Why the training must not go on from there; empty if it may.
        notes : list of (str, str)
            What is another than it was, though it can go on; and what becomes of that.
        """
        whole("epoch", state["epoch"])
        theirs, ours = state["setup"], self._setup.values
        decisive = differences(theirs["decisive"], ours["decisive"])
        if decisive:
            return (
                f"is the backup of another training: it was made with {told(decisive, 0)}, "
                f"now there is {told(decisive, 1)}; go on as before, or remove it to begin anew"
            ), []
        notes = []
        advisory = differences(theirs["advisory"], ours["advisory"])
        if ours["advisory"].get("learning_rate") == rate:  # as a callback has set it, in this process
            advisory.pop("learning_rate", None)
        if advisory:
            difference = f"was made with {told(advisory, 0)}, now there is {told(advisory, 1)}"
            going_on = (
                "; training goes on from the backup's epoch with the backup's learning rate, "
                "and with all else as it is now"
            )
            notes.append((difference, going_on))
        if state["epoch"] > self._end:
            done = state["epoch"]
            notes.append((f"is of a training of {done} epochs, which is more than epochs={self._end}", ""))
        _, new, lost = self._matched(state["callbacks"])
        if new:
            notes.append((f"has no state of {', '.join(new)}", ", which starts anew"))
        if lost:
            notes.append((f"has the state of {', '.join(lost)}, which is not among the callbacks now", ""))
        return "", notes

    def _matched(
        self, saved: Sequence[Mapping[str, Any]]
    ) -> tuple[list[tuple[Callback, Mapping[str, Any]]], list[str], list[str]]:
        """Find the state of each callback: of the same class and label, the first that is not taken.

        Returns
        -------
        pairs : list of (Callback, mapping)
            With their states.
        new, lost : list of str
            Names of callbacks that have a state and find none; of states that no callback takes.
        """
        left = list(saved)
        pairs: list[tuple[Callback, Mapping[str, Any]]] = []
        new = []
        for callback in self._listeners.callbacks:
            key = type(callback).__name__, callback.state_label
            found = next((one for one in left if (one["class_name"], one["name"]) == key), None)
            if found is not None:
                left.remove(found)
                pairs.append((callback, found["state"]))
            elif callback.get_state():
                new.append(_callback_name(*key))
        return pairs, new, [_callback_name(one["class_name"], one["name"]) for one in left if one["state"]]

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """If an error comes out of the body, this training and its callbacks are as before."""
        before = copy.deepcopy(self.get_state())
        try:
            yield
        except BaseException:
            self._go_to(before)
            raise

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError if a state is of other batches or metrics."""
        self._passes.check_state(state["passes"])
        ours, theirs = sorted(["loss", *self._compiled.metrics]), sorted(state["metrics"])
        if ours != theirs:
            raise ValueError(
                f"it was made with the metrics {', '.join(theirs)}, and there are {', '.join(ours)} now"
            )
        for name in ("epoch", "batch"):
            whole(name, state[name])
        for name, part in self._compiled.metrics_state().items():
            grows = name in self._compiled.metrics and is_foreign(self._compiled.metrics[name])
            check_alike(f"metrics/{name}", state["metrics"][name], part, optional=False, grows=grows)
        for callback, saved in self._matched(state["callbacks"])[0]:
            check_alike(type(callback).__name__, saved, callback.get_state(), grows=is_foreign(callback))

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go there; callbacks take over the state of those of the same class and label."""
        self.check_state(state)
        self._go_to(state)

    def _go_to(self, state: Mapping[str, Any]) -> None:
        self._passes.set_state(state["passes"])
        self._compiled.set_metrics_state(state["metrics"])
        for callback, saved in self._matched(state["callbacks"])[0]:
            callback.set_state(saved)
        self._epoch, self._batch = state["epoch"], state["batch"]


def _callback_name(class_name: str, label: str) -> str:
    return f"{class_name} '{label}'" if label else class_name
