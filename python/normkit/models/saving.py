"""What a file keeps of a model: all it takes to go on training as if never stopped, or its weights alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from normkit import layers
from normkit._checks import whole
from normkit._paths import MODEL_ENDINGS, OURS, WEIGHTS_ENDINGS, a_file, a_path, ending_of
from normkit._registry import Registry
from normkit.layers.base import Layer, set_variables
from normkit.layers.variable import Variable
from normkit.models import archive, formats
from normkit.models.archive import Arrays
from normkit.models.compiled import Compiled

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
    config, arrays = _state(model, "saving")
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
    path = a_file(a_path("load_model: path", path))
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
    with _admitting(made, arrays):
        model = Sequential(
            [layers.Input(config["input_shape"]), *made], name=config["name"], dtype=config["dtype"]
        )
    _set_weights(model, config, arrays)
    if compile and config["compile"] is not None:
        model.compile(**config["compile"])
        if "iterations" in config:
            _set_optimizer(model, config, arrays)
    model.rng.bit_generator.state = config["random_state"]
    return model


def _made(config: Mapping[str, Any], index: int, arrays: Mapping[str, Array]) -> Layer:
    """Make a layer, of statistics for as many channels as there are in the file."""
    stats = config["config"].get("stats")
    if isinstance(stats, Mapping):
        _check_shape(index, "moving_mean", (stats["num_channels"],), arrays)
    return layer_registry.get(config)


@contextmanager
def _admitting(made: Sequence[Layer], arrays: Mapping[str, Array]) -> Iterator[None]:
    """Let layers make just the weights that a file has, so that no number in it takes more memory than its arrays."""
    for index, layer in enumerate(made):
        layer.admit = partial(_check_shape, index, arrays=arrays)
    try:
        yield
    finally:
        for layer in made:
            layer.admit = None


def _check_shape(index: int, name: str, shape: tuple[int, ...], arrays: Mapping[str, Array]) -> None:
    there = arrays[f"weights/{index}/{name}"].shape
    if there != shape:
        raise ValueError(f"layer {index}: '{name}' must have shape {shape}, got {there}")


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
    config, arrays = _state(model, "saving its weights")
    archive.write(path, {"kind": WEIGHTS_ALONE, **config}, arrays)


def load_weights(model: Sequential, path: str | os.PathLike[str]) -> None:
    """Take over the weights from a file of `save_weights` or of `save_model`, for a model of the same architecture.

    If the model is compiled, and with an optimizer like the one in the file, that one's state and learning rate are
    taken over as well; if it is with another one, a warning says so. An optimizer's state in a file of Keras is left alone.

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
        If it is not such a file, is damaged, or is of another architecture. Then no weight has changed.
    ModuleNotFoundError
        If h5py is needed, and missing; the message says how to install it.
    """
    path = a_file(a_path("load_weights: path", path))
    with archive.reading(path):
        kind = formats.format_of(path)
    if kind != OURS:
        formats.load_weights(model, path, kind)
        return
    with archive.reading(path):
        config, arrays = archive.read(path)
        take_state(model, config, arrays)


def save_progress(model: Sequential, path: Path, progress: Mapping[str, Any]) -> None:
    """Write the weights, as `save_weights` does, and where a `fit` is. No other process may be writing this file."""
    archive.remove_unfinished(path)
    config, arrays = _state(model, "saving its progress")
    config["progress"] = archive.apart(progress, "progress", arrays)
    archive.write(path, {"kind": WEIGHTS_ALONE, **config}, arrays)


def restore_progress(model: Sequential, path: Path, run: TrainingRun) -> None:
    """Take over the weights, the generator, and where the `fit` was."""
    with archive.reading(path):
        config, arrays = archive.read(path)
        progress = archive.together(config["progress"], arrays)
        run.check_state(progress)
        take_state(model, config, arrays)
        run.set_state(progress)
        model.rng.bit_generator.state = config["random_state"]


def share_state(model: Sequential) -> None:
    """Give every rank the weights, the optimizer's state and the random generator of the first; collective.

    Raises
    ------
    ValueError
        If the ranks have different weights, by name and shape, or different optimizers.
    """
    comm = model.distribution.comm
    if comm.size == 1:
        return
    shapes = {key: weight.shape for key, weight in _by_key(model).items()}
    model.distribution.require_same("the weights of the model", shapes)
    optimizer = model.require_compiled("fit").optimizer
    model.distribution.require_same("the optimizer", (type(optimizer).__name__, list(optimizer.slots)))
    config, arrays = comm.broadcast(_state(model, "sharing") if comm.rank == 0 else None)
    if comm.rank > 0:
        take_state(model, config, arrays)
        model.rng.bit_generator.state = config["random_state"]


def take_state(model: Sequential, config: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Take over weights and, if there is a like one, the optimizer's state."""
    if not model.built:
        with _admitting(model.layers, arrays):
            model.build((None, *config["input_shape"]))
    _set_weights(model, config, arrays)
    compiled = model.compiled_state
    if compiled is None or "iterations" not in config:
        return
    flat = compiled.prepare_training()
    ours = [key for key, weight in _by_key(model).items() if any(weight is v for v in flat.variables)]
    if (_optimizer_name(compiled), list(compiled.optimizer.slots), ours) != (
        config.get("optimizer", config.get("compile", {}).get("optimizer", {}).get("class_name")),
        _slots(arrays),
        config["trained"],
    ):
        warnings.warn(
            f"the file has the state of another optimizer than {_optimizer_name(compiled)}, or of other trainable "
            "weights; the optimizer starts anew",
            stacklevel=2,
        )
        return
    _set_optimizer(model, config, arrays)


