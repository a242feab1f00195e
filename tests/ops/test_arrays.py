"""What an array may look like: strides, layouts, empty, read-only, NaN; and what the errors say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normkit as nk


def assert_close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)


def views(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Arrays of one shape and one content, laid out in every odd way."""
    x = rng.standard_normal(shape).astype(np.float32) + 2
    doubled = np.zeros(tuple(2 * n for n in shape), np.float32)
    doubled[tuple(slice(None, None, 2) for _ in shape)] = x
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(shape)
    assert not unaligned.flags.aligned
    return {
        "contiguous": x,
        "fortran": np.asfortranarray(x),
        "channels last": np.ascontiguousarray(np.moveaxis(x, 1, -1)).swapaxes(1, -1)
        if x.ndim == 2
        else np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1),
        "every second": doubled[tuple(slice(None, None, 2) for _ in shape)],
        "reversed": np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
        "unaligned": unaligned,
        "subclass": x.view(np.memmap),
    }


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5, 7), (3, 64, 6, 6)])
@pytest.mark.parametrize("op", ["layer_norm", "batch_norm"])
def test_any_strides(op: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    forward, backward, definition = getattr(nk, op), getattr(nk, f"{op}_backward"), getattr(nk.reference, op)
    dy_views = views(shape, rng)
    for axis in (-1, 1, 0) if op == "batch_norm" else (-1, 1, (0, 2) if len(shape) > 2 else 0, (0, 1)):
        for name, x in views(shape, rng).items():
            axes = sorted(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))
            weight = rng.standard_normal([x.shape[a] for a in axes]).astype(np.float32)
            expected, moments = definition(x, weight, weight, axis=axis)
            y, got = forward(x, weight, weight, axis=axis, return_moments=True)
            assert_close(y, expected)
            assert_close(got.mean, moments.mean)
            assert y.shape == x.shape
            for other, dy in dy_views.items():
                gradients = backward(dy, x, got, weight, axis=axis)
                wanted = getattr(nk.reference, f"{op}_backward")(dy, x, moments, weight, axis=axis)
                for a, b in zip(gradients, wanted, strict=True):
                    np.testing.assert_allclose(
                        a, b, rtol=1e-5, atol=1e-5, err_msg=f"{name}, dy {other}, axis {axis}"
                    )


@pytest.mark.parametrize("op", ["layer_norm", "batch_norm"])
def test_out_in_any_layout(op: str, rng: np.random.Generator) -> None:
    shape = (4, 3, 5, 7)
    x = rng.standard_normal(shape).astype(np.float32)
    expected = getattr(nk, op)(x, axis=1)
    dy = rng.standard_normal(shape).astype(np.float32)
    _, moments = getattr(nk, op)(x, axis=1, return_moments=True)
    dx = getattr(nk, f"{op}_backward")(dy, x, moments, axis=1).dx
    for name, out in views(shape, rng).items():
        if name == "unaligned":
            out = np.frombuffer(bytearray(out.nbytes + 1), np.uint8)[1:].view(np.float32).reshape(shape)
        result = getattr(nk, op)(x, axis=1, out=out)
        assert result is out, name
        assert np.array_equal(out, expected), name
        assert getattr(nk, f"{op}_backward")(dy, x, moments, axis=1, out=out).dx is out
        assert np.array_equal(out, dx), name


def test_broadcast_and_read_only_inputs(rng: np.random.Generator) -> None:
    row = rng.standard_normal(16).astype(np.float32)
    x = np.broadcast_to(row, (5, 16))
    assert x.strides[0] == 0
    assert_close(nk.layer_norm(x), np.tile(nk.layer_norm(row), (5, 1)))
    assert_close(nk.batch_norm(x), np.zeros((5, 16)))
    before = row.copy()
    row.flags.writeable = False
    nk.layer_norm(row, row, row)
    assert np.array_equal(row, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_channels_last_view_keeps_its_layout(dtype: Any, rng: np.random.Generator) -> None:
    nhwc = rng.standard_normal((2, 6, 6, 5)).astype(dtype)
    nchw = np.moveaxis(nhwc, -1, 1)
    y = nk.batch_norm(nchw, axis=1)
    assert y.strides == nchw.strides
    assert np.array_equal(np.moveaxis(y, 1, -1), nk.batch_norm(nhwc, axis=3))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 5, 9), (3, 0, 2), (3, 5, 0), (0, 0)])
