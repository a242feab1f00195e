"""`Graph`: the nodes and constants of an ONNX graph in a row, and `add_activation`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit import activations
from normkit.activations import ActivationFunction

__all__ = ["Graph", "activate"]

Array = NDArray[Any]


class Graph:
    """A graph that grows by its end.

    Parameters
    ----------
    onnx : module
        The package.
    dtype : dtype
        Of the next layer; constants are of it.

    Attributes
    ----------
    nodes, constants : list
        What ``onnx.helper.make_graph`` takes.
    """

    def __init__(self, onnx: Any, dtype: np.dtype[Any]) -> None:
        self._onnx = onnx
        self.dtype = dtype
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.scope = ""

    def constant(self, name: str, value: ArrayLike, dtype: Any = None) -> str:
        """Add a constant, and return its name."""
        name = f"{self.scope}/{name}"
        if all(constant.name != name for constant in self.constants):
            array = np.ascontiguousarray(np.asarray(value, dtype or self.dtype))
            array = array.reshape(np.shape(value))
            self.constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def number(self, value: float) -> str:
        """Add a scalar, and return its name."""
        return self.constant(f"{value:.17g}", value)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return the name of that."""
        output = f"{self.scope}/{operator}_{len(self.nodes)}"
        node = self._onnx.helper.make_node(operator, list(inputs), [output], name=output, **attributes)
        self.nodes.append(node)
        return output

    def cast(self, x: str, dtype: np.dtype[Any]) -> str:
        """Convert x to the dtype of the next layer, if it is of another, and note that dtype."""
        if dtype == self.dtype:
            return x
        self.dtype = dtype
        return self.add("Cast", x, to=self._onnx.helper.np_dtype_to_tensor_dtype(dtype))


def activate(graph: Graph, function: ActivationFunction, x: str) -> str:
    """Add an activation, and return its output.

    Where an operator has its arguments in float32, or is missing in onnxruntime for float64, the formula is written out.

    Raises
    ------
    ValueError
        If the function is of another package.
    """
    write = _WRITERS.get(type(function))
    if write is None:
        raise ValueError(f"export_onnx: no ONNX for the activation '{function.name}' of another package")
    return write(graph, function, x)


Writer = Callable[[Graph, Any, str], str]


def _operator(name: str, **attributes: Any) -> Writer:
    return lambda graph, function, x: graph.add(name, x, **attributes)


def _positive(graph: Graph, x: str) -> str:
    return graph.add("Max", x, graph.number(0.0))


def _elu(graph: Graph, function: activations.Elu, x: str, scale: float = 1.0) -> str:
    """Scale · (max(x, 0) + alpha · (exp(min(x, 0)) − 1))."""
    if graph.dtype == np.float32:
        if scale != 1.0:
            return graph.add("Selu", x, alpha=function.alpha, gamma=scale)
        return graph.add("Elu", x, alpha=function.alpha)
    growth = graph.add("Exp", graph.add("Min", x, graph.number(0.0)))
    negative = graph.add("Mul", graph.add("Sub", growth, graph.number(1.0)), graph.number(function.alpha))
    y = graph.add("Add", _positive(graph, x), negative)
    return y if scale == 1.0 else graph.add("Mul", y, graph.number(scale))


def _leaky_relu(graph: Graph, function: activations.LeakyRelu, x: str) -> str:
    """max(x, 0) + negative_slope · min(x, 0)."""
    if graph.dtype == np.float32:
        return graph.add("LeakyRelu", x, alpha=function.negative_slope)
    negative = graph.add("Min", x, graph.number(0.0))
    scaled = graph.add("Mul", negative, graph.number(function.negative_slope))
    return graph.add("Add", _positive(graph, x), scaled)


def _softplus(graph: Graph, function: object, x: str) -> str:
    """max(x, 0) + log(1 + exp(−|x|))."""
    if graph.dtype == np.float32:
        return graph.add("Softplus", x)
    decay = graph.add("Exp", graph.add("Neg", graph.add("Abs", x)))
    return graph.add("Add", _positive(graph, x), graph.add("Log", graph.add("Add", decay, graph.number(1.0))))


def _gelu(graph: Graph, function: object, x: str) -> str:
    """(1 + erf(x / √2)) · x / 2."""
    erf = graph.add("Erf", graph.add("Mul", x, graph.number(1 / math.sqrt(2))))
    half = graph.add("Mul", graph.add("Add", erf, graph.number(1.0)), graph.number(0.5))
    return graph.add("Mul", x, half)


_WRITERS: dict[type[ActivationFunction], Writer] = {
    type(activations.linear): lambda graph, function, x: x,
    type(activations.relu): _operator("Relu"),
    type(activations.relu6): lambda graph, function, x: graph.add(
        "Clip", x, graph.number(0.0), graph.number(6.0)
    ),
    activations.LeakyRelu: _leaky_relu,
    activations.Elu: _elu,
    type(activations.selu): lambda graph, function, x: _elu(graph, function, x, function.SCALE),
    type(activations.gelu): _gelu,
    type(activations.sigmoid): _operator("Sigmoid"),
    type(activations.tanh): _operator("Tanh"),
    type(activations.exponential): _operator("Exp"),
    type(activations.softmax): _operator("Softmax", axis=-1),
    type(activations.log_softmax): _operator("LogSoftmax", axis=-1),
    type(activations.silu): lambda graph, function, x: graph.add("Mul", x, graph.add("Sigmoid", x)),
    type(activations.mish): lambda graph, function, x: graph.add(
        "Mul", x, graph.add("Tanh", _softplus(graph, function, x))
    ),
    type(activations.softplus): _softplus,
    type(activations.softsign): lambda graph, function, x: graph.add(
        "Div", x, graph.add("Add", graph.add("Abs", x), graph.number(1.0))
    ),
    type(activations.hard_sigmoid): lambda graph, function, x: graph.add(
        "Clip",
        graph.add("Add", graph.add("Div", x, graph.number(6.0)), graph.number(0.5)),
        graph.number(0.0),
        graph.number(1.0),
    ),
}
