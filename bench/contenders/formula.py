"""The formulas as anyone would write them, for an array module: NumPy, or JAX, which compiles them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.inputs import EPS, Inputs


def of(inputs: Inputs, xp: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The function of a case and its arguments."""
    case = inputs.case
    axes = (1,) if case.op == "ln" else tuple(i for i in range(inputs.x.ndim) if i != case.axis)
    others = (0,) if case.op == "ln" else axes
    shape = [1] * inputs.x.ndim
    shape[1 if case.op == "ln" else case.axis] = -1
    mean = np.expand_dims(inputs.mean, axes).astype(np.float32)
    rstd = np.expand_dims(inputs.rstd, axes).astype(np.float32)

    def forward(x: Any, w: Any, b: Any) -> Any:
        centred = x - xp.mean(x, axes, keepdims=True)
        variance = xp.mean(xp.square(centred), axes, keepdims=True)
        return centred / xp.sqrt(variance + np.float32(EPS)) * w.reshape(shape) + b.reshape(shape)

    def inference(x: Any, w: Any, b: Any) -> Any:
        return (x - mean) * rstd * w.reshape(shape) + b.reshape(shape)

    def backward(dy: Any, x: Any, w: Any) -> Any:
        x_hat = (x - mean) * rstd
        g = dy * w.reshape(shape)
        mean_g, mean_gx = xp.mean(g, axes, keepdims=True), xp.mean(g * x_hat, axes, keepdims=True)
        return rstd * (g - mean_g - x_hat * mean_gx), xp.sum(dy * x_hat, others), xp.sum(dy, others)

    if case.direction == "bwd":
        return backward, (inputs.dy, inputs.x, inputs.weight)
    return forward if case.direction == "fwd" else inference, (inputs.x, inputs.weight, inputs.bias)
