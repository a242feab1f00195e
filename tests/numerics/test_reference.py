"""The oracle itself: against exact arithmetic, finite differences and the invariances of the operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bounds import by_decimal, by_reference
from normkit import reference
from normkit.moments import Moments


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("axes", [(1,), (0,), (0, 1)])
def test_reference_agrees_with_exact_arithmetic(
    offset: float, axes: tuple[int, ...], rng: np.random.Generator
) -> None:
    x = (rng.standard_normal((7, 12)) + offset).astype(np.float32)
    dy, weight = rng.standard_normal((7, 12)), rng.standard_normal((1, 12))
    ours, exact = by_reference(dy, x, weight, axes, 1e-5), by_decimal(dy, x, weight, axes, 1e-5)
    for name in ("y", "dx", "dweight"):
        np.testing.assert_allclose(
            getattr(ours, name), np.asarray(getattr(exact, name), float), rtol=1e-12, atol=1e-13
        )


def finite_differences(function: Any, x: Any, dy: Any, step: float = 1e-6) -> Any:
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        gradient[i] = ((function(up) - function(down)) * dy).sum() / (2 * step)
    return gradient


@pytest.mark.parametrize("axis", [-1, 1, (0, 2), (1, 2)])
def test_layer_norm_gradients_by_finite_differences(axis: Any, rng: np.random.Generator) -> None:
    x, dy = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4))
    axes = sorted(a % 3 for a in (axis if isinstance(axis, tuple) else (axis,)))
    shape = tuple(x.shape[a] for a in axes)
    weight, bias = rng.standard_normal(shape), rng.standard_normal(shape)
    _, moments = reference.layer_norm(x, weight, bias, axis=axis)
    got = reference.layer_norm_backward(dy, x, moments, weight, axis=axis)
    forward = lambda x, w, b: reference.layer_norm(x, w, b, axis=axis)[0]
    np.testing.assert_allclose(
        got.dx, finite_differences(lambda v: forward(v, weight, bias), x, dy), atol=1e-7
    )
    np.testing.assert_allclose(
        got.dweight, finite_differences(lambda v: forward(x, v, bias), weight, dy), atol=1e-7
    )
    np.testing.assert_allclose(
        got.dbias, finite_differences(lambda v: forward(x, weight, v), bias, dy), atol=1e-7
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_gradients_by_finite_differences(
    axis: int, training: bool, rng: np.random.Generator
) -> None:
    x, dy = rng.standard_normal((4, 3, 2)), rng.standard_normal((4, 3, 2))
    weight, bias = rng.standard_normal(x.shape[axis]), rng.standard_normal(x.shape[axis])
    running = (
        {}
        if training
        else {"mean": rng.standard_normal(x.shape[axis]), "var": rng.uniform(1, 2, x.shape[axis])}
    )
    _, moments = reference.batch_norm(x, weight, bias, axis=axis, **running)
    got = reference.batch_norm_backward(dy, x, moments, weight, axis=axis, training=training)
    forward = lambda x, w, b: reference.batch_norm(x, w, b, axis=axis, **running)[0]
    np.testing.assert_allclose(
        got.dx, finite_differences(lambda v: forward(v, weight, bias), x, dy), atol=1e-7
    )
    np.testing.assert_allclose(
        got.dweight, finite_differences(lambda v: forward(x, v, bias), weight, dy), atol=1e-7
    )
    np.testing.assert_allclose(
        got.dbias, finite_differences(lambda v: forward(x, weight, v), bias, dy), atol=1e-7
    )


def test_layer_norm_ignores_shift_and_scale_of_a_row(rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 9))
    moved = 3.0 * x + rng.standard_normal((5, 1))
    np.testing.assert_allclose(
        reference.layer_norm(moved, eps=0)[0], reference.layer_norm(x, eps=0)[0], rtol=1e-12
    )


def test_gradient_is_orthogonal_to_shift_and_scale(rng: np.random.Generator) -> None:
    x, dy = rng.standard_normal((6, 10)), rng.standard_normal((6, 10))
    _, moments = reference.layer_norm(x, eps=0)
    dx = reference.layer_norm_backward(dy, x, moments).dx
    np.testing.assert_allclose(dx.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose((dx * x).sum(axis=1), 0, atol=1e-12)


def test_moments_are_those_of_numpy(rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 5, 6))
    _, moments = reference.batch_norm(x, axis=1, eps=0.5)
    assert isinstance(moments, Moments)
    np.testing.assert_allclose(moments.mean, x.mean(axis=(0, 2)))
    np.testing.assert_allclose(moments.rstd, 1 / np.sqrt(x.var(axis=(0, 2)) + 0.5))
