"""JAX: the formula, compiled by jax.jit for the CPU; a fresh result each time."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.contenders import AbsentError, Call
from bench.grid import Case
from bench.inputs import EPS, Inputs


class Jax:
    name = "jax"

    def __init__(self) -> None:
        try:
            import jax
        except ImportError:
            raise AbsentError("jax is not installed: pip install --group bench") from None
        self.jax = jax
        self.version = jax.__version__

    def supports(self, case: Case) -> bool:
        return True

    def prepare(self, inputs: Inputs) -> Call:
        jax, case = self.jax, inputs.case
        jnp = jax.numpy
        axes = (1,) if case.op == "ln" else tuple(i for i in range(inputs.x.ndim) if i != case.axis)
        others = (0,) if case.op == "ln" else axes
        shape = [1] * inputs.x.ndim
        shape[1 if case.op == "ln" else case.axis] = -1
        mean = np.expand_dims(inputs.mean, axes).astype(np.float32)
        rstd = np.expand_dims(inputs.rstd, axes).astype(np.float32)

        def forward(x: Any, w: Any, b: Any) -> Any:
            m = jnp.mean(x, axes, keepdims=True)
            v = jnp.mean(jnp.square(x - m), axes, keepdims=True)
            return (x - m) * jax.lax.rsqrt(v + EPS) * w.reshape(shape) + b.reshape(shape)

        def inference(x: Any, w: Any, b: Any) -> Any:
            return (x - mean) * rstd * w.reshape(shape) + b.reshape(shape)

        def backward(dy: Any, x: Any, w: Any) -> Any:
            x_hat = (x - mean) * rstd
            g = dy * w.reshape(shape)
            mean_g, mean_gx = jnp.mean(g, axes, keepdims=True), jnp.mean(g * x_hat, axes, keepdims=True)
            return rstd * (g - mean_g - x_hat * mean_gx), jnp.sum(dy * x_hat, others), jnp.sum(dy, others)

        x, dy, w, b = map(jax.device_put, (inputs.x, inputs.dy, inputs.weight, inputs.bias))
        if case.direction == "bwd":
            compiled, arguments = jax.jit(backward), (dy, x, w)
        else:
            compiled, arguments = jax.jit(forward if case.direction == "fwd" else inference), (x, w, b)

        def run(times: int) -> None:
            for _ in range(times):
                jax.block_until_ready(compiled(*arguments))

        def results() -> tuple[Any, ...]:
            result = compiled(*arguments)
            return tuple(map(np.asarray, result)) if isinstance(result, tuple) else (np.asarray(result),)

        return Call(run, results, "XLA")
