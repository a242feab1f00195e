"""One file for a model: architecture, weights, and all it takes to go on training as if never stopped.

The file is a zip archive of `config.json` and arrays in NumPy's .npy format. Nothing in it is executed when it is
read: no pickle, and class names are looked up among the classes of this package.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from normkit import layers
from normkit._checks import whole
from normkit._registry import Registry
from normkit.layers.base import Layer, set_variables
from normkit.layers.variable import Variable
from normkit.models.compiled import Compiled

if TYPE_CHECKING:
    from normkit.models.sequential import Sequential

__all__ = ["load_model", "save_model"]

Array = NDArray[Any]
FORMAT = "normkit model"
VERSION = 1

# What reading a file raises if its content is not what `save_model` writes. RuntimeError: it is encrypted, of another
# zip version (NotImplementedError) or nested too deeply (RecursionError); OSError: an offset before its start.
_FAULTS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    EOFError,
    OSError,
    zipfile.BadZipFile,
    zlib.error,
)

layer_registry: Registry[Layer] = Registry(
    "layer",
    Layer,
    {
        cls.__name__: cls
        for cls in (
            layers.Dense,
            layers.BatchNormalization,
            layers.LayerNormalization,
            layers.Activation,
            layers.Dropout,
            layers.Flatten,
        )
    },
)


def save_model(model: Sequential, path: str | os.PathLike[str]) -> None:
    """Write a model to a file, atomically: a reader finds the old file or the whole new one.

    Saved are the layers, their weights and moving statistics; if the model is compiled: optimizer, loss and
    metrics, and the optimizer's state and step; and the state of the random generator.

    Parameters
    ----------
    model : Sequential
        A built model of this package's layers.
    path : path-like
        Suggested endings: .normkit or .npz. An existing file is replaced.

    Raises
    ------
    ValueError
        If the model has no weights yet, or a layer, activation, initializer, optimizer, loss or metric is of a
        class of another package. An existing file then stays as it is.
    """
    if model.input_shape is None:
        raise ValueError(f"{model.name}: is not built; give input_shape, or call it on a batch before saving")
    compiled = model.compiled_state
    weights = _by_key(model)
    arrays = {f"weights/{key}.npy": weight.value for key, weight in weights.items()}
    config: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": model.name,
        "dtype": model.dtype.name,
        "input_shape": list(model.input_shape[1:]),
        "layers": [layer_registry.serialize(layer) for layer in model.layers],
        "states": [layer.get_state() for layer in model.layers],
        "random_state": model.rng.bit_generator.state,
        "compile": None if compiled is None else compiled.get_config(),
    }
    if compiled is not None and compiled.flat is not None:
        key_of = {id(weight): key for key, weight in weights.items()}
        config["iterations"] = compiled.optimizer.batches
        config["trained"] = [key_of[id(weight)] for weight in compiled.flat.variables]
        for slot, state in compiled.optimizer.slots.items():
            for key, part in zip(config["trained"], compiled.flat.split(state), strict=True):
                arrays[f"optimizer/{slot}/{key}.npy"] = part
    _write(Path(path), config, arrays)


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
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                config, arrays = _read(archive)
            return _restored(config, arrays, compile)
        except _FAULTS as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else _first_line(error)
            raise ValueError(f"{path}: cannot be read as a normkit model: {reason}") from error


def _restored(config: Mapping[str, Any], arrays: Mapping[str, Array], compile: bool) -> Sequential:
    from normkit.models.sequential import Sequential

    model = Sequential(
        [layers.Input(config["input_shape"]), *(layer_registry.get(layer) for layer in config["layers"])],
        name=config["name"],
        dtype=config["dtype"],
    )
    weights = _by_key(model)
    set_variables("the model", list(weights.values()), [arrays[f"weights/{key}.npy"] for key in weights])
    for layer, state in zip(model.layers, config.get("states", [{}] * len(model.layers)), strict=True):
        layer.set_state(state)
    if compile and config["compile"] is not None:
        model.compile(**config["compile"])
        if "iterations" in config:
            _restore_optimizer(model.require_compiled("load"), weights, config, arrays)
    model.rng.bit_generator.state = config["random_state"]
    return model


def _restore_optimizer(
    compiled: Compiled,
    weights: Mapping[str, Variable],
    config: Mapping[str, Any],
    arrays: Mapping[str, Array],
) -> None:
    """Lay out the weights that were trained, whichever of them are frozen now, and fill the optimizer's state."""
    trainable = {key: weight for key, weight in weights.items() if weight.trainable}
    trained = {key: trainable[key] for key in config["trained"]}
    flat = compiled.lay_out(list(trained.values()))
    compiled.optimizer.batches = whole("iterations", config["iterations"])
    for slot, state in compiled.optimizer.slots.items():
        for key, part in zip(trained, flat.split(state), strict=True):
            saved = arrays[f"optimizer/{slot}/{key}.npy"]
            if saved.shape != part.shape:
                raise ValueError(f"'{slot}' of {key} must have shape {part.shape}, got {saved.shape}")
            part[...] = saved


def _by_key(model: Sequential) -> dict[str, Variable]:
    """All weights, by the index of their layer and their name: '0/kernel'."""
    return {f"{i}/{w.name}": w for i, layer in enumerate(model.layers) for w in layer.weights}


def _plain(value: Any) -> Any:
    """Return a NumPy number among the arguments of a layer as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot save {value!r}, an argument of type {type(value).__name__}")


def _write(path: Path, config: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("config.json", json.dumps(config, indent=1, default=_plain))
                for name, array in arrays.items():
                    with archive.open(name, "w", force_zip64=True) as member:
                        npy.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(archive: zipfile.ZipFile) -> tuple[dict[str, Any], dict[str, Array]]:
    names = archive.namelist()
    if "config.json" not in names:
        raise ValueError("it is a zip archive without config.json")
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise ValueError("it is compressed, which those never are")
    config = json.loads(archive.read("config.json"))
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError("config.json is of another kind")
    if config.get("version") != VERSION:
        raise ValueError(f"it has format version {config.get('version')}, this normkit reads {VERSION}")
    return config, {name: _array(archive, name) for name in names if name.endswith(".npy")}


def _array(archive: zipfile.ZipFile, name: str) -> Array:
    """Read one array; its size is that of the bytes that are there, whatever its header claims."""
    file = io.BytesIO(archive.read(name))
    try:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read_header(file)
        if dtype not in (np.float32, np.float64):
            raise ValueError(f"expected float32 or float64, got {dtype}")
        flat = np.frombuffer(file.read(), dtype)
        return flat.reshape(shape, order="F" if fortran_order else "C")
    except _FAULTS as error:
        raise ValueError(f"'{name}' is damaged: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
