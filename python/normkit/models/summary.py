"""The table that `Sequential.summary` prints."""

from __future__ import annotations

from collections.abc import Sequence

from normkit.layers.base import Layer, Shape
from normkit.layers.variable import Variable
from normkit.models.network import Network

__all__ = ["summary_lines"]


UNBUILT = (
    "Weights are made when the shape of the input is known: give the first layer input_shape=, or call fit."
)


def summary_lines(network: Network, optimizer_arrays: Sequence[tuple[int, int]] = ()) -> list[str]:
    """Return the lines of a table of layers, output shapes and numbers of parameters.

    `optimizer_arrays`: number of elements and of bytes of each state array of the optimizer.
    """
    rows = [("Layer (type)", "Output Shape", "Param #")]
    shape: Shape | None = network.input_shape
    for layer in network.layers:
        shape = None if shape is None else layer.compute_output_shape(shape)
        rows.append((f"{layer.name} ({type(layer).__name__})", _shape(shape), _params(layer)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = ["  ".join((a.ljust(widths[0]), b.ljust(widths[1]), c.rjust(widths[2]))) for a, b, c in rows]
    rule = "─" * len(table[0])

    trainable = _size(network.trainable_weights)
    fixed = _size(network.non_trainable_weights)
    optimizer = (sum(n for n, _ in optimizer_arrays), sum(b for _, b in optimizer_arrays))
    totals = [
        ("Total params", (trainable[0] + fixed[0] + optimizer[0], trainable[1] + fixed[1] + optimizer[1])),
        ("Trainable params", trainable),
        ("Non-trainable params", fixed),
    ]
    if optimizer_arrays:
        totals.append(("Optimizer params", optimizer))
    return [
        f'Model: "{network.name}"',
        rule,
        table[0],
        rule,
        *table[1:],
        rule,
        *(f"{label}: {count:,} ({_bytes(size)})" for label, (count, size) in totals),
        *([] if network.built or not network.layers else [UNBUILT]),
    ]


def _shape(shape: Shape | None) -> str:
    return "?" if shape is None else str(shape)


def _params(layer: Layer) -> str:
    return f"{layer.count_params():,}" if layer.built else "0 (unbuilt)"


def _size(variables: Sequence[Variable]) -> tuple[int, int]:
    return sum(v.value.size for v in variables), sum(v.value.nbytes for v in variables)


def _bytes(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} TB"
