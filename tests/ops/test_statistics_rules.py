"""The rules of RunningStats: averages, what is left out, and statistics put together from parts."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import normkit as nk

Array = np.ndarray[Any, Any]


def batches(
    rng: np.random.Generator, count: int, rows: int = 12, channels: int = 5, mean: float = 3
) -> list[Array]:
    return [(rng.standard_normal((rows, channels)) * 2 + mean).astype(np.float32) for _ in range(count)]


def test_debiased_average_is_the_weighted_mean_of_what_was_seen(rng: np.random.Generator) -> None:
    momentum, xs = 0.1, batches(rng, 7)
    stats = nk.RunningStats(5, momentum, dtype=np.float64, debias=True)
    for t, x in enumerate(xs, 1):
        nk.batch_norm(x, stats=stats)
        weights = momentum * (1 - momentum) ** np.arange(t - 1, -1, -1)
        means = np.array([b.mean(0, dtype=np.float64) for b in xs[:t]])
        vars_ = np.array([b.var(0, dtype=np.float64, ddof=1) for b in xs[:t]])
        np.testing.assert_allclose(stats.mean, weights @ means / weights.sum(), rtol=1e-12)
        np.testing.assert_allclose(stats.var, weights @ vars_ / weights.sum(), rtol=1e-12)
    plain = nk.RunningStats(5, momentum, dtype=np.float64)
    for x in xs:
        nk.batch_norm(x, stats=plain)
    np.testing.assert_allclose(stats.mean, plain.mean / (1 - (1 - momentum) ** 7), rtol=1e-12)


def test_debias_waits_for_the_first_variance(rng: np.random.Generator) -> None:
    """A batch with one value per channel has a mean only; the variance's average begins with the next one."""
    for rule in ({"momentum": 0.1, "debias": True}, {"momentum": None}):
        stats = nk.RunningStats(5, dtype=np.float64, **rule)
        one, many = batches(rng, 1, rows=1)[0], batches(rng, 1)[0]
        nk.batch_norm(one, stats=stats)
        nk.batch_norm(many, stats=stats)
        np.testing.assert_allclose(stats.var, many.var(0, dtype=np.float64, ddof=1), rtol=1e-12)
        assert (stats.count, stats.samples) == (2, 13)