def _target(
    what: str, path: str | os.PathLike[str], overwrite: bool, endings: tuple[str, ...]
) -> tuple[Path, str]:
    """Return where to write, and the ending that says what."""
    path = a_path(f"{what}: filepath", path)
    ending = ending_of(path, endings)
    if not overwrite and path.exists():
        raise FileExistsError(f"{path}: is there already; pass overwrite=True to replace it")
    return path, ending


def _state(model: Sequential, doing: str) -> tuple[dict[str, Any], Arrays]:
    """All that changes in training, as a config and arrays."""
    if model.input_shape is None:
        raise ValueError(
            f"{model.name}: is not built; give input_shape, or call it on a batch before {doing}"
        )
    compiled = model.compiled_state
    weights = _by_key(model)
    arrays = {f"weights/{key}": weight.value for key, weight in weights.items()}
    config: dict[str, Any] = {
        "input_shape": list(model.input_shape[1:]),
        "states": [layer.get_state() for layer in model.layers],
        "random_state": model.rng.bit_generator.state,
    }
    if compiled is not None and compiled.flat is not None:
        key_of = {id(weight): key for key, weight in weights.items()}
        config["optimizer"] = _optimizer_name(compiled)
        config["iterations"] = compiled.optimizer.batches
        config["learning_rate"] = compiled.optimizer.fixed_learning_rate
        config["trained"] = [key_of[id(weight)] for weight in compiled.flat.variables]
        for slot, state in compiled.optimizer.slots.items():
            for key, part in zip(config["trained"], compiled.flat.split(state), strict=True):
                arrays[f"optimizer/{slot}/{key}"] = part
    return config, arrays


def _optimizer_name(compiled: Compiled) -> str:
    return type(compiled.optimizer).__name__


def _slots(arrays: Mapping[str, Array]) -> list[str]:
    return list(dict.fromkeys(name.split("/")[1] for name in arrays if name.startswith("optimizer/")))


def _set_weights(model: Sequential, config: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    weights = _by_key(model)
    extra = [name for name in arrays if name.startswith("weights/") and name[8:] not in weights]
    if extra:
        raise ValueError(f"it has '{extra[0]}', and the model has no such weight")
    set_variables("the model", list(weights.values()), [arrays[f"weights/{key}"] for key in weights])
    for layer, state in zip(model.layers, config.get("states", [{}] * len(model.layers)), strict=True):
        layer.set_state(state)


def _set_optimizer(model: Sequential, config: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Lay out the weights that were trained, whichever of them are frozen now, and fill the optimizer's state."""
    compiled = model.require_compiled("load")
    trainable = {key: weight for key, weight in _by_key(model).items() if weight.trainable}
    trained = {key: trainable[key] for key in config["trained"]}
    flat = compiled.lay_out(list(trained.values()))
    optimizer = compiled.optimizer
    optimizer.batches = whole("iterations", config["iterations"])
    if config.get("learning_rate") is not None and optimizer.fixed_learning_rate is not None:
        optimizer.learning_rate = config["learning_rate"]
    for slot, state in optimizer.slots.items():
        for key, part in zip(trained, flat.split(state), strict=True):
            saved = arrays[f"optimizer/{slot}/{key}"]
            if saved.shape != part.shape:
                raise ValueError(f"'{slot}' of {key} must have shape {part.shape}, got {saved.shape}")
            part[...] = saved


def _by_key(model: Sequential) -> dict[str, Variable]:
    """All weights, by the index of their layer and their name: '0/kernel'."""
    return {f"{i}/{w.name}": w for i, layer in enumerate(model.layers) for w in layer.weights}