def test_empty_arrays(shape: tuple[int, ...]) -> None:
    x = np.empty(shape, np.float32)
    stats = nk.RunningStats(shape[1])
    y, moments = nk.batch_norm(x, stats=stats, axis=1, return_moments=True)
    assert y.shape == shape
    assert stats.count == 0
    assert np.array_equal(stats.mean, np.zeros(shape[1]))
    assert np.array_equal(stats.var, np.ones(shape[1]))
    assert np.isfinite(moments.mean).all()
    gradients = nk.batch_norm_backward(x, x, moments, axis=1)
    assert gradients.dx.shape == shape
    assert np.array_equal(gradients.dweight, np.zeros(shape[1]))
    assert np.array_equal(gradients.dbias, np.zeros(shape[1]))

    y, moments = nk.layer_norm(x, return_moments=True)
    assert y.shape == shape
    assert moments.mean.shape == shape[:-1]
    gradients = nk.layer_norm_backward(x, x, moments)
    assert gradients.dx.shape == shape
    assert np.array_equal(gradients.dweight, np.zeros(shape[-1]))


def test_nan_and_inf_stay_in_their_row_and_channel(isa: str, rng: np.random.Generator) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        for shape in ((33, 70), (5, 9000)):
            x = rng.standard_normal(shape).astype(np.float32)
            clean, moments = nk.layer_norm(x, return_moments=True)
            dy = rng.standard_normal(shape).astype(np.float32)
            clean_dx = nk.layer_norm_backward(dy, x, moments).dx
            x[3, 5] = bad
            y, moments = nk.layer_norm(x, return_moments=True)
            dx = nk.layer_norm_backward(dy, x, moments).dx
            others = np.arange(shape[0]) != 3
            assert np.isnan(y[3]).all()
            assert np.isnan(dx[3]).all()
            assert np.array_equal(y[others], clean[others])
            assert np.array_equal(dx[others], clean_dx[others])
        for shape in ((33, 70), (4, 70, 9, 9), (300, 6)):
            x = rng.standard_normal(shape).astype(np.float32)
            clean, moments = nk.batch_norm(x, return_moments=True)
            dy = rng.standard_normal(shape).astype(np.float32)
            clean_dx = nk.batch_norm_backward(dy, x, moments).dx
            x[1, 5] = bad
            y, moments = nk.batch_norm(x, return_moments=True)
            dx = nk.batch_norm_backward(dy, x, moments).dx
            others = np.arange(shape[1]) != 5
            assert np.isnan(y[:, 5]).all()
            assert np.isnan(dx[:, 5]).all()
            assert np.array_equal(y[:, others], clean[:, others])
            assert np.array_equal(dx[:, others], clean_dx[:, others])


X = np.zeros((4, 64), np.float32)
MOMENTS = nk.Moments(np.zeros(4), np.ones(4))
CHANNEL_MOMENTS = nk.Moments(np.zeros(64), np.ones(64), training=True)
READ_ONLY = np.zeros((4, 64), np.float32)
READ_ONLY.flags.writeable = False
MEMORY = np.zeros(4 * 64 + 1, np.float32)

