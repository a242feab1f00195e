"""What comes into training and evaluation: checked before the first step, so that an error changes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from operator import length_hint
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit._checks import as_array, as_numbers, number, shown
from normkit.data.arrays import as_source
from normkit.data.combined import Joined
from normkit.data.dataset import Dataset
from normkit.data.minibatches import Last, MiniBatches
from normkit.data.source import Source
from normkit.data.streams import Stream, is_iterable_of_batches
from normkit.layers.base import Shape
from normkit.layers.shapes import Flatten
from normkit.losses.base import require_finite
from normkit.models.compiled import Compiled

__all__ = ["Data", "Samples", "as_batch", "as_inputs", "as_samples", "is_dataset", "split_validation"]

Array = NDArray[Any]
Data = ArrayLike | Source | Stream | Iterable[Any]


class Samples(NamedTuple):
    """Features, checked targets, and sample weights if there are any; equal in length.

    Data of `normkit.data` and iterables of batches are x as a whole, and are checked as they are read.
    """

    x: Any
    y: Any = None
    weight: Array | None = None

    @property
    def arrays(self) -> tuple[Any, ...]:
        """Those that there are."""
        return tuple(part for part in self if part is not None)

    @property
    def rows(self) -> int | None:
        """How many there are; None if that is not known, or they come in batches of their own."""
        return None if isinstance(self.x, MiniBatches) else length_hint(self.x) or None

    def batches(
        self, batch_size: int, shuffle: bool, seed: np.random.Generator | None = None, last: Last = "keep"
    ) -> MiniBatches:
        """Return mini-batches of them; those that are mini-batches stay as they are."""
        if isinstance(self.x, MiniBatches):
            return self.x
        return MiniBatches(*self.arrays, batch_size=batch_size, shuffle=shuffle, seed=seed, last=last)


def as_inputs(x: Data) -> Samples:
    """Return what to predict from: an array of numbers, or of data that are read batch by batch the first array.

    Raises
    ------
    ValueError
        If there is no sample, or batches come in an order that outputs could not be assigned to.
    TypeError
        If an array is not one of numbers.
    """
    if not is_dataset(x):
        return Samples(_as_features(x))
    data = x if isinstance(x, (Source, Stream, MiniBatches)) else MiniBatches(x)
    if isinstance(x, MiniBatches) and x.shuffle:
        raise ValueError(
            "predict: the batches are shuffled, so which row an output is of would be lost; give shuffle=False"
        )
    if isinstance(x, Source) and len(x) == 0:
        raise ValueError(f"x must have at least one sample along its first axis, got shape {x.shape}")
    return Samples(data.map(lambda *arrays: as_numbers("x", arrays[0])))


def _as_features(x: Any) -> Array:
    """Return x as an array of numbers with a batch axis; dtype and memory are its own."""
    features = as_numbers("x", x)
    if features.ndim < 1 or len(features) == 0:
        raise ValueError(f"x must have at least one sample along its first axis, got shape {features.shape}")
    if features.size == 0:
        raise ValueError(f"x must have at least one value in each sample, got shape {features.shape}")
    return features


def _require_targets(x: Any, y: Any) -> None:
    """Raise ValueError if y is missing, with what x looks as if it had been meant for."""
    if y is not None:
        return
    hint = ""
    if isinstance(x, Dataset):
        hint = "; call fit(data.x_train, data.y_train)"
    elif isinstance(x, (tuple, list)) and len(x) in (2, 3) and hasattr(x[0], "__len__"):
        hint = f"; x is a {type(x).__name__} of {len(x)}: call fit(x, y), not fit((x, y))"
    raise ValueError(f"y is missing: training and evaluation need targets{hint}")


def as_batch(
    compiled: Compiled,
    x: ArrayLike,
    y: ArrayLike | None,
    sample_weight: ArrayLike | None = None,
    class_weight: Mapping[int, float] | None = None,
) -> Samples:
    """Check one batch, as `as_samples` does; TypeError if it is more than that."""
    if is_dataset(x):
        raise TypeError(f"x must be an array with the samples of one batch, got {type(x).__name__}")
    return as_samples(compiled, x, y, sample_weight, class_weight)


def as_samples(
    compiled: Compiled,
    x: Data,
    y: Data | None,
    sample_weight: Data | None = None,
    class_weight: Mapping[int, float] | None = None,
) -> Samples:
    """Check all that a training or test pass reads; builds the network if it is not yet.

    Raises
    ------
    ValueError
        If lengths differ, shapes do not fit the network, or targets do not fit the loss and the metrics.
    TypeError
        If an array is not one of numbers.
    """
    if is_dataset(x):
        return _as_dataset(compiled, x, y, sample_weight, class_weight)
    _require_targets(x, y)
    features = _as_features(x)
    labels = as_numbers("y", y, "number the classes: classes, y = np.unique(y, return_inverse=True)")
    if labels.ndim == 0 or len(labels) != len(features):
        hint = ""
        if features.ndim == 1:
            hint = f"; x of shape {features.shape} is {len(features)} samples of one number, a single row is x[None]"
        elif isinstance(x, (tuple, list)) and all(np.ndim(part) > 1 for part in x):
            hint = f"; x is a {type(x).__name__} of {len(x)} arrays, and a model has one input"
        raise ValueError(
            f"x and y must have the same length, got {len(features)} and "
            f"{len(labels) if labels.ndim else 'a single value'}{hint}"
        )
    try:
        output_shape = compiled.network.shape_for(features.shape)
    except ValueError as error:
        if features.ndim == 1 and labels.ndim > 1:
            shapes = f"x has shape {features.shape} and y {labels.shape}"
            raise ValueError(f"{error}; {shapes}: are they swapped? x comes first") from None
        raise
    dtype = compiled.network.layers[-1].dtype
    targets = _targets(compiled, labels, output_shape, dtype)
    weights = _weights(labels, sample_weight, class_weight, dtype)
    compiled.prepare_metrics(targets, output_shape)
    compiled.check_classes(targets, output_shape)
    return Samples(features, targets, weights)


def _targets(compiled: Compiled, labels: Array, output_shape: Shape, dtype: Any) -> Array:
    """Return the targets as the loss uses them; says what to do if the layers have kept the axes of images."""
    try:
        return compiled.loss.targets(labels, output_shape, dtype)
    except ValueError as error:
        flat = any(isinstance(layer, Flatten) for layer in compiled.network.layers)
        if len(output_shape) > 2 and labels.ndim < len(output_shape) and not flat:
            raise ValueError(
                f"{error}; Dense works on the last axis alone: if each sample has one target, put Flatten() before "
                "the first Dense"
            ) from None
        raise


def is_dataset(x: Any) -> bool:
    """Whether x is data that are read batch by batch."""
    return isinstance(x, (Source, Stream)) or is_iterable_of_batches(x)


def _as_dataset(
    compiled: Compiled,
    x: Any,
    y: Any,
    sample_weight: Any,
    class_weight: Mapping[int, float] | None,
) -> Samples:
    """Return data that are read while training goes on; targets are checked as they are read, so that their row is named."""
    batches = x if isinstance(x, (Source, Stream, MiniBatches)) else MiniBatches(x)
    if y is not None or sample_weight is not None:
        if not isinstance(x, Source):
            raise ValueError(
                f"{type(x).__name__} has y and sample_weight in its batches; do not give them apart"
            )
        given = [x, *(part for part in (y, sample_weight) if part is not None)]
        batches = Joined(*as_source(given))
    parts = len(batches.empty)
    if parts not in (2, 3):
        raise ValueError(f"training and evaluation need (x, y) or (x, y, sample_weight), got {parts} arrays")
    features = as_numbers("x", batches.empty[0])
    if isinstance(batches, Source) and len(batches) == 0:
        raise ValueError(f"x must have at least one sample along its first axis, got shape {batches.shape}")
    output_shape = compiled.network.shape_for(features.shape)
    dtype = compiled.network.layers[-1].dtype

    def weighted(x: Array, y: Array, weight: Array | None = None) -> tuple[Array, ...]:
        if y.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"x and y must have the same length in each batch, got shapes {x.shape} and {y.shape}"
            )
        as_numbers("x", x)
        if x.shape[1:] != features.shape[1:]:
            raise ValueError(
                f"x must have samples of the same shape in all batches, {features.shape[1:]}, got {x.shape[1:]}"
            )
        weights = _weights(y, weight, class_weight, dtype)
        return (x, y) if weights is None else (x, y, weights)

    def targets_of(y: Array) -> Array:
        checked = _targets(compiled, y, output_shape, dtype)
        if len(checked):
            compiled.check_classes(checked, output_shape)
        return checked

    checked = batches.map(weighted).map(targets_of, 1)
    targets = checked.empty[1]
    compiled.prepare_metrics(np.zeros((1, *targets.shape[1:]), targets.dtype), output_shape)
    return Samples(checked)


def _weights(
    y: Array,
    sample_weight: Any,
    class_weight: Mapping[int, float] | None,
    dtype: np.dtype[Any],
) -> Array | None:
    if class_weight is not None:
        if sample_weight is not None:
            raise ValueError("give sample_weight or class_weight, not both")
        if not isinstance(class_weight, Mapping):
            raise TypeError(
                "class_weight must be a dict from label to factor, such as {0: 2.0}, "
                f"got {type(class_weight).__name__}"
            )
        return _class_weights(y, class_weight).astype(dtype)
    if sample_weight is None:
        return None
    weight = as_numbers("sample_weight", sample_weight)
    if weight.shape == (len(y), 1):
        weight = weight[:, 0]
    if weight.shape != y.shape[:1]:
        raise ValueError(f"sample_weight must have shape {y.shape[:1]}, got {weight.shape}")
    require_finite("sample_weight", weight)
    return weight.astype(dtype, copy=False)


def _class_weights(y: Array, class_weight: Mapping[int, float]) -> Array:
    """Weight of each sample's class; classes that are not named have weight 1."""
    if y.ndim > 1:
        y = y[:, 0] if y.shape[-1] == 1 else y.argmax(axis=-1)
    given: Mapping[Any, Any] = class_weight
    for key, factor in given.items():
        if not isinstance(key, (int, float, np.number)) or not float(key).is_integer():
            raise TypeError(f"class_weight must have labels, which are integers, as keys, got {shown(key)}")
        if not math.isfinite(number(f"class_weight: the factor of class {key}", factor)):
            raise ValueError(f"class_weight: the factor of class {key} must be finite, got {factor}")
    labels, positions = np.unique(np.rint(y).astype(np.int64), return_inverse=True)
    factors = np.array([float(class_weight.get(int(label), 1.0)) for label in labels])
    return factors[positions.reshape(-1)]


def split_validation(
    x: Data, y: Data | None, sample_weight: Data | None, fraction: float
) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """Cut off the last `fraction` of the samples, before any shuffling, as Keras does."""
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"validation_split must be in [0, 1), got {fraction}")
    if is_dataset(x):
        raise ValueError(
            "validation_split needs arrays in memory; give validation_data, such as data.part(start, stop)"
        )
    _require_targets(x, y)
    arrays = [
        None if a is None else as_array(name, a)
        for name, a in (("x", x), ("y", y), ("sample_weight", sample_weight))
    ]
    n = len(_as_features(x))
    cut = int(n * (1.0 - fraction))
    if cut == 0 or cut == n:
        raise ValueError(
            f"validation_split={fraction} of {n} samples leaves {cut} to train and {n - cut} to validate; "
            "both need at least one"
        )
    head = tuple(None if a is None else a[:cut] for a in arrays)
    tail = tuple(None if a is None else a[cut:] for a in arrays)
    return (head[0], head[1], head[2]), (tail[0], tail[1], tail[2])
