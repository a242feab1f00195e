"""Torch's `nn.Sequential`, to and from a model: layers and conventions as well as weights.

Torch is not imported: modules are told by the names of their classes, and made by the package that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from normkit import activations, layers
from normkit.activations import ActivationFunction
from normkit.interchange.torch_state import check_axes, from_torch, to_torch
from normkit.interchange.weights import inputs, require_built
from normkit.layers import Input, Layer
from normkit.layers.base import ActivatedLayer, Shape
from normkit.models import Sequential
from normkit.stats import RunningStats

__all__ = ["from_torch_module", "to_torch_module"]

# exp(-40) is nothing beside 40 in float64; torch cuts its softplus at 20.
_SOFTPLUS_THRESHOLD = 40.0
_ACTIVATIONS = {
    "ReLU": "relu",
    "ReLU6": "relu6",
    "SELU": "selu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "SiLU": "silu",
    "Mish": "mish",
    "Softsign": "softsign",
    "Hardsigmoid": "hard_sigmoid",
}


def from_torch_module(module: Any, input_shape: Sequence[int]) -> Sequential:
    """Return a model of the layers, weights and conventions of a torch module.

    Parameters
    ----------
    module : nn.Sequential
        Of Linear, BatchNorm1d (2d, 3d), LayerNorm, RMSNorm, GroupNorm, InstanceNorm1d (2d, 3d), activations, Dropout, Flatten, Identity, and Sequentials of these.
    input_shape : sequence of int
        Shape of one sample.

    Returns
    -------
    Sequential
        Batch norms have the module's eps, momentum, statistics and count, and go on by torch's rule: the unbiased variance.

    Raises
    ------
    ValueError
        If a module is of another class, or has an option that is not known here; the message names it.
    """
    made = [
        (name, part, layer) for name, part in _parts(module, "") if (layer := _layer(name, part)) is not None
    ]
    state = module.state_dict()
    floats = [array.dtype for array in map(_numpy, state.values()) if array.dtype.kind == "f"]
    model = Sequential(
        [Input(input_shape), *(layer for _, _, layer in made)], dtype=floats[0] if floats else np.float32
    )
    shapes = inputs(model)
    for name, part, layer in made:
        rank = len(shapes[layer])
        if type(part).__name__ in ("Softmax", "LogSoftmax") and part.dim not in (-1, rank - 1):
            raise _lacks(name, part, "dim")
    from_torch(model, state, [name for name, _, layer in made if layer.weights])
    return model


def _lacks(name: str, part: Any, option: str) -> ValueError:
    return ValueError(
        f"from_torch_module: {type(part).__name__} '{name}' has {option}={getattr(part, option)!r}, which normkit lacks"
    )


def _numpy(tensor: Any) -> Any:
    return tensor.detach().cpu().numpy()


def _parts(module: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if type(module).__name__ != "Sequential":
        raise ValueError(f"from_torch_module: expected an nn.Sequential, got a {type(module).__name__}")
    for name, part in module.named_children():
        if type(part).__name__ == "Sequential":
            yield from _parts(part, f"{prefix}{name}.")
        else:
            yield prefix + name, part


def _layer(name: str, part: Any) -> Layer | None:
    """Make the layer of a module; None of an Identity."""
    kind = type(part).__name__

    def expect(**options: Any) -> None:
        for option, value in options.items():
            if getattr(part, option) not in (value if isinstance(value, tuple) else (value,)):
                raise _lacks(name, part, option)

    affine: dict[str, Any] = {
        "scale": getattr(part, "weight", None) is not None,
        "center": getattr(part, "bias", None) is not None,
    }
    match kind:
        case "Identity":
            return None
        case "Linear":
            return layers.Dense(part.out_features, use_bias=affine["center"])
        case "BatchNorm1d" | "BatchNorm2d" | "BatchNorm3d":
            expect(track_running_stats=True)
            stats = RunningStats.torch(
                part.num_features, part.momentum, dtype=_numpy(part.running_mean).dtype
            )
            return layers.BatchNormalization(axis=1, epsilon=part.eps, stats=stats, **affine)
        case "LayerNorm":
            axes = range(-len(part.normalized_shape), 0)
            return layers.LayerNormalization(axis=axes, epsilon=part.eps, **affine)
        case "RMSNorm":
            expect(elementwise_affine=True)
            eps = np.finfo(_numpy(part.weight).dtype).eps if part.eps is None else part.eps
            return layers.RMSNormalization(axis=range(-len(part.normalized_shape), 0), epsilon=float(eps))
        case "GroupNorm":
            return layers.GroupNormalization(part.num_groups, axis=1, epsilon=part.eps, **affine)
        case "InstanceNorm1d" | "InstanceNorm2d" | "InstanceNorm3d":
            expect(track_running_stats=False)
            return layers.InstanceNormalization(axis=1, epsilon=part.eps, **affine)
        case "Dropout":
            return layers.Dropout(part.p)
        case "Flatten":
            expect(start_dim=1, end_dim=-1)
            return layers.Flatten()
        case "LeakyReLU":
            return layers.LeakyReLU(part.negative_slope)
        case "ELU":
            return layers.ELU(part.alpha)
        case "Softmax" | "LogSoftmax":
            return layers.Activation("softmax" if kind == "Softmax" else "log_softmax")
        case "GELU":
            expect(approximate="none")
            return layers.Activation("gelu")
        case "Softplus":
            expect(beta=1, threshold=(20, _SOFTPLUS_THRESHOLD))
            return layers.Activation("softplus")
    if kind not in _ACTIVATIONS:
        raise ValueError(f"from_torch_module: '{name}' is a {kind}, which normkit has no layer for")
    return layers.Activation(_ACTIVATIONS[kind])


def to_torch_module(model: Sequential, torch: Any) -> Any:
    """Return an `nn.Sequential` of the layers, weights and conventions of a model, numbered as `to_torch` says.

    Parameters
    ----------
    model : Sequential
        A built model, of one dtype.
    torch : module
        The package: ``import torch``.

    Returns
    -------
    nn.Sequential
        In training mode, as a new module is; ``.eval()`` makes it predict. Its batch norms go on by torch's rule: a moving
        variance that is biased here moves towards n / (n − 1) times as much.

    Raises
    ------
    ValueError
        If the model has no weights yet or several dtypes, or torch has no module for a layer; the message names it.
    """
    shapes = inputs(require_built(model, "to_torch_module"))
    dtypes = {layer.dtype for layer in model.layers}
    if len(dtypes) > 1:
        raise ValueError(
            f"to_torch_module: the layers must be of one dtype, got {', '.join(map(str, dtypes))}"
        )
    parts = [part for layer, shape in shapes.items() for part in _modules(layer, shape, torch.nn)]
    module = torch.nn.Sequential(*parts).to(getattr(torch, dtypes.pop().name))
    module.load_state_dict({name: torch.from_numpy(array) for name, array in to_torch(model).items()})
    return module


def _modules(layer: Layer, shape: Shape, nn: Any) -> list[Any]:
    check_axes(layer, len(shape))
    match layer:
        case layers.Dense():
            linear = nn.Linear(layer.kernel.shape[0], layer.units, bias=layer.use_bias)
            return [linear] if layer.activation.name == "linear" else [linear, _activation(layer, nn)]
        case layers.BatchNormalization():
            stats = layer.stats
            assert stats is not None
            if stats.debias or stats.skip_nonfinite or stats.frozen or layer.ghost_size or layer.renorm:
                raise layer.fail(
                    "torch has no debias, skip_nonfinite, frozen statistics, ghost_size and renorm"
                )
            cls = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(len(shape))
            if cls is None:
                raise layer.fail(f"torch has no batch norm for {len(shape)} axes")
            affine = layer.scale or layer.center
            return [cls(stats.num_channels, eps=layer.epsilon, momentum=stats.momentum, affine=affine)]
        case layers.LayerNormalization():
            lengths = [n or 0 for n in shape[len(shape) - len(layer.axis) :]]
            affine = layer.scale or layer.center
            return [nn.LayerNorm(lengths, eps=layer.epsilon, elementwise_affine=affine)]
        case layers.RMSNormalization():
            return [nn.RMSNorm(layer.scale.shape, eps=layer.epsilon)]
        case layers.GroupNormalization():
            channels = shape[1] or 0
            groups = channels if layer.groups == -1 else layer.groups
            affine = layer.scale or layer.center
            return [nn.GroupNorm(groups, channels, eps=layer.epsilon, affine=affine)]
        case layers.Dropout():
            return [nn.Dropout(layer.rate)]
        case layers.Flatten():
            return [nn.Flatten()]
        case ActivatedLayer():
            return [_activation(layer, nn)]
    raise layer.fail("torch has no module for it")


def _activation(layer: ActivatedLayer, nn: Any) -> Any:
    function = layer.activation
    make: dict[type[ActivationFunction], Callable[[], Any]] = {
        activations.LeakyRelu: lambda: nn.LeakyReLU(getattr(function, "negative_slope", 0.0)),
        activations.Elu: lambda: nn.ELU(getattr(function, "alpha", 1.0)),
        type(activations.softmax): lambda: nn.Softmax(-1),
        type(activations.log_softmax): lambda: nn.LogSoftmax(-1),
        type(activations.gelu): nn.GELU,
        type(activations.softplus): lambda: nn.Softplus(threshold=_SOFTPLUS_THRESHOLD),
        type(activations.linear): nn.Identity,
    }
    make |= {type(activations.get(ours)): getattr(nn, theirs) for theirs, ours in _ACTIVATIONS.items()}
    if type(function) not in make:
        raise layer.fail(f"torch has no module for the activation '{function.name}'")
    return make[type(function)]()
