"""What saves the model while it trains: `ModelCheckpoint`, and `BackupAndRestore` to go on after a crash."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from normkit._checks import flag, positive_integer
from normkit._optional import optional
from normkit._paths import MODEL_ENDINGS, WEIGHTS_ENDINGS, WRITTEN_BY, a_path, ending_of
from normkit.callbacks.base import Callback, Logs
from normkit.callbacks.monitor import MonitorCallback

__all__ = ["BackupAndRestore", "BackupWarning", "ModelCheckpoint", "OtherTrainingError"]


class _Every:
    """When to save: at the end of each epoch, or after so many batches, counted over the epochs."""

    def __init__(self, what: str, save_freq: str | int) -> None:
        if isinstance(save_freq, str) and save_freq != "epoch":
            raise ValueError(f"{what}: save_freq must be 'epoch' or a number of batches, got {save_freq!r}")
        self.batches = (
            None
            if save_freq == "epoch"
            else positive_integer(f"{what}: save_freq, if not 'epoch',", save_freq)
        )
        self.seen = 0

    def batch_is_due(self) -> bool:
        """Count a batch."""
        self.seen += 1
        if self.batches is None or self.seen < self.batches:
            return False
        self.seen = 0
        return True


class ModelCheckpoint(MonitorCallback):
    """Saves the model, or its weights, while it trains.

    Parameters
    ----------
    filepath : path-like
        The file. It can have the names of the logs, 'epoch' and 'batch' in it, both from 1, with a format:
        ``"{epoch:02d}-{val_loss:.2f}.keras"``. Folders are made. The ending says what is written, as in
        `normkit.models.save_model` and `save_weights`.
    monitor : str, default 'val_loss'
        Name in the logs, for `save_best_only`.
    verbose : {0, 1}
        1: say so.
    save_best_only : bool, default False
        Save only what is better than all before.
    save_weights_only : bool, default False
        `Sequential.save_weights` instead of `Sequential.save`.
    mode : {"auto", "min", "max"}
        Whether less or more is better.
    save_freq : "epoch" or int, default "epoch"
        At the end of each epoch, or after every so many batches.
    initial_value_threshold : float, optional
        The best value to begin with.

    Raises
    ------
    ValueError
        See `MonitorCallback`; if `filepath` is empty or has another ending, or `save_freq` is none of these; in training,
        if `filepath` names what the logs do not have.
    ModuleNotFoundError
        If the package that writes such files is missing.
    """

    writes = True

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, initial_value_threshold)
        self.save_best_only = flag(f"{type(self).__name__}: save_best_only", save_best_only)
        self.save_weights_only = flag(f"{type(self).__name__}: save_weights_only", save_weights_only)
        self.filepath = str(a_path("ModelCheckpoint: filepath", filepath))
        if not self.filepath.endswith("}"):  # or else the logs decide
            ending = ending_of(
                Path(self.filepath), WEIGHTS_ENDINGS if self.save_weights_only else MODEL_ENDINGS
            )
            if ending in WRITTEN_BY:  # known to be missing before the first epoch, not after it
                optional(WRITTEN_BY[ending], f"{ending} is written by", "interchange")
        self.verbose = verbose
        self.save_freq = save_freq
        self.initial_value_threshold = initial_value_threshold
        self._every = _Every("ModelCheckpoint", save_freq)
        self._epoch = 0

    @property
    def state_label(self) -> str:
        """See `Callback.state_label`."""
        return self.filepath

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remember the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Save, if it is time."""
        if self._every.batch_is_due():
            self._consider({"epoch": self._epoch + 1, "batch": batch + 1, **(logs or {})}, logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Save, if it is time."""
        if self._every.batches is None:
            self._consider({"epoch": epoch + 1, **(logs or {})}, logs)

    def _consider(self, names: Mapping[str, Any], logs: Logs) -> None:
        path, head = self._path(names), f"Epoch {names['epoch']}:"
        current = self.monitored(logs) if self.save_best_only else None
        if current is None and self.save_best_only and self.best is not None:
            return  # a model nobody has measured does not replace the best one
        if current is not None:
            before = "None" if self.best is None else f"{self.best:.5f}"
            if not self.is_better(current, self.best):
                if self.verbose:
                    self.say(f"{head} {self.monitor} did not improve from {before}")
                return
            head += f" {self.monitor} improved from {before} to {current:.5f},"
            self.best = current
        if self.verbose:
            self.say(f"{head} saving model to {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.model.save_weights if self.save_weights_only else self.model.save)(path)

    def _path(self, names: Mapping[str, Any]) -> Path:
        try:
            return Path(self.filepath.format(**names))
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"ModelCheckpoint: filepath '{self.filepath}' cannot be filled in ({type(error).__name__}: {error}); "
                f"there are: {', '.join(names)}"
            ) from error

    def get_state(self) -> dict[str, Any]:
        """See `Callback.get_state`."""
        return {**super().get_state(), "seen": self._every.seen}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See `Callback.set_state`."""
        super().set_state(state)
        self._every.seen = int(state["seen"])


class OtherTrainingError(ValueError):
    """A backup is of a training that would have had another result."""


class BackupWarning(UserWarning):
    """A backup can be gone on from, though something is another now.

    Attributes
    ----------
    difference : str
        What is another, without what is done about it.
    """

    def __init__(self, message: str, difference: str = "") -> None:
        super().__init__(message)
        self.difference = difference


class BackupAndRestore(Callback):
    """Lets a training that was interrupted go on as if it had not been, to the bit.

    Every so often all there is goes to a file of `backup_dir`, atomically: weights, moving statistics, the optimizer's
    state and learning rate, the random generator, the place in the data, the running means of the metrics, the history,
    and the state of the other callbacks. The next `fit` with the same arguments finds it there and goes on from it,
    also in the middle of an epoch. The process may be killed at any time, also while the file is written: then the one
    before is still there. Ctrl-C saves too, at the end of the batch. When `fit` is through, the files are deleted, and
    the folder if nothing else is in it. Of several ranks the first writes, and all read; Ctrl-C ends them without saving.

    Parameters
    ----------
    backup_dir : path-like
        A folder of its own: of two processes one would go on from what the other saved.
    save_freq : "epoch" or int, default "epoch"
        At the end of each epoch, or after every so many batches.
    double_checkpoint : bool, default False
        Keep the file before as well, and go on from it if the last one cannot be read.
    delete_checkpoint : bool, default True
        Delete the files when `fit` is through.

    Raises
    ------
    ValueError
        If `backup_dir` is empty or a file, or `save_freq` is none of these; at the start of `fit` if the backup is damaged,
        or of another model, other data, other arguments of `compile` or other batches. Then nothing has changed.
    OSError
        At the start of `fit`, if `backup_dir` cannot be written.
    """

    comes_last = True

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        self.backup_dir = a_path("BackupAndRestore: backup_dir", backup_dir)
        if self.backup_dir.exists() and not self.backup_dir.is_dir():
            raise ValueError(f"BackupAndRestore: backup_dir must be a folder, and {backup_dir} is a file")
        self.save_freq = save_freq
        self.double_checkpoint = flag(f"{type(self).__name__}: double_checkpoint", double_checkpoint)
        self.delete_checkpoint = flag(f"{type(self).__name__}: delete_checkpoint", delete_checkpoint)
        self._every = _Every("BackupAndRestore", save_freq)
        self._latest = self.backup_dir / "latest.safetensors"
        self._previous = self.backup_dir / "previous.safetensors"

    def on_train_begin(self, logs: Logs = None) -> None:
        """Go on from a backup, if there is one; if not, see that one can be written."""
        self._check_folder()
        there_are = self.files
        for path in there_are:
            try:
                self.model.restore_progress(path)
                return
            except OtherTrainingError:
                raise
            except ValueError:
                if path == there_are[-1]:
                    raise

    def _check_folder(self) -> None:
        """Raise OSError if it is no folder that can be written, before there is anything to lose."""
        nearest = next(
            path for path in (self.backup_dir, *self.backup_dir.absolute().parents) if path.exists()
        )
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.backup_dir))
        if self.model.is_first_rank and not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.backup_dir))

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Save, if it is time."""
        if self._every.batch_is_due():
            self._save()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Save, if it is time."""
        if self._every.batches is None:
            self._save()

    def on_train_interrupt(self, logs: Logs = None) -> None:
        """Save."""
        self._save()

    def _save(self) -> None:
        if self.model.is_first_rank:
            self.backup_dir.mkdir(parents=True, exist_ok=True)
        if self.double_checkpoint and self._latest.exists() and self.model.is_first_rank:
            self._latest.replace(self._previous)
        self.model.save_progress(self._latest)

    def on_train_end(self, logs: Logs = None) -> None:
        """Delete the backup."""
        if self.delete_checkpoint and self.model.is_first_rank:
            self.delete()

    @property
    def files(self) -> list[Path]:
        """What there is to go on from, the latest first."""
        return [path for path in (self._latest, self._previous) if path.exists()]

    def delete(self) -> None:
        """Delete the files, and the folder if nothing else is in it."""
        for path in (self._latest, self._previous):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.backup_dir.rmdir()

    def get_state(self) -> dict[str, Any]:
        """See `Callback.get_state`."""
        return {"seen": self._every.seen}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See `Callback.set_state`."""
        self._every.seen = int(state["seen"])
