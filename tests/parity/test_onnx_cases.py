"""ONNX's own cases of normalization: its node tests, and models that were converted from torch."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bounds
import normkit as nk

MISSING = "the parity group is not installed: pip install --group parity"
onnx = pytest.importorskip("onnx", reason=MISSING)
backend = pytest.importorskip("onnx.backend.test", reason=MISSING)
collect = pytest.importorskip("onnx.backend.test.case.node", reason=MISSING).collect_testcases

pytestmark = pytest.mark.parity

Array = np.ndarray[Any, Any]

# How many cases the normalizing operators have: those that normkit computes, and those of another operation.
COMPUTED = {
    "BatchNormalization": 4,
    "GroupNormalization": 2,
    "InstanceNormalization": 2,
    "LayerNormalization": 19,
    "MeanVarianceNormalization": 1,
    "RMSNormalization": 19,
}
OTHERS = {"LpNormalization": 6}
CONVERTED = [
    "test_BatchNorm1d_3d_input_eval",
    "test_BatchNorm2d_eval",
    "test_BatchNorm2d_momentum_eval",
    "test_BatchNorm3d_eval",
    "test_BatchNorm3d_momentum_eval",
]
MODELS = Path(backend.__file__).parent / "data/pytorch-converted"


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    # Anything else than None works only at the first call of a process.
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        return {case.name: case for case in collect(None)}


def operator(case: Any) -> str:
    nodes = case.model.graph.node
    return nodes[0].op_type if len(nodes) == 1 else "several"


def chosen(cases: dict[str, Any], name: str) -> list[Any]:
    picked = [case for case in cases.values() if operator(case) == name]
    assert len(picked) == COMPUTED[name]
    return picked


def attributes(model: Any) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in model.graph.node[0].attribute}


def spread(parameter: Array, x: Array) -> Array:
    return parameter.astype(np.float64).reshape(-1, *[1] * (x.ndim - 2))


def assert_exact(y: Array, exact: bounds.Exact, weight: Array, bias: Array) -> None:
    """Within the contract, where ONNX asks for three digits; weight and bias broadcast against y."""
    bounds.summed(exact, bias, (), y.shape)
    assert bounds.forward_share(y, exact, weight, bias) <= 1


def test_no_case_is_left_out(cases: dict[str, Any]) -> None:
    """Those that expand an operator into several repeat its data."""
    operators = Counter(map(operator, cases.values()))
    normalizing = {name: count for name, count in operators.items() if name.endswith("Normalization")}
    assert normalizing == COMPUTED | OTHERS
    expanded = {name: case for name, case in cases.items() if "norm" in name and "_expanded" in name}
    layer, others = (
        COMPUTED["LayerNormalization"],
        COMPUTED["GroupNormalization"] + COMPUTED["RMSNormalization"],
    )
    assert len(expanded) == 2 * layer + others
    for name, case in expanded.items():
        whole = cases[name.split("_expanded")[0]]
        for (inputs, outputs), (same, results) in zip(case.data_sets, whole.data_sets, strict=True):
            for a, b in zip([*inputs, *outputs], [*same, *results], strict=True):
                np.testing.assert_array_equal(a, b)
    assert sorted(path.name for path in MODELS.glob("*Norm*")) == CONVERTED


def test_batch_normalization(cases: dict[str, Any]) -> None:
    for case in chosen(cases, "BatchNormalization"):
        given = attributes(case.model)
        eps, training = given.get("epsilon", 1e-5), bool(given.get("training_mode", 0))
        for (x, weight, bias, mean, var), outputs in case.data_sets:
            stats = nk.RunningStats(x.shape[1], momentum=1 - given.get("momentum", 0.9), unbiased=False)
            stats.mean, stats.var = mean, var
            y = nk.batch_norm(x, weight, bias, stats=stats, training=training, eps=eps)
            results = [y, stats.mean, stats.var] if training else [y]
            for got, expected in zip(results, outputs, strict=True):
                np.testing.assert_allclose(got, expected, rtol=case.rtol, atol=case.atol, err_msg=case.name)
            weight, bias, mean, var = (spread(a, x) for a in (weight, bias, mean, var))
            if training:
                exact = bounds.by_reference(x, x, weight, (0, *range(2, x.ndim)), eps)
            else:
                exact = bounds.by_constants(x, x, weight, mean, var, eps)
            assert_exact(y, exact, weight, bias)


@pytest.mark.parametrize("name", CONVERTED)
def test_converted_batch_normalization(name: str) -> None:
    model = onnx.load(MODELS / name / "model.onnx")
    weight, bias, mean, var = map(onnx.numpy_helper.to_array, model.graph.initializer)
    x, expected = (
        onnx.numpy_helper.to_array(onnx.load_tensor(MODELS / name / "test_data_set_0" / file))
        for file in ("input_0.pb", "output_0.pb")
    )
    eps = attributes(model)["epsilon"]
    stats = nk.RunningStats(x.shape[1])
    stats.mean, stats.var = mean, var
    y = nk.batch_norm(x, weight, bias, stats=stats, training=False, eps=eps)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
    weight, bias, mean, var = (spread(a, x) for a in (weight, bias, mean, var))
    assert_exact(y, bounds.by_constants(x, x, weight, mean, var, eps), weight, bias)


def test_instance_normalization(cases: dict[str, Any]) -> None:
    """Also as a batch norm whose channels are those of every instance."""
    for case in chosen(cases, "InstanceNormalization"):
        for (x, weight, bias), (expected,) in case.data_sets:
            eps = attributes(case.model).get("epsilon", 1e-5)
            own = nk.instance_norm(x, weight, bias, eps=eps)
            weight, bias = (np.tile(parameter, len(x)) for parameter in (weight, bias))
            channels = x.reshape(1, weight.size, -1)
            y = nk.batch_norm(channels, weight, bias, eps=eps)
            np.testing.assert_allclose(
                y.reshape(x.shape), expected, rtol=case.rtol, atol=case.atol, err_msg=case.name
            )
            weight, bias = spread(weight, channels), spread(bias, channels)
            for result in (y, own.reshape(channels.shape)):
                assert_exact(
                    result, bounds.by_reference(channels, channels, weight, (0, 2), eps), weight, bias
                )


def test_mean_variance_normalization(cases: dict[str, Any]) -> None:
    """A batch norm without parameters; ONNX adds 1e-9 to the deviation."""
    for case in chosen(cases, "MeanVarianceNormalization"):
        for (x,), (expected,) in case.data_sets:
            y = nk.batch_norm(x, eps=0.0)
            np.testing.assert_allclose(y, expected, rtol=case.rtol, atol=case.atol, err_msg=case.name)
            one, zero = np.ones((1, 1, 1, 1)), np.zeros((1, 1, 1, 1))
            assert_exact(y, bounds.by_reference(x, x, one, (0, 2, 3), 0.0), one, zero)


def test_layer_normalization(cases: dict[str, Any]) -> None:
    for case in chosen(cases, "LayerNormalization"):
        given = attributes(case.model)
        eps = given.get("epsilon", 1e-5)
        for (x, weight, bias), (y, mean, rstd) in case.data_sets:
            axes = tuple(range(given.get("axis", -1) % x.ndim, x.ndim))
            shape = tuple(x.shape[a] for a in axes)
            assert weight.shape == bias.shape == shape
            got, moments = nk.layer_norm(x, weight, bias, axis=axes, eps=eps, return_moments=True)
            for a, b in ((got, y), (moments.mean, mean.squeeze(axes)), (moments.rstd, rstd.squeeze(axes))):
                np.testing.assert_allclose(a, b, rtol=case.rtol, atol=case.atol, err_msg=case.name)
            assert_exact(got, bounds.by_reference(x, x, weight, axes, eps), weight, bias)


def test_group_normalization(cases: dict[str, Any]) -> None:
    for case in chosen(cases, "GroupNormalization"):
        given = attributes(case.model)
        groups, eps = given["num_groups"], given.get("epsilon", 1e-5)
        for (x, weight, bias), (expected,) in case.data_sets:
            y = nk.group_norm(x, groups, weight, bias, eps=eps)
            np.testing.assert_allclose(y, expected, rtol=case.rtol, atol=case.atol, err_msg=case.name)
            shape = (len(x), groups, x.shape[1] // groups, -1)
            rows = x.reshape(shape)
            weight, bias = (p.reshape(1, *shape[1:3], 1) for p in (weight, bias))
            exact = bounds.by_reference(rows, rows, weight, (2, 3), eps)
            assert_exact(y.reshape(rows.shape), exact, weight, bias)


def test_rms_normalization(cases: dict[str, Any]) -> None:
    for case in chosen(cases, "RMSNormalization"):
        given = attributes(case.model)
        eps = given.get("epsilon", 1e-5)
        for (x, weight), (expected,) in case.data_sets:
            axes = tuple(range(given.get("axis", -1) % x.ndim, x.ndim))
            y = nk.rms_norm(x, weight, axis=axes, eps=eps)
            np.testing.assert_allclose(y, expected, rtol=case.rtol, atol=case.atol, err_msg=case.name)
            squares = np.square(x, dtype=np.float64).mean(axis=axes, keepdims=True)
            exact = bounds.by_constants(x, x, weight, np.zeros_like(squares), squares, eps)
            assert_exact(y, exact, weight, np.zeros_like(weight))
