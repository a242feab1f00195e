"""The layout of Keras 3's `model.weights.h5`: for each layer a group `layers/dense_1/vars` of arrays `0`, `1`, ...

Groups are named by the classes of the layers, numbered within their model, not by the names of the layers.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit._optional import optional
from normkit._reading import check_promise
from normkit._registry import snake_case
from normkit.interchange.weights import take_over
from normkit.layers import InstanceNormalization, Layer
from normkit.models import Sequential

__all__ = [
    "admitting",
    "keras_class",
    "layer_groups",
    "numbered",
    "packed",
    "read_weights",
    "unpack",
    "unpack_optimizer",
]

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


def read_weights(content: bytes, groups: Sequence[str]) -> list[list[Array]]:
    """Return the arrays of layers, in the order of their numbers, out of the content of an HDF5 file.

    Parameters
    ----------
    content : bytes
        Of the file.
    groups : sequence of str
        Where each layer's weights are; one without has none.

    Raises
    ------
    ValueError, LookupError, OSError
        If the file is damaged, has weights of other layers, or promises more than it can hold.
    """
    h5py = optional("h5py", "Keras's format is read by", "interchange")
    with h5py.File(io.BytesIO(content), "r") as file:
        if not file.id.links.exists(b"layers"):
            old = "model_weights" in file or "layer_names" in file.attrs
            raise ValueError(
                "it is in the older HDF5 format of Keras 2; load it with Keras, and save it as .keras"
                if old
                else "it has no group 'layers'"
            )
        datasets = [_datasets(h5py, file, f"{group}/vars") for group in groups]
        _check_complete(h5py, _member(h5py, file, "layers"), {f"{group}/vars" for group in groups})
        _check_sizes(list(chain(*datasets)), content)
        return [[np.asarray(dataset) for dataset in found] for found in datasets]


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
            if dataset.dtype.kind not in "fiu":
                raise ValueError(f"{OPTIMIZER}/{index} is {dataset.dtype} of shape {dataset.shape}")
            found.append(dataset)
        _check_sizes(found, content)
        return [np.asarray(dataset) for dataset in found]


def _check_sizes(datasets: Sequence[Any], content: bytes) -> None:
    """Raise ValueError unless a file of this content can hold the values of these datasets."""
    for dataset in datasets:
        if dataset.id.get_storage_size() == 0 and dataset.size:
            raise ValueError(f"{dataset.name[1:]} of shape {dataset.shape} has no values in this file")
    promised = sum(dataset.size * dataset.dtype.itemsize for dataset in datasets)
    check_promise("it has weights that it cannot hold; all", promised, len(content))


def _datasets(h5py: Any, file: Any, path: str) -> list[Any]:
    try:
        group = _member(h5py, file, path)
    except KeyError:
        return []
    if not isinstance(group, h5py.Group):
        raise ValueError(f"{path} is no group of arrays")  # noqa: TRY004
    found = []
    for index in range(len(group)):
        dataset = _member(h5py, group, str(index))
        if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
            raise ValueError(f"{path}/{index} is no array in this file")
        if dataset.dtype not in (np.float32, np.float64):
            raise ValueError(f"{path}/{index} must be float32 or float64, is {dataset.dtype}")
        found.append(dataset)
    return found


def admitting(layer: Layer, arrays: Sequence[Array]) -> Callable[[str, tuple[int, ...]], None]:
    """Return a check that the next weight of a layer has the shape of the array for it; see `Layer.admit`."""

    def check(name: str, shape: tuple[int, ...]) -> None:
        index = len(layer.weights)
        there = arrays[index].shape if index < len(arrays) else None
        if there != shape:
            raise layer.fail(f"'{name}' must have shape {shape}, the file has {there or 'none'}")

    return check


def unpack(arrays: Sequence[Sequence[Array]], layers: Sequence[Layer], groups: Sequence[str]) -> None:
    """Let layers, which are built, take over what `read_weights` returned.

    Raises
    ------
    ValueError
        If there are other weights, or other shapes. Then no weight has changed.
    """
    named = []
    for found, layer, group in zip(arrays, layers, groups, strict=True):
        names = [weight.name for weight in layer.weights]
        if len(found) != len(names):
            raise layer.fail(
                f"expected {len(names)} weights ({', '.join(names)}) in {group}/vars, got {len(found)}"
            )
        for index, (array, weight) in enumerate(zip(found, layer.weights, strict=True)):
            if array.shape != weight.shape:
                raise layer.fail(
                    f"'{weight.name}' must have shape {weight.shape}, {group}/vars/{index} has {array.shape}"
                )
        named.append(dict(zip(names, found, strict=True)))
    take_over(layers, named, [0] * len(layers))


def _member(h5py: Any, group: Any, path: str) -> Any:
    """Return what is at a path, without following a link into another place or file."""
    walked = ""
    for part in path.split("/"):
        walked = f"{walked}/{part}".lstrip("/")
        # `part in group` would open the file that an external link names.
        if not isinstance(group, h5py.Group) or not group.id.links.exists(part.encode()):
            raise KeyError(walked)
        if group.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
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
