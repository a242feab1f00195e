"""Files of models in other libraries' formats: the content says what is read, and each is handed to who reads or writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from normkit._paths import KERAS, KERAS_WEIGHTS, ONNX, OURS, find_ending

if TYPE_CHECKING:
    from normkit.models.sequential import Sequential

__all__ = ["format_of", "load_model", "load_weights", "write"]

_LENGTH = 8  # bytes before the JSON of a safetensors file
_STARTS = ((b"PK", KERAS), (b"\x89HDF\r\n\x1a\n", KERAS_WEIGHTS))


def format_of(path: Path) -> str:
    """Return the ending that a file should have: by its first bytes or, if these tell nothing, the one that it has."""
    with path.open("rb") as file:
        start = file.read(_LENGTH + 1)
    for bytes_, ending in _STARTS:
        if start.startswith(bytes_):
            return ending
    return OURS if start[_LENGTH:] == b"{" else find_ending(path) or OURS


def write(model: Sequential, path: Path, ending: str) -> None:
    """Write the format of another library that has this ending."""
    from normkit import interchange

    writers: dict[str, Callable[[Sequential, Path], None]] = {
        KERAS: interchange.save_keras,
        KERAS_WEIGHTS: interchange.save_keras_weights,
        ONNX: interchange.export_onnx,
    }
    writers[ending](model, path)


def load_model(path: Path, kind: str, compile: bool) -> Sequential:
    """Return the model in a file of another library's format.

    Raises
    ------
    ValueError
        If the format holds no model that can be trained; the message says what to do.
    """
    from normkit.interchange import load_keras

    if kind == KERAS:
        return load_keras(path, compile)
    if kind == KERAS_WEIGHTS:
        raise ValueError(
            f"{path}: is an HDF5 file, which has weights alone; make the model as before and call its load_weights "
            "(if it is a model of Keras 2: open it with Keras, and save it as .keras)"
        )
    raise ValueError(
        f"{path}: is an ONNX file, a graph that only predicts; load the .safetensors or .keras of this model"
    )


def load_weights(model: Sequential, path: Path, kind: str) -> None:
    """Take over the weights in a file of another library's format; see `load_model`."""
    from normkit.interchange import load_keras_weights

    if kind == ONNX:
        raise ValueError(
            f"{path}: is an ONNX file, a graph that only predicts; load the weights of a .safetensors, .weights.h5 or .keras"
        )
    load_keras_weights(model, path)
