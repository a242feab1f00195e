"""How a model is compiled and the state of its optimizer, as Keras 3 keeps them in a `.keras` file; both ways.

In `config.json` that is `compile_config`, in the weights the group `optimizer/vars` with the arrays `0`, `1`, ... in the order
in which Keras's optimizers make them: the number of batches, the learning rate unless it follows a schedule, the averages of
the weights, the accumulated gradients, and the state of the rule.
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit import losses, metrics, optimizers
from normkit._registry import Registry
from normkit.metrics import is_accuracy
from normkit.models import Sequential
from normkit.optimizers import Nadam, Optimizer, RMSprop, schedules
from normkit.optimizers.base import ACCUMULATOR, AVERAGE, OptimizerOptions

__all__ = ["compile_arguments", "compile_config", "optimizer_arrays", "restore_optimizer"]

Array = NDArray[Any]
Config = dict[str, Any]

# Options that are not ours, with values that change nothing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "reduction": ("sum_over_batch_size", "mean_with_sample_weight", "auto"),
    "axis": (-1,),
    "num_regressors": (0,),
}
_NAMELESS = ("name", "dtype", "fn", "jit_compile", "is_legacy_optimizer")


def compile_config(model: Sequential) -> Config | None:
    """Return what Keras's ``compile_from_config`` takes; None for a model that is not compiled.

    Raises
    ------
    ValueError
        If Keras has no such optimizer, loss or metric, or they cannot be saved.
    """
    compiled = model.compiled_state
    if compiled is None:
        return None
    if compiled.merge_statistics:
        raise ValueError("Keras has no merge_statistics")
    ours = compiled.get_config()
    optimizer = _entry("keras.optimizers", ours["optimizer"])
    rate = optimizer["config"]["learning_rate"]
    if isinstance(rate, dict):
        if rate["class_name"] == "OneCycle":
            raise ValueError("Keras has no schedule OneCycle")
        optimizer["config"]["learning_rate"] = _entry("keras.optimizers.schedules", rate)

    def written(part: str) -> list[Any] | None:
        # As configurations, for not all of our names are Keras's.
        return [m if is_accuracy(m) else _entry("keras.metrics", _configured(m)) for m in ours[part]] or None

    return {
        "optimizer": optimizer,
        "loss": _entry("keras.losses", ours["loss"]),
        "loss_weights": None,
        "metrics": written("metrics"),
        "weighted_metrics": written("weighted_metrics"),
        "run_eagerly": False,
        "steps_per_execution": 1,
        "jit_compile": False,
    }


def _configured(metric: str | Config) -> Config:
    return metrics.registry.serialize(metrics.get(metric)) if isinstance(metric, str) else metric


def _entry(module: str, ours: Mapping[str, Any]) -> Config:
    return {
        "module": module,
        "class_name": ours["class_name"],
        "config": dict(ours.get("config", {})),
        "registered_name": None,
    }


def optimizer_arrays(model: Sequential) -> list[Array]:
    """Return the arrays of `optimizer/vars` of a compiled model."""
    compiled = model.require_compiled("save_keras")
    optimizer, flat = compiled.optimizer, compiled.flat
    if flat is not None:
        state = {name: flat.split(arrays) for name, arrays in optimizer.slots.items()}
    else:  # as it will be when training begins
        values = [weight.value for weight in model.trainable_weights]
        twin = copy.deepcopy(optimizer)
        twin.build([(value, value) for value in values])
        state = twin.slots
    arrays: list[Array] = [np.asarray(optimizer.batches, np.int32)]
    if optimizer.fixed_learning_rate is not None:
        arrays.append(np.asarray(optimizer.learning_rate, np.float32))
    arrays += _in_order(optimizer, state)
    if isinstance(optimizer, Nadam):
        arrays.append(np.asarray(_product(optimizer), model.dtype))
    return arrays


def _in_order(optimizer: Optimizer, state: Mapping[str, Sequence[Array]]) -> list[Array]:
    """Return the state in Keras's order: slot by slot, but of those that are made together the arrays of a weight are neighbours."""
    own = [name for name in state if name not in (AVERAGE, ACCUMULATOR)]
    together = 1 if isinstance(optimizer, RMSprop) else 2
    slots = [[name] for name in (AVERAGE, ACCUMULATOR) if name in state]
    slots += [own[:together], *([name] for name in own[together:])]
    return [
        array
        for names in slots
        for parts in zip(*(state[name] for name in names), strict=True)
        for array in parts
    ]


