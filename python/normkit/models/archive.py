"""The file of a model as a container: `config.json` and arrays in NumPy's .npy format, in a zip archive.

Nothing in it is executed when it is read: no pickle.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

__all__ = ["Arrays", "apart", "read", "reading", "together", "write"]

Arrays = dict[str, NDArray[Any]]
FORMAT = "normkit model"
VERSION = 1

# What reading a file raises if its content is not what `write` wrote. RuntimeError: it is encrypted, of another
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


def write(path: Path, config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file, atomically: a reader finds the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    head = {"format": FORMAT, "version": VERSION, **config}
    try:
        with temporary.open("xb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("config.json", json.dumps(head, indent=1, default=_plain))
                for name, array in arrays.items():
                    with archive.open(name, "w", force_zip64=True) as member:
                        npy.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """Return a NumPy number among the arguments of a layer as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot save {value!r}, an argument of type {type(value).__name__}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong with the content of this file into a ValueError of one line that names it."""
    try:
        yield
    except _FAULTS as error:
        if isinstance(error, FileNotFoundError):
            raise
        reason = f"it has no {error}" if isinstance(error, KeyError) else _first_line(error)
        raise ValueError(f"{path}: cannot be read as a normkit model: {reason}") from error


def read(path: Path) -> tuple[dict[str, Any], Arrays]:
    """Return what `write` wrote. To be called within `reading`."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
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


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
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


def apart(value: Any, name: str, arrays: Arrays) -> Any:
    """Return nested lists and dicts with each array in them put into `arrays`, and its name in its place."""
    if isinstance(value, np.ndarray):
        arrays[f"{name}.npy"] = value
        return {"array": f"{name}.npy"}
    if isinstance(value, Mapping):
        return {key: apart(part, f"{name}/{key}", arrays) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [apart(part, f"{name}/{index}", arrays) for index, part in enumerate(value)]
    return value


def together(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Undo `apart`."""
    if isinstance(value, dict):
        if list(value) == ["array"]:
            return arrays[value["array"]]
        return {key: together(part, arrays) for key, part in value.items()}
    return [together(part, arrays) for part in value] if isinstance(value, list) else value
