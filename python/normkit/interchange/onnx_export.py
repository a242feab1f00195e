"""`export_onnx`: a trained network as an ONNX graph that predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit import __version__, layers
from normkit._checks import flag, positive_integer
from normkit._optional import optional
from normkit.interchange.files import PathLike, write_bytes
from normkit.interchange.onnx_graph import Graph, activate
from normkit.interchange.weights import inputs, require_built
from normkit.layers import BatchNormalization, Dense, Layer, LayerNormalization, fold_batch_norm
from normkit.layers.base import ActivatedLayer, Shape
from normkit.models import Sequential

__all__ = ["export_onnx"]

Array = NDArray[Any]
# The first with LayerNormalization.
OLDEST_OPSET = 17


def export_onnx(
    model: Sequential,
    path: PathLike,
    opset: int = OLDEST_OPSET,
    batch: int | str = "N",
    fold: bool = False,
) -> None:
    """Write what a model computes in `predict` as an ONNX file.

    The graph has one input, "input", and one output, "output", both in the model's dtype. It is checked by
    ``onnx.checker`` before it is written.

    Parameters
    ----------
    model : Sequential
        A built model of this package's layers.
    path : path-like
        The file.
    opset : int, default 17
        Version of ONNX's operators, 17 or later.
    batch : int or str, default "N"
        Length of the batch axis, or its name if any length is to do.
    fold : bool, default False
        Compute a Dense and the BatchNormalization behind it as one product (`fold_batch_norm`), where that can be.

    Raises
    ------
    ValueError
        If the model has no weights yet, the opset is too old or not known to the installed onnx, or a layer or activation
        is of another package. An existing file then stays as it is.
    ModuleNotFoundError
        If onnx is missing; the message says how to install it.

    Notes
    -----
    onnxruntime has no Erf for float64, so it does not run a float64 model with 'gelu'; onnx's reference evaluator does, with
    an Erf in float32.
    """
    onnx = optional("onnx", "ONNX is written by", "interchange")
    require_built(model, "export_onnx")
    fold = flag("export_onnx: fold", fold)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= positive_integer("export_onnx: opset", opset) <= newest:
        raise ValueError(f"export_onnx: opset must be from {OLDEST_OPSET} to {newest}, got {opset}")
    if not (isinstance(batch, str) and batch):
        positive_integer("export_onnx: batch, if not a name,", batch)
    graph = Graph(onnx, model.layers[0].dtype)
    tensor = onnx.helper.np_dtype_to_tensor_dtype
    assert model.input_shape is not None
    first = onnx.helper.make_tensor_value_info("input", tensor(graph.dtype), [batch, *model.input_shape[1:]])
    x = "input"
    shapes = inputs(model)
    for layer, shape in _folded(shapes) if fold else shapes.items():
        graph.scope = layer.name
        x = graph.cast(x, layer.dtype)
        x = _write(graph, layer, x, shape, opset)
    graph.nodes.append(onnx.helper.make_node("Identity", [x], ["output"], name="output"))
    last = onnx.helper.make_tensor_value_info("output", tensor(graph.dtype), [batch, *model.output_shape[1:]])
    versions = [onnx.helper.make_opsetid("", opset)]
    made = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, model.name, [first], [last], graph.constants),
        opset_imports=versions,
        ir_version=onnx.helper.find_min_ir_version_for(versions),
        producer_name="normkit",
        producer_version=__version__,
    )
    onnx.checker.check_model(made, full_check=True)
    write_bytes(path, made.SerializeToString())


def _folded(shapes: dict[Layer, Shape]) -> Iterator[tuple[Layer, Shape]]:
    """Yield the layers, with each Dense and the batch norm behind it as one where `fold_batch_norm` does that."""
    waiting: tuple[Dense, Shape] | None = None
    for layer, shape in shapes.items():
        if waiting is not None:
            dense, dense_shape = waiting
            waiting = None
            if isinstance(layer, BatchNormalization) and layer.axis % len(shape) == len(shape) - 1:
                yield fold_batch_norm(dense, layer), dense_shape
                continue
            yield dense, dense_shape
        if isinstance(layer, Dense) and layer.activation.name == "linear":
            waiting = layer, shape
        else:
            yield layer, shape
    if waiting is not None:
        yield waiting


def _write(graph: Graph, layer: Layer, x: str, shape: Shape, opset: int) -> str:
    """Add a layer, and return its output."""
    match layer:
        case layers.Dense():
            return activate(graph, layer.activation, _dense(graph, layer, x, len(shape)))
        case layers.BatchNormalization():
            return _batch_norm(graph, layer, x, len(shape))
        case layers.LayerNormalization():
            return _layer_norm(graph, layer, x, len(shape), opset)
        case layers.RMSNormalization():
            return _rms_norm(graph, layer, x, len(shape), opset)
        case layers.GroupNormalization():
            return _group_norm(graph, layer, x, shape, opset)
        case layers.Flatten() | layers.Reshape():
            lengths = [n or 0 for n in layer.compute_output_shape(shape)]  # 0: as it is, the batch
            return graph.add("Reshape", x, graph.constant("shape", lengths, np.int64))
        case layers.Rescaling():
            scaled = graph.add("Mul", x, graph.number(layer.scale))
            return graph.add("Add", scaled, graph.number(layer.offset))
        case layers.Dropout() | layers.GaussianNoise():
            return x
        case layers.Activation() | layers.ReLU() | layers.LeakyReLU() | layers.ELU() | layers.Softmax():
            assert isinstance(layer, ActivatedLayer)
            return activate(graph, layer.activation, x)
    raise layer.fail(f"no ONNX for a layer of class {type(layer).__module__}.{type(layer).__qualname__}")


def _dense(graph: Graph, layer: Dense, x: str, rank: int) -> str:
    kernel = graph.constant("kernel", layer.kernel.value)
    if not layer.use_bias:
        return graph.add("MatMul", x, kernel)
    bias = graph.constant("bias", layer.bias.value)
    if rank == 2:
        return graph.add("Gemm", x, kernel, bias)
    return graph.add("Add", graph.add("MatMul", x, kernel), bias)


def _batch_norm(graph: Graph, layer: BatchNormalization, x: str, rank: int) -> str:
    """BatchNormalization has the channels on axis 1."""
    gamma, beta = layer.affine()
    mean, var = layer.moving_mean.value, layer.moving_variance.value.astype(np.float64)
    # The attribute is a float32: what it loses of a float64 is added to the variance.
    eps = float(np.float32(layer.epsilon))
    if graph.dtype == np.float64:
        var = var + (layer.epsilon - eps)
    parameters = {
        "gamma": np.ones_like(mean) if gamma is None else gamma,
        "beta": np.zeros_like(mean) if beta is None else beta,
        "moving_mean": mean,
        "moving_variance": var,
    }
    names = [graph.constant(name, value) for name, value in parameters.items()]
    axis = layer.axis % rank
    order = [0, axis, *(a for a in range(1, rank) if a != axis)]
    x = _transposed(graph, x, order)
    return _transposed(graph, graph.add("BatchNormalization", x, *names, epsilon=eps), _inverse(order))


def _layer_norm(graph: Graph, layer: LayerNormalization, x: str, rank: int, opset: int) -> str:
    """LayerNormalization is over the last axes."""
    axes = sorted({axis % rank for axis in layer.axis})
    order = [*(a for a in range(rank) if a not in axes), *axes]
    x = _transposed(graph, x, order)
    gamma, beta = layer.affine()
    shape = layer.weights[0].shape if layer.weights else None
    if graph.dtype == np.float32 and shape is not None:
        scale = graph.constant("gamma", np.ones(shape) if gamma is None else gamma)
        names = [scale] if beta is None else [scale, graph.constant("beta", beta)]
        y = graph.add("LayerNormalization", x, *names, axis=-len(axes), epsilon=layer.epsilon)
    else:
        y = _written_out(graph, x, len(axes), layer.epsilon, opset)
        if gamma is not None:
            y = graph.add("Mul", y, graph.constant("gamma", gamma))
        if beta is not None:
            y = graph.add("Add", y, graph.constant("beta", beta))
    return _transposed(graph, y, _inverse(order))


def _rms_norm(graph: Graph, layer: layers.RMSNormalization, x: str, rank: int, opset: int) -> str:
    """Written out: RMSNormalization is of opset 23."""
    axes = sorted({axis % rank for axis in layer.axis})
    order = [*(a for a in range(rank) if a not in axes), *axes]
    y = _written_out(graph, _transposed(graph, x, order), len(axes), layer.epsilon, opset, centred=False)
    return _transposed(
        graph, graph.add("Mul", y, graph.constant("scale", layer.scale.value)), _inverse(order)
    )


def _group_norm(graph: Graph, layer: layers.GroupNormalization, x: str, shape: Shape, opset: int) -> str:
    """Written out over (batch, groups, what is in a group): GroupNormalization's scale was of groups before opset 21."""
    axis, rank = layer.axis % len(shape), len(shape)
    order = [0, axis, *(a for a in range(1, rank) if a != axis)]
    lengths = [shape[a] or 0 for a in order]  # 0: as it is, the batch
    channels = lengths[1]
    groups = channels if layer.groups == -1 else layer.groups
    y = _transposed(graph, x, order)
    y = graph.add("Reshape", y, graph.constant("groups", [0, groups, -1], np.int64))
    y = _written_out(graph, y, 1, layer.epsilon, opset)
    y = graph.add("Reshape", y, graph.constant("shape", lengths, np.int64))
    gamma, beta = layer.affine()
    per_channel = [channels, *[1] * (rank - 2)]
    if gamma is not None:
        y = graph.add("Mul", y, graph.constant("gamma", gamma.reshape(per_channel)))
    if beta is not None:
        y = graph.add("Add", y, graph.constant("beta", beta.reshape(per_channel)))
    return _transposed(graph, y, _inverse(order))


def _written_out(graph: Graph, x: str, count: int, epsilon: float, opset: int, centred: bool = True) -> str:
    """(x − mean) / sqrt(var + epsilon), as for float64: epsilon is a float32 attribute, and sums of float32 the default."""
    axes = list(range(-count, 0))

    def mean(of: str) -> str:
        if opset < 18:
            return graph.add("ReduceMean", of, axes=axes)
        return graph.add("ReduceMean", of, graph.constant("axes", axes, np.int64))

    if centred:
        x = graph.add("Sub", x, mean(x))
    var = mean(graph.add("Mul", x, x))
    return graph.add("Div", x, graph.add("Sqrt", graph.add("Add", var, graph.number(epsilon))))


def _transposed(graph: Graph, x: str, order: Sequence[int]) -> str:
    return x if list(order) == sorted(order) else graph.add("Transpose", x, perm=list(order))


def _inverse(order: Sequence[int]) -> list[int]:
    return [order.index(axis) for axis in range(len(order))]
