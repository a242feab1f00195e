"""What changes in training, as a config and arrays: taken from a model, checked against another, given to it as a whole."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from normkit._checks import whole
from normkit.layers.base import ActivatedLayer, Layer, set_variables
from normkit.layers.variable import Variable
from normkit.models.alike import is_foreign
from normkit.models.archive import Arrays
from normkit.models.compiled import Compiled

if TYPE_CHECKING:
    from normkit.models.sequential import Sequential

__all__ = [
    "admitting",
    "all_or_nothing",
    "check_shape",
    "set_optimizer",
    "set_weights",
    "share_state",
    "state_of",
    "take_state",
    "warn_of_activations",
]

Array = NDArray[Any]

MOST_BATCHES = 2**53  # which float64 counts one by one


def state_of(model: Sequential, doing: str) -> tuple[dict[str, Any], Arrays]:
    """Return all that changes in training, as a config and arrays."""
    if model.input_shape is None:
        raise ValueError(
            f"{model.name}: is not built; give input_shape, or call it on a batch before {doing}"
        )
    compiled = model.compiled_state
    weights = _by_key(model)
    arrays = {f"weights/{key}": weight.value for key, weight in weights.items()}
    config: dict[str, Any] = {
        "input_shape": list(model.input_shape[1:]),
        "kinds": [_kind(layer) for layer in model.layers],
        "activations": [_activation(layer) for layer in model.layers],
        "states": [layer.get_state() for layer in model.layers],
        "random_state": model.rng.bit_generator.state,
    }
    if compiled is not None and compiled.flat is not None:
        key_of = {id(weight): key for key, weight in weights.items()}
        config["optimizer"] = _optimizer_name(compiled)
        config["iterations"] = compiled.optimizer.batches
        config["learning_rate"] = compiled.optimizer.fixed_learning_rate
        config["trained"] = [key_of[id(weight)] for weight in compiled.flat.variables]
        for slot, state in compiled.optimizer.slots.items():
            for key, part in zip(config["trained"], compiled.flat.split(state), strict=True):
                arrays[f"optimizer/{slot}/{key}"] = part
    return config, arrays


def take_state(
    model: Sequential, config: Mapping[str, Any], arrays: Mapping[str, Array], *, whole_state: bool = False
) -> None:
    """Take over weights and, if there is a like one, the optimizer's state. To be called within `all_or_nothing`.

    With `whole_state` it is a ValueError, not a warning, if the optimizer's state does not fit.
    """
    if not model.built:
        with admitting(model.layers, arrays):
            model.build((None, *config["input_shape"]))
    set_weights(model, config, arrays)
    warn_of_activations(model, config.get("activations", ()))
    compiled = model.compiled_state
    if compiled is None or not (whole_state or "iterations" in config):
        return
    flat = compiled.prepare_training()
    ours = [key for key, weight in _by_key(model).items() if any(weight is v for v in flat.variables)]
    if (_optimizer_name(compiled), list(compiled.optimizer.slots), ours) != (
        config.get("optimizer", config.get("compile", {}).get("optimizer", {}).get("class_name")),
        _slots(arrays),
        config["trained"],
    ):
        problem = (
            f"state of another optimizer than {_optimizer_name(compiled)}, or of other trainable weights"
        )
        if whole_state:
            raise ValueError(f"it has the {problem}")
        warnings.warn(f"the file has the {problem}; the optimizer starts anew", stacklevel=2)
        compiled.lay_out(flat.variables)
        return
    set_optimizer(model, config, arrays)


def share_state(model: Sequential) -> None:
    """Give every rank the weights, the optimizer's state and the random generator of the first; collective.

    Raises
    ------
    ValueError
        If the ranks have different weights, by name and shape, or different optimizers.
    """
    comm = model.distribution.comm
    if comm.size == 1:
        return
    shapes = {key: weight.shape for key, weight in _by_key(model).items()}
    model.distribution.require_same("the weights of the model", shapes)
    optimizer = model.require_compiled("fit").optimizer
    model.distribution.require_same("the optimizer", (type(optimizer).__name__, list(optimizer.slots)))
    config, arrays = comm.broadcast(state_of(model, "sharing") if comm.rank == 0 else None)
    if comm.rank > 0:
        take_state(model, config, arrays)
        model.rng.bit_generator.state = config["random_state"]


@contextmanager
def admitting(made: Sequence[Layer], arrays: Mapping[str, Array]) -> Iterator[None]:
    """Let layers make just the weights that a file has, so that no number in it takes more memory than its arrays."""
    for index, layer in enumerate(made):
        layer.admit = partial(check_shape, index, arrays=arrays)
    try:
        yield
    finally:
        for layer in made:
            layer.admit = None


def check_shape(index: int, name: str, shape: tuple[int, ...], arrays: Mapping[str, Array]) -> None:
    """Raise ValueError unless the file's array for a weight of this layer has this shape."""
    there = arrays[f"weights/{index}/{name}"].shape
    if there != shape:
        raise ValueError(f"layer {index}: '{name}' must have shape {shape}, got {there}")


