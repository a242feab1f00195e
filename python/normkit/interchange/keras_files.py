"""Keras 3's files: `.keras`, which is a model, and `.weights.h5`."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from normkit._checks import flag
from normkit.interchange.files import PathLike, reading, write_bytes
from normkit.interchange.keras_config import (
    DamagedError,
    activation_of,
    as_written,
    check_row,
    from_keras,
    to_keras,
)
from normkit.interchange.keras_training import (
    compile_arguments,
    compile_config,
    optimizer_arrays,
    restore_optimizer,
)
from normkit.interchange.keras_weights import (
    admitting,
    keras_class,
    layer_groups,
    numbered,
    packed,
    read_weights,
    unpack,
    unpack_optimizer,
)
from normkit.interchange.weights import require_built
from normkit.layers import Input
from normkit.models import Sequential
from normkit.models.state import all_or_nothing, warn_of_activations

__all__ = ["load_keras", "load_keras_weights", "save_keras", "save_keras_weights"]

Config = dict[str, Any]
MODELS = ("Sequential", "Functional")
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
# Keras 3.0 and later read what is written here; this is whose layout it is.
KERAS_VERSION = "3.0.0"


def load_keras(path: PathLike, compile: bool = True) -> Sequential:
    """Return the model in a `.keras` file, with its weights; nothing in the file is executed.

    If it was compiled it is again, with optimizer, loss and metrics, and training goes on from the optimizer's state.

    Parameters
    ----------
    path : path-like
        A file of Keras 3's ``model.save``, of a Sequential, or of a functional model in which each layer has the output
        of the one before. Such models in it become part of one row of layers.
    compile : bool, default True
        Restore optimizer, loss and metrics too.

    Returns
    -------
    Sequential
        Moving statistics go on by Keras's rules. Weights have the bits of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModuleNotFoundError
        If h5py is missing; the message says how to install it.
    ValueError
        If it is not such a file, is damaged, or has a layer or option that is not known here, which the message names.

    Warns
    -----
    UserWarning
        If an initializer is not known: it is replaced by the default, since the weights are there. If an optimizer, loss
        or metric is not known: the model is not compiled. If the optimizer's state does not fit: it starts anew.
    """
    compile = flag("load_keras: compile", compile)
    with reading(path, "a .keras file") as file:
        config, weights = _read(file.read_bytes())
        with as_written(CONFIG):
            entries = list(_flat(config, "layers"))
            shape = _input_shape(config)
        names: set[str] = set()
        layers = []
        for index, (_, entry) in enumerate(entries):
            with as_written(f"layer {index} in {CONFIG}"):
                name = entry["config"].get("name")
                layers.append(from_keras(entry, None if name in names else name))
                names.add(name)
        groups = [group for group, _ in entries]
        arrays = read_weights(weights, groups)
        for layer, found in zip(layers, arrays, strict=True):
            layer.admit = admitting(layer, found)
        model = Sequential(
            [Input(shape), *layers],
            name=config["config"].get("name"),
            dtype=layers[-1].dtype if layers else "float32",
        )
        for layer in layers:
            layer.admit = None
        unpack(arrays, model.layers, groups)
        if compile and config.get("compile_config") is not None:
            _compile(model, config["compile_config"], weights)
        return model


def _compile(model: Sequential, config: Any, weights: bytes) -> None:
    try:
        with as_written("its compile_config"):
            arguments = compile_arguments(config)
        model.compile(**arguments)
    except DamagedError as error:
        warnings.warn(
            f"the file's model is loaded without optimizer, loss and metrics ({error}): call compile()",
            stacklevel=2,
        )
        return
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        warnings.warn(
            f"the file's model is compiled with something that normkit lacks ({error}); it is loaded without: call compile()",
            stacklevel=2,
        )
        return
    restore_optimizer(model, unpack_optimizer(weights))


def _read(content: bytes) -> tuple[Config, bytes]:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise ValueError("it is no zip archive (load_model opens files of normkit's own format as well)")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in (CONFIG, WEIGHTS):
            if name not in archive.namelist():
                raise ValueError(f"it is a zip archive without {name}")
            if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is compressed, which it never is")
        config = json.loads(archive.read(CONFIG))
        with as_written(CONFIG):
            kind = config["class_name"]
        if kind not in MODELS:
            raise ValueError(
                f"the model is a {kind}; only a Sequential, or a Functional that is one row of layers, is read"
            )
        return config, archive.read(WEIGHTS)


def _flat(model: Config, parent: str) -> Iterator[tuple[str, Config]]:
    """Yield the layers of a model and of those in it, each with the group of its weights."""
    if model["class_name"] == "Functional":
        check_row(model["config"])
    entries = [entry for entry in model["config"]["layers"] if entry["class_name"] != "InputLayer"]
    groups = numbered([entry["class_name"] for entry in entries], parent)
    for group, entry in zip(groups, entries, strict=True):
        if entry["class_name"] in MODELS:
            yield from _flat(entry, f"{group}/layers")
        else:
            yield group, entry


def _input_shape(model: Config) -> list[int]:
    """Return the shape of one sample, which is with the input or, if there is none, with the model."""
    config = model["config"]
    first = config["layers"][0]["config"] if config["layers"] else {}
    if first.get("sparse") or first.get("ragged"):
        raise ValueError("its input is sparse or ragged, which normkit lacks")
    if config["layers"] and config["layers"][0]["class_name"] in MODELS:
        return _input_shape(config["layers"][0])
    shape = first.get("batch_shape") or first.get("batch_input_shape") or config.get("build_input_shape")
    if shape is None:
        raise ValueError("it was saved before the model had an input shape")
    return list(shape[1:])


def save_keras(model: Sequential, path: PathLike) -> None:
    """Write a model as a `.keras` file, which Keras 3's ``keras.models.load_model`` opens.

    Written are the layers, their weights and their moving statistics, to the bit; and if the model is compiled its optimizer,
    loss and metrics, and the optimizer's state. What Keras has no place for is lost: the state of the random generator, and
    with it the order of the data and the masks of dropout in a training that goes on.

    Parameters
    ----------
    model : Sequential
        A built model.
    path : path-like
        Keras wants it to end in .keras.

    Raises
    ------
    ValueError
        If the path ends otherwise, the model has no weights yet, or a layer does what Keras cannot be told: it is of
        another package's class, or its moving statistics follow other rules. An existing file then stays as it is.
    ModuleNotFoundError
        If h5py is missing; the message says how to install it.

    Warns
    -----
    UserWarning
        If Keras has no such optimizer, loss or metric: the file has the model without any.
    """
    _check_ending(path, ".keras", "save_keras")
    require_built(model, "save_keras")
    assert model.input_shape is not None
    shape = [None, *model.input_shape[1:]]
    first = {"batch_shape": shape, "dtype": model.layers[0].dtype.name, "name": _input_name(model)}
    entries = [
        {"module": "keras.layers", "class_name": "InputLayer", "config": first, "registered_name": None},
        *map(to_keras, model.layers),
    ]
    config = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": model.name, "trainable": True, "layers": entries, "build_input_shape": shape},
        "registered_name": None,
        "build_config": {"input_shape": shape},
        "compile_config": _compile_config(model),
    }
    optimizer = optimizer_arrays(model) if config["compile_config"] else []
    saved = datetime.now().strftime("%Y-%m-%d@%H:%M:%S")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(METADATA, json.dumps({"keras_version": KERAS_VERSION, "date_saved": saved}))
        archive.writestr(CONFIG, json.dumps(config))
        archive.writestr(WEIGHTS, packed(model, optimizer))
    write_bytes(path, content.getvalue())


def _compile_config(model: Sequential) -> Config | None:
    try:
        return compile_config(model)
    except ValueError as error:
        warnings.warn(
            f"{error}; the file has the model without its optimizer, loss and metrics (to keep them, save it as .safetensors)",
            stacklevel=3,
        )
        return None


def _input_name(model: Sequential) -> str:
    taken = {layer.name for layer in model.layers}
    return next(name for n in range(len(taken) + 1) if (name := f"input_layer_{n}") not in taken)


def load_keras_weights(model: Sequential, path: PathLike) -> None:
    """Take over the weights in a `.weights.h5` file of Keras 3, or in a `.keras` file.

    Parameters
    ----------
    model : Sequential
        A built model of the same architecture. The names of its layers do not matter, as they do not in Keras.
    path : path-like
        A file of Keras's ``model.save_weights`` or ``model.save``. An optimizer's state in it is left alone.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModuleNotFoundError
        If h5py is missing; the message says how to install it.
    ValueError
        If the model has no weights yet, or the file is not such a file, is damaged, or is of another architecture.
        Then no weight has changed.

    Warns
    -----
    UserWarning
        If a layer has another activation in a `.keras` file; a `.weights.h5` file does not tell them.
    """
    require_built(model, "load_keras_weights")
    with reading(path, "weights of Keras") as file:
        content, groups = file.read_bytes(), layer_groups(model)
        activations: list[str | None] = []
        if zipfile.is_zipfile(io.BytesIO(content)):
            config, content = _read(content)
            groups, kinds = [], []
            with as_written(CONFIG):
                for group, entry in _flat(config, "layers"):
                    groups.append(group)
                    kinds.append(entry["class_name"])
                    activations.append(activation_of(entry))
            ours = [keras_class(layer) for layer in model.layers]
            if kinds != ours:
                raise ValueError(f"it has the layers {', '.join(kinds)}; the model has {', '.join(ours)}")
        with all_or_nothing(model):
            unpack(read_weights(content, groups), model.layers, groups)
            warn_of_activations(model, activations)


def save_keras_weights(model: Sequential, path: PathLike) -> None:
    """Write the weights in Keras 3's layout, for ``load_weights`` of a Keras model of the same architecture.

    Parameters
    ----------
    model : Sequential
        A built model.
    path : path-like
        Keras wants it to end in .weights.h5.

    Raises
    ------
    ValueError
        If the path ends otherwise, or the model has no weights yet. An existing file then stays as it is.
    ModuleNotFoundError
        If h5py is missing; the message says how to install it.
    """
    _check_ending(path, ".weights.h5", "save_keras_weights")
    write_bytes(path, packed(require_built(model, "save_keras_weights")))


def _check_ending(path: PathLike, ending: str, doing: str) -> None:
    if not str(path).endswith(ending):
        raise ValueError(f"{doing}: Keras wants a name that ends in {ending}, got {path}")
