"""`Sequential`: the model of the Keras tutorials, trained by mini-batches on NumPy arrays."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple, overload

from numpy.typing import ArrayLike, NDArray

from normkit._checks import positive_integer, whole
from normkit.callbacks import Callback, CallbackList, History, progress
from normkit.data.minibatches import Last, MiniBatches
from normkit.models.evaluation import Model, Verbose, flattened, given_or_default
from normkit.models.inputs import as_samples, endless, split_validation
from normkit.models.interrupt import StepGuard
from normkit.models.saving import save_model
from normkit.models.summary import summary_lines

__all__ = ["Sequential"]

Array = NDArray[Any]


class _Validation(NamedTuple):
    batches: MiniBatches
    every: int


class Sequential(Model):
    """A stack of layers that learns from arrays, with the methods of Keras 3's class of that name.

    Where it differs from Keras 3 on purpose:

    - A batch with one value per channel moves the moving mean of a `BatchNormalization` and leaves its
      moving variance, for one value has no variance to tell; Keras takes 0.
    - ``fit(last=...)`` says what becomes of samples left over from full batches; Keras keeps them.
    - With `steps_per_epoch` the next epoch goes on in the data where this one stopped.
    - Logs and `History.history` have the loss first, then the metrics in the order of `compile`.

    Parameters
    ----------
    layers : iterable of Layer or Input, optional
        In order; more can be added with `add`. Weights are made at once if the first item is an `Input` or
        has an `input_shape`, otherwise at the first batch.
    name : str, optional
        Default: 'sequential'.
    seed : int, optional
        Of the one random generator for initial weights, shuffling and dropout: with the same seed, data and
        calls, the same weights come out.
    dtype : dtype, default float32
        float32 or float64.

    Examples
    --------
    >>> model = Sequential([Dense(64, input_shape=(784,)), BatchNormalization(), Dense(10, activation="softmax")])
    >>> model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    >>> history = model.fit(x, y, batch_size=32, epochs=5, validation_data=(xv, yv))
    """

    history: History | None = None
    stop_training: bool = False

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Verbose = "auto",
        callbacks: Iterable[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Sequence[ArrayLike] | None = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: ArrayLike | None = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        *,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        last: Last = "keep",
    ) -> History:
        """Train for some epochs.

        Everything is checked before the first step. Ctrl-C is held back until the end of a step, so it
        leaves a model that can be used, saved and trained further.

        Parameters
        ----------
        x : array_like, shape (samples, ...)
            Any real dtype; converted to the model's batch by batch.
        y : array_like, shape (samples, ...)
            Targets as the loss wants them.
        batch_size : int, optional
            Default: 32, or what `steps_per_epoch` implies.
        epochs, initial_epoch : int
            Epochs from initial_epoch up to, and without, epochs.
        verbose : "auto", 0, 1 or 2
            "auto" or 1: a progress bar if standard error is a terminal and tqdm is installed; 2: a line
            per epoch; 0: nothing.
        callbacks : iterable of Callback, optional
            See `normkit.callbacks`.
        validation_split : float, default 0.0
            Share of the samples, taken from the end before shuffling, to validate on.
        validation_data : (x, y) or (x, y, sample_weight), optional
            What to validate on; used instead of `validation_split`.
        shuffle : bool, default True
            A new order in each epoch.
        class_weight : mapping from label to float, optional
            Factor of the loss of each class; 1 if not named.
        sample_weight : array_like, shape (samples,), optional
            Factor of the loss of each sample.
        steps_per_epoch : int, optional
            Batches per epoch; the next epoch goes on where this one stopped.
        validation_batch_size : int, optional
            Default: batch_size.
        validation_freq : int, default 1
            Validate after every so many epochs.
        last : {"keep", "drop", "merge", "spread"}
            What becomes of samples left over from full batches; see `normkit.data.MiniBatches`.

        Returns
        -------
        History
            ``history.history['loss']``, ... with one value per epoch.

        Raises
        ------
        ValueError, TypeError
            If the model is not compiled, or an argument does not fit it.
        """
        compiled = self.require_compiled("fit")
        shown = progress(verbose)
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = split_validation(x, y, sample_weight, validation_split)
        samples = as_samples(compiled, x, y, sample_weight, class_weight)
        run = range(whole("fit: initial_epoch", initial_epoch), whole("fit: epochs", epochs))
        steps = None if steps_per_epoch is None else positive_integer("fit: steps_per_epoch", steps_per_epoch)
        if steps is not None and batch_size is None:
            batch_size = math.ceil(len(samples.x) / steps)
        size = given_or_default(batch_size)
        batches = MiniBatches(*samples.arrays, batch_size=size, shuffle=shuffle, seed=self.rng, last=last)
        validation = None
        if validation_data is not None:
            val_size = given_or_default(validation_batch_size, size)
            validation = self._validation(validation_data, val_size, validation_freq)
        compiled.prepare_training()
        self.history = History()
        params = {"verbose": verbose, "epochs": epochs, "steps": steps or len(batches)}
        with CallbackList([*shown, *(callbacks or ()), self.history], self, params) as listeners:
            self._run_epochs(run, batches, steps, validation, listeners)
        return self.history

    def _validation(self, data: Sequence[ArrayLike], batch_size: int, every: int) -> _Validation:
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            raise ValueError("validation_data must be (x, y) or (x, y, sample_weight)")
        samples = as_samples(self.require_compiled("fit"), *data)
        batches = MiniBatches(*samples.arrays, batch_size=batch_size, shuffle=False)
        return _Validation(batches, positive_integer("fit: validation_freq", every))

    def _run_epochs(
        self,
        epochs: range,
        batches: MiniBatches,
        steps: int | None,
        validation: _Validation | None,
        listeners: CallbackList,
    ) -> None:
        compiled = self.require_compiled("fit")
        stream = endless(batches)
        self.stop_training = False
        logs: dict[str, float] = {}
        listeners.call("on_train_begin")
        for epoch in epochs:
            listeners.call("on_epoch_begin", epoch)
            compiled.reset_metrics()
            logs = self._train_epoch(batches if steps is None else islice(stream, steps), listeners)
            if validation is not None and (epoch + 1) % validation.every == 0:
                val_logs = self.run_test(validation.batches, listeners)
                logs |= {f"val_{name}": value for name, value in val_logs.items()}
            listeners.call("on_epoch_end", epoch, logs)
            if self.stop_training:
                break
        compiled.optimizer.finalize()
        listeners.call("on_train_end", logs)

    def _train_epoch(self, batches: Iterable[tuple[Array, ...]], listeners: CallbackList) -> dict[str, float]:
        compiled = self.require_compiled("fit")
        wants_logs = listeners.listens("on_train_batch_end")
        with StepGuard() as guard:
            for index, batch in enumerate(batches):
                listeners.call("on_train_batch_begin", index)
                guard.begin()
                compiled.train_step(*batch)
                guard.end()
                if wants_logs:
                    listeners.call("on_train_batch_end", index, compiled.logs())
                if self.stop_training:
                    break
        return compiled.logs()

    @overload
    def train_on_batch(
        self,
        x: ArrayLike,
        y: ArrayLike | None = ...,
        sample_weight: ArrayLike | None = ...,
        class_weight: Mapping[int, float] | None = ...,
        return_dict: Literal[False] = ...,
    ) -> float | list[float]: ...
    @overload
    def train_on_batch(
        self,
        x: ArrayLike,
        y: ArrayLike | None = ...,
        sample_weight: ArrayLike | None = ...,
        class_weight: Mapping[int, float] | None = ...,
        *,
        return_dict: Literal[True],
    ) -> dict[str, float]: ...
    def train_on_batch(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """Do one training step on this batch; return its loss and metrics, as `evaluate` does."""
        compiled = self.require_compiled("train_on_batch")
        samples = as_samples(compiled, x, y, sample_weight, class_weight)
        compiled.prepare_training()
        compiled.reset_metrics()
        compiled.train_step(*samples)
        return flattened(compiled.logs(), return_dict)

    def summary(self, print_fn: Callable[[str], object] | None = None) -> None:
        """Print a table of layers, output shapes and numbers of parameters.

        `print_fn` is called with each line; default: print.
        """
        state = self.compiled_state
        slots = [] if state is None else [a for flat in state.optimizer.slots.values() for a in flat]
        for line in summary_lines(self, [(a.size, a.nbytes) for a in slots]):
            (print_fn or print)(line)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to one file; see `normkit.models.save_model`."""
        save_model(self, path)
