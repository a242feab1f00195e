"""Layers as Keras 3 writes them in `config.json`, both ways."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from normkit import activations, initializers, layers
from normkit.interchange.keras_weights import keras_class
from normkit.layers import BatchNormalization, Layer
from normkit.models.saving import layer_registry

__all__ = ["DamagedError", "activation_of", "as_written", "check_row", "from_keras", "to_keras"]

Config = dict[str, Any]


class DamagedError(ValueError):
    """A configuration is not built as Keras builds them."""


@contextmanager
def as_written(part: str) -> Iterator[None]:
    """Turn what Python says of a part of `config.json` that is built otherwise into a DamagedError that names the part."""
    try:
        yield
    except KeyError as error:
        raise DamagedError(f"it is damaged: {part} has no '{error.args[0]}' where one is needed") from error
    except (TypeError, AttributeError, IndexError) as error:
        raise DamagedError(
            f"it is damaged: {part} has a value of another kind, or fewer values, than Keras writes"
        ) from error


class _Known(NamedTuple):
    """What there is of a layer of Keras: its options that are ours too, and values of others that change nothing."""

    cls: type[Layer]
    options: str = ""
    neutral: Mapping[str, tuple[Any, ...]] = {}


_ANY: tuple[Any, ...] = ()
_AFFINE = "epsilon center scale beta_initializer gamma_initializer beta_regularizer gamma_regularizer"
_KNOWN: dict[str, _Known] = {
    "Dense": _Known(
        layers.Dense,
        "units activation use_bias kernel_initializer bias_initializer kernel_regularizer bias_regularizer",
    ),
    "BatchNormalization": _Known(
        layers.BatchNormalization,
        f"axis momentum {_AFFINE} moving_mean_initializer moving_variance_initializer",
        # Without renorm these mean nothing; in one process all batch norms are synchronized.
        {"renorm_clipping": _ANY, "renorm_momentum": _ANY, "synchronized": (True,)},
    ),
    "LayerNormalization": _Known(layers.LayerNormalization, f"axis {_AFFINE}"),
    "RMSNormalization": _Known(layers.RMSNormalization, "axis epsilon"),
    "GroupNormalization": _Known(layers.GroupNormalization, f"groups axis {_AFFINE}"),
    "Activation": _Known(layers.Activation, "activation"),
    "ReLU": _Known(layers.ReLU, "", {"negative_slope": (0,), "threshold": (0,)}),
    "LeakyReLU": _Known(layers.LeakyReLU, "negative_slope"),
    "ELU": _Known(layers.ELU, "alpha"),
    "Softmax": _Known(layers.Softmax, "", {"axis": (-1,)}),
    "Dropout": _Known(layers.Dropout, "rate seed"),
    "GaussianNoise": _Known(layers.GaussianNoise, "stddev", {"seed": _ANY}),
    "Flatten": _Known(layers.Flatten, "", {"data_format": ("channels_last",)}),
    "Reshape": _Known(layers.Reshape, "target_shape"),
    "Rescaling": _Known(layers.Rescaling, "scale offset"),
}


def from_keras(entry: Config, name: str | None) -> Layer:
    """Make the layer of an entry of Keras's list of layers.

    Parameters
    ----------
    entry : dict
        With class_name, config and, from Keras 3 on, module.
    name : str, optional
        What it is to be called.

    Raises
    ------
    ValueError
        If it is of a class, or has an option, that is not known here. An initializer that is not known is replaced by
        the layer's own with a warning, since it counts for nothing once there are weights.
    """
    kind, config = entry["class_name"], dict(entry["config"])
    what = f"layer '{config.get('name')}'"
    module = entry.get("module") or "keras.layers"
    known = _KNOWN.get(kind) if module.split(".")[0] == "keras" else None
    if known is None:
        raise ValueError(f"{what} is a {module}.{kind}, which normkit lacks; it has {', '.join(_KNOWN)}")
    options = known.options.split()
    for option, value in config.items():
        if option not in options and option not in ("name", "trainable", "dtype"):
            allowed = known.neutral.get(option, (None, False))
            if not (value is None or value is False or allowed is _ANY or value in allowed):
                raise ValueError(f"{what}, a {kind}, has {option}={value!r}, which normkit lacks")
    arguments = {
        option: value
        for option in options
        if option in config and (value := _argument(what, option, config[option])) is not _MISSING
    }
    for option, parameter in inspect.signature(known.cls).parameters.items():
        if option in options and option not in config and parameter.default is parameter.empty:
            raise DamagedError(
                f"it is damaged: the config of {what}, a {kind}, has no '{option}' where one is needed"
            )
    try:
        with as_written("its dtype"):
            dtype = _dtype(config.get("dtype"))
        return known.cls(name=name, trainable=config.get("trainable", True), dtype=dtype, **arguments)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what}: {error}") from error


def activation_of(entry: Config) -> str | None:
    """Return our name of the activation in an entry of Keras's list of layers; None if that is not known."""
    if "activation" not in entry["config"]:
        return None
    try:
        return activations.get(entry["config"]["activation"]).name
    except (ValueError, TypeError):
        return None


