"""normkit: with out= (nothing is allocated) or with a fresh result each time, on some threads and instruction set."""

from __future__ import annotations

from typing import Any

import normkit as nk
from bench.contenders import Call, repeated
from bench.grid import Case
from bench.inputs import EPS, Inputs, aligned


class Ours:
    def __init__(
        self, name: str, *, fresh: bool = False, threads: int | None = None, isa: str | None = None
    ) -> None:
        self.name, self.fresh, self.threads, self.isa = name, fresh, threads, isa
        self.version = nk.__version__

    def supports(self, case: Case) -> bool:
        return True

    def prepare(self, inputs: Inputs) -> Call:
        case, x, dy, weight, bias = inputs.case, inputs.x, inputs.dy, inputs.weight, inputs.bias
        options: dict[str, Any] = {} if self.fresh else {"out": aligned(x.shape)}
        if self.threads is not None:
            options["num_threads"] = self.threads
        moments = nk.Moments(
            inputs.mean,
            inputs.rstd,
            operation="layer_norm" if case.op == "ln" else "batch_norm",
            training=True,
            axis=case.axis % x.ndim,
            has_weight=True,
        )
        stats = nk.RunningStats(x.shape[case.axis])
        stats.mean, stats.var = (inputs.mean, inputs.var) if case.op == "bn" else (0.0, 1.0)
        axis = case.axis
        calls = {
            ("ln", "fwd"): lambda: nk.layer_norm(x, weight, bias, eps=EPS, **options),
            ("ln", "bwd"): lambda: nk.layer_norm_backward(dy, x, moments, weight, **options),
            ("bn", "fwd"): lambda: nk.batch_norm(
                x, weight, bias, stats=stats, training=True, axis=axis, eps=EPS, **options
            ),
            ("bn", "bwd"): lambda: nk.batch_norm_backward(dy, x, moments, weight, axis=axis, **options),
            ("bn", "inf"): lambda: nk.batch_norm(
                x, weight, bias, stats=stats, training=False, axis=axis, eps=EPS, **options
            ),
        }
        call = repeated(
            calls[case.op, case.direction],
            lambda r: tuple(r) if isinstance(r, tuple) else (r,),
            self.isa or nk.isa.active(),
        )
        if self.isa is None:
            return call

        def run(times: int) -> None:
            with nk.isa.use(self.isa):
                call.run(times)

        def results() -> tuple[Any, ...]:
            with nk.isa.use(self.isa):
                return call.results()

        return Call(run, results, self.isa)
