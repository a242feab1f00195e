"""A saved run: its model, the record of how it was trained, and the rows that it did not train on."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normkit import __version__
from normkit.data.files import DIGITS, load, load_csv
from normkit.models import Sequential, load_model

__all__ = ["MODEL_FILE", "RECORD_FILE", "Record", "Run", "as_rows", "is_csv", "write_record"]

MODEL_FILE = "model.npz"
RECORD_FILE = "run.json"
_SETTINGS = ("layers", "batch_size", "epochs", "optimizer", "lr", "last", "validation_split", "seed")


class Record(NamedTuple):
    """What it takes to find the validation rows of a training again."""

    data: str
    validation_split: float | None
    seed: int


def write_record(path: Path, arguments: argparse.Namespace) -> None:
    """Write how `normkit train` was called, as JSON."""
    record = {"normkit": __version__, "data": _identity(arguments.data or DIGITS)}
    record |= {name: getattr(arguments, name) for name in _SETTINGS}
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def read_record(path: Path) -> Record:
    """Read what `write_record` wrote; a ValueError if it is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        split = content["validation_split"]
        return Record(str(content["data"]), None if split is None else float(split), int(content["seed"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not the record of a run") from error


class Run:
    """A model from a file, with the record beside it if there is one.

    Parameters
    ----------
    path : Path
        The folder that `normkit train` wrote, or the model in it.

    Raises
    ------
    ValueError, OSError
        If the model or the record cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / MODEL_FILE if path.is_dir() else path
        self.model: Sequential = load_model(self.path)
        record = self.path.with_name(RECORD_FILE)
        self.record = read_record(record) if record.exists() else None

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
            data = load(source, validation_split=record.validation_split, seed=record.seed)
            x, y = data.x_test, data.y_test
        elif is_csv(source):
            x, y = load_csv(source)
        else:
            data = load(source)
            x, y = data.x_test, data.y_test
        rows = as_rows(x)
        if rows.shape[1] != self.num_features:
            raise ValueError(f"{source}: has {rows.shape[1]} features, the model takes {self.num_features}")
        if y.max() >= self.num_classes:
            raise ValueError(f"{source}: has label {y.max()}, the model knows 0 to {self.num_classes - 1}")
        return rows, y


def as_rows(x: NDArray[Any]) -> NDArray[Any]:
    """(rows, ...) as (rows, features)."""
    return x.reshape(len(x), -1)


def is_csv(source: str) -> bool:
    """Whether the name says so."""
    return Path(source).suffix.lower() == ".csv"


def _identity(source: str) -> str:
    """Name the data in the same way from every folder."""
    return source if source == DIGITS else str(Path(source).resolve())
