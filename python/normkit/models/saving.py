"""What a file keeps of a model: all it takes to go on training as if never stopped, or its weights alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from normkit import layers
from normkit._registry import Registry
from normkit.callbacks.checkpoint import BackupWarning, OtherTrainingError
from normkit.layers.base import Layer
from normkit.models import archive
from normkit.models.state import all_or_nothing, set_optimizer, set_weights, state_of, take_state

if TYPE_CHECKING:
    from normkit.models.sequential import Sequential
    from normkit.models.training import TrainingRun

__all__ = ["load_model", "load_weights", "save_model", "save_weights"]

Array = NDArray[Any]

# What a file without the layers says it is.
WEIGHTS = "weights"

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

    Saved are the layers, their weights and moving statistics; if the model is compiled: optimizer, loss and
    metrics, and the optimizer's state and step; and the state of the random generator.

    Parameters
    ----------
    model : Sequential
        A built model of this package's layers.
    path : path-like
        Suggested ending: .safetensors, which the file is. The content does not depend on it.
    overwrite : bool, default True
        Replace an existing file.

    Raises
    ------
    ValueError
        If the model has no weights yet, or a layer, activation, initializer, optimizer, loss or metric is of a
        class of another package. An existing file then stays as it is.
    FileExistsError
        If there is a file, and it is not to be replaced.
    """
    path = _target(path, overwrite)
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
        The file.
    compile : bool, default True
        Restore optimizer, loss and metrics too.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a model file, is damaged, or comes from a newer version. Nothing in a file is ever
        executed.
    """
    path = Path(path)
    with archive.reading(path):
        config, arrays = archive.read(path)
        if config.get("kind") == WEIGHTS:
            raise ValueError("it has weights alone; make the model as before and call its load_weights")
        return _restored(config, arrays, compile)


def _restored(config: Mapping[str, Any], arrays: Mapping[str, Array], compile: bool) -> Sequential:
    from normkit.models.sequential import Sequential

    model = Sequential(
        [layers.Input(config["input_shape"]), *(layer_registry.get(layer) for layer in config["layers"])],
        name=config["name"],
        dtype=config["dtype"],
    )
    set_weights(model, config, arrays)
    if compile and config["compile"] is not None:
        model.compile(**config["compile"])
        if "iterations" in config:
            set_optimizer(model, config, arrays)
    model.rng.bit_generator.state = config["random_state"]
    return model


def save_weights(model: Sequential, path: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Write the weights and moving statistics to a file, and of a compiled model the optimizer's state.

    Parameters
    ----------
    model : Sequential
        A built model, of layers of any package.
    path, overwrite
        See `save_model`.

    Raises
    ------
    ValueError
        If the model has no weights yet.
    FileExistsError
        If there is a file, and it is not to be replaced.
    """
    config, arrays = state_of(model, "saving its weights")
    archive.write(_target(path, overwrite), {"kind": WEIGHTS, **config}, arrays)


def load_weights(model: Sequential, path: str | os.PathLike[str]) -> None:
    """Take over the weights from a file of `save_weights` or of `save_model`, for a model of the same architecture.

    If the model is compiled, and with an optimizer like the one in the file, that one's state and learning rate are
    taken over as well; if it is with another one, a warning says so.

    Parameters
    ----------
    model : Sequential
        Is built if it is not.
    path : path-like
        The file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not such a file, is damaged, or is of another architecture. Then nothing has changed.
    """
    path = Path(path)
    with archive.reading(path):
        config, arrays = archive.read(path)
        with all_or_nothing(model):
            take_state(model, config, arrays)


def save_progress(model: Sequential, path: Path, progress: Mapping[str, Any]) -> None:
    """Write the weights, as `save_weights` does, and where a `fit` is. No other process may be writing this file."""
    archive.remove_unfinished(path)
    config, arrays = state_of(model, "saving its progress")
    config["progress"] = archive.apart(progress, "progress", arrays)
    archive.write(path, {"kind": WEIGHTS, **config}, arrays)


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
        refusal, warning = run.compare(progress, config.get("learning_rate"))
    if refusal:
        raise OtherTrainingError(f"{path}: {refusal}")
    if warning and model.is_first_rank:
        warnings.warn(f"{path}: {warning}", BackupWarning, stacklevel=2)
    with archive.reading(path), run.all_or_nothing(), all_or_nothing(model):
        take_state(model, config, arrays)
        run.set_state(progress)
        model.rng.bit_generator.state = config["random_state"]


def _target(path: str | os.PathLike[str], overwrite: bool) -> Path:
    path = Path(path)
    if not overwrite and path.exists():
        raise FileExistsError(f"{path}: is there already; pass overwrite=True to replace it")
    return path
