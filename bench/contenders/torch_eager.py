"""PyTorch, eager or compiled: a fresh result each time, which is how it is used (layer norm has no out=)."""

from __future__ import annotations

from typing import Any

from bench.contenders import AbsentError, Call, repeated
from bench.grid import Case
from bench.inputs import EPS, Inputs


class Torch:
    def __init__(self, threads: int, *, compiles: bool = False) -> None:
        self.name, self.compiles = "torch.compile" if compiles else "torch", compiles
        try:
            import torch
        except ImportError:
            raise AbsentError("torch is not installed: pip install --group bench") from None
        self.torch = torch
        self.version = torch.__version__
        torch.set_num_threads(threads)

    def supports(self, case: Case) -> bool:
        return True

    def _channels_first(self, array: Any, case: Case) -> Any:
        """(N, C, H, W) or (N, C) as torch has it, over the same memory."""
        tensor = self.torch.from_numpy(array)
        if case.layout == "nc":
            return tensor
        n, c, inner = case.planes
        height, width = (case.shape[2], case.shape[3]) if len(case.shape) == 4 else (inner, 1)
        if case.layout == "nchw":
            return tensor.reshape(n, c, height, width)
        return tensor.reshape(n, height, width, c).permute(0, 3, 1, 2)

    def _back(self, result: Any, case: Case) -> Any:
        return result.permute(0, 2, 3, 1).numpy() if case.layout == "nhwc" else result.numpy()

    def prepare(self, inputs: Inputs) -> Call:
        torch, case = self.torch, inputs.case
        from_numpy, aten = torch.from_numpy, torch.ops.aten
        weight, bias = from_numpy(inputs.weight), from_numpy(inputs.bias)
        mean, rstd = from_numpy(inputs.mean.astype("float32")), from_numpy(inputs.rstd.astype("float32"))
        if case.op == "ln":
            x, dy, width = from_numpy(inputs.x), from_numpy(inputs.dy), [case.shape[1]]
            if case.direction == "fwd":
                return self._call(lambda: torch.nn.functional.layer_norm(x, width, weight, bias, EPS), case)
            column_mean, column_rstd = mean[:, None], rstd[:, None]
            return self._call(
                lambda: aten.native_layer_norm_backward(
                    dy, x, width, column_mean, column_rstd, weight, bias, [True, True, True]
                ),
                case,
            )
        x, dy = self._channels_first(inputs.x, case), self._channels_first(inputs.dy, case)
        running_mean, running_var = mean.clone(), from_numpy(inputs.var.astype("float32"))
        training = case.direction != "inf"
        if case.direction == "bwd":
            return self._call(
                lambda: aten.native_batch_norm_backward(
                    dy, x, weight, running_mean, running_var, mean, rstd, True, EPS, [True, True, True]
                ),
                case,
            )
        return self._call(
            lambda: torch.nn.functional.batch_norm(
                x, running_mean, running_var, weight, bias, training, 0.1, EPS
            ),
            case,
        )

    def _call(self, call: Any, case: Case) -> Call:
        torch = self.torch
        if self.compiles:
            call = torch.compile(call, dynamic=False)

        def results(result: Any) -> tuple[Any, ...]:
            first, *rest = result if isinstance(result, tuple) else (result,)
            return (self._back(first, case) if case.op == "bn" else first.numpy(), *(r.numpy() for r in rest))

        inner = repeated(call, results)

        def run(times: int) -> None:
            with torch.no_grad():
                inner.run(times)

        def checked() -> tuple[Any, ...]:
            with torch.no_grad():
                return inner.results()

        return Call(run, checked)
