"""What the tutorials use besides: `to_categorical`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit._checks import positive_integer

__all__ = ["to_categorical"]


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
    labels = np.asarray(x)
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
