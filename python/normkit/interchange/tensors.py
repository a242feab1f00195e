"""Weights as a safetensors file, under torch's or under Keras's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from normkit._paths import a_path
from normkit.interchange.files import PathLike, reading
from normkit.interchange.torch_state import from_torch, to_torch
from normkit.interchange.weights import require_built, take_over, weighted_layers
from normkit.layers import Layer
from normkit.models import Sequential, safetensors
from normkit.models.archive import replacing

__all__ = ["load_safetensors", "save_safetensors"]

Style = Literal["torch", "keras"]


def save_safetensors(
    model: Sequential, path: PathLike, style: Style = "torch", names: Sequence[str] | None = None
) -> None:
    """Write the weights of a model as a safetensors file.

    Parameters
    ----------
    model : Sequential
        A built model.
    path : path-like
        The file.
    style : {"torch", "keras"}
        "torch": what `to_torch` returns, for ``module.load_state_dict(safetensors.torch.load_file(path))``.
        "keras": 'dense/kernel', 'batch_normalization/moving_mean' and so on, in our shapes.
    names : sequence of str, optional
        See `to_torch`.

    Raises
    ------
    ValueError
        If the model has no weights yet, or `to_torch` refuses it. An existing file then stays as it is.
    """
    require_built(model, "save_safetensors")
    if _is_torch(style, names, "save_safetensors"):
        arrays = to_torch(model, names)
    else:
        arrays = {
            _key(layer, weight.name): weight.value for layer in model.layers for weight in layer.weights
        }
    with replacing(a_path("save_safetensors: path", path)) as file:
        safetensors.dump(file, arrays, {"format": "pt" if style == "torch" else "np"})


def load_safetensors(
    model: Sequential, path: PathLike, style: Style = "torch", names: Sequence[str] | None = None
) -> None:
    """Take over the weights in a safetensors file, one of `save_safetensors` or of a torch module.

    Parameters
    ----------
    model : Sequential
        A built model of the same architecture. Epsilon, momentum and the rule of the variance stay its own; to convert
        them, pass ``safetensors.numpy.load_file(path)`` to `from_torch`.
    path, style, names
        See `save_safetensors`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the model has no weights yet, or the file is damaged or has other weights. Then no weight has changed.
    """
    layers = weighted_layers(require_built(model, "load_safetensors"))
    is_torch = _is_torch(style, names, "load_safetensors")
    with reading(path, "safetensors") as file:
        _, arrays = safetensors.parse(file.read_bytes())
        if is_torch:
            from_torch(model, arrays, names)
            return
        rest = dict(arrays)
        taken = [
            {weight.name: rest.pop(_key(layer, weight.name)) for weight in layer.weights} for layer in layers
        ]
        if rest:
            raise ValueError(f"it has '{next(iter(rest))}', and the model has no such weight")
        take_over(layers, taken, [0] * len(layers))


def _key(layer: Layer, weight: str) -> str:
    return f"{layer.name}/{weight}"


def _is_torch(style: str, names: Sequence[str] | None, doing: str) -> bool:
    if style not in ("torch", "keras"):
        raise ValueError(f"{doing}: style must be 'torch' or 'keras', got {style!r}")
    if style == "keras" and names is not None:
        raise ValueError(f"{doing}: names are torch's; with style='keras' the layers have theirs")
    return style == "torch"
