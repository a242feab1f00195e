"""Torch's `state_dict`, to and from; torch itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from normkit._checks import flag
from normkit.interchange.weights import inputs, require_built, take_over, weighted_layers
from normkit.layers import (
    BatchNormalization,
    Dense,
    GroupNormalization,
    Layer,
    LayerNormalization,
    RMSNormalization,
)
from normkit.layers.normalization import Normalization
from normkit.models import Sequential

__all__ = ["from_torch", "to_torch"]

Array = NDArray[Any]
Keep = Literal["keep"]

# Our names and torch's; the kernel of a Dense is the transposed weight of a Linear.
_NAMES = {
    Dense: {"kernel": "weight", "bias": "bias"},
    LayerNormalization: {"gamma": "weight", "beta": "bias"},
    GroupNormalization: {"gamma": "weight", "beta": "bias"},
    RMSNormalization: {"scale": "weight"},
    BatchNormalization: {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    },
}
# What torch has besides, with the values that change nothing: of a norm with one of weight and bias, the other.
_NEUTRAL = {"gamma": 1.0, "beta": 0.0}
_COUNT = "num_batches_tracked"


def to_torch(
    model: Sequential, names: Sequence[str] | None = None, *, values_per_channel: int | None = None
) -> dict[str, Array]:
    """Return the weights under the names, in the shapes and in the order of torch's `state_dict`.

    ``module.load_state_dict({name: torch.from_numpy(a) for name, a in to_torch(model).items()})`` loads them. The module
    is to have the model's epsilon as `eps`, and 1 − momentum as `momentum`; `to_torch_module` makes such a one.

    Parameters
    ----------
    model : Sequential
        A built model.
    names : sequence of str, optional
        What the module calls its parts: one for each layer with weights, in order, such as ``["fc1", "bn1", "fc2"]``.
        Default: the numbers of an ``nn.Sequential`` in which each layer is a part, and the activation of a Dense one more.
    values_per_channel : int, optional
        Number of values per channel in a mini-batch, n: for a `Dense` the batch size. If given, moving variances that
        are biased here are multiplied by n / (n − 1), for torch's are unbiased. By default they are as they are, so
        that predictions stay the same; torch then moves them on towards its own.

    Returns
    -------
    dict from str to ndarray
        Copies. A batch norm has num_batches_tracked, an int64, and where it has gamma or beta alone, both: torch's
        ``affine=True`` wants that.

    Raises
    ------
    ValueError
        If the model has no weights yet, `names` has another length, or a norm is over axes that torch's is not over.
    """
    layers = weighted_layers(require_built(model, "to_torch"))
    shapes = inputs(model)
    state: dict[str, Array] = {}
    for prefix, layer in zip(_prefixes(model, layers, names, "to_torch"), layers, strict=True):
        check_axes(layer, len(shapes[layer]))
        ours = {weight.name: weight.value for weight in layer.weights}
        for name, theirs in _NAMES[_kind(layer)].items():
            if name in ours:
                array = ours[name].T if name == "kernel" else ours[name]
                if name == "moving_variance":
                    array = array * _correction(layer, values_per_channel, "to_torch")
                state[f"{prefix}.{theirs}"] = np.array(array, array.dtype, order="C")
            elif name in _NEUTRAL and not _NEUTRAL.keys().isdisjoint(ours):
                shape = next(iter(ours.values())).shape
                state[f"{prefix}.{theirs}"] = np.full(shape, _NEUTRAL[name], layer.dtype)
        if isinstance(layer, BatchNormalization) and layer.stats is not None:
            state[f"{prefix}.{_COUNT}"] = np.array(np.max(layer.stats.count), np.int64)
    return state


def from_torch(
    model: Sequential,
    state_dict: Mapping[str, Any],
    names: Sequence[str] | None = None,
    *,
    eps: float | None = None,
    momentum: float | Keep | None = "keep",
    unbiased: bool | None = None,
    values_per_channel: int | None = None,
) -> None:
    """Take over the weights of a torch module.

    A state has no conventions: what the module has as `eps` and `momentum` is to be given here, or to be in the model.

    Parameters
    ----------
    model : Sequential
        A built model of the same architecture.
    state_dict : mapping from str to tensor
        Tensors, arrays, or anything that NumPy makes arrays of.
    names : sequence of str, optional
        See `to_torch`.
    eps : float, optional
        Torch's eps (its default is 1e-5), to be the epsilon of all norms. Default: those of the model.
    momentum : float, None or "keep"
        Torch's momentum, the weight of the new batch (its default is 0.1; None: cumulative average), to be that of all
        batch norms; a layer's own `momentum` is 1 minus this. Default: those of the model.
    unbiased : bool, optional
        True: the moving variances go on unbiased, as in torch. Default: by the rule of the model, Keras's.
    values_per_channel : int, optional
        See `to_torch`: if given, variances are multiplied by (n − 1) / n for batch norms whose moving variance is biased.

    Raises
    ------
    ValueError
        If the model has no weights yet; an entry is missing, is left over, has another shape than the weight it is for,
        or is of another dtype than float32 or float64; a moving variance is negative; a norm is over axes that torch's
        is not over. Then nothing has changed.
    """
    layers = weighted_layers(require_built(model, "from_torch"))
    prefixes = _prefixes(model, layers, names, "from_torch")
    if unbiased is not None:
        unbiased = flag("from_torch: unbiased", unbiased)
    _check_rules(eps, momentum)
    shapes = inputs(model)
    rest = dict(state_dict)
    arrays, counts = [], []
    for prefix, layer in zip(prefixes, layers, strict=True):
        check_axes(layer, len(shapes[layer]))
        arrays.append(_taken(rest, prefix, layer, state_dict))
        if isinstance(layer, BatchNormalization):
            biased = not (layer.stats.unbiased if unbiased is None and layer.stats else unbiased)
            variance = arrays[-1]["moving_variance"]
            factor = _correction(layer, values_per_channel, "from_torch") if biased else 1.0
            arrays[-1]["moving_variance"] = variance / factor
        counts.append(int(_array(f"{prefix}.{_COUNT}", rest.pop(f"{prefix}.{_COUNT}", 0))))
    if rest:
        raise ValueError(f"from_torch: the state has '{next(iter(rest))}', and the model has no such weight")
    take_over(layers, arrays, counts)
    for layer in layers:
        _set_rules(layer, eps, momentum, unbiased)


def _kind(layer: Layer) -> type[Layer]:
    for kind in _NAMES:
        if isinstance(layer, kind):
            return kind
    raise layer.fail("has weights, and torch has no such layer")


def _prefixes(
    model: Sequential, layers: Sequence[Layer], names: Sequence[str] | None, doing: str
) -> Sequence[str]:
    if names is None:
        return [str(number) for number, layer in positions(model) if layer.weights]
    if len(names) != len(layers) or isinstance(names, str):
        raise ValueError(
            f"{doing}: names must be {len(layers)} names, one for each layer with weights "
            f"({', '.join(layer.name for layer in layers)}), got {names!r}"
        )
    return names


def positions(model: Sequential) -> list[tuple[int, Layer]]:
    """Return each layer with its number in an nn.Sequential, where the activation of a Dense is the next part."""
    numbered, number = [], 0
    for layer in model.layers:
        numbered.append((number, layer))
        number += 2 if isinstance(layer, Dense) and layer.activation.name != "linear" else 1
    return numbered


def check_axes(layer: Layer, rank: int) -> None:
    """Raise ValueError if the layer is a norm over other axes than torch's are over."""
    if isinstance(layer, BatchNormalization) and layer.axis % rank != 1:
        raise layer.fail(f"torch's batch norm is over axis 1, this one over axis {layer.axis} of {rank}")
    if isinstance(layer, GroupNormalization) and layer.axis % rank != 1:
        raise layer.fail(f"torch's group norm has its channels on axis 1, this one on {layer.axis} of {rank}")
    if isinstance(layer, LayerNormalization | RMSNormalization):
        axes = {axis % rank for axis in layer.axis}
        if axes != set(range(rank - len(axes), rank)):
            raise layer.fail(
                f"torch's layer and RMS norm are over the last axes, this one over {layer.axis} of {rank}"
            )


