"""What the tutorials use besides: `to_categorical` and `set_random_seed`."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit._checks import as_numbers, positive_integer, whole
from normkit._names import show_public_names
from normkit._random import seed_all

__all__ = ["set_random_seed", "to_categorical"]

show_public_names(__name__)


def set_random_seed(seed: int) -> None:
    """Seed all that draws by chance: Python's `random`, NumPy's global generator, and normkit.

    What is made after this call without a seed of its own, such as a `Sequential`, a layer or a `MiniBatches`, draws
    initial weights, dropout and the order of samples from this seed: the same program gives the same bits. What has
    a seed of its own keeps it, and so does what was made before.

    Parameters
    ----------
    seed : int
        From 0 to 2³² − 1, which is what NumPy's global generator takes.

    Raises
    ------
    ValueError
        If it is not. Then nothing is seeded.

    Examples
    --------
    >>> set_random_seed(812)
    >>> model = Sequential([Dense(10, input_shape=(4,))])  # the same weights in every run
    """
    if whole("set_random_seed: seed", seed) >= 2**32:
        raise ValueError(f"set_random_seed: seed must be below 2**32, got {seed}")
    random.seed(int(seed))
    np.random.seed(int(seed))  # noqa: NPY002  # what other code may draw from
    seed_all(int(seed))


def to_categorical(x: ArrayLike, num_classes: int | None = None) -> NDArray[Any]:
    """Return labels as one-hot rows, for `categorical_crossentropy`.

    Parameters
    ----------
    x : array_like of int, shape (...) or (..., 1)
        Labels from 0.
    num_classes : int, optional
        Default: the largest label plus 1.

    Returns
    -------
    ndarray of float64, shape (..., num_classes)
        1 at the label, else 0.

    Raises
    ------
    ValueError
        If a label is no integer, or is not in [0, num_classes).
    """
    labels = as_numbers("to_categorical: x", x)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.size and not (np.isfinite(labels).all() and (labels == np.rint(labels)).all()):
        raise ValueError("to_categorical: labels must be integers, and some are not")
    labels = labels.astype(np.intp)
    count = int(labels.max(initial=0)) + 1
    classes = count if num_classes is None else positive_integer("to_categorical: num_classes", num_classes)
    if labels.size and (labels.min() < 0 or count > classes):
        worst = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"to_categorical: labels must be in [0, {classes}), got {worst}")
    rows = np.zeros((*labels.shape, classes))
    np.put_along_axis(rows, labels[..., None], 1.0, axis=-1)
    return rows
