"""One file for a model: architecture, weights, and all it takes to go on training as if never stopped.

The file is a zip archive of `config.json` and arrays in NumPy's .npy format. Nothing in it is executed when it is
read: no pickle, and class names are looked up among the classes of this package.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from normkit import layers
from normkit._registry import Registry
from normkit.layers.base import Layer, set_variables

if TYPE_CHECKING:
    from normkit.models.sequential import Sequential

__all__ = ["load_model", "save_model"]

Array = NDArray[Any]
FORMAT = "normkit model"
VERSION = 1

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
        If the model has no weights yet, or has a layer of another package.
    """
    if model.input_shape is None:
        raise ValueError(f"{model.name}: is not built; give input_shape, or call it on a batch before saving")
    for layer in model.layers:
        if type(layer).__name__ not in layer_registry.names:
            raise ValueError(
                f"{model.name}: cannot save layer '{layer.name}' of type {type(layer).__name__}; "
                f"can: {', '.join(layer_registry.names)}"
            )
    compiled = model.compiled_state
    arrays = {_weight_key(i, w.name): w.value for i, layer in enumerate(model.layers) for w in layer.weights}
    config: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": model.name,
        "dtype": model.dtype.name,
        "input_shape": list(model.input_shape[1:]),
        "layers": [layer_registry.serialize(layer) for layer in model.layers],
        "random_state": model.rng.bit_generator.state,
        "compile": None if compiled is None else compiled.get_config(),
    }
    if compiled is not None and compiled.flat is not None:
        config["iterations"] = compiled.optimizer.iterations
        for slot, flat in compiled.optimizer.slots.items():
            parts = compiled.flat.split(flat)
            arrays |= {f"optimizer/{slot}/{i}.npy": part for i, part in enumerate(parts)}
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
    config, arrays = _read(Path(path))
    try:
        return _restored(config, arrays, compile)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: is not a valid model: {reason}") from error


def _restored(config: Mapping[str, Any], arrays: Mapping[str, Array], compile: bool) -> Sequential:
    from normkit.models.sequential import Sequential

    model = Sequential(
        [layers.Input(config["input_shape"]), *(layer_registry.get(layer) for layer in config["layers"])],
        name=config["name"],
        dtype=config["dtype"],
    )
    for i, layer in enumerate(model.layers):
        values = [arrays[_weight_key(i, w.name)] for w in layer.weights]
        set_variables(f"layer '{layer.name}'", layer.weights, values)
    if compile and config["compile"] is not None:
        model.compile(**config["compile"])
        compiled = model.compiled_state
        if "iterations" in config and compiled is not None:
            flat = compiled.prepare_training()
            optimizer = compiled.optimizer
            optimizer.iterations = int(config["iterations"])
            for slot, state in optimizer.slots.items():
                for i, part in enumerate(flat.split(state)):
                    saved = arrays[f"optimizer/{slot}/{i}.npy"]
                    if saved.shape != part.shape:
                        raise ValueError(f"'{slot}' {i} must have shape {part.shape}, got {saved.shape}")
                    part[...] = saved
    model.rng.bit_generator.state = config["random_state"]
    return model


def _weight_key(index: int, name: str) -> str:
    return f"weights/{index}/{name}.npy"


def _write(path: Path, config: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("config.json", json.dumps(config, indent=1))
                for name, array in arrays.items():
                    with archive.open(name, "w", force_zip64=True) as member:
                        npy.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "config.json" not in names:
                raise ValueError(f"{path}: is not a normkit model: a zip archive, but without config.json")
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError(f"{path}: is not a normkit model: it is compressed, which those never are")
            config = json.loads(archive.read("config.json"))
            if not isinstance(config, dict) or config.get("format") != FORMAT:
                raise ValueError(f"{path}: is not a normkit model: config.json is of another kind")
            if config.get("version") != VERSION:
                raise ValueError(
                    f"{path}: has format version {config.get('version')}, this normkit reads {VERSION}"
                )
            arrays = {name: _array(path, archive, name) for name in names if name.endswith(".npy")}
            return config, arrays
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: is not a normkit model or is damaged: {error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: is damaged: {error}") from error


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> Array:
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
    except ValueError as error:
        raise ValueError(f"{path}: '{name}' is damaged: {str(error).splitlines()[0]}") from error
