"""A data set: labelled rows to train on and to test on, checked once, where they come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normkit._checks import number, whole
from normkit._repr import called
from normkit.data.source import wrong_label

__all__ = [
    "MAX_CLASSES",
    "VALIDATION_SPLIT",
    "Dataset",
    "as_features",
    "as_labels",
    "assemble",
    "divided",
    "split",
]

MAX_CLASSES = 65536
VALIDATION_SPLIT = 0.2


class Dataset(NamedTuple):
    """Labelled rows to train on and labelled rows to test on.

    Attributes
    ----------
    x_train, x_test : ndarray of float32
        Shape (rows, ...): images keep their axes.
    y_train, y_test : ndarray of int64
        Labels from 0 to num_classes − 1; shape (rows,).
    num_classes : int
        The largest label plus one.
    name : str
        What the data is called: the name of the folder or of the file without its suffix.
    divisor : float
        What the features of the source were divided by.
    """

    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    num_classes: int
    name: str
    divisor: float

    def __repr__(self) -> str:
        return called(type(self).__name__, self._asdict())


def split(
    path: Path,
    name: str,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    divisor: float,
    validation_split: float | None,
    seed: int,
) -> Dataset:
    """Shuffle by the seed, and cut off the test rows: at least one, and never all."""
    share = VALIDATION_SPLIT if validation_split is None else validation_split
    if not 0 < number("validation_split", share) < 1:
        raise ValueError(f"validation_split must be between 0 and 1, got {share}")
    if len(x) < 2:
        raise ValueError(f"{path}: one row cannot be split into training and validation")
    order = np.random.default_rng(whole("seed", seed)).permutation(len(x))
    cut = min(max(round(share * len(x)), 1), len(x) - 1)
    test, train = order[:cut], order[cut:]
    return Dataset(x[train], y[train], x[test], y[test], int(y.max()) + 1, name, divisor)


def assemble(
    path: Path,
    name: str,
    divisor: float | None,
    x_train: NDArray[Any],
    y_train: NDArray[Any],
    x_test: NDArray[Any],
    y_test: NDArray[Any],
) -> Dataset:
    """Convert the four arrays of a file, and check that they belong together.

    Both x are divided by `divisor`; by 255 if there is none and x_train has uint8, the type of pixels.
    """
    if divisor is None:
        divisor = 255.0 if x_train.dtype == np.uint8 else 1.0
    train = as_features(f"{path}: training", x_train, divisor)
    test = as_features(f"{path}: test", x_test, divisor)
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(f"{path}: training rows have shape {train.shape[1:]}, test rows {test.shape[1:]}")
    train_labels = as_labels(f"{path}: training", y_train, len(train))
    test_labels = as_labels(f"{path}: test", y_test, len(test))
    num_classes = int(max(train_labels.max(), test_labels.max())) + 1
    return Dataset(train, train_labels, test, test_labels, num_classes, name, divisor)


def as_features(where: str, x: NDArray[Any], divisor: float) -> NDArray[np.float32]:
    """Return x / divisor as float32."""
    if x.ndim < 2 or x.size == 0:
        raise ValueError(
            f"{where} rows need shape (rows, features, ...) and at least one value, got {x.shape}"
        )
    if x.dtype.kind not in "buif":
        raise ValueError(f"{where} rows must be real numbers, got {x.dtype}")
    with np.errstate(over="ignore"):
        converted = divided(x.astype(np.float32), divisor)
    finite = np.isfinite(converted).reshape(len(x), -1).all(axis=1)
    if not finite.all():
        raise ValueError(f"{where} row {np.argmin(finite)} (from 0) has a value that is not a finite float32")
    return converted


def divided(x: NDArray[np.float32], divisor: float) -> NDArray[np.float32]:
    """Divide in float32, in place."""
    return np.divide(x, np.float32(divisor), out=x)


def as_labels(where: str, y: NDArray[Any], rows: int) -> NDArray[np.int64]:
    """Return y as int64 of shape (rows,), every one in 0..MAX_CLASSES − 1."""
    if y.shape not in ((rows,), (rows, 1)):
        raise ValueError(f"{where} labels have shape {y.shape}, expected ({rows},): one per row")
    if rows == 0 or y.dtype.kind not in "buif":
        raise ValueError(f"{where} labels must be whole numbers, at least one; got {rows} of type {y.dtype}")
    y = y.reshape(rows)
    if (wrong := wrong_label(y, MAX_CLASSES)) is not None:
        row, text = wrong
        raise ValueError(f"{where} {text} in row {row} (from 0)")
    return y.astype(np.int64)