ERRORS = [
    (
        lambda: nk.layer_norm([[1.0]]),
        TypeError,
        r"layer_norm: x must be a numpy array, got list; convert it with np\.asarray\(x, np\.float32\)",
    ),
    (
        lambda: nk.layer_norm(X.astype(int)),
        TypeError,
        r"layer_norm: x must be float32, float64, float16 or bfloat16 in native byte order, got int64; convert it with x\.astype\(np\.float32\)",
    ),
    (
        lambda: nk.layer_norm(X.astype(">f4")),
        TypeError,
        r"layer_norm: x must be float32, float64, float16 or bfloat16 in native byte order, got >f4",
    ),
    (lambda: nk.layer_norm(X.astype(complex)), TypeError, r"got complex128"),
    (lambda: nk.layer_norm(X.astype(object)), TypeError, r"got object"),
    (lambda: nk.layer_norm(np.ma.masked_array(X)), TypeError, r"x is a masked array.*x\.filled\(value\)"),
    (
        lambda: nk.layer_norm(X, np.ones(32, np.float32)),
        ValueError,
        r"layer_norm: weight must have shape \(64,\), got \(32,\)",
    ),
    (
        lambda: nk.layer_norm(X, None, np.ones((1, 64), np.float32)),
        ValueError,
        r"layer_norm: bias must have shape \(64,\), got \(1, 64\)",
    ),
    (
        lambda: nk.layer_norm(X, np.ones(64)),
        TypeError,
        r"layer_norm: weight must be float32 like x, got float64; convert it with weight\.astype\(np\.float32\)",
    ),
    (lambda: nk.layer_norm(X, axis=2), ValueError, r"layer_norm: axis 2 is out of range for x with 2 axes"),
    (lambda: nk.layer_norm(X, axis=(1, -1)), ValueError, r"layer_norm: axis names an axis twice"),
    (lambda: nk.layer_norm(X, axis=()), ValueError, r"layer_norm: axis must name at least one axis"),
    (
        lambda: nk.layer_norm(X, axis=1.0),
        TypeError,
        r"layer_norm: axis must be an integer or a tuple of integers, got 1\.0",
    ),
    (
        lambda: nk.layer_norm(X, axis="1"),
        TypeError,
        r"layer_norm: axis must be an integer or a tuple of integers, got '1'",
    ),
    (
        lambda: nk.layer_norm(X, eps=-1e-5),
        ValueError,
        r"layer_norm: eps must be finite and not negative, got -1e-05",
    ),
    (
        lambda: nk.layer_norm(X, eps=float("nan")),
        ValueError,
        r"layer_norm: eps must be finite and not negative, got nan",
    ),
    (lambda: nk.layer_norm(X, eps="a"), TypeError, r"layer_norm: eps must be a number, got str"),
    (
        lambda: nk.layer_norm(X, num_threads=0),
        ValueError,
        r"layer_norm: num_threads must be a positive integer or None, got 0",
    ),
    (
        lambda: nk.layer_norm(X, num_threads=1.5),
        ValueError,
        r"num_threads must be a positive integer or None, got 1\.5",
    ),
    (
        lambda: nk.layer_norm(X, out=READ_ONLY),
        ValueError,
        r"layer_norm: out is read-only; pass a writable array",
    ),
    (
        lambda: nk.layer_norm(X, out=np.zeros((64, 4), np.float32)),
        ValueError,
        r"layer_norm: out must have the shape of x, \(4, 64\), got \(64, 4\)",
    ),
    (
        lambda: nk.layer_norm(X, out=np.zeros((4, 64))),
        TypeError,
        r"layer_norm: out must be float32 like x, got float64",
    ),
    (lambda: nk.layer_norm(X, out=[1]), TypeError, r"layer_norm: out must be a numpy array, got list"),
    (
        lambda: nk.layer_norm(MEMORY[:-1].reshape(4, 64), out=MEMORY[1:].reshape(4, 64)),
        ValueError,
        r"layer_norm: out overlaps x in part; pass out=x itself or other memory",
    ),
    (
        lambda: nk.layer_norm(X, MEMORY[:64], out=MEMORY[:-1].reshape(4, 64)),
        ValueError,
        r"layer_norm: out overlaps weight; pass other memory",
    ),
    (
        lambda: nk.layer_norm_backward(X[:2], X, MOMENTS),
        ValueError,
        r"layer_norm_backward: dy must have shape \(4, 64\), got \(2, 64\)",
    ),
    (
        lambda: nk.layer_norm_backward(X, X, CHANNEL_MOMENTS),
        ValueError,
        r"layer_norm_backward: moments\.mean must have shape \(4,\), got \(64,\); pass the moments that the forward pass returned",
    ),
    (
        lambda: nk.layer_norm_backward(X, X, (None, None)),
        TypeError,
        r"layer_norm_backward: moments must be Moments, got tuple; pass what layer_norm\(\.\.\., return_moments=True\)",
    ),
    (lambda: nk.batch_norm(X, axis=2), ValueError, r"batch_norm: axis 2 is out of range for x with 2 axes"),
    (lambda: nk.batch_norm(X[0]), ValueError, r"batch_norm: axis 1 is out of range for x with 1 axis"),
    (lambda: nk.batch_norm(X, axis=(0, 1)), TypeError, r"batch_norm: axis must be an integer, got \(0, 1\)"),
    (
        lambda: nk.batch_norm(X, np.ones(4, np.float32)),
        ValueError,
        r"batch_norm: weight must have shape \(64,\), got \(4,\)",
    ),
    (
        lambda: nk.batch_norm(X, training=False),
        ValueError,
        r"batch_norm: training=False normalizes with running statistics; pass stats=",
    ),
    (
        lambda: nk.batch_norm(X, stats=nk.RunningStats(4)),
        ValueError,
        r"batch_norm: stats\.mean must have shape \(64,\), got \(4,\); make RunningStats for as many channels",
    ),
    (
        lambda: nk.batch_norm(X, stats=nk.RunningStats(4), training=False),
        ValueError,
        r"batch_norm: stats\.mean must have shape \(64,\), got \(4,\)",
    ),
    (
        lambda: nk.batch_norm_backward(X, X, MOMENTS, training=True),
        ValueError,
        r"batch_norm_backward: moments\.mean must have shape \(64,\), got \(4,\)",
    ),
    (
        lambda: nk.batch_norm_backward(X.astype(float), X, CHANNEL_MOMENTS),
        TypeError,
        r"batch_norm_backward: dy must be float32 like x, got float64",
    ),
    (
        lambda: nk.set_num_threads(0),
        ValueError,
        r"set_num_threads: num_threads must be a positive integer or None, got 0",
    ),
    (lambda: nk.isa.use("mmx"), ValueError, r"isa\.use: 'mmx' is not available on this machine; available: "),
    (lambda: nk.RunningStats(-1), ValueError, r"RunningStats: num_channels must not be negative, got -1"),
    (lambda: nk.RunningStats(2.0), TypeError, r"RunningStats: num_channels must be an integer, got float"),
    (lambda: nk.RunningStats(2, momentum=2), ValueError, r"RunningStats: momentum must be in \[0, 1\]"),
    (
        lambda: nk.RunningStats(2, dtype=int),
        TypeError,
        r"RunningStats: dtype must be float32 or float64, got int64",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[text[:60] for _, _, text in ERRORS])
def test_errors_say_what_was_expected_and_what_came(call: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_failed_call_changes_nothing() -> None:
    stats = nk.RunningStats(64)
    x = np.full((4, 64), 3.0, np.float32)
    out = np.full_like(x, 7.0)
    with pytest.raises(ValueError, match="weight"):
        nk.batch_norm(x, np.ones(3, np.float32), stats=stats, out=out)
    assert stats.count == 0
    assert (stats.mean == 0).all()
    assert (out == 7.0).all()


def test_interleaved_but_disjoint_out_is_no_overlap() -> None:
    memory = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    expected = nk.layer_norm(memory[::2])
    nk.layer_norm(memory[::2], out=memory[1::2])
    assert np.array_equal(memory[1::2], expected)


def test_axis_as_numpy_integers(rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 4, 5)).astype(np.float32)
    expected = nk.layer_norm(x, axis=(1, 2))
    assert np.array_equal(nk.layer_norm(x, axis=np.array([1, 2])), expected)
    assert np.array_equal(nk.layer_norm(x, axis=[np.int64(1), np.int8(-1)]), expected)


def test_moments_as_lists(rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 4)).astype(np.float32)
    _, moments = nk.layer_norm(x, return_moments=True)
    expected = nk.layer_norm_backward(x, x, moments).dx
    assert np.array_equal(
        nk.layer_norm_backward(x, x, nk.Moments(moments.mean.tolist(), moments.rstd.tolist())).dx, expected
    )


