"""`TensorBoard`: the logs as event files, written by the package tensorboard or tensorboardX."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping
from typing import Any

from normkit._checks import positive_integer, whole
from normkit._paths import a_path
from normkit.callbacks.base import Callback, Logs

__all__ = ["TensorBoard"]


class TensorBoard(Callback):
    """Writes logs, and weights as histograms, for TensorBoard, with Keras's names.

    In ``log_dir/train``: 'epoch_loss', 'epoch_accuracy', ..., 'epoch_learning_rate'; in ``log_dir/validation`` the
    same of the validation, and 'evaluation_loss_vs_iterations', ...

    Parameters
    ----------
    log_dir : path-like, default 'logs'
        The folder.
    histogram_freq : int, default 0
        Write histograms of all weights every so many epochs; 0: never.
    write_graph, write_images : bool
        Taken for Keras's sake, without effect: there is no graph, and weights are shown as histograms alone.
    write_steps_per_second : bool, default False
        Write 'epoch_steps_per_second'.
    update_freq : "epoch", "batch" or int, default "epoch"
        Write the logs of batches as well ('batch_loss', ...), at every so many.
    profile_batch, embeddings_freq : 0
        There is nothing to profile, and there are no embeddings.
    embeddings_metadata : None
        As above.

    Raises
    ------
    ModuleNotFoundError
        If no package that writes event files is installed.
    ValueError
        If an argument is none of these.
    """

    writes = True

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
        profile_batch: int = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: None = None,
    ) -> None:
        for name, value in (
            ("profile_batch", profile_batch),
            ("embeddings_freq", embeddings_freq),
            ("embeddings_metadata", embeddings_metadata),
        ):
            if value:
                raise ValueError(f"TensorBoard: {name} is not supported, got {value!r}; leave it out")
        self.log_dir = a_path("TensorBoard: log_dir", log_dir)
        self.histogram_freq = whole("TensorBoard: histogram_freq", histogram_freq)
        self.write_graph, self.write_images = write_graph, write_images
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = update_freq
        self._every: int | None = None
        if update_freq != "epoch":
            batches = 1 if update_freq == "batch" else update_freq
            self._every = positive_integer("TensorBoard: update_freq, if not 'epoch' or 'batch',", batches)
        self._make_writer = _find_writer()
        self._writers: dict[str, Any] = {}
        self._batches = 0

    @property
    def state_label(self) -> str:
        """See `Callback.state_label`."""
        return str(self.log_dir)

    def _write(self, part: str, name: str, value: float, step: int) -> None:
        self._writer(part).add_scalar(name, value, step)

    def _writer(self, part: str) -> Any:
        if part not in self._writers:
            self._writers[part] = self._make_writer(str(self.log_dir / part))
        return self._writers[part]

    def on_train_begin(self, logs: Logs = None) -> None:
        """Count batches from 0."""
        self._batches = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Start the clock."""
        self._start = time.perf_counter(), self.model.optimizer.batches

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Write the logs of the batch, if it is time."""
        self._batches += 1
        if self._every is not None and self._batches % self._every == 0:
            for name, value in (logs or {}).items():
                self._write("train", f"batch_{name}", value, self._batches)

    def on_test_end(self, logs: Logs = None) -> None:
        """Write the result over the number of training steps."""
        for name, value in (logs or {}).items():
            iterations = self.model.optimizer.iterations
            self._write("validation", f"evaluation_{name}_vs_iterations", value, iterations)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Write the logs of the epoch, and histograms."""
        for name, value in {**(logs or {}), "learning_rate": self.model.optimizer.learning_rate}.items():
            part = "validation" if name.startswith("val_") else "train"
            self._write(part, f"epoch_{name.removeprefix('val_')}", value, epoch)
        if self.write_steps_per_second:
            start, batches = self._start
            speed = (self.model.optimizer.batches - batches) / (time.perf_counter() - start)
            self._write("train", "epoch_steps_per_second", speed, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            for layer in self.model.layers:
                for weight in layer.weights:
                    self._writer("train").add_histogram(
                        f"{layer.name}/{weight.name}/histogram", weight.value, epoch
                    )
        for writer in self._writers.values():
            writer.flush()

    def get_state(self) -> dict[str, Any]:
        """See `Callback.get_state`."""
        return {"batches": self._batches}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See `Callback.set_state`."""
        self._batches = state["batches"]

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}


class _EventFile:
    """The part of tensorboardX's SummaryWriter that is used here, on what the package tensorboard has."""

    def __init__(self, folder: str) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.histogram.summary_v2 import histogram_pb
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._scalar, self._histogram = Event, scalar_pb, histogram_pb
        self._file = EventFileWriter(folder)
        self.flush, self.close = self._file.flush, self._file.close

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self._add(self._scalar(name, float(value)), step)

    def add_histogram(self, name: str, values: Any, step: int) -> None:
        self._add(self._histogram(name, values), step)

    def _add(self, summary: Any, step: int) -> None:
        self._file.add_event(self._event(wall_time=time.time(), step=step, summary=summary))


def _find_writer() -> Any:
    if importlib.util.find_spec("tensorboard") is not None:
        return _EventFile
    if importlib.util.find_spec("tensorboardX") is not None:
        from tensorboardX import SummaryWriter

        return SummaryWriter
    raise ModuleNotFoundError(
        "TensorBoard: needs a package that writes event files; pip install tensorboard, or tensorboardX"
    )
