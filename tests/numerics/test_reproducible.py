"""The same bits: on any number of threads, on avx2 and avx512, with out=, in place, at any alignment, in any batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normkit as nk
from cases import BATCH_NORM, DTYPES, LARGE_BATCH_NORM, LARGE_LAYER_NORM, LAYER_NORM, SIXTEEN_BITS

SHAPES = [
    ("layer_norm", *case)
    for case in [
        *LAYER_NORM[::5],
        *LARGE_LAYER_NORM,
        ((4, 65_539), -1),
        ((40, 9001), -1),
        ((7, 2501), -1),
        ((19, 16_399), -1),
    ]
]
SHAPES += [
    ("batch_norm", *case)
    for case in [
        *BATCH_NORM[::5],
        *LARGE_BATCH_NORM,
        ((600, 1024), 1),
        ((9, 4099, 2), 1),
        ((32, 4099), 1),
        ((70, 1500, 4), 1),
    ]
]


def run(op: str, x: Any, dy: Any, weight: Any, bias: Any, axis: Any, **options: Any) -> list[Any]:
    forward, backward = getattr(nk, op), getattr(nk, f"{op}_backward")
    y, moments = forward(x, weight, bias, axis=axis, return_moments=True, **options)
    return [y, *moments, *backward(dy, x, moments, weight, axis=axis, **options)]


def arrays(
    shape: tuple[int, ...], axis: Any, dtype: Any, rng: np.random.Generator, op: str
) -> tuple[Any, ...]:
    x, dy = ((rng.standard_normal(shape) * 2 + 3).astype(dtype) for _ in range(2))
    axes = sorted(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,)))
    weight, bias = (rng.standard_normal([shape[a] for a in axes]).astype(dtype) for _ in range(2))
    return x, dy, weight, bias


def assert_same_bits(got: list[Any], expected: list[Any], what: str) -> None:
    names = ("y", "mean", "rstd", "dx", "dweight", "dbias")
    for name, a, b in zip(names, got, expected, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), f"{name} differs: {what}"


@pytest.fixture(params=(*DTYPES, *SIXTEEN_BITS), ids=["float32", "float64", "float16", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(("op", "shape", "axis"), SHAPES, ids=[f"{op}-{shape}" for op, shape, _ in SHAPES])
def test_threads_and_instruction_sets(
    op: str, shape: Any, axis: Any, dtype: Any, rng: np.random.Generator
) -> None:
    given = arrays(shape, axis, dtype, rng, op)
    equal = [name for name in nk.isa.available() if name != "baseline"] or nk.isa.available()
    with nk.isa.use(equal[0]):
        expected = run(op, *given, axis, num_threads=1)
    for name in equal:
        with nk.isa.use(name):
            for threads in range(1, 9):
                assert_same_bits(
                    run(op, *given, axis, num_threads=threads), expected, f"{name}, {threads} threads"
                )


@pytest.mark.parametrize(
    ("op", "shape"), [("batch_norm", (32, 4099)), ("batch_norm", (600, 300)), ("layer_norm", (40, 3000))]
)
def test_rows_and_channels_out_of_range_leave_their_neighbours_their_bits(
    op: str, shape: Any, dtype: Any
) -> None:
    rng = np.random.default_rng(3)
    x, dy, weight, bias = arrays(shape, 1, dtype, rng, op)
    clean = run(op, x, dy, weight, bias, 1, num_threads=1)
    huge = {2: 6e4, 4: 1e30, 8: 1e200}[x.itemsize] if dtype != SIXTEEN_BITS[1] else 1e30
    spoilt = x.copy()
    spoilt[3, 5], spoilt[4, 700 % shape[1]] = huge, np.nan
    lines = np.ones(shape[0 if op == "layer_norm" else 1], bool)
    lines[[3, 4] if op == "layer_norm" else [5, 700 % shape[1]]] = False
    equal = [name for name in nk.isa.available() if name != "baseline"] or nk.isa.available()
    for name in equal:
        with nk.isa.use(name):
            for threads in (1, 2, 3, 8):
                y, mean, rstd, dx, *_ = run(op, spoilt, dy, weight, bias, 1, num_threads=threads)
                for got, expected in zip((y, mean, rstd, dx), clean[:4], strict=True):
                    a, b = (v if op == "layer_norm" or v.ndim == 1 else v.T for v in (got, expected))
                    assert a[lines].tobytes() == b[lines].tobytes(), f"{name}, {threads} threads"


def test_threads_on_the_baseline(rng: np.random.Generator, dtype: Any) -> None:
    if "baseline" not in nk.isa.available():
        pytest.skip("this machine's build has no baseline tier")
    with nk.isa.use("baseline"):
        for op, shape, axis in SHAPES[:: len(SHAPES) // 6]:
            given = arrays(shape, axis, dtype, rng, op)
            expected = run(op, *given, axis, num_threads=1)
            assert_same_bits(run(op, *given, axis, num_threads=3), expected, f"{op} {shape}")


@pytest.mark.parametrize(
    ("op", "shape", "axis"),
    [
        ("layer_norm", (9, 130), -1),
        ("layer_norm", (2, 9000), -1),
        ("batch_norm", (40, 70), 1),
        ("batch_norm", (3, 4, 9, 9), 1),
    ],
)
def test_out_in_place_and_alignment(
    isa: str, op: str, shape: Any, axis: int, dtype: Any, rng: np.random.Generator
) -> None:
    x, dy, weight, bias = arrays(shape, axis, dtype, rng, op)
    forward, backward = getattr(nk, op), getattr(nk, f"{op}_backward")
    y, moments = forward(x, weight, bias, axis=axis, return_moments=True)
    expected = [y, *moments, *backward(dy, x, moments, weight, axis=axis)]

    out, dx_out = np.full_like(x, np.nan), np.full_like(x, np.nan)
    result, moments = forward(x, weight, bias, axis=axis, out=out, return_moments=True)
    gradients = backward(dy, x, moments, weight, axis=axis, out=dx_out)
    assert result is out
    assert gradients.dx is dx_out
    assert_same_bits([out, *moments, *gradients], expected, "out=")

    x_in, dy_in, x_also = x.copy(), dy.copy(), x.copy()
    forward(x_in, weight, bias, axis=axis, out=x_in)
    over_dy = backward(dy_in, x, moments, weight, axis=axis, out=dy_in)
    over_x = backward(dy, x_also, moments, weight, axis=axis, out=x_also)
    assert_same_bits([x_in, *moments, dy_in, *over_dy[1:]], expected, "in place of x and dy")
    assert_same_bits([x_in, *moments, x_also, *over_x[1:]], expected, "in place of x")

    for offset in range(1, 65):
        shifted, shifted_out = (
            np.empty(x.size + 128, dtype)[o : o + x.size].reshape(shape) for o in (offset, 2 * offset)
        )
        shifted[...] = x
        y, moments = forward(shifted, weight, bias, axis=axis, out=shifted_out, return_moments=True)
        y = y.copy()
        gradients = backward(dy, shifted, moments, weight, axis=axis, out=shifted_out)
        assert_same_bits([y, *moments, *gradients], expected, f"offsets {offset} and {2 * offset}")


@pytest.mark.parametrize("where", [None, "rows", "elements"])
@pytest.mark.parametrize("shape", [(40, 64), (40, 128), (90, 24), (4, 8, 8, 64), (5, 12, 9, 6)], ids=str)
@pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])
@pytest.mark.parametrize("op", ["batch_norm", "group_norm"])
def test_columns_written_anywhere(
    isa: str,
    op: str,
    fused: bool,
    shape: tuple[int, ...],
    where: str | None,
    dtype: Any,
    rng: np.random.Generator,
) -> None:
    """Rows that are whole lines of the cache are shifted to begin where a line does."""
    x, dy, weight, bias = arrays(shape, -1, dtype, rng, op)
    groups = (2,) if op == "group_norm" else ()
    options: dict[str, Any] = {"axis": -1}
    fusion: dict[str, Any] = {"activation": "relu"} if fused else {}
    if fused and op == "batch_norm":
        fusion["residual"] = rng.standard_normal(shape).astype(dtype)
    if where:
        options["where"] = rng.random((*shape[:-1], 1) if where == "rows" else shape) < 0.7
    forward, backward = getattr(nk, op), getattr(nk, f"{op}_backward")
    y, moments = forward(x, *groups, weight, bias, return_moments=True, **options, **fusion)
    dx = backward(dy, x, moments, weight, **options).dx
    room = np.empty(x.size + 64, dtype)
    for offset in range(64):
        out = room[offset : offset + x.size].reshape(shape)
        _, again = forward(x, *groups, weight, bias, out=out, return_moments=True, **options, **fusion)
        assert out.tobytes() == y.tobytes(), f"y, {offset} elements on"
        assert not fused or again.active.tobytes() == moments.active.tobytes(), (
            f"active, {offset} elements on"
        )
        backward(dy, x, moments, weight, out=out, **options)
        assert out.tobytes() == dx.tobytes(), f"dx, {offset} elements on"


def test_layer_norm_rows_do_not_depend_on_the_batch(isa: str, dtype: Any, rng: np.random.Generator) -> None:
    for cols in (7, 64, 1000, 5000):
        x, dy = (rng.standard_normal((23, cols)).astype(dtype) for _ in range(2))
        y, moments = nk.layer_norm(x, return_moments=True)
        dx = nk.layer_norm_backward(dy, x, moments).dx
        for rows in (slice(0, 1), slice(3, 8), slice(22, 23)):
            some, its_moments = nk.layer_norm(x[rows], return_moments=True)
            assert some.tobytes() == y[rows].tobytes()
            assert nk.layer_norm_backward(dy[rows], x[rows], its_moments).dx.tobytes() == dx[rows].tobytes()


def test_run_to_run(isa: str, rng: np.random.Generator) -> None:
    given = arrays((500, 700), 1, np.float32, rng, "batch_norm")
    expected = run("batch_norm", *given, 1, num_threads=2)
    for _ in range(20):
        assert_same_bits(run("batch_norm", *given, 1, num_threads=2), expected, "run to run")