def test_other_exceptions_pass_through() -> None:
    class Interrupted:
        def __float__(self) -> float:
            raise KeyboardInterrupt

        def __index__(self) -> int:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nk.layer_norm(X, eps=Interrupted())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        nk.layer_norm(X, axis=Interrupted())  # type: ignore[arg-type]


def test_out_of_a_subclass_is_written_as_memory(rng: np.random.Generator) -> None:
    class Lies(np.ndarray):
        def transpose(self, *axes: Any) -> Any:  # type: ignore[override]
            return np.zeros((1, 1), np.float32)

    x = rng.standard_normal((30, 40)).astype(np.float32)
    out = np.zeros_like(x).view(Lies)
    assert nk.layer_norm(x, axis=0, out=out) is out
    assert np.array_equal(np.asarray(out), nk.layer_norm(x, axis=0))


def test_an_extreme_row_leaves_the_others_alone(rng: np.random.Generator) -> None:
    for dtype, scale in ((np.float32, 1e30), (np.float64, 1e200)):
        x, dy = rng.standard_normal((2, 20, 9001)).astype(dtype)
        results = []
        for factor in (1.0, scale):
            x[7] *= dtype(factor)
            y, moments = nk.layer_norm(x, return_moments=True)
            results.append((y, nk.layer_norm_backward(dy, x, moments).dx))
        others = np.arange(20) != 7
        assert np.array_equal(results[0][0][others], results[1][0][others])
        assert np.array_equal(results[0][1][others], results[1][1][others])


@pytest.mark.parametrize("training", [True, False])
def test_out_over_the_running_statistics_is_refused(training: bool) -> None:
    stats = nk.RunningStats(64)
    with pytest.raises(ValueError, match=r"batch_norm: out overlaps stats\.mean; pass other memory"):
        nk.batch_norm(X[:1], stats=stats, training=training, out=stats.mean.reshape(1, 64))
    assert stats.count == 0