def _taken(rest: dict[str, Any], prefix: str, layer: Layer, state: Mapping[str, Any]) -> dict[str, Array]:
    """Take a layer's entries out of `rest`, and return them by our names."""
    names, found = _NAMES[_kind(layer)], {}
    for weight in layer.weights:
        key = f"{prefix}.{names[weight.name]}"
        if key not in rest:
            raise ValueError(
                f"from_torch: the state has no '{key}' for {type(layer).__name__} '{layer.name}'; "
                f"it has {', '.join(map(str, state)) or 'nothing'}; pass names= if its parts are called otherwise"
            )
        array = _array(key, rest.pop(key))
        shape = weight.shape[::-1] if weight.name == "kernel" else weight.shape
        if array.shape != shape or array.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"from_torch: '{key}' must be float32 or float64 of shape {shape}, for the {weight.name} of "
                f"{type(layer).__name__} '{layer.name}', got {array.dtype} of shape {array.shape}"
            )
        found[weight.name] = array.T if weight.name == "kernel" else array
    for name, neutral in _NEUTRAL.items():
        key = f"{prefix}.{names.get(name)}"
        if name not in found and key in rest and (_array(key, rest[key]) == neutral).all():
            del rest[key]
    return found


def _array(key: str, value: Any) -> Array:
    """Return what is a tensor as an array, without copying it if that can be."""
    try:
        for method in ("detach", "cpu", "numpy"):
            value = getattr(value, method, lambda value=value: value)()
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"from_torch: '{key}' is no array: {error}") from error


def _correction(layer: Layer, count: int | None, doing: str) -> float:
    if count is None or not isinstance(layer, BatchNormalization):
        return 1.0
    if count < 2:
        raise ValueError(f"{doing}: values_per_channel must be 2 or more, got {count}")
    already = doing == "to_torch" and layer.stats is not None and layer.stats.unbiased
    return 1.0 if already else count / (count - 1)


def _check_rules(eps: float | None, momentum: float | Keep | None) -> None:
    if eps is not None and not 0.0 <= eps < np.inf:
        raise ValueError(f"from_torch: eps must be finite and not negative, got {eps}")
    if momentum not in ("keep", None) and not 0.0 <= float(momentum) <= 1.0:
        raise ValueError(
            f"from_torch: momentum must be in [0, 1] (torch's, the weight of the new batch), None or 'keep', got {momentum}"
        )


def _set_rules(layer: Layer, eps: float | None, momentum: float | Keep | None, unbiased: bool | None) -> None:
    if eps is not None and isinstance(layer, Normalization):
        layer.epsilon = float(eps)
    if isinstance(layer, BatchNormalization) and layer.stats is not None:
        if momentum != "keep":
            if momentum is not None:
                layer.momentum = 1.0 - momentum
            layer.stats.momentum = momentum
        if unbiased is not None:
            layer.stats.unbiased = unbiased