def _product(optimizer: Nadam) -> float:
    """Return the product of the weights of the momentum so far (`Nadam`), which Keras keeps as a variable."""
    return math.prod(optimizer.beta_1 * (1.0 - 0.5 * 0.96**t) for t in range(1, optimizer.iterations + 1))


def compile_arguments(config: Mapping[str, Any]) -> Config:
    """Return the arguments of `Sequential.compile` for a `compile_config` of Keras.

    Raises
    ------
    ValueError
        If there is something in it that is not known here, which the message names.
    """
    loss = config["loss"]
    if isinstance(loss, list) and len(loss) == 1:
        loss = loss[0]
    if config.get("loss_weights") not in (None, [1], [1.0]):
        raise ValueError(f"loss_weights={config['loss_weights']!r}")
    return {
        "optimizer": _ours(optimizers.registry, config["optimizer"]),
        "loss": _ours(losses.registry, loss),
        "metrics": _metrics(config.get("metrics")),
        "weighted_metrics": _metrics(config.get("weighted_metrics")),
    }


def _metrics(entries: Any) -> list[Any]:
    if isinstance(entries, list) and len(entries) == 1 and isinstance(entries[0], list):
        entries = entries[0]  # of the one output
    if not isinstance(entries, list | None):
        raise ValueError(f"metrics={entries!r}")  # noqa: TRY004
    return [_ours(metrics.registry, entry) for entry in entries or ()]


def _ours(registry: Registry[Any], entry: Any) -> str | Config:
    """Return a name or configuration for one of our registries."""
    if isinstance(entry, str):
        if not is_accuracy(entry):
            registry.find(entry)
        return entry
    if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict):
        raise ValueError(f"the {registry.kind} {entry!r}")  # noqa: TRY004
    kind = str(entry["class_name"])
    if (entry.get("module") or "keras").split(".")[0] != "keras":
        raise ValueError(f"the {registry.kind} {entry['module']}.{kind}")
    cls = registry.find(kind)
    known = set(inspect.signature(cls).parameters)
    if issubclass(cls, Optimizer):
        known |= set(OptimizerOptions.__annotations__)
    arguments = {}
    for option, value in entry["config"].items():
        if option == "learning_rate" and isinstance(value, dict):
            arguments[option] = _ours(schedules.registry, value)
        elif option in known:
            arguments[option] = value
        elif not (
            value is None or value is False or option in _NAMELESS or value in _NEUTRAL.get(option, ())
        ):
            raise ValueError(f"{option}={value!r} of the {registry.kind} {kind}")
    return {"class_name": kind, "config": arguments}


def restore_optimizer(model: Sequential, arrays: Sequence[Array]) -> None:
    """Let the optimizer of a compiled model go on from `optimizer/vars`; with a warning if these are another's."""
    compiled = model.require_compiled("load_keras")
    optimizer = compiled.optimizer
    start = 1 if optimizer.fixed_learning_rate is None else 2
    if len(arrays) < start or (len(arrays) == start and not arrays[0].any()):
        return  # it has not trained
    flat = compiled.lay_out(model.trainable_weights)
    state = {name: flat.split(parts) for name, parts in optimizer.slots.items()}
    places = _in_order(optimizer, state)
    count, saved = arrays[0], arrays[start : -1 if isinstance(optimizer, Nadam) else None]
    fits = [array.shape for array in saved] == [place.shape for place in places]
    if not fits or count.shape != () or count.dtype.kind not in "iu" or count < 0:
        warnings.warn(
            f"the file has the state of another optimizer than {type(optimizer).__name__}, or of other trainable "
            "weights; the optimizer starts anew",
            stacklevel=2,
        )
        return
    optimizer.batches = int(count)
    for place, array in zip(places, saved, strict=True):
        place[...] = array
