"""Paths that are given as arguments: none that is empty, none that cannot be read as a file, and the endings of models' files."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "KERAS",
    "KERAS_WEIGHTS",
    "MODEL_ENDINGS",
    "ONNX",
    "OURS",
    "WEIGHTS_ENDINGS",
    "WRITTEN_BY",
    "a_file",
    "a_path",
    "ending_of",
    "find_ending",
    "path_fault",
]

OURS, KERAS, KERAS_WEIGHTS, ONNX = ".safetensors", ".keras", ".weights.h5", ".onnx"
# What a model, and what weights alone, can be written as.
MODEL_ENDINGS = (OURS, KERAS, KERAS_WEIGHTS, ONNX)
WEIGHTS_ENDINGS = (OURS, KERAS_WEIGHTS)
# The package that writes a format, if one does.
WRITTEN_BY = {KERAS: "h5py", KERAS_WEIGHTS: "h5py", ONNX: "onnx"}

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def a_path(what: str, value: Any) -> Path:
    """Return a path, or raise: 'save: filepath must be the name of a file or folder, got an empty string'.

    Raises
    ------
    ValueError
        If it is empty or blank, as an environment variable that is not set is, or has a NUL in it.
    TypeError
        If it is no path.
    """
    try:
        text = os.fsdecode(value)
    except TypeError:
        raise TypeError(f"{what} must be a path (str or os.PathLike), got {type(value).__name__}") from None
    if (fault := path_fault(text)) is not None:
        raise ValueError(f"{what} must be the name of a file or folder, {fault}")
    return Path(text)


def path_fault(text: str) -> str | None:
    """Return why a text is the name of no file, as the end of a message; None if it may be one."""
    if not text.strip():
        return "got an empty string"
    return f"which has no NUL in it, got {text!r}" if "\0" in text else None


def a_file(path: Path) -> Path:
    """Return a path that can be opened more than once.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    IsADirectoryError
        If it is a folder.
    ValueError
        If it is a pipe, a socket or a device. A second reading would wait for ever, or find nothing.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path}: is a folder; name the file in it")
    kind = next((kind for is_one, kind in _KINDS if is_one(mode)), None)
    if kind is not None:
        raise ValueError(
            f"{path}: is {kind}, and files are read more than once; write what it gives to a file, and pass that"
        )
    return path


def ending_of(path: Path, endings: Sequence[str] = MODEL_ENDINGS) -> str:
    """Return which of these endings the name of a file to write has: Keras's in lower case, the others in either.

    Raises
    ------
    ValueError
        If it has none; the message lists them. If it has one of Keras's in upper case, which Keras would not open.
    """
    ending = find_ending(path, endings)
    if ending is None:
        raise ValueError(f"{path}: expected a name that ends in one of {', '.join(endings)}")
    if ending in (KERAS, KERAS_WEIGHTS) and not path.name.endswith(ending):
        raise ValueError(
            f"{path}: expected a name that ends in {ending}, in lower case; Keras opens no other, "
            f"so write {path.name[: -len(ending)]}{ending}"
        )
    return ending


def find_ending(path: Path, endings: Sequence[str] = MODEL_ENDINGS) -> str | None:
    """Return which of these endings a name has, in upper or lower case; None if it has none."""
    name = path.name.lower()
    return next((ending for ending in endings if name.endswith(ending)), None)