_MISSING = object()


def _argument(what: str, option: str, value: Any) -> Any:
    """Return the value of an option as our layer takes it."""
    if option.endswith("_initializer"):
        return _initializer(what, option, value)
    if option == "activation" and not isinstance(value, str | None):
        raise ValueError(f"{what} has an activation that is no name: {value!r}")
    if option == "seed" and not isinstance(value, int):
        return None
    if isinstance(value, dict) and "class_name" in value:
        return {"class_name": value["class_name"], "config": value.get("config") or {}}
    return value


def _initializer(what: str, option: str, value: Any) -> Any:
    if isinstance(value, str):
        value = {"class_name": value, "config": {}}
    config = {key: part for key, part in value["config"].items() if part is not None}
    if "seed" in config and not isinstance(config["seed"], int):
        del config["seed"]
    try:
        return initializers.get({"class_name": value["class_name"], "config": config})
    except (ValueError, TypeError):
        warnings.warn(
            f"{what}: {option} is a {value['class_name']} of {config or 'no arguments'}, which normkit lacks; "
            "the weights are those of the file, and the layer has its default initializer",
            stacklevel=2,
        )
        return _MISSING


def _dtype(policy: Any) -> str | None:
    """Return the dtype of a policy: a name, or since Keras 3.2 an object."""
    if isinstance(policy, dict):
        policy = policy["config"]["name"] if policy["class_name"] == "DTypePolicy" else policy["class_name"]
    if policy not in (None, "float32", "float64"):
        raise ValueError(f"the dtype must be float32 or float64, got {policy}")
    return None if policy is None else str(policy)


def check_row(config: Config) -> None:
    """Raise ValueError if the layers of a functional model are not one row, each with the output of the one before."""
    before: list[str] = []
    for entry in config["layers"]:
        nodes = entry["inbound_nodes"]
        sources = [arg["config"]["keras_history"][0] for node in nodes for arg in node["args"]]
        options = [value for node in nodes for value in node["kwargs"].values() if value is not None]
        if sources != before or options:
            raise ValueError(
                f"the model is no row of layers: '{entry['name']}' should be called once, with the output of "
                f"{before[0] if before else 'nothing'} and nothing else"
            )
        before = [entry["name"]]
    outputs = config["output_layers"]
    names = outputs[:1] if outputs and isinstance(outputs[0], str) else [output[0] for output in outputs]
    if names != before:
        raise ValueError(f"the model is no row of layers: its outputs are {', '.join(map(str, names))}")


def to_keras(layer: Layer) -> Config:
    """Return the entry for Keras's list of layers.

    Raises
    ------
    ValueError
        If the layer is of a class of another package, or does what Keras cannot be told.
    """
    config = layer_registry.serialize(layer)["config"]
    if "/" in layer.name:
        raise layer.fail("Keras allows no '/' in a name; give it another")
    if isinstance(layer, BatchNormalization):
        config |= _rules(layer)
        for option in ("stats", "ghost_size", "renorm"):
            config.pop(option, None)
    if isinstance(layer, layers.InstanceNormalization):
        config["groups"] = layer.groups
    for option, value in config.items():
        if isinstance(value, dict):
            module = "keras.initializers" if option.endswith("_initializer") else "keras.regularizers"
            config[option] = {"module": module, **value, "registered_name": None}
    return {
        "module": "keras.layers",
        "class_name": keras_class(layer),
        "config": config,
        "registered_name": None,
    }


def _rules(layer: BatchNormalization) -> Config:
    """Return the momentum, if the moving statistics follow Keras's rules; if not, raise ValueError."""
    stats = layer.stats
    assert stats is not None
    lacks = [
        f"{name}={getattr(owner, name)}"
        for owner, names in (
            (layer, ("ghost_size", "renorm")),
            (stats, ("unbiased", "debias", "skip_nonfinite", "frozen")),
        )
        for name in names
        if getattr(owner, name)
    ]
    if stats.momentum is None:
        lacks.append("momentum=None")
    if lacks:
        raise layer.fail(
            f"Keras has no {', '.join(lacks)}; to write it for predictions, take that back first "
            "(layer.stats.unbiased = False, ...): the weights stay as they are"
        )
    if stats.momentum == 1.0 - layer.momentum:
        return {"momentum": layer.momentum}
    return {"momentum": 1.0 - float(stats.momentum or 0.0)}