@contextmanager
def all_or_nothing(model: Sequential) -> Iterator[None]:
    """If an error comes out of the body, weights, layers, optimizer and random generator are as before."""
    restore = [_snapshot_of_layers(model), _snapshot_of_optimizer(model)]
    try:
        yield
    except BaseException:
        for undo in restore:
            undo()
        raise


def _snapshot_of_layers(model: Sequential) -> Callable[[], None]:
    """Return what brings the layers back."""
    shapes = model.input_shape, model.output_shape
    attributes = [{**vars(layer), "weights": list(layer.weights)} for layer in model.layers]
    values = model.get_weights()
    states = [copy.deepcopy(layer.get_state()) for layer in model.layers]
    random_state = model.rng.bit_generator.state

    def restore() -> None:
        if shapes[0] is None:
            for layer, before in zip(model.layers, attributes, strict=True):
                layer.__dict__ = before
            model.input_shape, model.output_shape = shapes
        for variable, value in zip(model.weights, values, strict=True):
            variable.value[...] = value
        for layer, state in zip(model.layers, states, strict=True):
            layer.set_state(state)
        model.rng.bit_generator.state = random_state

    return restore


def _snapshot_of_optimizer(model: Sequential) -> Callable[[], None]:
    """Return what brings the optimizer back, once the weights are."""
    compiled = model.compiled_state
    if compiled is None:
        return lambda: None
    flat, optimizer = compiled.flat, compiled.optimizer
    attributes = dict(vars(optimizer))
    slots = {name: [array.copy() for array in arrays] for name, arrays in optimizer.slots.items()}

    def restore() -> None:
        vars(optimizer).clear()
        vars(optimizer).update(attributes)
        for name, arrays in optimizer.slots.items():
            for array, before in zip(arrays, slots[name], strict=True):
                array[...] = before
        compiled.flat = flat
        if flat is not None:
            flat.take()

    return restore


