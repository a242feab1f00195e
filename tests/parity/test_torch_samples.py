"""torch's own sample inputs (OpInfo, ModuleInfo) of its batch and layer norms, forward and backward, error inputs included.

normkit and torch are compared with the same exact results: normkit within its contract; torch, computing in float64, within
what float64 loses on these numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import bounds
import normkit as nk

MISSING = "the parity group is not installed: pip install --group parity"
torch = pytest.importorskip("torch", reason=MISSING)
pytest.importorskip("expecttest", reason=MISSING)  # torch.testing._internal imports it

from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

pytestmark = pytest.mark.parity

Array = np.ndarray[Any, Any]
Tensors = dict[str, Any]

DTYPES = ["float32", "float64", "float16", "bfloat16"]

BATCH_NORM = "input weight bias running_mean running_var training momentum eps"
LAYER_NORM = "input normalized_shape weight bias eps"
# Every norm that torch has samples of, and how many there are of each kind: those that normkit computes, those with no element,
# and those of which it refuses `eps`, or `momentum` and with it the running statistics, but not the rest. First the names of
# the arguments in order.
OPERATIONS = {
    "nn.functional.batch_norm": (
        "input running_mean running_var weight bias training momentum eps",
        {"computed": 9, "empty": 2, "momentum": 1},
    ),
    "native_batch_norm": (BATCH_NORM, {"computed": 9, "momentum": 1}),
    "_native_batch_norm_legit": (BATCH_NORM, {"computed": 9, "momentum": 1}),
    "_batch_norm_with_update": (BATCH_NORM.replace("training ", ""), {"computed": 6, "momentum": 3}),
    "nn.functional.layer_norm": (LAYER_NORM, {"computed": 4, "empty": 1, "eps": 1}),
    "native_layer_norm": (LAYER_NORM, {"computed": 12, "empty": 4, "eps": 4}),
}
MODULES = {
    "nn.BatchNorm1d": {"computed": 7, "empty": 1},
    "nn.BatchNorm2d": {"computed": 6, "empty": 1},
    "nn.BatchNorm3d": {"computed": 6, "empty": 1},
    "nn.LayerNorm": {"computed": 6, "empty": 1},
}

REFUSALS = {
    "eps": r"layer_norm: eps must be finite and not negative, got -0\.5",
    "momentum": r"RunningStats: momentum must be in \[0, 1\] \(the weight of the new batch\) or None, got -",
}
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": lambda a: a,
    "every second element": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "channels last": lambda a: np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1) if a.ndim > 1 else a,
}


@dataclass
class Sample:
    """A call of torch's: `theirs` computes it from these tensors, or from others of the same names."""

    theirs: Callable[[Tensors], Any]
    tensors: Tensors  # input and, where given: weight, bias, running_mean, running_var, num_batches_tracked
    normalized: int = 0  # trailing axes of a layer norm; a batch norm has none
    training: bool = True
    momentum: float | None = 0.1
    eps: float = 1e-5

    def __post_init__(self) -> None:
        self.x = array(self.tensors["input"])
        self.weight, self.bias, self.mean, self.var = (
            array(self.tensors[name]) if name in self.tensors else None
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        axes = range(self.x.ndim)
        self.channel = min(1, self.x.ndim - 1)
        self.kept = tuple(axes[-self.normalized :]) if self.normalized else (self.channel,)  # by parameters
        self.summed = tuple(axis for axis in axes if axis not in self.kept)
        self.reduced = self.kept if self.normalized else self.summed  # by mean and variance

    @property
    def kind(self) -> str:
        if self.x.size == 0:
            return "empty"
        if self.eps < 0:
            return "eps"
        momentum = self.momentum if self.training and self.mean is not None else None
        return "computed" if momentum is None or 0 <= momentum <= 1 else "momentum"

    def stats(self) -> nk.RunningStats | None:
        """The running statistics before the call; float32 beside 16-bit numbers."""
        if self.mean is None:
            return None
        dtype = np.float64 if self.x.dtype == np.float64 else np.float32
        # In inference torch does not look at the momentum, which may be anything.
        stats = nk.RunningStats.torch(self.mean.size, self.momentum if self.training else 0.1, dtype=dtype)
        stats.load_state_dict(running(self.tensors))
        return stats

    def spread(self, parameter: Array | None, default: float = 0.0) -> Array:
        """In float64, shaped so that it broadcasts against x."""
        shape = [length if i in self.kept else 1 for i, length in enumerate(self.x.shape)]
        return np.full(shape, default) if parameter is None else parameter.astype(np.float64).reshape(shape)


def array(tensor: Any) -> Array:
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def running(tensors: Tensors) -> dict[str, Array]:
    return {name: array(tensor) for name, tensor in tensors.items() if name.startswith(("running_", "num_"))}


def from_operation(operation: Any, given: Any) -> Sample:
    names, values = OPERATIONS[operation.name][0], (given.input, *given.args)
    if operation.name == "_native_batch_norm_legit" and len(values) == 6:
        names = names.replace("running_mean running_var ", "")
    positional = dict(zip(names.split(), values, strict=False))
    arguments = {"eps": 1e-5} | positional | given.kwargs
    options: dict[str, Any] = {"eps": arguments["eps"]}
    if "normalized_shape" in arguments:
        options["normalized"] = len(arguments["normalized_shape"])
    else:
        options["training"] = arguments.get("training", operation.name == "_batch_norm_with_update")
        options["momentum"] = arguments.get("momentum", 0.1)
    return Sample(
        lambda tensors: operation.op(*(positional | tensors).values(), **given.kwargs),
        {name: value for name, value in positional.items() if isinstance(value, torch.Tensor)},
        **options,
    )


def from_module(cls: Any, given: Any, dtype: Any, training: bool) -> Sample:
    """With parameters and running statistics that are not 1 and 0, as after two batches."""
    module = cls(*given.constructor_input.args, **given.constructor_input.kwargs, dtype=dtype).train(training)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    if "running_mean" in state:
        state["running_mean"].normal_()
        state["running_var"].uniform_(0.5, 2)
        state["num_batches_tracked"].fill_(2)
    options: dict[str, Any] = {"eps": module.eps}
    if isinstance(module, torch.nn.LayerNorm):
        options["normalized"] = len(module.normalized_shape)
    else:
        options["training"] = training or module.running_mean is None
        options["momentum"] = module.momentum
    return Sample(
        lambda tensors: torch.func.functional_call(module, tensors, (tensors["input"],)),
        {"input": given.forward_input.args[0], **state},
        **options,
    )


def exact_results(sample: Sample, dy: Array) -> tuple[bounds.Exact, nk.Moments]:
    x, weight = sample.x, sample.spread(sample.weight, 1.0)
    if sample.training:
        oracle = bounds.by_decimal if x.dtype == np.float64 else bounds.by_reference
        exact = oracle(dy, x, weight, sample.reduced, sample.eps)
    else:
        mean, var = sample.spread(sample.mean), sample.spread(sample.var)
        exact = bounds.by_constants(dy, x, weight, mean, var, sample.eps)
    shape = tuple(x.shape[axis] for axis in sample.kept)
    bounds.summed(exact, sample.spread(sample.bias), sample.summed, shape)
    if sample.normalized:
        _, moments = nk.reference.layer_norm(x, axis=sample.kept, eps=sample.eps)
    else:
        given = {} if sample.training else {"mean": sample.mean, "var": sample.var}
        _, moments = nk.reference.batch_norm(x, axis=sample.channel, eps=sample.eps, **given)
    return exact, moments


def our_results(
    sample: Sample, dy: Array, layout: Callable[[Array], Array], stats: nk.RunningStats | None
) -> tuple[Array, nk.Moments, nk.NormGradients]:
    x, dy = layout(sample.x), layout(dy)
    weight, bias = (None if p is None else layout(p) for p in (sample.weight, sample.bias))
    given: Any = {"eps": sample.eps, "return_moments": True}
    if sample.normalized:
        y, moments = nk.layer_norm(x, weight, bias, axis=sample.kept, **given)
        return y, moments, nk.layer_norm_backward(dy, x, moments, weight, axis=sample.kept)
    options: Any = {"training": sample.training, "axis": sample.channel}
    y, moments = nk.batch_norm(x, weight, bias, stats=stats, **options, **given)
    return y, moments, nk.batch_norm_backward(dy, x, moments, weight, **options)


def torchs_results(sample: Sample, dy: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    """In float64: y, the gradients of what was given, the moments if the operation returns them; the running statistics."""
    tensors = {
        name: tensor.detach().to(torch.float64 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in sample.tensors.items()
    }
    leaves = [tensors[name].requires_grad_() for name in ("input", "weight", "bias") if name in tensors]
    outputs = sample.theirs(tensors)
    y, *moments = outputs if isinstance(outputs, tuple) else (outputs,)
    gradients = torch.autograd.grad(y, leaves, torch.from_numpy(dy.astype(np.float64)))
    names = [{"input": "dx"}.get(name, f"d{name}") for name in ("input", "weight", "bias") if name in tensors]
    results = {"y": y} | dict(zip(names, gradients, strict=True))
    if moments and moments[0].numel():  # batch norms return empty ones in inference
        results |= {"mean": moments[0], "rstd": moments[1]}
    return {name: array(result) for name, result in results.items()}, running(tensors)


def check(sample: Sample, rng: np.random.Generator, what: str) -> None:
    dy = rng.standard_normal(sample.x.shape).astype(sample.x.dtype)
    exact, moments = exact_results(sample, dy)
    stats = check_ours(sample, dy, exact, moments, what)
    # n numbers add up to their sum but for n·ε of the largest: so the mean, and x̂ with it, where that counts in deviations.
    largest = np.abs(sample.x.astype(np.float64)).max()
    loss = sample.x.size * 2.0**-52 * (1 + (largest + np.abs(moments.mean).max()) * moments.rstd.max())
    theirs, after = torchs_results(sample, dy)
    weight, bias = sample.spread(sample.weight, 1.0), sample.spread(sample.bias)
    sizes = {
        "y": np.abs(exact.x_hat * weight) + np.abs(weight) + np.abs(bias),
        "dx": np.asarray(exact.dx_scale, np.float64).max(),
        "dweight": np.asarray(exact.dweight_scale + exact.dbias_scale, np.float64),
        "dbias": np.asarray(exact.dbias_scale, np.float64),
        "mean": largest,
        "rstd": moments.rstd,
    }
    for name, result in theirs.items():
        expected = np.asarray(getattr(moments if name in ("mean", "rstd") else exact, name), np.float64)
        error = np.abs(result.reshape(expected.shape) - expected)
        assert (error <= loss * sizes[name]).all(), f"{what}: torch's {name} is off by {error.max()}"
    if stats is not None:
        for mine, their in ((stats.mean, after["running_mean"]), (stats.var, after["running_var"])):
            bound = 1.001 * bounds.half_unit(mine.dtype, their) + loss * (np.abs(their) + largest)
            assert (np.abs(mine - their) <= bound).all(), f"{what}: {stats} after the call"
        assert stats.count == after.get("num_batches_tracked", stats.count)


def check_ours(
    sample: Sample, dy: Array, exact: bounds.Exact, moments: nk.Moments, what: str
) -> nk.RunningStats | None:
    weight, bias = sample.spread(sample.weight, 1.0), sample.spread(sample.bias)
    largest = np.abs(sample.x.astype(np.float64)).max()
    # docs/design.md: the variance of narrower data is right to 2⁻²⁹, and its root to half of that.
    digits = 2.0**-48 if sample.x.dtype == np.float64 else 2.0**-30
    for name, layout in LAYOUTS.items():
        stats = None if sample.kind == "momentum" else sample.stats()
        y, ours, gradients = our_results(sample, dy, layout, stats)
        bounds.assert_contract(y, gradients, exact, weight, bias, f"{what}, {name}:")
        np.testing.assert_allclose(ours.mean, moments.mean, rtol=0, atol=2.0**-50 * largest, err_msg=what)
        np.testing.assert_allclose(ours.rstd, moments.rstd, rtol=digits, err_msg=what)
    return stats


def check_empty(sample: Sample) -> None:
    """All results are empty or 0, as torch's; the running statistics stay, and torch's too, but for its count of batches."""
    stats, dy = sample.stats(), np.empty_like(sample.x)
    y, _, gradients = our_results(sample, dy, LAYOUTS["contiguous"], stats)
    theirs, after = torchs_results(sample, dy)
    for name, got in {"y": y, **gradients._asdict()}.items():
        np.testing.assert_array_equal(got, theirs.get(name, np.zeros(got.shape)))
    if stats is not None:
        np.testing.assert_array_equal(stats.mean, after["running_mean"])
        np.testing.assert_array_equal(stats.var, after["running_var"])
        if "num_batches_tracked" in after:
            assert (stats.count, after["num_batches_tracked"]) == (2, 2 + sample.training)


def checked(samples: Iterator[Sample], rng: np.random.Generator) -> Counter[str]:
    """How many samples there are of each kind, all of which were checked."""
    kinds: Counter[str] = Counter()
    for index, sample in enumerate(samples):
        kinds[sample.kind] += 1
        if sample.kind in REFUSALS:
            with pytest.raises(ValueError, match=REFUSALS[sample.kind]):
                our_results(sample, sample.x, LAYOUTS["contiguous"], sample.stats())
        if sample.kind == "empty":
            check_empty(sample)
        elif sample.kind != "eps":
            check(sample, rng, f"sample {index}")
    return kinds


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_samples_of_operations(isa: str, name: str, dtype: str, rng: np.random.Generator) -> None:
    operation = next(op for op in op_db if op.name == name)
    torch.manual_seed(0)
    samples = operation.sample_inputs("cpu", getattr(torch, dtype))
    assert checked((from_operation(operation, given) for given in samples), rng) == OPERATIONS[name][1]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODULES)
def test_samples_of_modules(
    isa: str, name: str, dtype: str, training: bool, rng: np.random.Generator
) -> None:
    info = next(info for info in module_db if info.name == name)
    torch_dtype = getattr(torch, dtype)
    torch.manual_seed(0)
    samples = info.module_inputs_func(
        info, device="cpu", dtype=torch_dtype, requires_grad=False, training=training
    )
    kinds = checked((from_module(info.module_cls, given, torch_dtype, training) for given in samples), rng)
    assert kinds == MODULES[name]


def test_no_operation_is_left_out() -> None:
    """The one that is has the samples of its namesake once more, for CUDA."""
    norms = re.compile("batch_?norm|layer_?norm", re.IGNORECASE)
    operations = {(op.name, op.variant_test_name) for op in op_db if norms.search(op.name)}
    assert operations == {(name, "") for name in OPERATIONS} | {("nn.functional.batch_norm", "without_cudnn")}
    assert {info.name for info in module_db if norms.search(info.name)} == set(MODULES)


def test_error_inputs_of_layer_norm() -> None:
    """torch's normalized_shape is our axis, so that a shape which x has not cannot be asked for."""
    operation = next(op for op in op_db if op.name == "native_layer_norm")
    messages = [
        "layer_norm: axis must name at least one axis, got an empty sequence",
        r"layer_norm: weight must have shape \(1, 2, 3\), got \(1, 2\)",
        r"layer_norm: bias must have shape \(1, 2, 3\), got \(1, 2\)",
        None,
    ]
    for error, message in zip(operation.error_inputs("cpu"), messages, strict=True):
        x, (shape, weight, bias, eps) = error.sample_input.input, error.sample_input.args
        with pytest.raises(error.error_type, match=error.error_regex):
            operation.op(x, shape, weight, bias, eps)
        if message is None:
            assert tuple(x.shape[-len(shape) :]) != shape
            continue
        weight, bias = (None if parameter is None else array(parameter) for parameter in (weight, bias))
        with pytest.raises(ValueError, match=message):
            nk.layer_norm(array(x), weight, bias, axis=tuple(range(x.ndim - len(shape), x.ndim)), eps=eps)


@pytest.mark.parametrize("name", [name for name in MODULES if "Batch" in name])
def test_error_inputs_of_batch_norm(name: str, rng: np.random.Generator) -> None:
    """A negative eps is an error here too; eps = 0, which torch refuses, is computed and exact."""
    info = next(info for info in module_db if info.name == name)
    torch.manual_seed(0)
    errors = info.module_error_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=False, training=True
    )
    assert [error.module_error_input.constructor_input.kwargs["eps"] for error in errors] == [-1.0, 0.0]
    for error in errors:
        sample = from_module(info.module_cls, error.module_error_input, torch.float32, training=True)
        with pytest.raises(error.error_type, match=error.error_regex):
            sample.theirs(sample.tensors)
        if sample.eps == 0:
            dy = rng.standard_normal(sample.x.shape).astype(np.float32)
            check_ours(sample, dy, *exact_results(sample, dy), name)
        else:
            with pytest.raises(ValueError, match="batch_norm: eps must be finite and not negative"):
                nk.batch_norm(sample.x, eps=sample.eps)
