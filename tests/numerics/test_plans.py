"""What plans do with sizes beyond the caches, with threads that share items, and with data that makes sums cancel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normkit as nk
from bounds import batch_norm_errors, layer_norm_errors

SECOND, LAST = nk.show_config()["cache_bytes"]
# Float32 elements of an array that is written past the caches, and of one that nearly fills them.
STREAMED, FAR = int(LAST * 0.6) // 4, int(LAST * 0.42) // 4
too_much = pytest.mark.skipif(STREAMED > 48e6, reason=f"needs arrays of {STREAMED * 4 >> 20} MiB each")

LAYOUTS = {
    "rows": ("layer_norm", (-1, 1000), -1),
    "wide rows": ("layer_norm", (-1, 5000), -1),
    "long rows": ("layer_norm", (-1, 300_001), -1),
    "one row": ("layer_norm", (1, -1), -1),
    "NC": ("batch_norm", (-1, 512), 1),
    "NC odd": ("batch_norm", (-1, 1001), 1),
    "NHWC 3": ("batch_norm", (-1, 3), 1),
    "NHWC 64": ("batch_norm", (-1, 64), 1),
    "NCHW": ("batch_norm", (-1, 24, 3136), 1),
    "NCHW small planes": ("batch_norm", (-1, 512, 49), 1),
}


def offset_array(shape: tuple[int, ...], offset: int) -> Any:
    """Memory that begins `offset` elements after a line of the cache."""
    size = int(np.prod(shape))
    raw = np.zeros(size + 64, np.float32)
    first = (-raw.ctypes.data % 64) // 4 + offset
    return raw[first : first + size].reshape(shape)


def shape_of(layout: str, elements: int) -> tuple[int, ...]:
    _, shape, _ = LAYOUTS[layout]
    known = -int(np.prod(shape))
    return tuple(max(2, elements // known) if length == -1 else length for length in shape)


@too_much
@pytest.mark.parametrize(
    ("layout", "elements"), [*((layout, STREAMED) for layout in LAYOUTS), ("rows", FAR), ("NHWC 64", FAR)]
)
def test_large_results_are_the_same_however_they_are_stored(layout, elements) -> None:
    op, _, axis = LAYOUTS[layout]
    shape = shape_of(layout, elements)
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal(shape, dtype=np.float32), rng.standard_normal(shape, dtype=np.float32)
    forward, backward = getattr(nk, op), getattr(nk, f"{op}_backward")
    weight, bias = rng.standard_normal((2, shape[axis]), dtype=np.float32)
    out = x.copy()
    _, moments = forward(out, weight, bias, axis=axis, return_moments=True, out=out, num_threads=1)
    gradients = backward(dy.copy(), x, moments, weight, axis=axis, num_threads=1)
    for offset, threads in ((0, 1), (4, 2), (15, 3)):
        to = offset_array(shape, offset)
        forward(x, weight, bias, axis=axis, out=to, num_threads=threads)
        assert to.tobytes() == out.tobytes()
        found = backward(dy, x, moments, weight, axis=axis, out=to, num_threads=threads)
        assert [a.tobytes() for a in found] == [a.tobytes() for a in gradients]
    for _ in range(2):  # fresh, then recycled
        assert forward(x, weight, bias, axis=axis).tobytes() == out.tobytes()
    if op == "batch_norm":
        stats = nk.RunningStats(shape[axis])
        expected = forward(x.copy(), weight, bias, stats=stats, training=False, axis=axis, num_threads=1)
        for offset in (0, 7):
            to = offset_array(shape, offset)
            forward(x, weight, bias, stats=stats, training=False, axis=axis, out=to)
            assert to.tobytes() == expected.tobytes()


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("layout", ["long rows", "one row", "NCHW"])
def test_items_that_exceed_a_cores_cache_are_done_together(layout, threads) -> None:
    op, _, axis = LAYOUTS[layout]
    shape = (5, 2, int(SECOND * 0.7) // 20) if layout == "NCHW" else shape_of(layout, SECOND)
    rng = np.random.default_rng(2)
    x, dy = rng.standard_normal((2, *shape), dtype=np.float32)
    forward, backward = getattr(nk, op), getattr(nk, f"{op}_backward")

    def run(count: int) -> list[bytes]:
        y, moments = forward(x, axis=axis, return_moments=True, num_threads=count)
        return [a.tobytes() for a in (y, *moments, *backward(dy, x, moments, axis=axis, num_threads=count))]

    assert run(threads) == run(1)


@pytest.mark.parametrize("ratio", [90.0, 127.0, 129.0, 200.0, 4000.0])
@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (600, 3), (70, 8, 49)])
def test_both_ways_to_the_variance_keep_the_contract(shape, ratio) -> None:
    rng = np.random.default_rng(4)
    x = (rng.standard_normal(shape) + ratio).astype(np.float32)
    dy = rng.standard_normal(shape).astype(np.float32)
    weight, bias = rng.standard_normal((2, shape[-1])).astype(np.float32)
    assert layer_norm_errors(x, dy, weight, bias, -1, 1e-5).worst() < 1
    weight, bias = rng.standard_normal((2, shape[1])).astype(np.float32)
    assert batch_norm_errors(x, dy, weight, bias, 1, 1e-5).worst() < 1


@pytest.mark.parametrize("channels", [3, 40, 64, 100, 168])
def test_one_column_that_cancels_does_not_touch_its_neighbours(channels) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((200, channels)).astype(np.float32)
    calm, moments = nk.batch_norm(x, return_moments=True)
    x[:, 1] += 30_000
    y, shifted = nk.batch_norm(x, return_moments=True)
    others = np.arange(channels) != 1
    assert y[:, others].tobytes() == calm[:, others].tobytes()
    assert shifted.rstd[others].tobytes() == moments.rstd[others].tobytes()
    exact = x[:, 1].astype(np.float64)
    np.testing.assert_allclose(shifted.rstd[1], 1 / np.sqrt(exact.var() + 1e-5), rtol=1e-13)


@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize("inner", [33, 49, 196, 900])
def test_planes_that_are_taken_together_do_not_touch_each_other(inner, hostile) -> None:
    rng = np.random.default_rng(7)
    x, dy = rng.standard_normal((2, 9, 70, inner), dtype=np.float32)
    if hostile:
        x[:, 5] *= 1e30
        x[:, 33] = 7.0
        x[3, 40, 11] = np.nan
        x[:, 41] += 30_000
    weight, bias = rng.standard_normal((2, 70), dtype=np.float32)

    def results(channels: slice, threads: int) -> list[Any]:
        some = [np.ascontiguousarray(a[:, channels]) for a in (x, dy)]
        y, moments = nk.batch_norm(
            some[0], weight[channels], bias[channels], return_moments=True, num_threads=threads
        )
        dx, *sums = nk.batch_norm_backward(some[1], some[0], moments, weight[channels], num_threads=threads)
        return [np.moveaxis(y, 1, 0), np.moveaxis(dx, 1, 0), *moments, *sums]

    everything = results(slice(0, 70), 3)
    for channels in (slice(0, 2), slice(3, 38), slice(32, 70), slice(39, 41)):
        for whole, part in zip(everything, results(channels, 1), strict=True):
            assert whole[channels].tobytes() == part.tobytes()
    if not hostile:
        assert batch_norm_errors(x, dy, weight, bias, 1, 1e-5).worst() < 1


@pytest.mark.parametrize("channels", [1, 3, 5, 24, 40, 63, 65, 168, 1000, 1001, 4100])
@pytest.mark.parametrize("rows", [2, 31, 33, 65, 257])
def test_folded_and_chunked_columns_agree_with_the_reference(rows, channels) -> None:
    rng = np.random.default_rng(6)
    x, dy = rng.standard_normal((2, rows, channels), dtype=np.float32)
    weight, bias = rng.standard_normal((2, channels), dtype=np.float32)
    assert batch_norm_errors(x, dy, weight, bias, 1, 1e-5).worst() < 1
    for isa in ("avx2", "avx512", "avx512_wide"):
        if isa not in nk.isa.available():
            continue
        with nk.isa.use(isa):
            y, moments = nk.batch_norm(x, weight, bias, return_moments=True)
            found = [y, *moments, *nk.batch_norm_backward(dy, x, moments, weight)]
        if isa == "avx2":
            narrow = found
        else:
            assert [a.tobytes() for a in found] == [a.tobytes() for a in narrow]