def test_first_inference_is_right_with_debias(rng: np.random.Generator) -> None:
    x = batches(rng, 1, rows=400, mean=50)[0]
    stats = nk.RunningStats.keras(5, debias=True)
    nk.batch_norm(x, stats=stats)
    y = nk.batch_norm(x, stats=stats, training=False)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(y.std(0), 1, rtol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_batch_that_is_not_finite_is_left_out_whole(rng: np.random.Generator, bad: float) -> None:
    good, other = batches(rng, 2)
    stats, clean = nk.RunningStats(5, skip_nonfinite=True), nk.RunningStats(5)
    nk.batch_norm(good, stats=stats)
    poisoned = other.copy()
    poisoned[3, 2] = bad
    with np.errstate(invalid="ignore"):
        y = nk.batch_norm(poisoned, stats=stats)
    assert np.isnan(y[:, 2]).all()
    assert (stats.skipped, stats.count) == (1, 1)
    nk.batch_norm(other, stats=stats)
    for x in (good, other):
        nk.batch_norm(x, stats=clean)
    assert np.array_equal(stats.mean, clean.mean)
    assert np.array_equal(stats.var, clean.var)


def test_freeze(rng: np.random.Generator) -> None:
    x, dy = batches(rng, 2)
    stats = nk.RunningStats(5)
    nk.batch_norm(x, stats=stats)
    before = stats.copy()
    stats.freeze()
    y, moments = nk.batch_norm(dy, stats=stats, return_moments=True)
    assert not isinstance(moments, nk.BatchMoments)
    assert np.array_equal(y, nk.batch_norm(dy, stats=before, training=False))
    assert not stats.update(nk.batch_moments(x))
    assert np.array_equal(stats.mean, before.mean)
    assert stats.count == 1
    stats.unfreeze()
    assert stats.update(nk.batch_moments(x))
    assert stats.count == 2


@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"unbiased": False}, {"debias": True}])
def test_update_is_what_batch_norm_does(rng: np.random.Generator, options: dict[str, Any]) -> None:
    implicit, explicit = (nk.RunningStats(5, **options) for _ in range(2))
    for x in [*batches(rng, 3), *batches(rng, 1, rows=1), *batches(rng, 1, rows=0), *batches(rng, 1)]:
        nk.batch_norm(x, stats=implicit)
        _, moments = nk.batch_norm(x, return_moments=True)
        assert explicit.update(moments) == (x.size > 0)
    assert implicit.mean.tobytes() == explicit.mean.tobytes()
    assert implicit.var.tobytes() == explicit.var.tobytes()
    assert implicit.state_dict().keys() == explicit.state_dict().keys()
    assert (implicit.count, implicit.samples) == (explicit.count, explicit.samples)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize(
    ("shape", "axis"), [((33, 7), 1), ((4, 6, 9, 8), 1), ((4, 9, 8, 6), -1), ((0, 3), 1), ((5,), 0)]
)
def test_batch_moments_are_those_of_batch_norm(
    isa: str, rng: np.random.Generator, dtype: Any, shape: Any, axis: int
) -> None:
    x = (rng.standard_normal(shape) + 5).astype(dtype)
    before = x.copy()
    got = nk.batch_moments(x, axis=axis, eps=1e-3)
    _, expected = nk.batch_norm(x, axis=axis, eps=1e-3, return_moments=True)
    assert isinstance(expected, nk.BatchMoments)
    for name in ("mean", "rstd", "var"):
        assert getattr(got, name).tobytes() == getattr(expected, name).tobytes()
    assert (got.samples, got.eps) == (expected.samples, expected.eps) == (x.size // shape[axis], 1e-3)
    assert np.array_equal(x, before)


def test_batch_moments_where_floats_have_no_room(isa: str) -> None:
    x = np.array([[1e30, 1], [3e30, 2], [2e30, 6]], np.float32)
    got = nk.batch_moments(x)
    np.testing.assert_allclose(got.mean, [2e30, 3], rtol=1e-7)
    np.testing.assert_allclose(got.var, [2 / 3 * 1e60, 14 / 3], rtol=1e-6)


def test_moments_unpack_pickle_and_print(rng: np.random.Generator) -> None:
    moments = nk.batch_moments(batches(rng, 1)[0])
    mean, rstd = moments
    assert mean is moments.mean
    for twin in (pickle.loads(pickle.dumps(moments)), copy.deepcopy(moments)):
        assert isinstance(twin, nk.BatchMoments)
        assert np.array_equal(twin.rstd, rstd)
        assert (twin.samples, twin.eps) == (12, 1e-5)
    assert "samples=12" in repr(moments)


@pytest.mark.parametrize("mean", [0, 1e6])
def test_micro_batches_give_the_statistics_of_the_whole(rng: np.random.Generator, mean: float) -> None:
    x = (rng.standard_normal((64, 5)) + mean).astype(np.float64)
    parts = [x[:1], x[1:20], x[20:20], x[20:21], x[21:]]
    merged = nk.BatchMoments.merged(nk.batch_moments(part) for part in parts)
    whole = nk.batch_moments(x)
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(merged.var, whole.var, rtol=1e-13 if mean == 0 else 1e-9)
    assert merged.samples == 64
    one, other = nk.RunningStats(5), nk.RunningStats(5)
    one.update(merged)
    other.update(whole)
    np.testing.assert_allclose(one.var, other.var, rtol=2e-7)


def test_from_batches_is_exact_over_a_data_set(rng: np.random.Generator) -> None:
    xs = [*batches(rng, 4, mean=100), *batches(rng, 1, rows=3, mean=-100)]
    whole = np.concatenate(xs).astype(np.float64)
    for unbiased in (True, False):
        stats = nk.RunningStats.from_batches(iter(xs), unbiased=unbiased, dtype=np.float64)
        np.testing.assert_allclose(stats.mean, whole.mean(0), rtol=1e-13)
        np.testing.assert_allclose(stats.var, whole.var(0, ddof=int(unbiased)), rtol=1e-12)
        assert (stats.count, stats.samples) == (5, 51)
    constant = nk.RunningStats.from_batches([np.ones((3, 2), np.float32)])
    assert constant.var.tolist() == [0, 0]


@pytest.mark.parametrize("unbiased", [True, False])
def test_merge_is_as_if_both_had_been_one(rng: np.random.Generator, unbiased: bool) -> None:
    xs = batches(rng, 6, mean=1e4)
    options = {"unbiased": unbiased, "dtype": np.float64}
    left, right = (nk.RunningStats.from_batches(part, **options) for part in (xs[:2], xs[2:]))
    before = right.copy()
    left.merge(right)
    whole = nk.RunningStats.from_batches(xs, **options)
    np.testing.assert_allclose(left.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(left.var, whole.var, rtol=1e-9)
    assert (left.count, left.samples) == (whole.count, whole.samples)
    assert np.array_equal(right.mean, before.mean)
    left.merge(nk.RunningStats(5, **options))
    np.testing.assert_allclose(left.mean, whole.mean, rtol=1e-14)


def test_state_round_trip(rng: np.random.Generator) -> None:
    stats = nk.RunningStats(5, 0.2, unbiased=False, dtype=np.float64, debias=True, skip_nonfinite=True)
    for x in (*batches(rng, 2), np.full((2, 5), np.nan, np.float32)):
        nk.batch_norm(x, stats=stats)
    stats.freeze()
    twin = nk.RunningStats(**stats.get_config())
    twin.load_state_dict(stats.state_dict())
    for other in (twin, stats.copy(), pickle.loads(pickle.dumps(stats)), copy.deepcopy(stats)):
        assert repr(other) == repr(stats)
        for key, value in stats.state_dict().items():
            assert np.array_equal(other.state_dict()[key], value)
    assert stats.skipped == 1


def test_values_of_torch_and_keras_are_checked_and_taken() -> None:
    stats = nk.RunningStats(2)
    stats.load_state_dict(
        {"weight": [1, 1], "running_mean": [1.0, 2.0], "running_var": [3.0, 4.0], "num_batches_tracked": 7}
    )
    assert (stats.mean.tolist(), stats.var.tolist(), stats.count) == ([1, 2], [3, 4], 7)
    stats.load_state_dict({"moving_mean": np.zeros(2), "moving_variance": np.ones(2)})
    assert (stats.mean.tolist(), stats.count) == ([0, 0], 0)


FRESH = nk.RunningStats(2).state_dict()


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [
        (
            {"mean": [0, 0]},
            KeyError,
            "must have mean, var, count, .* or running_mean and running_var; .* got mean",
        ),
        (
            {"running_mean": [0.0, np.nan], "running_var": [1, 1]},
            ValueError,
            "running_mean must be finite in",
        ),
        (
            {"running_mean": [0, 0], "running_var": [1, -1]},
            ValueError,
            "running_var must be finite and not neg",
        ),
        (
            {"moving_mean": [0, 0, 0], "moving_variance": [1, 1]},
            ValueError,
            r"must have shape \(2,\), got \(3,\)",
        ),
        ([0, 1], TypeError, "state must be a mapping, got list"),
        (
            {**FRESH, "count": 1.5},
            ValueError,
            "count must be whole and not negative, one number or one for each of 2",
        ),
        (
            {**FRESH, "var_count": np.nan},
            ValueError,
            "var_count must be whole and not negative, one number or",
        ),
        ({**FRESH, "samples": [3, np.inf]}, ValueError, r"samples must be whole and not .*; got \[3, inf\]"),
        (
            {**FRESH, "samples": "3"},
            ValueError,
            "samples must be whole and not negative, one number or one for",
        ),
        (
            {**FRESH, "skipped": [1, 2]},
            ValueError,
            r"skipped must be whole and not negative, one number; got",
        ),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(state: Any, error: type[Exception], text: str) -> None:
    stats = nk.RunningStats(2)
    stats.mean, stats.count = [5, 6], 3
    with pytest.raises(error, match=text):
        stats.load_state_dict(state)
    assert (stats.mean.tolist(), stats.count) == ([5, 6], 3)


def test_counts_are_nobody_elses(rng: np.random.Generator) -> None:
    """Those of each channel are arrays: what a state, a copy or a caller does to its own changes no other."""
    stats = nk.RunningStats(3)
    where = np.arange(15).reshape(5, 3) > [0, 2, 8]
    moments = nk.batch_moments(rng.standard_normal((5, 3)).astype(np.float32), where=where)
    stats.update(moments)
    expected = [4, 4, 2]
    assert np.asarray(stats.samples).tolist() == expected
    given = {**stats.state_dict(), "samples": np.array(expected)}
    for of_others in (moments.samples, stats.state_dict()["samples"], stats.copy().samples):
        np.asarray(of_others)[...] = 99
        assert np.asarray(stats.samples).tolist() == expected
    stats.load_state_dict(given)
    given["samples"][...] = 99
    assert np.asarray(stats.samples).tolist() == expected


@pytest.mark.parametrize("where", [None, np.arange(8).reshape(4, 2) != 3])
def test_momentum_0_takes_nothing_in(where: Any) -> None:
    """Of NaN neither, whichever way the statistics are moved."""
    x = np.full((4, 2), np.nan, np.float32)
    stats = nk.RunningStats(2, momentum=0.0)
    nk.batch_norm(x, stats=stats, where=where)
    stats.update(nk.batch_moments(x))
    assert (stats.mean.tolist(), stats.var.tolist(), stats.count) == ([0, 0], [1, 1], 2)


@pytest.mark.filterwarnings("error")
def test_equal_values_without_eps_are_merged_without_a_warning() -> None:
    x = np.ones((4, 2), np.float32)
    whole = nk.BatchMoments.merged([nk.batch_moments(x, eps=0.0)] * 2)
    assert (whole.var.tolist(), whole.rstd.tolist()) == ([0, 0], [np.inf, np.inf])
    some = nk.batch_moments(x, eps=0.0, where=np.array([True, False]))
    assert nk.BatchMoments.merged([some, some]).rstd.tolist() == [np.inf, 0]


# Statistics that only `update` can move; a mask makes any of them such.
APART: list[dict[str, Any]] = [{"skip_nonfinite": True}, {"where": np.arange(20).reshape(5, 4) % 3 > 0}]


@pytest.mark.parametrize("case", APART, ids=["skip_nonfinite", "where"])
def test_a_batch_norm_that_cannot_move_its_statistics_writes_nothing(case: dict[str, Any]) -> None:
    """They are checked before the result is written, not when it is their turn."""
    rules = {name: value for name, value in case.items() if name != "where"}
    x = np.arange(20, dtype=np.float32).reshape(5, 4)
    out = np.full_like(x, 7.0)

    def call(stats: nk.RunningStats, out: Any = out) -> Any:
        return nk.batch_norm(x, stats=stats, out=out, where=case.get("where"))

    with pytest.raises(ValueError, match=r"batch_norm: stats\.mean must have shape \(4,\), got \(3,\)"):
        call(nk.RunningStats(3, **rules))
    stats = nk.RunningStats(4, **rules)
    stats.var.flags.writeable = False
    with pytest.raises(ValueError, match=r"batch_norm: stats\.var is read-only; training updates it"):
        call(stats)
    assert (out == 7.0).all()
    assert (stats.mean.tolist(), stats.count) == ([0] * 4, 0)
    with pytest.raises(ValueError, match=r"batch_norm: out overlaps stats\.mean; pass other memory"):
        nk.batch_norm(x[:1], stats=stats, out=stats.mean.reshape(1, 4), where=np.array([[True, False] * 2]))
    with pytest.raises(ValueError, match="ghost_batch_norm: stats must have 4 channels like x, got 3"):
        nk.ghost_batch_norm(x, ghost_size=2, stats=nk.RunningStats(3, **rules), out=out)
    assert (out == 7.0).all()


def test_errors() -> None:
    stats = nk.RunningStats(3)
    with pytest.raises(TypeError, match="moments must be BatchMoments, got Moments; pass what batch_norm"):
        stats.update(nk.Moments(np.zeros(3), np.ones(3)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="moments must have 3 channels, got 4"):
        stats.update(nk.batch_moments(np.zeros((2, 4), np.float32)))
    with pytest.raises(ValueError, match="expected 3 channels, got 2"):
        stats.merge(nk.RunningStats(2))
    with pytest.raises(ValueError, match="unbiased is True here and False there"):
        stats.merge(nk.RunningStats(3, unbiased=False))
    with pytest.raises(ValueError, match="there is no batch"):
        nk.RunningStats.from_batches([])
    with pytest.raises(ValueError, match="there is nothing to merge"):
        nk.BatchMoments.merged([])
    some = nk.batch_moments(np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="all must have as many channels, got 4 and 3"):
        nk.BatchMoments.merged([some, nk.batch_moments(np.zeros((2, 3), np.float32))])
    with pytest.raises(ValueError, match="all must have one eps"):
        nk.BatchMoments.merged([some, nk.batch_moments(np.zeros((2, 4), np.float32), eps=1.0)])
    for momentum in (None, 0.0):
        with pytest.raises(ValueError, match="debias corrects an exponential average"):
            nk.RunningStats(3, momentum, debias=True)
