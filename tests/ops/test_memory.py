"""What each operation keeps for its backward pass, in place or not, and the gradients that are taken from y alone."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import normkit as nk
from cases import DTYPES

SHAPE = (96, 512)
F32 = np.float32


def normal(*shape: int, dtype: Any = F32, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def parameters(channels: int, dtype: Any) -> tuple[Any, Any]:
    """Weight and bias; some weights are negative."""
    real = dtype if dtype in (np.float32, np.float64) else F32
    rng = np.random.default_rng(1)
    weight = rng.uniform(0.5, 2, channels) * np.where(rng.random(channels) < 0.3, -1, 1)
    return weight.astype(real), rng.standard_normal(channels).astype(real)


def kept_by(forward: Callable[[Any], Any]) -> float:
    """Bytes for each element that are there after ``forward(x)`` while its result lives, and were not before."""
    x = normal(*SHAPE)
    forward(x.copy())  # what is made once, such as the pool's lists
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = forward(x)
        kept = tracemalloc.get_traced_memory()[0] - before
        assert result is not None
    finally:
        tracemalloc.stop()
    return kept / x.size


# What y takes is 4 bytes where it is not written over x; a result that x itself holds takes none.
@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        pytest.param(lambda x: nk.layer_norm(x, return_moments=True), 4, id="layer norm"),
        pytest.param(
            lambda x: nk.layer_norm(x, return_moments=True, activation="gelu"), 4, id="layer norm, gelu"
        ),
        pytest.param(lambda x: nk.layer_norm(x, return_moments=True, out=x), 0, id="layer norm in place"),
        pytest.param(lambda x: nk.rms_norm(x, return_moments=True, out=x), 0, id="RMS norm in place"),
        pytest.param(lambda x: nk.batch_norm(x, return_moments=True), 4, id="batch norm"),
        pytest.param(
            lambda x: nk.batch_norm(x, return_moments=True, activation="relu"), 4.125, id="batch norm, relu"
        ),
        pytest.param(
            lambda x: nk.batch_norm(x, residual=x, return_moments=True, activation="relu"),
            4.125,
            id="batch norm, residual, relu",
        ),
        pytest.param(
            lambda x: nk.batch_norm(x, return_moments=True, activation="leaky_relu", out=x),
            0,
            id="batch norm, leaky relu, in place",
        ),
        pytest.param(
            lambda x: nk.group_norm(x, 4, return_moments=True, activation="relu"),
            4.125,
            id="group norm, relu",
        ),
        pytest.param(
            lambda x: nk.add_layer_norm(x, x, dropout=0.1, return_moments=True),
            8,
            id="dropout, add and layer norm",
        ),
        pytest.param(
            lambda x: nk.add_rms_norm(x, x, out=x, return_moments=True), 4, id="add and RMS norm, y in place"
        ),
    ],
)
def test_bytes_that_stay(forward: Callable[[Any], Any], expected: float) -> None:
    moments = 16 * max(SHAPE) * 2 / np.prod(SHAPE)  # of each row or channel; batch norm has variances too
    objects = 4096 / np.prod(SHAPE)
    kept = kept_by(forward)
    assert expected <= kept <= expected + moments + objects


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", [(64, 16), (50, 7), (1, 9), (3, 1000), (9, 4100), (2, 40000)])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_rows_from_output(name: str, shape: tuple[int, int], in_place: bool, dtype: Any, isa: str) -> None:
    forward, backward = getattr(nk, name), getattr(nk, f"{name}_backward")
    x, dy = normal(*shape, dtype=dtype), normal(*shape, dtype=dtype, seed=2)
    weight, bias = parameters(shape[1], dtype)
    wide = np.array(x, np.float64)
    y, moments = forward(x, weight, bias, out=x, return_moments=True)
    expected = backward(np.array(dy, np.float64), wide, moments, weight.astype(np.float64))
    got = backward(dy, None, moments, weight, bias=bias, y=y, out=y if in_place else None)
    assert not in_place or got.dx is y
    assert_recovered(got, expected, wide, moments.rstd[:, None], dy, weight, bias, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("slope", [None, 0.01, 3.0])
@pytest.mark.parametrize("shape", [(64, 16), (8, 5, 40), (3, 9, 4), (1, 2, 70)])
def test_channels_from_output(
    shape: tuple[int, ...], slope: float | None, training: bool, dtype: Any, isa: str
) -> None:
    x, dy = normal(*shape, dtype=dtype), normal(*shape, dtype=dtype, seed=2)
    weight, bias = parameters(shape[1], dtype)
    stats = nk.RunningStats(shape[1])
    wide = np.array(x, np.float64)
    activation: dict[str, Any] = (
        {} if slope is None else {"activation": "leaky_relu", "negative_slope": slope}
    )
    y, moments = nk.batch_norm(
        x, weight, bias, stats=stats, training=training, out=x, return_moments=True, **activation
    )
    per_channel = (shape[1],) + (1,) * (len(shape) - 2)
    mean, rstd = (m.reshape(per_channel) for m in moments)
    z = (wide - mean) * rstd * weight.reshape(per_channel) + bias.reshape(per_channel)
    expected_y = z if slope is None else np.where(z < 0, z * slope, z)
    np.testing.assert_allclose(
        np.array(y, np.float64), expected_y, rtol=0, atol=8 * tolerance(dtype, expected_y)
    )
    dz = np.array(dy, np.float64) * (1.0 if slope is None else np.where(z < 0, slope, 1.0))
    expected = nk.batch_norm_backward(
        dz, wide, nk.Moments(*moments, training=training), weight.astype(np.float64)
    )
    results = [
        nk.batch_norm_backward(dy, moments=moments, weight=weight, bias=bias, y=y, num_threads=n)
        for n in (1, 3)
    ]
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
    sized = weight.reshape(per_channel), bias.reshape(per_channel)
    assert_recovered(results[0], expected, wide, rstd, dz, *sized, dtype)


def tolerance(dtype: Any, values: Any) -> float:
    """The spacing of the dtype at the largest value."""
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).eps) * float(np.abs(values).max(initial=1.0))


def assert_recovered(
    got: Any, expected: Any, x: Any, rstd: Any, dy: Any, weight: Any, bias: Any, dtype: Any
) -> None:
    """Gradients within what the rounding of y leaves of x̂: eps·(|z − bias| + |bias|)/|weight| of each element."""
    x_hat = np.abs(x).max() * float(np.max(rstd)) + 4
    lost = tolerance(dtype, 1.0) * float((x_hat + np.abs(bias / weight)).max()) * 4
    size = float(np.abs(np.array(dy, np.float64)).max()) * float(np.abs(weight).max())
    count = x.size // expected.dweight.size
    # x̂ is in dx as a product with mean(g·x̂), itself wrong by as much.
    assert np.abs(np.array(got.dx, np.float64) - expected.dx).max() <= lost * size * x_hat * 2 * float(
        np.max(rstd)
    )
    assert np.abs(got.dweight - expected.dweight).max() <= lost * size * count
    assert np.abs(got.dbias - expected.dbias).max() <= lost * size * count


def test_nothing_counts_in_a_channel() -> None:
    x, dy = normal(4, 3, 50), normal(4, 3, 50, seed=1)
    where = np.array([True, False, True])[:, None]
    weight, bias = parameters(3, F32)
    y, moments = nk.batch_norm(
        x, weight, bias, where=where, activation="leaky_relu", out=x, return_moments=True
    )
    gradients = nk.batch_norm_backward(dy, None, moments, weight, bias=bias, y=y)
    assert gradients.dweight[1] == 0
    assert (gradients.dx[:, 1] == 0).all()
    assert np.isfinite(gradients.dx).all()


def refused(error: type[Exception], text: str) -> Any:
    return pytest.raises(error, match=text)


def test_what_cannot_be_undone() -> None:
    x = normal(8, 4)
    weight, bias = np.ones(4, F32), np.zeros(4, F32)
    y, moments = nk.batch_norm(x, weight, bias, activation="relu", return_moments=True)
    with refused(ValueError, "y= cannot serve after relu, which leaves nothing of x where y is 0"):
        nk.batch_norm_backward(x, None, moments, weight, bias=bias, y=y)
    y, moments = nk.batch_norm(x, weight, bias, activation="leaky_relu", return_moments=True)
    with refused(ValueError, "leaky_relu works on its result: pass y= and x=None"):
        nk.batch_norm_backward(x, x, moments, weight)
    with refused(ValueError, "y= cannot serve with a residual, which cannot be told from y; pass x"):
        nk.batch_norm_backward(x, None, moments, weight, bias=bias, y=y, return_dresidual=True)
    weight[2] = 0
    with refused(ValueError, r"y= divides y by weight.*element 2 is 0.0: pass x"):
        nk.batch_norm_backward(x, None, moments, weight, bias=bias, y=y)
    _, of_rows = nk.layer_norm(x, weight, bias, return_moments=True)
    with refused(ValueError, r"y= divides y by weight.*element 2 is 0.0: pass x"):
        nk.layer_norm_backward(x, None, of_rows, weight, bias=bias, y=y)
    _, with_gelu = nk.layer_norm(x, activation="gelu", return_moments=True)
    with refused(ValueError, "y= cannot serve after gelu, which has no inverse; pass x"):
        nk.layer_norm_backward(x, None, with_gelu, y=y)


@pytest.mark.parametrize("slope", [0.0, -0.1, 1e-9, float("nan"), float("inf")])
def test_slopes_without_an_inverse(slope: float) -> None:
    with refused(ValueError, r"negative_slope must be between 2\*\*-20 and 2\*\*20"):
        nk.batch_norm(normal(8, 4), activation="leaky_relu", negative_slope=slope)


def test_leaky_relu_takes_no_residual() -> None:
    x = normal(8, 4)
    with refused(ValueError, "leaky_relu of a sum with a residual cannot be undone"):
        nk.batch_norm(x, residual=x, activation="leaky_relu")


def test_moments_remember_the_slope(tmp_path: Any) -> None:
    import pickle

    x = normal(8, 4)
    stats = nk.RunningStats(4)
    for training in (True, False):
        _, moments = nk.batch_norm(
            x,
            stats=stats,
            training=training,
            activation="leaky_relu",
            negative_slope=0.25,
            return_moments=True,
        )
        again = pickle.loads(pickle.dumps(moments))
        assert type(again) is type(moments)
        assert again.negative_slope == 0.25
        assert again.active is None


@pytest.mark.parametrize("where", ["dy", "total", "dtotal"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("name", ["add_layer_norm", "add_rms_norm"])
def test_gradients_of_sums_in_place(name: str, dropout: float, where: str) -> None:
    x, residual, dy, dtotal = (normal(7, 33, seed=i) for i in range(4))
    drop = {"dropout": dropout, "seed": 5}
    backward = getattr(nk, f"{name}_backward")
    _, total, moments = getattr(nk, name)(x, residual, return_moments=True, **drop)
    expected = backward(dy, total, moments, dtotal=dtotal, **drop)
    out = {"dy": dy, "total": total, "dtotal": dtotal}[where]
    got = backward(dy, total, moments, dtotal=dtotal, out=out, **drop)
    assert got.dresidual is out
    assert (got.dx is out) == (dropout == 0)
    for one, other in zip([*got, got.dresidual], [*expected, expected.dresidual], strict=True):
        np.testing.assert_array_equal(one, other)
