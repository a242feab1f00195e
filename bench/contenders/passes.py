"""Forward and backward as a user of each library gets them: its own statistics, its own gradients.

Each returns what it can of y, dx, dweight and dbias, in the shapes of the problem.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, Protocol

import ml_dtypes
import numpy as np

import normkit as nk
from bench.contenders import AbsentError, UnsupportedError

if TYPE_CHECKING:
    from bench.accuracy.problems import Problem

Results = dict[str, Any]
NAMES = ("y", "dx", "dweight", "dbias")


class Passes(Protocol):
    name: str
    version: str

    def __call__(self, problem: Problem) -> Results: ...


class Ours:
    """normkit, on one instruction set."""

    def __init__(self, name: str = "normkit", isa: str | None = None) -> None:
        self.name, self.isa, self.version = name, isa or nk.isa.active(), nk.__version__

    def __call__(self, problem: Problem) -> Results:
        p = problem
        forward, backward = (
            (nk.layer_norm, nk.layer_norm_backward)
            if p.is_layer_norm
            else (nk.batch_norm, nk.batch_norm_backward)
        )
        with nk.isa.use(self.isa):
            y, moments = forward(p.x, p.weight, p.bias, axis=p.axis, eps=p.eps, return_moments=True)
            return dict(zip(NAMES, (y, *backward(p.dy, p.x, moments, p.weight, axis=p.axis)), strict=True))


def _tensor(array: Any, **options: Any) -> Any:
    """A torch tensor with a copy of the array; torch does not know NumPy's bfloat16."""
    import torch

    if array.dtype != ml_dtypes.bfloat16:
        return torch.tensor(array, **options)
    return (
        torch.tensor(array.view(np.int16))
        .view(torch.bfloat16)
        .requires_grad_(options.get("requires_grad", False))
    )


def _array(tensor: Any) -> Any:
    import torch

    tensor = tensor.detach()
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def _differentiated(y: Any, x: Any, weight: Any, bias: Any, dy: Any) -> Results:
    """What torch's autograd has after y."""
    y.backward(dy)
    found = {"y": _array(y), "dx": _array(x.grad)}
    parameters = {"dweight": weight, "dbias": bias}
    return found | {name: _array(p.grad) for name, p in parameters.items() if p is not None}


class Torch:
    """torch.nn.functional and autograd; NHWC as a channels-last tensor."""

    name = "torch"

    def __init__(self) -> None:
        try:
            import torch
        except ImportError:
            raise AbsentError("pip install --group bench") from None
        self.torch = torch
        self.version = torch.__version__.split("+")[0]

    def __call__(self, problem: Problem) -> Results:
        p, functional = problem, self.torch.nn.functional
        x, weight, bias = (
            None if a is None else _tensor(a, requires_grad=True) for a in (p.x, p.weight, p.bias)
        )
        if p.is_layer_norm:
            y = functional.layer_norm(x, x.shape[-1:], weight, bias, p.eps)
        else:
            try:
                y = functional.batch_norm(
                    x.movedim(p.axis, 1), None, None, weight, bias, training=True, eps=p.eps
                ).movedim(1, p.axis)
            except ValueError as error:
                raise UnsupportedError(str(error)) from None
        return _differentiated(y, x, weight, bias, _tensor(p.dy))


class Keras:
    """Keras's layers on its torch backend, with torch's autograd."""

    name = "keras"

    def __init__(self) -> None:
        os.environ.setdefault("KERAS_BACKEND", "torch")
        try:
            import keras
            import torch
        except ImportError:
            raise AbsentError("pip install --group bench") from None
        if keras.backend.backend() != "torch":
            raise AbsentError("KERAS_BACKEND is not torch")
        self.keras, self.torch = keras, torch
        self.version = f"{keras.__version__} (torch backend)"

    def __call__(self, problem: Problem) -> Results:
        p, layers = problem, self.keras.layers
        if p.x.dtype.itemsize == 2:
            raise UnsupportedError("measured in float32 and float64 alone")
        options = {"axis": p.axis, "epsilon": p.eps, "dtype": p.format}
        options |= {"scale": p.weight is not None, "center": p.bias is not None}
        layer = (layers.LayerNormalization if p.is_layer_norm else layers.BatchNormalization)(**options)
        layer.build(p.x.shape)
        for variable, value in ((layer.gamma, p.weight), (layer.beta, p.bias)):
            if variable is not None:
                variable.assign(value)
        x = self.torch.tensor(p.x, requires_grad=True)
        y = layer(x) if p.is_layer_norm else layer(x, training=True)
        weight, bias = (None if v is None else v.value for v in (layer.gamma, layer.beta))
        return _differentiated(y, x, weight, bias, self.torch.from_numpy(p.dy))


