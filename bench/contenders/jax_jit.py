"""JAX: the formula, compiled by jax.jit for the CPU; a fresh result each time."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.contenders import AbsentError, Call, formula
from bench.grid import Case
from bench.inputs import Inputs


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
        jax = self.jax
        function, arrays = formula.of(inputs, jax.numpy)
        compiled, arguments = jax.jit(function), tuple(map(jax.device_put, arrays))

        def run(times: int) -> None:
            for _ in range(times):
                jax.block_until_ready(compiled(*arguments))

        def results() -> tuple[Any, ...]:
            result = compiled(*arguments)
            return tuple(map(np.asarray, result)) if isinstance(result, tuple) else (np.asarray(result),)

        return Call(run, results, "XLA")
