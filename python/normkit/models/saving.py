"""What a file keeps of a model: all it takes to go on training as if never stopped, or its weights alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from normkit import layers
from normkit._checks import flag
from normkit._paths import MODEL_ENDINGS, OURS, WEIGHTS_ENDINGS, a_file, a_path, ending_of
from normkit._registry import Registry
from normkit.callbacks.checkpoint import BackupWarning, OtherTrainingError
from normkit.layers.base import Layer
from normkit.models import archive, formats
from normkit.models.state import (
    admitting,
    all_or_nothing,
    check_shape,
    set_optimizer,
    set_weights,
    state_of,
    take_state,
)

if TYPE_CHECKING:
    from normkit.models.sequential import Sequential
    from normkit.models.training import TrainingRun

__all__ = ["load_model", "load_weights", "save_model", "save_weights"]

Array = NDArray[Any]

# What a file without the layers says it is.
WEIGHTS_ALONE = "weights"

layer_registry: Registry[Layer] = Registry(
    "layer",
    Layer,
    {
        cls.__name__: cls
        for cls in (
            layers.Dense,
            layers.BatchNormalization,
            layers.LayerNormalization,
            layers.RMSNormalization,
            layers.GroupNormalization,
            layers.InstanceNormalization,
            layers.Activation,
            layers.Dropout,
            layers.Flatten,
            layers.ReLU,
            layers.LeakyReLU,
            layers.ELU,
            layers.Softmax,
            layers.GaussianNoise,
            layers.Reshape,
            layers.Rescaling,
        )
    },
)


def save_model(model: Sequential, path: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Write a model to a file, atomically: a reader finds the old file or the whole new one.

    The ending says in which format:

    ``.safetensors``
        This package's own, with all it takes to go on training to the bit: the layers, their weights and moving
        statistics; if the model is compiled: optimizer, loss and metrics, and the optimizer's state and step; and the
        state of the random generator.
    ``.keras``
        Keras 3's, which `load_model` and ``keras.models.load_model`` open: all of these but the random generator, as far
        as Keras has them (`normkit.interchange.save_keras`).
    ``.weights.h5``
        Keras's for weights and moving statistics alone, for `load_weights` here and there.
    ``.onnx``
        What `predict` computes. It cannot be loaded back.

    Parameters
    ----------
    model : Sequential
        A built model of this package's layers.
    path : path-like
        The file.
    overwrite : bool, default True
        Replace an existing file.

    Raises
    ------
    ValueError
        If the path is empty or has another ending; if the model has no weights yet, or a layer, activation, initializer,
        optimizer, loss or metric is of a class of another package, or Keras or ONNX has none like it. An existing file
        then stays as it is.
    FileExistsError
        If there is a file, and it is not to be replaced.
    ModuleNotFoundError
        If h5py or onnx is needed, and missing; the message says how to install it.
    """
    path, ending = _target("save", path, overwrite, MODEL_ENDINGS)
    if ending != OURS:
        formats.write(model, path, ending)
        return
    config, arrays = state_of(model, "saving")
    compiled = model.compiled_state
    architecture = {
        "name": model.name,
        "dtype": model.dtype.name,
        "layers": [layer_registry.serialize(layer) for layer in model.layers],
        "compile": None if compiled is None else compiled.get_config(),
    }
    archive.write(path, architecture | config, arrays)


def load_model(path: str | os.PathLike[str], compile: bool = True) -> Sequential:
    """Return the model that `Sequential.save` wrote, ready to predict and, if it was, to go on training.

    Parameters
    ----------
    path : path-like
        A file of this package's format, or of Keras's (`normkit.interchange.load_keras`), whatever its ending.
    compile : bool, default True
        Restore optimizer, loss and metrics too.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a model file, has weights alone or a graph that only predicts, is damaged, or comes from a newer
        version. Nothing in a file is ever executed, and no memory is taken for weights that it does not have.
    ModuleNotFoundError
        If h5py is needed, and missing; the message says how to install it.
    """
    path, compile = a_file(a_path("load_model: path", path)), flag("load_model: compile", compile)
    with archive.reading(path):
        kind = formats.format_of(path)
    if kind != OURS:
        return formats.load_model(path, kind, compile)
    with archive.reading(path):
        config, arrays = archive.read(path)
        if config.get("kind") == WEIGHTS_ALONE:
            raise ValueError("it has weights alone; make the model as before and call its load_weights")
        return _restored(config, arrays, compile)


def _restored(config: Mapping[str, Any], arrays: Mapping[str, Array], compile: bool) -> Sequential:
    from normkit.models.sequential import Sequential

    made = [_made(layer, index, arrays) for index, layer in enumerate(config["layers"])]
    with admitting(made, arrays):
        model = Sequential(
            [layers.Input(config["input_shape"]), *made], name=config["name"], dtype=config["dtype"]
        )
    set_weights(model, config, arrays)
    if compile and config["compile"] is not None:
        model.compile(**config["compile"])
        if "iterations" in config:
            set_optimizer(model, config, arrays)
    model.rng.bit_generator.state = config["random_state"]
    return model