class Jax:
    """jax.nn.standardize with its default algorithm, weight and bias applied to it, jax.vjp; compiled."""

    name = "jax"

    def __init__(self) -> None:
        try:
            import jax
        except ImportError:
            raise AbsentError("pip install --group bench") from None
        jax.config.update("jax_enable_x64", True)  # else float64 is float32
        self.jax, self.version = jax, jax.__version__

    @functools.cache  # noqa: B019 - one for a run
    def _compiled(self, axes: tuple[int, ...], eps: float) -> Any:
        jax = self.jax

        def forward(x: Any, weight: Any, bias: Any) -> Any:
            return jax.nn.standardize(x, axes, epsilon=eps) * weight + bias

        def both(dy: Any, *arrays: Any) -> Any:
            y, backward = jax.vjp(forward, *arrays)
            return y, *backward(dy)

        return jax.jit(both)

    def __call__(self, problem: Problem) -> Results:
        p = problem
        weight, bias = (
            np.full(p.spread, default, p.x.dtype) if a is None else a.reshape(p.spread)
            for a, default in ((p.weight, 1), (p.bias, 0))
        )
        found = map(np.asarray, self._compiled(p.axes, p.eps)(p.dy, p.x, weight, bias))
        y, dx, dweight, dbias = found
        return {"y": y, "dx": dx, "dweight": dweight.ravel(), "dbias": dbias.ravel()}


class OnnxRuntime:
    """The CPU operators of ONNX Runtime, which has no gradients; channels at axis 1 alone."""

    name = "onnxruntime"

    def __init__(self) -> None:
        try:
            import onnx
            import onnxruntime
        except ImportError:
            raise AbsentError("pip install --group bench") from None
        self.onnx, self.runtime = onnx, onnxruntime
        self.version = onnxruntime.__version__

    @functools.cache  # noqa: B019 - one for a run
    def _session(self, layer_norm: bool, dtype: Any, eps: float) -> Any:
        helper = self.onnx.helper
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        inputs, outputs = ["x", "weight", "bias"], ["y"]
        attributes: dict[str, Any] = {"axis": -1} if layer_norm else {"training_mode": 1}
        if not layer_norm:
            inputs, outputs = [*inputs, "mean", "var"], ["y", "new_mean", "new_var"]
        operator = "LayerNormalization" if layer_norm else "BatchNormalization"
        node = helper.make_node(operator, inputs, outputs, epsilon=eps, **attributes)
        values = (
            [helper.make_tensor_value_info(n, kind, None) for n in names] for names in (inputs, outputs)
        )
        model = helper.make_model(
            helper.make_graph([node], "norm", *values),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=10,
        )
        return self.runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def __call__(self, problem: Problem) -> Results:
        p = problem
        if p.axis not in (-1, 1):
            raise UnsupportedError("channels at axis 1 only")
        if p.x.dtype == ml_dtypes.bfloat16 or (p.x.dtype == np.float16 and not p.is_layer_norm):
            raise UnsupportedError("no operator of this dtype on the CPU")
        width = p.x.shape[p.axis]
        weight, bias = (
            np.full(width, default, p.x.dtype) if a is None else a
            for a, default in ((p.weight, 1), (p.bias, 0))
        )
        given = {"x": p.x, "weight": weight, "bias": bias}
        if not p.is_layer_norm:
            given |= {"mean": np.zeros(width, p.x.dtype), "var": np.ones(width, p.x.dtype)}
        return {"y": self._session(p.is_layer_norm, p.x.dtype, p.eps).run(["y"], given)[0]}


def everyone(*, peers: bool = True) -> tuple[list[Passes], dict[str, str]]:
    """Those that are here, normkit first, and why the others are not."""
    found: list[Passes] = [Ours()]
    if "baseline" in nk.isa.available() and nk.isa.active() != "baseline":
        found.append(Ours("normkit baseline", "baseline"))
    absent: dict[str, str] = {}
    for peer in (Torch, Keras, Jax, OnnxRuntime) if peers else ():
        try:
            found.append(peer())
        except AbsentError as reason:
            absent[peer.name] = str(reason)
    return found, absent
