"""`Setup`: what a `fit` was called with and on, to tell whether a backup is of the same training."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from normkit._registry import Configurable
from normkit.data.arrays import Arrays
from normkit.data.minibatches import MiniBatches
from normkit.data.source import Source
from normkit.layers.base import ActivatedLayer, Layer

if TYPE_CHECKING:
    from normkit.models.sequential import Sequential
    from normkit.models.training import Validation

__all__ = ["Setup", "differences", "told"]

SHOWN = 4  # differences that a message lists
ARRAYS = ("x", "y", "sample_weight")
# Of two layers, optimizers, ... of different class the settings are not worth comparing.
PARTS = {"layers": "layer ", "optimizer": "optimizer ", "loss": "loss ", "metrics": "metric "}
WHOLE_BYTES = 1 << 28
SAMPLED_BLOCKS, SAMPLED_ROWS = 8, 32  # of data that are larger, or not in memory


class Setup:
    """What the result of a `fit` depends on, as names and values of which JSON can be made.

    Nothing is looked at before somebody asks: most trainings have no backup.

    Parameters
    ----------
    model : Sequential
        Compiled and built.
    batches : MiniBatches
        What to train on.
    validation : Validation, optional
        What to validate on.
    steps_per_epoch, class_weight, initial_epoch
        As `fit` was given them.
    """

    def __init__(
        self,
        model: Sequential,
        batches: MiniBatches,
        validation: Validation | None,
        *,
        steps_per_epoch: int | None,
        class_weight: Mapping[int, float] | None,
        initial_epoch: int,
    ) -> None:
        self._model, self._batches, self._validation = model, batches, validation
        self._steps_per_epoch, self._class_weight = steps_per_epoch, class_weight
        self._initial_epoch = initial_epoch

    def look(self) -> None:
        """Note the settings of model and optimizer: before training, as callbacks change them."""
        _ = self._settings

    @cached_property
    def _settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is decisive, and what is advisory, without the data."""
        model, compiled = self._model, self._model.require_compiled("fit")
        optimizer, loss = compiled.optimizer, compiled.loss
        arguments = _config(optimizer)
        arguments.pop("name", None)
        rate = arguments.get("learning_rate")
        if isinstance(rate, float):  # which may be changed, but not for a schedule
            arguments["learning_rate"] = "a number"
        weights = self._class_weight
        decisive = {
            "input_shape": model.input_shape,
            "layers": [type(layer).__name__ for layer in model.layers],
            **{
                f"layer {i} ({type(layer).__name__})": _layer_config(layer)
                for i, layer in enumerate(model.layers)
            },
            "optimizer": type(optimizer).__name__,
            f"optimizer {type(optimizer).__name__}": arguments,
            "loss": type(loss).__name__,
            f"loss {type(loss).__name__}": _config(loss),
            "metrics": list(compiled.metrics),
            **{f"metric {name}": _config(metric) for name, metric in compiled.metrics.items()},
            "merge_statistics": compiled.merge_statistics,
            "steps_per_epoch": self._steps_per_epoch,
            "class_weight": None if weights is None else {str(label): w for label, w in weights.items()},
        }
        distribution = model.distribution
        ranks = "any" if getattr(distribution, "deterministic", False) else distribution.comm.size
        return decisive, {
            "learning_rate": rate if isinstance(rate, float) else None,
            "initial_epoch": self._initial_epoch,
            "ranks": ranks,
        }

    @cached_property
    def values(self) -> dict[str, dict[str, Any]]:
        """'decisive': what the weights depend on. 'advisory': what matters only to some, and may be changed."""
        settings, advisory = self._settings
        place = self._batches.state_dict()
        order = "drawn with the seed of a MiniBatches" if "seed" in place else "drawn with a random generator"
        decisive = {**settings, **place["data"], **_data(self._batches), "order": order}
        if self._class_weight is not None:
            decisive.pop("sample_weight", None)  # which is made of it
        advisory = dict(advisory)
        if self._validation is not None:
            batches, steps, every = self._validation
            advisory["validation_data"] = _data(batches) or "of unknown content"
            advisory["validation_steps"] = steps
            advisory["validation_freq"] = every if isinstance(every, int) else sorted(every)
            advisory["validation_batch_size"] = batches.batch_size
        plain: dict[str, dict[str, Any]] = _plain({"decisive": decisive, "advisory": advisory})
        return plain


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what is another in two parts of `Setup.values`: by name, their value and ours."""
    found = _compared(theirs, ours)
    hidden = tuple(start for name, start in PARTS.items() if name in found)
    if None in found.get("validation_data", ()):
        hidden += ("validation_",)
    return {
        name: pair for name, pair in found.items() if name == "validation_data" or not name.startswith(hidden)
    }


def _compared(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], before: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Compare what both have of nested mappings: 'layer 0 (Dense) activation'. A mapping that only one has is one value."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys([*theirs, *ours]):
        then, now = theirs.get(name), ours.get(name)
        if (
            isinstance(then, Mapping)
            and isinstance(now, Mapping)
            and then.get("class_name") == now.get("class_name")
        ):
            found |= _compared(then, now, f"{before}{name} ")
        elif json.dumps(then) != json.dumps(now):
            found[f"{before}{name}"] = then, now
    return found


def told(found: Mapping[str, tuple[Any, Any]], side: int) -> str:
    """List the values of one side, the first few."""
    shown = [f"{name}={_short(pair[side])}" for name, pair in list(found.items())[:SHOWN]]
    more = len(found) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("class_name") or f"{{{', '.join(f'{k}: {_short(v)}' for k, v in value.items())}}}"
        return value if len(value) <= 80 else f"{value[:77]}..."
    text = repr(value) if not isinstance(value, str) or value.isidentifier() else value
    return text if len(text) <= 80 else f"{text[:77]}..."


def _plain(value: Any) -> Any:
    """Return what JSON would make of it; of an object that it does not know the name alone."""
    return json.loads(json.dumps(value, default=_named))


def _named(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return getattr(value, "__name__", type(value).__name__)


def _config(item: Configurable) -> dict[str, Any]:
    """Return the arguments of an object, as far as it tells them."""
    try:
        return dict(item.get_config())
    except Exception:  # noqa: BLE001 - a class of somebody else's, or with a part that is
        return {}


def _layer_config(layer: Layer) -> dict[str, Any]:
    """Return what the output of a layer with given weights depends on."""
    config = {"trainable": layer.trainable, "dtype": layer.dtype.name, **_config(layer)}
    if isinstance(layer, ActivatedLayer):
        config["activation"] = layer.activation.name
    return {name: value for name, value in config.items() if name != "name" and "initializer" not in name}


def _data(batches: MiniBatches) -> dict[str, str]:
    """Describe data so that others are told apart; nothing of those that can be read only once.

    Before any function of `Source.map`, which may well be a random one.
    """
    data = batches.data
    if not isinstance(data, Source):
        return {}
    try:
        parts = [part for origin in data.origins for part in _described(origin)]
    except (ValueError, OSError):  # what cannot be read is told of where it is trained on
        return {}
    return dict(zip(ARRAYS, parts, strict=False)) | {
        f"array {i}": part for i, part in enumerate(parts) if i >= len(ARRAYS)
    }


def _described(data: Source) -> list[str]:
    """Describe each array of a source: small ones in memory by all values, others by rows spread over the whole."""
    whole = isinstance(data, Arrays) and sum(array.nbytes for array in data.arrays) <= WHOLE_BYTES
    rows, blocks = (len(data), 1) if whole else (SAMPLED_ROWS, SAMPLED_BLOCKS)
    checksums = [0] * len(data.empty)
    for start in np.unique(np.linspace(0, max(0, len(data) - rows), blocks, dtype=np.int64)).tolist():
        block = data.read(start, min(start + rows, len(data)))
        checksums = [
            zlib.crc32(np.ascontiguousarray(array).data, checksum)
            for array, checksum in zip(block.arrays, checksums, strict=True)
        ]
    return [
        f"{part.dtype} of shape {(len(data), *part.shape[1:])}, checksum{'' if whole else ' of some'} {checksum:08x}"
        for part, checksum in zip(data.empty, checksums, strict=True)
    ]
