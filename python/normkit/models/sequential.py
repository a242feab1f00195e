"""`Sequential`: the model of the Keras tutorials, trained by mini-batches on NumPy arrays."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit._checks import flag, number, positive_integer, whole
from normkit._names import with_keyword_hints
from normkit._numerics import default_float_mode
from normkit.callbacks import CallbackList, History, ProgbarLogger
from normkit.callbacks.progress import check_verbose
from normkit.data.minibatches import Last
from normkit.models import saving
from normkit.models.evaluation import Callbacks, Model, Verbose, at_most, flattened, given_or_default
from normkit.models.inputs import Data, as_batch, as_samples, is_dataset, split_validation
from normkit.models.nonfinite import Watch
from normkit.models.setup import Setup
from normkit.models.state import share_state
from normkit.models.summary import summary_lines
from normkit.models.training import Passes, TrainingRun, Validation

__all__ = ["Sequential"]

Array = NDArray[Any]


class Sequential(Model):
    """A stack of layers that learns from arrays, with the methods of Keras 3's class of that name.

    Where it differs from Keras 3 on purpose:

    - A batch with one value per channel moves the moving mean of a `BatchNormalization` and leaves its
      moving variance, for one value has no variance to tell; Keras takes 0.
    - ``fit(last=...)`` says what becomes of samples left over from full batches; Keras keeps them.
    - With `steps_per_epoch` the next epoch goes on in the data where this one stopped.
    - Logs and `History.history` have the loss first, then the metrics in the order of `compile`.
    - Files have one format, whatever their ending; `BackupAndRestore` goes on to the bit, and restores the history.
    - ``compile(merge_statistics=True)`` merges the statistics of accumulated batches.

    Parameters
    ----------
    layers : iterable of Layer, Input or Sequential, optional
        In order; more can be added with `add`. Of another model all layers are taken, and shared with it. Weights are made at once if the first item is an `Input` or
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
    _run: TrainingRun | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the fit at work: a copy made by a callback is not training."""
        return {**vars(self), "_run": None}

    @default_float_mode()
    @with_keyword_hints
    def fit(
        self,
        x: Data,
        y: Data | None = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Verbose = "auto",
        callbacks: Callbacks = None,
        validation_split: float = 0.0,
        validation_data: Data | Sequence[Data] | None = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Data | None = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Collection[int] = 1,
        *,
        last: Last = "keep",
    ) -> History:
        """Train for some epochs.

        Everything is checked before the first step. Ctrl-C is held back until the end of a step, so it
        leaves a model that can be used, saved and trained further.

        Parameters
        ----------
        x : array_like, shape (samples, ...); or data of `normkit.data`, or an iterable of batches
            Any real dtype; converted to the model's batch by batch. A `MiniBatches`, `Stream` or iterable, such as
            a generator of (x, y), has the targets in it, and `MiniBatches` and iterables their own batches: batch_size,
            shuffle and last have then no say.
        y : array_like or Source, shape (samples, ...)
            Targets as the loss wants them.
        batch_size : int, optional
            Default: 32, or what `steps_per_epoch` implies.
        epochs, initial_epoch : int
            Epochs from initial_epoch up to, and without, epochs.
        verbose : "auto", 0, 1 or 2
            1: a progress bar, or where there is no terminal, notebook or tqdm a printed line per epoch; 2: such a
            line; 0: nothing; "auto": as 1 on a terminal or in a notebook, else nothing.
        callbacks : Callback or iterable of Callback, optional
            See `normkit.callbacks`.
        validation_split : float, default 0.0
            Share of the samples, taken from the end before shuffling, to validate on.
        validation_data : (x, y), (x, y, sample_weight), or what x can be, optional
            What to validate on; used instead of `validation_split`.
        shuffle : bool, default True
            A new order in each epoch.
        class_weight : mapping from label to float, optional
            Factor of the loss of each class; 1 if not named.
        sample_weight : array_like, shape (samples,) or (samples, 1), optional
            Factor of the loss of each sample.
        steps_per_epoch : int, optional
            Batches per epoch; the next epoch goes on where this one stopped. Default: as many as a pass through the
            data has.
        validation_steps : int, optional
            Validate on at most so many batches, the first ones.
        validation_batch_size : int, optional
            Default: batch_size.
        validation_freq : int or collection of int, default 1
            Validate after every so many epochs, or after these, counted from 1.
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
        with self.distribution.agreement():
            check_verbose(verbose)
            shuffle = flag("fit: shuffle", shuffle)
            if number("validation_split", validation_split) and validation_data is None:
                (x, y, sample_weight), validation_data = split_validation(
                    x, y, sample_weight, validation_split
                )
            samples = as_samples(compiled, x, y, sample_weight, class_weight)
            epochs_to_run = range(whole("fit: initial_epoch", initial_epoch), whole("fit: epochs", epochs))
            if steps_per_epoch is not None:
                steps_per_epoch = positive_integer("fit: steps_per_epoch", steps_per_epoch)
                if batch_size is None and samples.rows is not None:
                    batch_size = math.ceil(samples.rows / steps_per_epoch)
            size = given_or_default(batch_size)
            passes = Passes(samples.batches(size, shuffle, self.rng, last))
            steps = steps_per_epoch or passes.length
            validation = None
            if validation_data is not None:
                val_size = given_or_default(validation_batch_size, size)
                validation = self._validation(validation_data, val_size, validation_steps, validation_freq)
            listeners = CallbackList(
                callbacks,
                add_history=True,
                add_progbar=ProgbarLogger.style(verbose) is not None,
                model=self,
                verbose=verbose,
                epochs=epochs,
                steps=steps,
            )
            compiled.prepare_training()
            compiled.watch = Watch(samples.x if isinstance(samples.x, np.ndarray) else None)
            setup = Setup(
                self,
                passes.batches,
                validation,
                steps_per_epoch=steps_per_epoch,
                class_weight=class_weight,
                initial_epoch=initial_epoch,
            )
        history = next(c for c in listeners.callbacks if isinstance(c, History))
        self.history = history
        with self.distribution.guard(), listeners:
            share_state(self)
            try:
                self._run = TrainingRun(self, passes, epochs_to_run, steps, validation, listeners, setup)
                self._run.go()
            finally:
                self._run = None
                compiled.watch = Watch()
        return history

    def _validation(
        self,
        data: Data | Sequence[Data],
        batch_size: int,
        steps: int | None,
        every: int | Collection[int],
    ) -> Validation:
        parts = data if isinstance(data, (tuple, list)) else (data, None)
        if len(parts) not in (2, 3) or (parts[1] is None and not is_dataset(data)):
            raise ValueError(
                "validation_data must be (x, y), (x, y, sample_weight), or data of normkit.data that have both"
            )
        batches = as_samples(self.require_compiled("fit"), *parts).batches(batch_size, shuffle=False)
        count = at_most("fit: validation_steps", steps, batches.length)
        if isinstance(every, Collection):
            epochs = frozenset(
                positive_integer("fit: each epoch of validation_freq", epoch) for epoch in every
            )
            return Validation(batches, count, epochs)
        return Validation(batches, count, positive_integer("fit: validation_freq", every))

    def save_progress(self, path: str | os.PathLike[str]) -> None:
        """Write all that the `fit` at work needs to go on from here; see `BackupAndRestore`.

        Of several ranks all call it, and the first writes.
        """
        progress = self._require_run().get_state()
        if self.is_first_rank:
            saving.save_progress(self, Path(path), progress)

    def restore_progress(self, path: str | os.PathLike[str]) -> None:
        """Let the `fit` at work go on from what `save_progress` wrote.

        Raises
        ------
        ValueError
            If the file is damaged, or of another model or other batches. Then nothing has changed.
        """
        saving.restore_progress(self, Path(path), self._require_run())

    def _require_run(self) -> TrainingRun:
        if self._run is None:
            raise ValueError(f"{self.name}: is not training; progress is that of a fit at work")
        return self._run

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
    @default_float_mode()
    @with_keyword_hints
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
        with self.distribution.agreement():
            return_dict = flag("train_on_batch: return_dict", return_dict)
            samples = as_batch(compiled, x, y, sample_weight, class_weight)
            fresh = compiled.flat is None
            compiled.prepare_training()
        with self.distribution.guard():
            if fresh:
                share_state(self)
            compiled.reset_metrics()
            for batch in self.distribution.together([samples.arrays]):
                compiled.train_step(*batch)
            return flattened(compiled.logs(), return_dict)

    @with_keyword_hints
    def summary(self, print_fn: Callable[[str], object] | None = None) -> None:
        """Print a table of layers, output shapes and numbers of parameters.

        `print_fn` is called with each line; default: print.
        """
        state = self.compiled_state
        slots = [] if state is None else [a for flat in state.optimizer.slots.values() for a in flat]
        for line in summary_lines(self, [(a.size, a.nbytes) for a in slots]):
            (print_fn or print)(line)

    @with_keyword_hints
    def save(self, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Save to one file; see `normkit.models.save_model`."""
        saving.save_model(self, filepath, overwrite)

    @with_keyword_hints
    def save_weights(self, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Save the weights alone, and the optimizer's state; see `normkit.models.save_weights`."""
        saving.save_weights(self, filepath, overwrite)

    @with_keyword_hints
    def load_weights(self, filepath: str | os.PathLike[str]) -> None:
        """Take over the weights of a file; see `normkit.models.load_weights`."""
        saving.load_weights(self, filepath)
