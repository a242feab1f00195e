"""A saved run: its model, the record of how it was trained, and the rows that it did not train on."""

from __future__ import annotations

import argparse
import json
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normkit import __version__
from normkit.data.dataset import Dataset
from normkit.data.files import DIGITS, load, load_csv, load_csv_features
from normkit.layers.base import ActivatedLayer
from normkit.models import Sequential, load_model

__all__ = [
    "LOSS",
    "METRICS",
    "MODEL_FILE",
    "RECORD_FILE",
    "Record",
    "Run",
    "as_rows",
    "division",
    "record_of",
]

# What a classifier is trained and judged by.
LOSS, METRICS = "sparse_categorical_crossentropy", ("accuracy",)
MODEL_FILE = "model.safetensors"
RECORD_FILE = "run.json"
_SETTINGS = ("layers", "batch_size", "epochs", "optimizer", "lr", "last", "validation_split", "seed")


class Record(NamedTuple):
    """What it takes to find the validation rows of a training again."""

    data: str
    rows: int
    checksum: int
    divisor: float
    validation_split: float | None
    seed: int


def record_of(arguments: argparse.Namespace, data: Dataset) -> str:
    """Tell how `normkit train` was called, and on what, as JSON."""
    record = {
        "normkit": __version__,
        "data": _identity(arguments.data or DIGITS),
        "rows": _rows(data),
        "checksum": _checksum(data),
        "divisor": data.divisor,
    }
    record |= {name: getattr(arguments, name) for name in _SETTINGS}
    return json.dumps(record, indent=2) + "\n"


def read_record(path: Path) -> Record:
    """Read what `record_of` told; a ValueError if it is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        data, split, divisor = str(content["data"]), content["validation_split"], float(content["divisor"])
        if not 0 < divisor < math.inf:
            raise ValueError(divisor)
        share = None if split is None else float(split)
        rows, checksum, seed = (int(content[name]) for name in ("rows", "checksum", "seed"))
        return Record(data, rows, checksum, divisor, share, seed)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path}: not the record of a run") from error


class Run:
    """A model from a file, with the record beside it if there is one.

    Parameters
    ----------
    path : Path
        The folder that `normkit train` wrote, or the model in it, or another file of `load_model`.

    Raises
    ------
    ValueError, OSError
        If the model or the record cannot be read, or the model is no classifier.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / MODEL_FILE if path.is_dir() else path
        self.model: Sequential = load_model(self.path)
        last = self.model.layers[-1]
        activation = last.activation.name if isinstance(last, ActivatedLayer) else "none"
        if activation != "softmax" or len(self.model.output_shape) != 2:
            raise ValueError(
                f"{self.path}: is no classifier: its last layer, {type(last).__name__}, must give a softmax over "
                f"the labels, but its activation is {activation} and its shape {self.model.output_shape}"
            )
        record = self.path.with_name(RECORD_FILE)
        self.record = read_record(record) if record.exists() else None
        self.divisor = None if self.record is None else self.record.divisor

    @property
    def num_features(self) -> int:
        """How many numbers a row has."""
        return math.prod(n or 1 for n in (self.model.input_shape or ())[1:])

    @property
    def num_classes(self) -> int:
        """How many probabilities the model gives."""
        return self.model.output_shape[-1] or 0

    def held_out(self, source: str | None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return labelled rows that the model did not train on, checked against its shape.

        They are the validation rows of the training if `source` is what it was trained on or None; else all rows
        of a ``.csv``, or the test rows of the other formats.
        """
        record = self.record
        if source is None:
            if record is None:
                raise ValueError(f"{self.path}: has no {RECORD_FILE} beside it, so --data is needed")
            source = record.data
        if record is not None and _identity(source) == record.data:
            data = load(
                source, validation_split=record.validation_split, seed=record.seed, divisor=record.divisor
            )
            if (_rows(data), _checksum(data)) != (record.rows, record.checksum):
                raise ValueError(
                    f"{source}: has changed since the training ({record.rows} rows then, {_rows(data)} now), so which "
                    "rows validate is not known any more; a copy under another name is taken as new data"
                )
            x, y = data.x_test, data.y_test
        elif _is_csv(source):
            x, y = load_csv(source, self.divisor)
        else:
            data = load(source, divisor=self.divisor)
            x, y = data.x_test, data.y_test
        rows = as_rows(x)
        if rows.shape[1] != self.num_features:
            raise ValueError(f"{source}: has {rows.shape[1]} features, the model takes {self.num_features}")
        if y.max() >= self.num_classes:
            raise ValueError(f"{source}: has label {y.max()}, the model knows 0 to {self.num_classes - 1}")
        return rows, y

    def features(self, source: str | None) -> NDArray[np.float32]:
        """Return rows to predict: all of a ``.csv``, with or without labels, or those of `held_out`."""
        if source is not None and _is_csv(source):
            return load_csv_features(source, self.num_features, self.divisor)
        return self.held_out(source)[0]


def as_rows(x: NDArray[Any]) -> NDArray[Any]:
    """(rows, ...) as (rows, features)."""
    return x.reshape(len(x), -1)


def division(divisor: float | None) -> str:
    """Tell what was done to the features; nothing if that is nothing."""
    return "" if divisor in (None, 1.0) else f"features divided by {divisor:g}"


def _rows(data: Dataset) -> int:
    return len(data.x_train) + len(data.x_test)


def _checksum(data: Dataset) -> int:
    """CRC-32 of the values of x_train, y_train, x_test, y_test, in this order."""
    checksum = 0
    for values in data[:4]:
        checksum = zlib.crc32(np.ascontiguousarray(values).data, checksum)
    return checksum


def _is_csv(source: str) -> bool:
    """Whether the name says so."""
    return Path(source).suffix.lower() == ".csv"


def _identity(source: str) -> str:
    """Name the data in the same way from every folder."""
    return source if source == DIGITS else str(Path(source).resolve())
