"""Activation functions with Keras's names, and their gradients."""

from __future__ import annotations

from normkit._checks import shown
from normkit._names import choices, show_public_names
from normkit.activations.base import ActivationFunction
from normkit.activations.gelu import Gelu
from normkit.activations.rectifiers import Elu, LeakyRelu, Linear, Relu, Relu6, Selu
from normkit.activations.smooth import (
    Exponential,
    HardSigmoid,
    LogSoftmax,
    Mish,
    Sigmoid,
    Silu,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
)

__all__ = [
    "ActivationFunction",
    "Elu",
    "LeakyRelu",
    "elu",
    "exponential",
    "gelu",
    "get",
    "hard_sigmoid",
    "leaky_relu",
    "linear",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "serialize",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
]

show_public_names(__name__)

relu = Relu()
gelu = Gelu()
sigmoid = Sigmoid()
tanh = Tanh()
softmax = Softmax()
linear = Linear()
relu6 = Relu6()
leaky_relu = LeakyRelu()
elu = Elu()
selu = Selu()
silu = swish = Silu()
mish = Mish()
softplus = Softplus()
softsign = Softsign()
hard_sigmoid = HardSigmoid()
exponential = Exponential()
log_softmax = LogSoftmax()

_ALL: tuple[ActivationFunction, ...] = (
    relu,
    gelu,
    sigmoid,
    tanh,
    softmax,
    linear,
    relu6,
    leaky_relu,
    elu,
    selu,
    silu,
    mish,
    softplus,
    softsign,
    hard_sigmoid,
    exponential,
    log_softmax,
)
_BY_NAME = {function.name: function for function in _ALL} | {"swish": silu}


def get(identifier: str | ActivationFunction | None) -> ActivationFunction:
    """Return the activation of that name; None is linear.

    Raises
    ------
    ValueError
        If there is no such name; the message lists what there is.
    TypeError
        If the identifier is neither a name nor an activation.
    """
    if identifier is None:
        return linear
    if isinstance(identifier, ActivationFunction):
        return identifier
    if not isinstance(identifier, str):
        raise TypeError(
            f"activation must be one of {', '.join(_BY_NAME)} or an ActivationFunction, got {shown(identifier)}"
            + ("; a layer goes into the model after this one" if hasattr(identifier, "ensure_built") else "")
        )
    try:
        return _BY_NAME[identifier.lower()]
    except KeyError:
        raise ValueError(f"no activation '{identifier}'{choices(identifier, _BY_NAME)}") from None


def name_of(function: ActivationFunction) -> str | None:
    """Return the name by which `get` finds this activation; None if it finds another, or nothing."""
    known = _BY_NAME.get(getattr(function, "name", ""))  # a copy is as good
    same = type(known) is type(function) and vars(known) == vars(function)
    return function.name if same else None


def serialize(function: ActivationFunction) -> str:
    """Return the name by which `get` finds this activation; ValueError if it is not one of this package."""
    name = name_of(function)
    if name is None:
        raise ValueError(
            f"cannot save activation '{function.name}' of class {type(function).__module__}."
            f"{type(function).__qualname__}; can: {', '.join(_BY_NAME)}"
        )
    return name
