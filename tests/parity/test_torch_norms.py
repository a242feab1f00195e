"""The operations beside torch's: equal where torch is right; where it is not, the figure says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normkit as nk

torch = pytest.importorskip("torch", reason="the parity group is not installed: pip install --group parity")
functional = torch.nn.functional

pytestmark = pytest.mark.parity

SHAPES = [(32, 64), (5, 3, 17), (4, 6, 9, 11), (2, 3, 4, 5, 6)]


def gradients_of(y: Any, dy: Any, *inputs: Any) -> list[Any]:
    return [g.numpy() for g in torch.autograd.grad(y, inputs, torch.from_numpy(dy))]


def tensors(*arrays: Any) -> list[Any]:
    return [torch.from_numpy(a.copy()).requires_grad_() for a in arrays]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm(dtype: Any, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    tolerance = {"rtol": 2e-5, "atol": 2e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    for axes in (tuple(range(1, len(shape))), (len(shape) - 1,)):
        normalized = tuple(shape[a] for a in axes)
        x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
        weight, bias = (rng.standard_normal(normalized).astype(dtype) for _ in range(2))
        xt, wt, bt = tensors(x, weight, bias)
        expected = functional.layer_norm(xt, normalized, wt, bt)
        y, moments = nk.layer_norm(x, weight, bias, axis=axes, return_moments=True)
        got = nk.layer_norm_backward(dy, x, moments, weight, axis=axes)
        np.testing.assert_allclose(y, expected.detach().numpy(), **tolerance)
        for a, b in zip(got, gradients_of(expected, dy, xt, wt, bt), strict=True):
            np.testing.assert_allclose(a, b, **tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_and_its_running_statistics(
    dtype: Any, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    tolerance = {"rtol": 5e-5, "atol": 5e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    weight, bias = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    for momentum in (0.1, None):
        module = {
            2: torch.nn.BatchNorm1d,
            3: torch.nn.BatchNorm1d,
            4: torch.nn.BatchNorm2d,
            5: torch.nn.BatchNorm3d,
        }[len(shape)](shape[1], momentum=momentum, dtype=torch.from_numpy(weight).dtype)
        module.load_state_dict(
            {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}, strict=False
        )
        stats = nk.RunningStats.torch(shape[1], momentum=momentum)
        for _ in range(3):
            x, dy = (rng.standard_normal(shape).astype(dtype) + 1 for _ in range(2))
            (xt,) = tensors(x)
            expected = module(xt)
            y, moments = nk.batch_norm(x, weight, bias, stats=stats, return_moments=True)
            got = nk.batch_norm_backward(dy, x, moments, weight)
            np.testing.assert_allclose(y, expected.detach().numpy(), **tolerance)
            for a, b in zip(got, gradients_of(expected, dy, xt, module.weight, module.bias), strict=True):
                np.testing.assert_allclose(a, b, **tolerance)
        np.testing.assert_allclose(stats.mean, module.running_mean.numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(stats.var, module.running_var.numpy(), rtol=1e-5, atol=1e-6)
        assert stats.count == module.num_batches_tracked
        (xt,) = tensors(x)
        expected = module.eval()(xt)
        y, moments = nk.batch_norm(x, weight, bias, stats=stats, training=False, return_moments=True)
        got = nk.batch_norm_backward(dy, x, moments, weight, training=False)
        tolerance = {"rtol": 5e-5, "atol": 5e-5}  # the running statistics here are float32
        np.testing.assert_allclose(y, expected.detach().numpy(), **tolerance)
        for a, b in zip(got, gradients_of(expected, dy, xt, module.weight, module.bias), strict=True):
            np.testing.assert_allclose(a, b, **tolerance)


def test_where_torch_loses_digits(rng: np.random.Generator) -> None:
    """Mean 1000, deviation 1: torch's batch norm is off by about 1e-3, ours by a few 1e-7."""
    x = (rng.standard_normal((4096, 8)) + 1e3).astype(np.float32)
    exact, _ = nk.reference.batch_norm(x)
    theirs = functional.batch_norm(torch.from_numpy(x), None, None, training=True).numpy()
    assert np.abs(nk.batch_norm(x) - exact).max() < 1e-6
    assert np.abs(theirs - exact).max() > 1e-4


@pytest.mark.parametrize("torch_first", [True, False])
def test_one_openmp_runtime_beside_torch(torch_first: bool) -> None:
    """Both in one process, in either order of import: no deadlock, right results, one libgomp."""
    from subprocesses import output_of

    code = f"""
    import numpy as np
    if {torch_first}:
        import torch
    import normkit as nk
    import torch
    x = np.random.default_rng(0).standard_normal((2000, 768)).astype(np.float32)
    expected = nk.layer_norm(x, num_threads=1)
    for _ in range(50):
        torch.nn.functional.layer_norm(torch.from_numpy(x), (768,))
        assert np.array_equal(nk.layer_norm(x, num_threads=2), expected)
    maps = open("/proc/self/maps").read().split()
    print(len({{path for path in maps if "libgomp" in path}}))
    """
    assert output_of(code, warnings="ignore") == "1"


def test_torchs_limit_on_threads_is_respected() -> None:
    from subprocesses import output_of

    code = """
    import torch
    import normkit as nk
    torch.set_num_threads(1)
    print(nk.get_num_threads())
    """
    assert output_of(code, warnings="ignore") == "1"