def _made(config: Mapping[str, Any], index: int, arrays: Mapping[str, Array]) -> Layer:
    """Make a layer, of statistics for as many channels as there are in the file."""
    stats = config["config"].get("stats")
    if isinstance(stats, Mapping):
        check_shape(index, "moving_mean", (stats["num_channels"],), arrays)
    return layer_registry.get(config)


def save_weights(model: Sequential, path: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Write the weights and moving statistics to a file.

    The ending says in which format: ``.safetensors``, this package's own, which has the optimizer's state of a compiled
    model too; or ``.weights.h5``, Keras's (`normkit.interchange.save_keras_weights`).

    Parameters
    ----------
    model : Sequential
        A built model, of layers of any package.
    path, overwrite
        See `save_model`.

    Raises
    ------
    ValueError
        If the path is empty or has another ending, or the model has no weights yet.
    FileExistsError
        If there is a file, and it is not to be replaced.
    ModuleNotFoundError
        If h5py is needed, and missing; the message says how to install it.
    """
    path, ending = _target("save_weights", path, overwrite, WEIGHTS_ENDINGS)
    if ending != OURS:
        formats.write(model, path, ending)
        return
    config, arrays = state_of(model, "saving its weights")
    archive.write(path, {"kind": WEIGHTS_ALONE, **config}, arrays)


def load_weights(model: Sequential, path: str | os.PathLike[str]) -> None:
    """Take over the weights from a file of `save_weights` or of `save_model`, for a model of the same architecture.

    If the model is compiled, and with an optimizer like the one in the file, that one's state and learning rate are
    taken over as well; if it is with another one, a warning says so. An optimizer's state in a file of Keras is left alone.
    A warning names the layers that have another activation in the file.

    Parameters
    ----------
    model : Sequential
        Is built if it is not; for a file of Keras it must be.
    path : path-like
        A file of this package's format, or ``.weights.h5`` or ``.keras`` (`normkit.interchange.load_keras_weights`), whatever
        its ending.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not such a file, is damaged, or is of another architecture. Then nothing has changed.
    ModuleNotFoundError
        If h5py is needed, and missing; the message says how to install it.
    """
    path = a_file(a_path("load_weights: path", path))
    with archive.reading(path):
        kind = formats.format_of(path)
    if kind != OURS:
        with all_or_nothing(model):
            formats.load_weights(model, path, kind)
        return
    with archive.reading(path):
        config, arrays = archive.read(path)
        with all_or_nothing(model):
            take_state(model, config, arrays)


def save_progress(model: Sequential, path: Path, progress: Mapping[str, Any]) -> None:
    """Write the weights, as `save_weights` does, and where a `fit` is. No other process may be writing this file."""
    archive.remove_unfinished(path)
    config, arrays = state_of(model, "saving its progress")
    config["progress"] = archive.apart(progress, "progress", arrays)
    archive.write(path, {"kind": WEIGHTS_ALONE, **config}, arrays)


def restore_progress(model: Sequential, path: Path, run: TrainingRun) -> None:
    """Take over the weights, the generator, and where the `fit` was; after an error nothing has changed.

    Raises
    ------
    OtherTrainingError
        If it is of a training that would have had another result.
    ValueError
        If the file is damaged.
    """
    with archive.reading(path):
        config, arrays = archive.read(path)
        progress = archive.together(config["progress"], arrays)
        refusal, notes = run.compare(progress, config.get("learning_rate"))
    if refusal:
        raise OtherTrainingError(f"{path}: {refusal}")
    if notes and model.is_first_rank:
        message = "; ".join(f"{difference}{consequence}" for difference, consequence in notes)
        differences = "; ".join(difference for difference, _ in notes)
        warnings.warn(BackupWarning(f"{path}: {message}", f"{path}: {differences}"), stacklevel=2)
    with archive.reading(path), run.all_or_nothing(), all_or_nothing(model):
        take_state(model, config, arrays, whole_state=True)
        run.set_state(progress)
        model.rng.bit_generator.state = config["random_state"]


def _target(
    what: str, path: str | os.PathLike[str], overwrite: bool, endings: tuple[str, ...]
) -> tuple[Path, str]:
    """Return where to write, and the ending that says what."""
    path = a_path(f"{what}: filepath", path)
    ending = ending_of(path, endings)
    if not flag(f"{what}: overwrite", overwrite) and path.exists():
        raise FileExistsError(f"{path}: is there already; pass overwrite=True to replace it")
    return path, ending
