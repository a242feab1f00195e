"""torch's own samples of RMS, group and instance norm, forward and backward, against torch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normkit as nk

MISSING = "the parity group is not installed: pip install --group parity"
torch = pytest.importorskip("torch", reason=MISSING)
op_db = pytest.importorskip("torch.testing._internal.common_methods_invocations", reason=MISSING).op_db

pytestmark = pytest.mark.parity

Array = np.ndarray[Any, Any]

# How many samples torch has, without those that have no element, an eps that is refused, or running statistics.
SAMPLES = {"rms_norm": 4, "group_norm": 13, "instance_norm": 9}


def samples(name: str, dtype: str) -> list[Any]:
    (operation,) = [op for op in op_db if op.name == f"nn.functional.{name}"]
    given = operation.sample_inputs("cpu", getattr(torch, dtype), requires_grad=False)
    return [sample for sample in given if sample.input.numel()]


def arguments(name: str, sample: Any) -> dict[str, Any]:
    """Return all arguments by torch's names."""
    names = {
        "rms_norm": ("normalized_shape", "weight", "eps"),
        "group_norm": ("num_groups", "weight", "bias", "eps"),
        "instance_norm": ("running_mean", "running_var", "weight", "bias"),
    }[name]
    return dict(zip(names, sample.args, strict=False)) | sample.kwargs


def numpy(tensor: Any) -> Array | None:
    return None if tensor is None else tensor.detach().numpy()


def ours(name: str, x: Array, dy: Array, weight: Any, bias: Any, given: dict[str, Any]) -> tuple[Any, Any]:
    eps = given.get("eps")
    if name == "rms_norm":
        axis = tuple(range(-len(given["normalized_shape"]), 0))
        eps = float(np.finfo(x.dtype).eps) if eps is None else eps  # torch's default
        y, moments = nk.rms_norm(x, weight, axis=axis, eps=eps, return_moments=True)
        return y, nk.rms_norm_backward(dy, x, moments, weight, axis=axis)
    eps = 1e-5 if eps is None else eps
    if name == "group_norm":
        y, moments = nk.group_norm(x, given["num_groups"], weight, bias, eps=eps, return_moments=True)
        return y, nk.group_norm_backward(dy, x, moments, weight)
    y, moments = nk.instance_norm(x, weight, bias, eps=eps, return_moments=True)
    return y, nk.instance_norm_backward(dy, x, moments, weight)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    computed = 0
    for sample in samples(name, dtype):
        given = arguments(name, sample)
        if (given.get("eps") or 0) < 0:
            with pytest.raises(ValueError, match="eps must be finite and not negative"):
                ours(name, numpy(sample.input), numpy(sample.input), None, None, given)
            continue
        if not given.get("use_input_stats", True):
            continue  # with running statistics instance norm is a batch norm in inference
        x, weight, bias = (numpy(t) for t in (sample.input, given.get("weight"), given.get("bias")))
        dy = rng.standard_normal(x.shape).astype(x.dtype)
        y, gradients = ours(name, x, dy, weight, bias, given)
        tensors = {
            key: torch.from_numpy(a).double().requires_grad_()
            for key, a in (("x", x), ("weight", weight), ("bias", bias))
            if a is not None
        }
        rest = {
            key: value.double() if isinstance(value, torch.Tensor) else value
            for key, value in given.items()
            if key not in ("weight", "bias")
        }
        if name == "rms_norm" and given.get("eps") is None:
            rest["eps"] = float(np.finfo(x.dtype).eps)
        parameters = {key: t for key, t in tensors.items() if key != "x"}
        expected = getattr(torch.nn.functional, name)(tensors["x"], **rest, **parameters)
        found = torch.autograd.grad(expected, list(tensors.values()), torch.from_numpy(dy).double())
        mine = {"x": gradients.dx, "weight": gradients.dweight, "bias": gradients.dbias}
        eps = np.finfo(x.dtype).eps
        pairs = [
            (y, expected),
            *((mine[key], gradient) for key, gradient in zip(tensors, found, strict=True)),
        ]
        for got, wanted in pairs:
            wanted = wanted.detach().numpy()
            size = max(1.0, float(np.abs(wanted).max()))
            # Where rstd is large, the terms that cancel in dx are larger than it.
            np.testing.assert_allclose(got, wanted, rtol=0, atol=64 * eps * size, err_msg=str(sample))
        computed += 1
    assert computed == SAMPLES[name]
