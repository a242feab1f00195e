"""RMS, group and instance norm, activations, residuals and dropout: gradients by finite differences, and the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import normkit as nk
from cases import DTYPES
from gradients import assert_close, numeric_gradient
from normkit.reference import dropout_factors, dropout_words

RNG = np.random.default_rng
EPS = 1e-3


def operands(*shapes: Any, dtype: Any = np.float64, seed: int = 0) -> list[Any]:
    rng = RNG(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def assert_gradients(dy: Any, forward: Callable[[], Any], arrays: list[Any], gradients: list[Any]) -> None:
    for array, gradient in zip(arrays, gradients, strict=True):
        expected = numeric_gradient(lambda: float((forward() * dy).sum()), array)
        assert_close(gradient, expected)


@pytest.mark.parametrize("activation", [None, "relu", "gelu", "silu"])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_gradients_of_rows(name: str, activation: str | None, isa: str) -> None:
    x, dy, weight, bias = operands((5, 19), (5, 19), 19, 19)
    forward, backward = getattr(nk, name), getattr(nk, f"{name}_backward")
    _, moments = forward(x, weight, bias, eps=EPS, activation=activation, return_moments=True)
    gradients = backward(dy, x, moments, weight, bias=bias, activation=activation)
    assert_gradients(
        dy,
        lambda: forward(x, weight, bias, eps=EPS, activation=activation),
        [x, weight, bias],
        list(gradients),
    )


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_gradients_of_groups(groups: int, axis: int, activation: str | None, isa: str) -> None:
    shape = (2, 6, 3, 5) if axis == 1 else (2, 3, 5, 6)
    x, dy, weight, bias = operands(shape, shape, 6, 6)

    def forward() -> Any:
        return nk.group_norm(x, groups, weight, bias, axis=axis, eps=EPS, activation=activation)

    _, moments = nk.group_norm(
        x, groups, weight, bias, axis=axis, eps=EPS, activation=activation, return_moments=True
    )
    gradients = nk.group_norm_backward(dy, x, moments, weight, axis=axis)
    assert_gradients(dy, forward, [x, weight, bias], list(gradients))
    if groups == 6:
        y, own = nk.instance_norm(
            x, weight, bias, axis=axis, eps=EPS, activation=activation, return_moments=True
        )
        assert y.tobytes() == forward().tobytes()
        for one, other in zip(
            nk.instance_norm_backward(dy, x, own, weight, axis=axis), gradients, strict=True
        ):
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("shape", [(7, 4), (3, 4, 5)])
def test_gradients_of_batch_norm_with_residual_and_relu(shape: tuple[int, ...], isa: str) -> None:
    x, residual, dy, weight, bias = operands(shape, shape, shape, 4, 4)

    def forward() -> Any:
        return nk.batch_norm(x, weight, bias, eps=EPS, residual=residual, activation="relu")

    y, moments = nk.batch_norm(
        x, weight, bias, eps=EPS, residual=residual, activation="relu", return_moments=True
    )
    gradients = nk.batch_norm_backward(dy, x, moments, weight, return_dresidual=True)
    assert isinstance(gradients, nk.ResidualGradients)
    assert_gradients(dy, forward, [x, weight, bias, residual], [*gradients, gradients.dresidual])
    assert moments.active is not None
    assert moments.active.nbytes <= x.size // 8 + 64
    np.testing.assert_array_equal(gradients.dresidual, np.where(y > 0, dy, 0.0))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_gradients_of_a_normalized_sum(name: str, dropout: float, isa: str) -> None:
    x, residual, dy, dtotal, weight, bias = operands((6, 23), (6, 23), (6, 23), (6, 23), 23, 23)
    options: dict[str, Any] = {"dropout": dropout, "seed": 7, "activation": "silu"}
    add, backward = getattr(nk, f"add_{name}"), getattr(nk, f"add_{name}_backward")

    def forward() -> Any:
        y, total = add(x, residual, weight, bias, eps=EPS, **options)
        return y + total * dtotal / dy  # so that its sum weighed by dy is that of both results

    _, total, moments = add(x, residual, weight, bias, eps=EPS, return_moments=True, **options)
    gradients = backward(dy, total, moments, weight, bias=bias, dtotal=dtotal, **options)
    assert_gradients(dy, forward, [x, weight, bias, residual], [*gradients, gradients.dresidual])


def test_the_mask_of_dropout_is_philox(isa: str) -> None:
    # The first line of the known answers of its authors, https://github.com/DEShawResearch/random123
    assert [f"{word:08x}" for word in dropout_words(0, 64)[::16]] == [
        "6627e8d5",
        "e169c58d",
        "bc57ac4c",
        "9b00dbd8",
    ]
    seed, dropout, shape = 0x0123456789ABCDEF, 0.25, (9, 117)
    _, total = nk.add_layer_norm(np.ones(shape), np.zeros(shape), dropout=dropout, seed=seed)
    np.testing.assert_array_equal(total, dropout_factors(shape, dropout, seed))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_a_normalized_sum_is_the_norm_of_the_sum(name: str, dtype: Any, isa: str) -> None:
    x, residual, dy = operands((37, 301), (37, 301), (37, 301), dtype=dtype)
    add, backward = getattr(nk, f"add_{name}"), getattr(nk, f"add_{name}_backward")
    y, total, moments = add(x, residual, return_moments=True)
    expected, of_sum = getattr(nk, name)(total, return_moments=True)
    assert y.tobytes() == expected.tobytes()
    real = np.float64 if dtype == np.float64 else np.float32
    assert total.tobytes() == (x.astype(real) + residual.astype(real)).astype(dtype).tobytes()
    gradients, plain = backward(dy, total, moments), getattr(nk, f"{name}_backward")(dy, total, of_sum)
    for one, other in zip([*gradients, gradients.dresidual], [*plain, plain.dx], strict=True):
        assert one.tobytes() == other.tobytes()


def test_a_dropped_nan_is_dropped() -> None:
    x = np.full((4, 500), np.nan)
    _, total, moments = nk.add_layer_norm(x, np.ones_like(x), dropout=0.5, seed=3, return_moments=True)
    kept = dropout_factors(x.shape, 0.5, 3) != 0.0
    np.testing.assert_array_equal(np.isnan(total), kept)
    gradients = nk.add_layer_norm_backward(x, total, moments, dropout=0.5, seed=3)
    np.testing.assert_array_equal(gradients.dx[~kept], 0.0)


def results(num_threads: int) -> list[bytes]:
    """One call of each operation."""
    x, dy, r, weight, bias = operands((6, 64, 9, 9), (6, 64, 9, 9), (6, 64, 9, 9), 64, 64, dtype=np.float32)
    found: list[Any] = []
    options: dict[str, Any] = {"return_moments": True, "num_threads": num_threads}
    for axis in (1, -1):
        if axis == -1:
            x, dy, r = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, dy, r))
        y, m = nk.group_norm(x, 8, weight, bias, axis=axis, activation="relu", **options)
        found += [y, *nk.group_norm_backward(dy, x, m, weight, axis=axis, num_threads=num_threads)]
        y, m = nk.batch_norm(x, weight, bias, axis=axis, residual=r, activation="relu", **options)
        found += [y, *nk.batch_norm_backward(dy, x, m, weight, axis=axis, num_threads=num_threads)]
    for activation in (None, "relu", "gelu", "silu"):
        y, m = nk.rms_norm(x, weight, bias, activation=activation, **options)
        found += [
            y,
            *nk.rms_norm_backward(
                dy, x, m, weight, bias=bias, activation=activation, num_threads=num_threads
            ),
        ]
    y, total, m = nk.add_rms_norm(x, r, weight, bias, dropout=0.1, seed=1, **options)
    found += [
        y,
        total,
        *nk.add_rms_norm_backward(
            dy, total, m, weight, dropout=0.1, seed=1, dtotal=r, num_threads=num_threads
        ),
    ]
    return [array.tobytes() for array in found]


def test_the_same_bits_on_any_number_of_threads(isa: str) -> None:
    assert results(1) == results(2) == results(5)


def test_the_same_bits_on_every_instruction_set() -> None:
    expected = None
    for name in nk.isa.available():
        if name == "baseline":  # has no fused multiply-add, and bits of its own
            continue
        with nk.isa.use(name):
            found = results(2)
        assert expected is None or found == expected, name
        expected = found


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"dropout": 1.0}, ValueError, "dropout must be at least 0 and less than 1, got 1.0"),
        ({"dropout": float("nan")}, ValueError, "dropout must be at least 0 and less than 1, got nan"),
        ({"seed": -1}, ValueError, "seed must be at least 0 and below 2**64, got -1"),
        ({"seed": 1.5}, TypeError, "seed must be an integer, got 1.5"),
        (
            {"activation": "tanh"},
            ValueError,
            "activation must be one of relu, gelu, silu, or None, got 'tanh'",
        ),
    ],
)
def test_errors_of_a_normalized_sum(options: dict[str, Any], error: type[Exception], text: str) -> None:
    x = np.zeros((2, 3))
    for name in ("add_layer_norm", "add_rms_norm"):
        with pytest.raises(error) as caught:
            getattr(nk, name)(x, x, **options)
        assert str(caught.value) == f"{name}: {text}"
