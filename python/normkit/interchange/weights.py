"""Weights on their way into a model: all of them checked, then all of them taken over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit.layers import BatchNormalization, Layer
from normkit.layers.base import Shape
from normkit.models import Sequential

__all__ = ["Arrays", "inputs", "require_built", "take_over", "weighted_layers"]

Array = NDArray[Any]
# The weights of one layer by their names here: 'kernel', 'gamma', ...
Arrays = Mapping[str, Array]


def require_built(model: Sequential, doing: str) -> Sequential:
    """Return the model, or raise ValueError if it has no weights yet."""
    if not isinstance(model, Sequential):
        raise TypeError(f"{doing}: model must be a Sequential, got {type(model).__name__}")
    if not model.built:
        raise ValueError(
            f"{doing}: model '{model.name}' has no weights yet; give it an input_shape, or call it on a batch first"
        )
    return model


def inputs(model: Sequential) -> dict[Layer, Shape]:
    """Return the shape of the input of each layer of a built model, batch axis included, in order."""
    shape = model.input_shape
    assert shape is not None
    shapes = {}
    for layer in model.layers:
        shapes[layer] = shape
        shape = layer.compute_output_shape(shape)
    return shapes


def weighted_layers(model: Sequential) -> list[Layer]:
    """Return the layers that have weights, in order."""
    return [layer for layer in model.layers if layer.weights]


def take_over(layers: Sequence[Layer], arrays: Sequence[Arrays], batches: Sequence[int]) -> None:
    """Assign weights to layers; moving statistics by `RunningStats.load_state_dict`, which checks them.

    Parameters
    ----------
    layers : sequence of Layer
        Built.
    arrays : sequence of mapping
        For each layer all of its weights, in their shapes.
    batches : sequence of int
        For each layer how many batches its moving statistics have seen; 0 if that is not known.

    Raises
    ------
    ValueError
        If a shape or dtype differs, or a moving mean or variance is none. Then nothing has changed.
    """
    for layer, own, count in zip(layers, arrays, batches, strict=True):
        for variable in layer.weights:
            array = own[variable.name]
            if array.shape != variable.shape or array.dtype not in (np.float32, np.float64):
                raise layer.fail(
                    f"'{variable.name}' must be float32 or float64 of shape {variable.shape}, "
                    f"got {array.dtype} of shape {array.shape}"
                )
        if isinstance(layer, BatchNormalization) and layer.stats is not None:
            try:
                layer.stats.copy().load_state_dict(_state(own, count))
            except ValueError as error:
                raise layer.fail(str(error)) from error
    for layer, own, count in zip(layers, arrays, batches, strict=True):
        for variable in layer.weights:
            variable.assign(own[variable.name])
        if isinstance(layer, BatchNormalization) and layer.stats is not None:
            layer.stats.load_state_dict(_state(own, count))


def _state(arrays: Arrays, count: int) -> dict[str, Any]:
    return {
        "running_mean": arrays["moving_mean"],
        "running_var": arrays["moving_variance"],
        "num_batches_tracked": np.int64(count),
    }
