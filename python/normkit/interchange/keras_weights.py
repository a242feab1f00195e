"""The layout of Keras 3's `model.weights.h5`: for each layer a group `layers/dense_1/vars` of arrays `0`, `1`, ...

Groups are named by the classes of the layers, numbered within their model, not by the names of the layers.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit._optional import optional
from normkit._registry import snake_case
from normkit.interchange.weights import take_over
from normkit.layers import InstanceNormalization, Layer
from normkit.models import Sequential

__all__ = ["keras_class", "layer_groups", "numbered", "packed", "unpack", "unpack_optimizer"]

Array = NDArray[Any]
OPTIMIZER = "optimizer/vars"


def numbered(classes: Iterable[str], parent: str = "layers") -> list[str]:
    """Return the groups of layers of these classes: ['layers/dense', 'layers/dense_1', ...]."""
    seen: Counter[str] = Counter()
    groups = []
    for name in map(snake_case, classes):
        groups.append(f"{parent}/{name}" + (f"_{seen[name]}" if seen[name] else ""))
        seen[name] += 1
    return groups


def keras_class(layer: Layer) -> str:
    """Return the name of Keras's class for a layer: ours, but that instance norm is a group norm there."""
    return "GroupNormalization" if isinstance(layer, InstanceNormalization) else type(layer).__name__


def layer_groups(model: Sequential) -> list[str]:
    """Return the group of each layer of a model."""
    return numbered(keras_class(layer) for layer in model.layers)


def packed(model: Sequential, optimizer: Sequence[Array] = ()) -> bytes:
    """Return the content of the HDF5 file, with these arrays of an optimizer."""
    h5py = optional("h5py", "Keras's format is written by", "interchange")
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_group("vars").attrs["name"] = model.name
        for group, layer in zip(layer_groups(model), model.layers, strict=True):
            variables = file.create_group(f"{group}/vars")
            variables.attrs["name"] = layer.name
            for index, weight in enumerate(layer.weights):
                variables[str(index)] = weight.value
        if optimizer:
            variables = file.create_group(OPTIMIZER)
            for index, array in enumerate(optimizer):
                variables[str(index)] = array
    return content.getvalue()


def unpack(content: bytes, layers: Sequence[Layer], groups: Sequence[str]) -> None:
    """Take the weights of layers out of the content of an HDF5 file.

    Parameters
    ----------
    content : bytes
        Of the file.
    layers : sequence of Layer
        Built.
    groups : sequence of str
        Where each layer's weights are.

    Raises
    ------
    ValueError, LookupError, OSError
        If the file is damaged, or has other weights. Then no weight has changed.
    """
    h5py = optional("h5py", "Keras's format is read by", "interchange")
    with h5py.File(io.BytesIO(content), "r") as file:
        if "layers" not in file:
            old = "model_weights" in file or "layer_names" in file.attrs
            raise ValueError(
                "it is in the older HDF5 format of Keras 2; load it with Keras, and save it as .keras"
                if old
                else "it has no group 'layers'"
            )
        arrays = [
            _arrays(h5py, file, f"{group}/vars", layer) for group, layer in zip(groups, layers, strict=True)
        ]
        _check_complete(h5py, file["layers"], {f"{group}/vars" for group in groups})
    take_over(layers, arrays, [0] * len(layers))


def unpack_optimizer(content: bytes) -> list[Array]:
    """Return the arrays of the optimizer, none if there are none.

    Raises
    ------
    ValueError, LookupError, OSError
        If the file is damaged.
    """
    h5py = optional("h5py", "Keras's format is read by", "interchange")
    with h5py.File(io.BytesIO(content), "r") as file:
        if OPTIMIZER not in file:
            return []
        group = _member(h5py, file, OPTIMIZER)
        found = []
        for index in range(len(group)):
            dataset = _member(h5py, group, str(index))
            if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
                raise ValueError(f"{OPTIMIZER}/{index} is no array in this file")
            if dataset.dtype.kind not in "fiu" or dataset.size * dataset.dtype.itemsize > len(content):
                raise ValueError(f"{OPTIMIZER}/{index} is {dataset.dtype} of shape {dataset.shape}")
            found.append(np.asarray(dataset))
        return found


def _arrays(h5py: Any, file: Any, path: str, layer: Layer) -> Mapping[str, Array]:
    group = _member(h5py, file, path) if layer.weights or path in file else {}
    names = [weight.name for weight in layer.weights]
    if len(group) != len(names):
        raise layer.fail(f"expected {len(names)} weights ({', '.join(names)}) in {path}, got {len(group)}")
    found = {}
    for index, weight in enumerate(layer.weights):
        dataset = _member(h5py, group, str(index))
        if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
            raise layer.fail(f"{path}/{index} is no array in this file")
        if dataset.shape != weight.shape or dataset.dtype not in (np.float32, np.float64):
            raise layer.fail(
                f"'{weight.name}' must be float32 or float64 of shape {weight.shape}, "
                f"{path}/{index} is {dataset.dtype} of shape {dataset.shape}"
            )
        found[weight.name] = np.asarray(dataset)
    return found


def _member(h5py: Any, group: Any, path: str) -> Any:
    """Return what is at a path, without following a link into another place or file."""
    walked = ""
    for part in path.split("/"):
        walked = f"{walked}/{part}".lstrip("/")
        if not isinstance(group, h5py.Group) or part not in group:
            raise KeyError(walked)
        is_here = isinstance(group.get(part, getlink=True), h5py.HardLink)
        if not is_here:
            raise ValueError(f"'{walked}' is a link, which those files never have")
        group = group[part]
    return group


def _check_complete(h5py: Any, root: Any, wanted: set[str]) -> None:
    """Raise ValueError if there are weights of layers that the model lacks. Random generators have a state too."""
    others: list[str] = []

    def visit(name: str, item: Any) -> None:
        path = f"layers/{name}"
        is_weights = isinstance(item, h5py.Group) and name.endswith("/vars") and len(item)
        if is_weights and path not in wanted and "seed_generator" not in path:
            others.append(path)

    root.visititems(visit)
    if others:
        raise ValueError(f"it has weights in {others[0]}, and the model has no such layer")