def set_weights(model: Sequential, config: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Set weights, moving statistics and what else layers keep; ValueError if they are of another architecture."""
    _check_architecture(model, config, arrays)
    weights = _by_key(model)
    set_variables("the model", list(weights.values()), [arrays[f"weights/{key}"] for key in weights])
    for layer, state in zip(model.layers, config.get("states", [{}] * len(model.layers)), strict=True):
        layer.set_state(state)


def _check_architecture(model: Sequential, config: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Raise ValueError that names the first layer that is another in the file."""
    theirs: dict[int, Arrays] = defaultdict(dict)
    for key, array in arrays.items():
        if key.startswith("weights/"):
            _, place, name = key.split("/", 2)
            theirs[int(place)][name] = array
    count = len(config.get("states", model.layers))
    kinds = config.get("kinds", [None] * count)
    for index in range(max(len(model.layers), count, *(i + 1 for i in theirs))):
        if index < len(model.layers):
            _check_layer(index, model.layers[index], theirs[index], kinds[index] if index < count else None)
        elif theirs[index]:
            key = f"weights/{index}/{next(iter(theirs[index]))}"
            raise ValueError(
                f"it has '{key}', and the model has no such weight: it has {len(model.layers)} layers"
            )
    if count != len(model.layers):
        last = min(count, len(model.layers))
        ours = _described(model.layers[last]) if last < len(model.layers) else "none"
        got = (kinds[last] or "one") if last < count else "none"
        raise ValueError(
            f"the model has {len(model.layers)} layers, the file {count}: as layer {last} expected {ours}, got {got}"
        )


def _check_layer(index: int, layer: Layer, arrays: Arrays, kind: str | None) -> None:
    """Raise ValueError if the weights of this layer are not these arrays."""
    who = f"layer {index} is {_described(layer)}"
    if layer.weights and None not in (kind, _kind(layer)) and kind != _kind(layer):
        raise ValueError(f"in the model {who}, in the file {kind}")
    expected = {weight.name: weight.value for weight in layer.weights}
    for name, value in expected.items():
        key = f"weights/{index}/{name}"
        if name not in arrays:
            raise ValueError(
                f"it has no '{key}', and in the model {who} with '{name}' of shape {value.shape}"
            )
        if arrays[name].shape != value.shape:
            raise ValueError(f"{who}, whose '{name}' must have shape {value.shape}, got {arrays[name].shape}")
        if arrays[name].dtype != value.dtype:
            raise ValueError(
                f"{who}, whose '{name}' must be {value.dtype}, got {arrays[name].dtype}; make the model with that dtype"
            )
    for name in arrays:
        if name not in expected:
            raise ValueError(
                f"it has 'weights/{index}/{name}', and the model has no such weight: its {who} "
                f"with {', '.join(expected) or 'no weights'}"
            )


def _described(layer: Layer) -> str:
    return f"{type(layer).__name__} '{layer.name}'"


def _kind(layer: Layer) -> str | None:
    """Return the class of a layer of this package; what somebody else's is called says little about it."""
    return None if is_foreign(layer) else type(layer).__name__


def _activation(layer: Layer) -> str:
    return layer.activation.name if isinstance(layer, ActivatedLayer) else "linear"


def warn_of_activations(model: Sequential, theirs: Sequence[str | None]) -> None:
    """Warn, by name, of layers whose activation is not that of the file; None is one that is not known."""
    others = [
        f"layer {index} is {_described(layer)} with {_activation(layer)}, in the file with {there}"
        for index, (layer, there) in enumerate(zip(model.layers, theirs, strict=False))
        if there is not None and there != _activation(layer)
    ]
    if others:
        warnings.warn(
            f"the model has other activations than the file, and so other outputs: {'; '.join(others)}",
            stacklevel=3,
        )


def set_optimizer(model: Sequential, config: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Lay out the weights that were trained, whichever of them are frozen now, and fill the optimizer's state."""
    compiled = model.require_compiled("load")
    trainable = {key: weight for key, weight in _by_key(model).items() if weight.trainable}
    trained = {key: trainable[key] for key in config["trained"]}
    flat = compiled.lay_out(list(trained.values()))
    optimizer = compiled.optimizer
    optimizer.batches = whole("iterations", config["iterations"])
    if optimizer.batches > MOST_BATCHES:
        raise ValueError(f"iterations must be at most {MOST_BATCHES}, got {optimizer.batches}")
    if config.get("learning_rate") is not None and optimizer.fixed_learning_rate is not None:
        optimizer.learning_rate = config["learning_rate"]
    for slot, state in optimizer.slots.items():
        for key, part in zip(trained, flat.split(state), strict=True):
            saved = arrays[f"optimizer/{slot}/{key}"]
            if saved.shape != part.shape:
                raise ValueError(f"'{slot}' of {key} must have shape {part.shape}, got {saved.shape}")
            if saved.dtype != part.dtype:
                raise ValueError(f"'{slot}' of {key} must be {part.dtype}, got {saved.dtype}")
            part[...] = saved


def _optimizer_name(compiled: Compiled) -> str:
    return type(compiled.optimizer).__name__


def _slots(arrays: Mapping[str, Array]) -> list[str]:
    return list(dict.fromkeys(name.split("/")[1] for name in arrays if name.startswith("optimizer/")))


def _by_key(model: Sequential) -> dict[str, Variable]:
    """All weights, by the index of their layer and their name: '0/kernel'."""
    return {f"{i}/{w.name}": w for i, layer in enumerate(model.layers) for w in layer.weights}
