"""The file of a model: its arrays as safetensors, and everything else as JSON in the metadata of that file."""

from __future__ import annotations

import json
import os
import secrets
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from normkit._reading import FAULTS, reason
from normkit.models import safetensors
from normkit.models.safetensors import Arrays

__all__ = ["Arrays", "apart", "read", "reading", "remove_unfinished", "replacing", "together", "write"]

FORMAT = "normkit model"
VERSION = 1
UNFINISHED = ".tmp"
# How names of weights end that `normkit.interchange.save_safetensors` writes.
_ENDS = {"torch's": (".weight", ".running_mean"), "Keras's": ("/kernel", "/gamma", "/moving_mean")}


def write(path: Path, config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file, atomically: a reader finds the old file or the whole new one, also after a crash of the system.

    Raises
    ------
    OSError
        If the file cannot be written, or the disk is full. An existing file then stays as it is.
    """
    text = json.dumps(config, default=_plain)
    metadata = {"format": FORMAT, "version": str(VERSION), "config": text, "crc32": _checksum(text, arrays)}
    with replacing(path) as file:
        safetensors.dump(file, arrays, metadata)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write to, which becomes `path` if the block ends well; see `write`."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # whose file is the temporary one
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def remove_unfinished(path: Path) -> None:
    """Remove what a killed process has left of files that were to be `path`, which no other process may be writing."""
    for temporary in path.parent.glob(f".{path.name}.????????{UNFINISHED}"):
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Let the new name of a file outlive a crash of the system, where folders can be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(text: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """CRC-32 of the configuration, the table of the arrays, and their bytes."""
    checksum = zlib.crc32(f"{text}{json.dumps(safetensors.table_of(arrays))}".encode())
    for array in arrays.values():
        checksum = zlib.crc32(safetensors.little_endian(array), checksum)
    return f"{checksum:08x}"


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
    except FileNotFoundError:
        raise
    except FAULTS as error:
        raise ValueError(f"{path}: cannot be read as a normkit model: {reason(error)}") from error


def read(path: Path) -> tuple[dict[str, Any], Arrays]:
    """Return what `write` wrote. To be called within `reading`."""
    metadata, arrays = safetensors.parse(path.read_bytes())
    if metadata.get("format") != FORMAT:
        foreign = [name for name in arrays if name.count("/") < 2]  # ours have two or more
        whose = next((w for w, ends in _ENDS.items() if any(name.endswith(ends) for name in foreign)), None)
        if whose is None:
            raise ValueError("it is a safetensors file of another kind")
        style = ', style="keras"' if whose == "Keras's" else ""
        raise ValueError(
            f"it has weights under {whose} names; make the model as before, and load it with "
            f"normkit.interchange.load_safetensors(model, path{style})"
        )
    if metadata.get("version") != str(VERSION):
        raise ValueError(f"it has format version {metadata.get('version')}, this normkit reads {VERSION}")
    if _checksum(metadata["config"], arrays) != metadata["crc32"]:
        raise ValueError("it is damaged: its checksum is another")
    for name, array in arrays.items():
        if array.dtype not in (np.float32, np.float64):
            raise ValueError(f"'{name}' must be of float32 or float64, got {array.dtype}")
    config = json.loads(metadata["config"])
    if not isinstance(config, dict):
        raise ValueError("its configuration is of another kind")  # noqa: TRY004
    return config, arrays


def apart(value: Any, name: str, arrays: Arrays) -> Any:
    """Return nested lists and dicts with each array in them put into `arrays`, and its name in its place."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, Mapping):
        return {key: apart(part, f"{name}/{key}", arrays) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [apart(part, f"{name}/{index}", arrays) for index, part in enumerate(value)]
    return value


def together(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Undo `apart`; the arrays are copies, which may be written to."""
    if isinstance(value, dict):
        if list(value) == ["array"]:
            return arrays[value["array"]].copy()
        return {key: together(part, arrays) for key, part in value.items()}
    return [together(part, arrays) for part in value] if isinstance(value, list) else value
