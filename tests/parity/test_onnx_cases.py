"""ONNX's own node tests of BatchNormalization and LayerNormalization."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normkit as nk

collect = pytest.importorskip(
    "onnx.backend.test.case.node", reason="the parity group is not installed: pip install --group parity"
).collect_testcases

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    # Anything else than None works only at the first call of a process.
    with np.errstate(all="ignore"):
        return {case.name: case for case in collect(None)}


def attributes(case: Any) -> dict[str, Any]:
    return {a.name: a.f if a.type == 1 else a.i for a in case.model.graph.node[0].attribute}


def chosen(cases: dict[str, Any], operator: str) -> list[Any]:
    return [
        c
        for c in cases.values()
        if len(c.model.graph.node) == 1 and c.model.graph.node[0].op_type == operator
    ]


@pytest.mark.filterwarnings("ignore")
def test_batch_normalization(cases: dict[str, Any]) -> None:
    picked = [c for c in chosen(cases, "BatchNormalization") if c.name.startswith("test_batchnorm_")]
    assert len(picked) == 4
    for case in picked:
        given = attributes(case)
        eps, training = given.get("epsilon", 1e-5), bool(given.get("training_mode", 0))
        for (x, weight, bias, mean, var), outputs in case.data_sets:
            stats = nk.RunningStats(x.shape[1], momentum=1 - given.get("momentum", 0.9), unbiased=False)
            stats.mean, stats.var = mean, var
            y = nk.batch_norm(x, weight, bias, stats=stats, training=training, eps=eps)
            results = [y, stats.mean, stats.var] if training else [y]
            for got, expected in zip(results, outputs, strict=True):
                np.testing.assert_allclose(got, expected, rtol=case.rtol, atol=case.atol, err_msg=case.name)


@pytest.mark.filterwarnings("ignore")
def test_layer_normalization(cases: dict[str, Any]) -> None:
    picked = chosen(cases, "LayerNormalization")
    assert len(picked) == 19
    for case in picked:
        given = attributes(case)
        for (x, weight, bias), (y, mean, rstd) in case.data_sets:
            axes = tuple(range(given.get("axis", -1) % x.ndim, x.ndim))
            shape = tuple(x.shape[a] for a in axes)
            got, moments = nk.layer_norm(
                x,
                np.broadcast_to(weight, shape),
                np.broadcast_to(bias, shape),
                axis=axes,
                eps=given.get("epsilon", 1e-5),
                return_moments=True,
            )
            for a, b in ((got, y), (moments.mean, mean.squeeze(axes)), (moments.rstd, rstd.squeeze(axes))):
                np.testing.assert_allclose(a, b, rtol=case.rtol, atol=case.atol, err_msg=case.name)
