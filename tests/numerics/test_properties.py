"""What holds for all data: scaling, shifting, permuting, splitting and merging."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import normkit as nk

Array = np.ndarray[Any, Any]
settings.register_profile("normkit", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("normkit")

FLOAT32 = st.floats(-1e3, 1e3, width=32, allow_subnormal=False)
# Sixteenths up to 64: sums, differences and shifts of them are exact.
SIXTEENTHS = st.integers(-1024, 1024).map(lambda k: k / 16)
EPS = float(np.finfo(np.float32).eps)


def matrices(elements: Any, most: int = 40) -> Any:
    shapes = st.tuples(st.integers(1, most), st.integers(1, most))
    return shapes.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=elements))


def assert_within_ulps(got: Array, expected: Array, ulps: float = 8) -> None:
    """Both keep the contract's 4 ulp of max(|y|, 1/256), so they differ by 8 at most."""
    size = np.maximum(np.abs(expected), 1 / 256).astype(np.float32)
    assert (np.abs(got.astype(np.float64) - expected) <= ulps * np.spacing(size)).all()


@given(matrices(FLOAT32), st.integers(-20, 20))
def test_scaling_by_a_power_of_two_changes_no_bit(x: Array, exponent: int) -> None:
    scale, eps = np.float32(2.0**exponent), 2.0**-16
    for op in (nk.layer_norm, nk.batch_norm):
        y, moments = op(x, eps=eps, return_moments=True)
        scaled, its_moments = op(x * scale, eps=eps * float(scale) ** 2, return_moments=True)
        assert np.array_equal(y, scaled)
        assert np.array_equal(moments.mean * float(scale), its_moments.mean)


@given(matrices(SIXTEENTHS), SIXTEENTHS)
def test_a_shift_of_all_elements_drops_out(x: Array, shift: float) -> None:
    for op in (nk.layer_norm, nk.batch_norm):
        assert_within_ulps(op(x + np.float32(shift)), op(x))


@given(matrices(FLOAT32), st.randoms(use_true_random=False))
def test_the_order_of_the_batch(x: Array, random: Any) -> None:
    order = list(range(len(x)))
    random.shuffle(order)
    assert np.array_equal(nk.layer_norm(x[order]), nk.layer_norm(x)[order])
    assert_within_ulps(nk.batch_norm(x[order]), nk.batch_norm(x)[order])


@given(matrices(FLOAT32))
def test_a_batch_taken_twice_has_the_same_statistics(x: Array) -> None:
    twice = np.concatenate([x, x])
    assert_within_ulps(nk.batch_norm(twice)[: len(x)], nk.batch_norm(x))


@given(matrices(FLOAT32), st.lists(st.integers(0, 40), max_size=5))
def test_moments_of_parts_merge_to_those_of_the_whole(x: Array, cuts: list[int]) -> None:
    parts = np.split(x, sorted(min(cut, len(x)) for cut in cuts))
    merged = nk.BatchMoments.merged(nk.batch_moments(part) for part in parts)
    whole = nk.batch_moments(x)
    assert merged.samples == whole.samples
    size = np.abs(x.astype(np.float64)).max(0)
    assert (np.abs(merged.mean - whole.mean) <= 1e-14 * size).all()
    assert (np.abs(merged.var - whole.var) <= 1e-8 * whole.var + 1e-13 * size**2).all()


@given(matrices(FLOAT32), st.lists(st.integers(1, 39), max_size=3))
def test_running_statistics_of_processes_merge(x: Array, cuts: list[int]) -> None:
    parts = [p for p in np.split(x, sorted(min(cut, len(x)) for cut in cuts)) if len(p)]
    options: dict[str, Any] = {"unbiased": False, "dtype": np.float64}
    stats = [nk.RunningStats.from_batches([part], **options) for part in parts]
    for other in stats[1:]:
        stats[0].merge(other)
    whole = nk.RunningStats.from_batches([x], **options)
    size = np.abs(x.astype(np.float64)).max(0)
    assert (np.abs(stats[0].mean - whole.mean) <= 1e-14 * size).all()
    assert (np.abs(stats[0].var - whole.var) <= 1e-8 * whole.var + 1e-13 * size**2).all()


@given(matrices(FLOAT32), st.integers(-8, 8))
def test_gradients_are_linear_and_of_sum_zero(x: Array, exponent: int) -> None:
    dy = np.sin(np.arange(x.size, dtype=np.float32)).reshape(x.shape)
    for op, backward, axis in (
        (nk.layer_norm, nk.layer_norm_backward, 1),
        (nk.batch_norm, nk.batch_norm_backward, 0),
    ):
        _, moments = op(x, return_moments=True)
        gradients = backward(dy, x, moments)
        scaled = backward(dy * np.float32(2.0**exponent), x, moments)
        for a, b in zip(gradients, scaled, strict=True):
            assert np.array_equal(a * np.float32(2.0**exponent), b)
        rstd = moments.rstd[:, None] if axis == 1 else moments.rstd
        total = gradients.dx.astype(np.float64).sum(axis)
        bound = 16 * EPS * (rstd * np.maximum(1.0, np.abs(gradients.dx / rstd))).sum(axis)
        assert (np.abs(total) <= bound).all()


@given(matrices(FLOAT32), st.integers(1, 45))
def test_ghosts_are_independent(x: Array, ghost_size: int) -> None:
    y, moments = nk.ghost_batch_norm(x, ghost_size=ghost_size)
    changed = x.copy()
    changed[ghost_size:] += 1
    other, _ = nk.ghost_batch_norm(changed, ghost_size=ghost_size)
    assert np.array_equal(y[:ghost_size], other[:ghost_size])
    assert sum(m.samples for m in moments) == len(x)
