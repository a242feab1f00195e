"""Masks: `where=` in batch norm and layer norm, forward and backward, and what running statistics make of them."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

import normkit as nk
from bounds import batch_norm_errors, layer_norm_errors
from cases import DTYPES, SIXTEEN_BITS
from gradients import assert_close, numeric_gradient
from normkit import reference
from normkit.layers import BatchNormalization
from normkit.moments import BatchMoments
from normkit.stats import RunningStats

# By columns, folded or not, and by runs, short, long and several to a channel; rows short and long.
BATCH_NORM = [
    ((7, 3), 1),
    ((300, 130), 1),
    ((1000, 24), 1),
    ((2, 3, 300), 1),
    ((5, 3, 7, 7), 1),
    ((5, 3, 7, 7), -1),
    ((40, 5, 4), 1),
    ((3, 40, 2, 9, 6), 1),
    ((2, 3, 9000), 1),
]
LAYER_NORM = [
    ((7, 3), -1),
    ((6, 5, 768), -1),
    ((6, 5, 48), (1, 2)),
    ((9, 8, 17), 1),
    ((3, 20_000), -1),
    ((5, 17_001), 1),
]


def masks(shape: tuple[int, ...], rng: np.random.Generator) -> list[Any]:
    """One mask for every set of axes that it may be shared over, and padding; about half of the elements count."""
    forms = itertools.product((0, 1), repeat=len(shape))
    shapes = [
        tuple(length if own else 1 for length, own in zip(shape, form, strict=True))
        for form in forms
        if any(form)
    ]
    return [rng.random(form) < 0.5 for form in shapes]


def operands(shape: Any, axis: Any, dtype: Any, rng: np.random.Generator, mean: float = 3.0) -> Any:
    x = (rng.standard_normal(shape) + mean).astype(dtype)
    dy = rng.standard_normal(shape).astype(dtype)
    axes = sorted(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,)))
    weight, bias = (rng.standard_normal([shape[a] for a in axes]).astype(dtype) for _ in range(2))
    return x, dy, weight, bias


@pytest.mark.parametrize(("shape", "axis"), BATCH_NORM)
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_batch_norm_keeps_the_contract(shape: Any, axis: int, mean: float, rng: np.random.Generator) -> None:
    x, dy, weight, bias = operands(shape, axis, np.float32, rng, mean)
    for where in masks(shape, rng):
        errors = batch_norm_errors(x, dy, weight, bias, axis, 1e-5, where=where)
        assert errors.worst() <= 1.0, (where.shape, errors)


@pytest.mark.parametrize(("shape", "axis"), LAYER_NORM)
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_layer_norm_keeps_the_contract(shape: Any, axis: Any, mean: float, rng: np.random.Generator) -> None:
    x, dy, weight, bias = operands(shape, axis, np.float32, rng, mean)
    for where in masks(shape, rng):
        errors = layer_norm_errors(x, dy, weight, bias, axis, 1e-5, where=where)
        assert errors.worst() <= 1.0, (where.shape, errors)


@pytest.mark.parametrize(
    ("errors_of", "shape", "axis"),
    [
        (batch_norm_errors, (40, 7), 1),
        (batch_norm_errors, (3, 4, 50), 1),
        (batch_norm_errors, (6, 3, 5), -1),
        (layer_norm_errors, (6, 40), -1),
        (layer_norm_errors, (3, 4, 30), (1, 2)),
    ],
)
@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (1e6, 1.0), (0.0, 1e200), (1e6, 1e-190)])
def test_float64_keeps_the_contract(
    errors_of: Any, shape: Any, axis: Any, mean: float, scale: float, rng: np.random.Generator
) -> None:
    x, dy, weight, bias = operands(shape, axis, np.float64, rng, mean)
    eps = 1e-5 if scale >= 1.0 else 0.0
    for where in masks(shape, rng):
        where[..., 0] |= eps == 0.0
        where[0] |= eps == 0.0
        errors = errors_of(x * scale, dy, weight, bias, axis, eps, where=where)
        assert errors.worst() <= 1.0, (where.shape, errors)


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
@pytest.mark.parametrize("op", ["batch_norm", "layer_norm"])
def test_sixteen_bits_are_float32_rounded_once(op: str, dtype: Any, rng: np.random.Generator) -> None:
    x, dy, weight, bias = operands((30, 200), -1, dtype, rng)
    where = rng.random(x.shape) < 0.5
    narrow = everything(op, x, dy, weight, bias, -1, where=where)
    wide = everything(op, *(a.astype(np.float32) for a in (x, dy, weight, bias)), -1, where=where)
    for a, b in zip(narrow, wide, strict=True):
        np.testing.assert_array_equal(a, b.astype(a.dtype))


def everything(op: str, x: Any, dy: Any, weight: Any, bias: Any, axis: Any, **options: Any) -> list[Any]:
    y, moments = getattr(nk, op)(x, weight, bias, axis=axis, return_moments=True, **options)
    return [y, *moments, *getattr(nk, f"{op}_backward")(dy, x, moments, weight, axis=axis, **options)]


CASES = [("batch_norm", *case) for case in BATCH_NORM] + [("layer_norm", *case) for case in LAYER_NORM]


@pytest.mark.parametrize(("op", "shape", "axis"), CASES)
@pytest.mark.parametrize("dtype", [*DTYPES, *SIXTEEN_BITS])
def test_the_same_bits(op: str, shape: Any, axis: Any, dtype: Any, rng: np.random.Generator) -> None:
    given = operands(shape, axis, dtype, rng)
    equal = [name for name in nk.isa.available() if name != "baseline"] or nk.isa.available()
    for where in masks(shape, rng)[:: 1 if dtype == np.float32 else 3]:
        with nk.isa.use(equal[0]):
            expected = everything(op, *given, axis, where=where, num_threads=1)
        for name, threads in itertools.product(equal, (1, 2, 3, 7)):
            with nk.isa.use(name):
                got = everything(op, *given, axis, where=where, num_threads=threads)
            for a, b in zip(got, expected, strict=True):
                assert a.tobytes() == b.tobytes(), (where.shape, name, threads)


@pytest.mark.parametrize(("op", "shape", "axis"), CASES)
def test_what_does_not_count_reaches_nothing_else(
    op: str, shape: Any, axis: Any, rng: np.random.Generator
) -> None:
    """NaN, infinities and huge numbers beside the mask change no bit of the statistics and of y elsewhere."""
    x, _, weight, bias = operands(shape, axis, np.float32, rng)
    for where in masks(shape, rng):
        counts = np.broadcast_to(where, shape)
        y, moments = getattr(nk, op)(x, weight, bias, axis=axis, where=where, return_moments=True)
        spoilt = np.where(counts, x, rng.choice([np.nan, np.inf, -np.inf, 3e38], shape)).astype(np.float32)
        with np.errstate(all="ignore"):
            again, others = getattr(nk, op)(spoilt, weight, bias, axis=axis, where=where, return_moments=True)
        np.testing.assert_array_equal(again[counts], y[counts])
        np.testing.assert_array_equal(others, moments)


@pytest.mark.parametrize(("op", "shape", "axis"), CASES)
@pytest.mark.parametrize("dtype", [*DTYPES, np.float16])
def test_huge_padding_without_gradient_is_no_matter_backward(
    op: str, shape: Any, axis: Any, dtype: Any, rng: np.random.Generator
) -> None:
    """Where dy is 0, what x holds beside the mask changes no bit of the gradients, as long as x̂ has room."""
    x, dy, weight, _ = operands(shape, axis, dtype, rng)
    # Narrower types are summed in double. rstd is at most 1/sqrt(eps).
    huge = float(np.finfo(dtype).max) * (1e-3 if dtype == np.float64 else 1.0)
    for where in masks(shape, rng):
        counts = np.broadcast_to(where, shape)
        dy[~counts] = 0.0
        spoilt = np.where(counts, x, rng.choice([-huge, huge], shape)).astype(dtype)
        expected, got = [], []
        for results, given in ((expected, x), (got, spoilt)):
            with np.errstate(all="ignore"):
                _, moments = getattr(nk, op)(given, weight, axis=axis, where=where, return_moments=True)
            results += getattr(nk, f"{op}_backward")(dy, given, moments, weight, axis=axis, where=where)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("op", "shape", "axis"), CASES)
def test_a_mask_that_takes_everything_is_none(
    op: str, shape: Any, axis: Any, rng: np.random.Generator
) -> None:
    given = operands(shape, axis, np.float32, rng)
    expected = everything(op, *given, axis)
    for where in (True, np.ones(shape, bool), np.ones([1] * len(shape), bool), [[True]]):
        for a, b in zip(everything(op, *given, axis, where=where), expected, strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("op", ["batch_norm", "layer_norm"])
def test_nothing_counts(op: str, rng: np.random.Generator) -> None:
    """A row or channel of which nothing counts: x̂ is 0, and no gradient reaches x."""
    x, dy, weight, bias = operands((6, 6), -1, np.float32, rng)
    for where in (np.zeros((1, 1), bool), rng.random((6, 6)) < 0.5):
        where[..., -1 if op == "batch_norm" else slice(None)] &= op != "batch_norm"
        where[-1] &= op != "layer_norm"
        at = (slice(None), -1) if op == "batch_norm" else -1
        y, moments = getattr(nk, op)(x, weight, bias, where=where, return_moments=True)
        gradients = getattr(nk, f"{op}_backward")(dy, x, moments, weight, where=where)
        assert moments.mean[-1] == moments.rstd[-1] == 0.0
        np.testing.assert_array_equal(y[at], bias[-1] if op == "batch_norm" else bias)
        np.testing.assert_array_equal(gradients.dx[at], 0.0)
        if op == "batch_norm":
            assert gradients.dweight[-1] == 0.0
            np.testing.assert_allclose(gradients.dbias[-1], dy[:, -1].sum(dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize(("op", "axis"), [("batch_norm", 1), ("layer_norm", -1), ("layer_norm", (0, 2))])
@pytest.mark.parametrize("form", [(4, 3, 5), (4, 1, 5), (1, 3, 1), (4, 1, 1)])
def test_gradients_are_those_of_finite_differences(
    op: str, axis: Any, form: Any, rng: np.random.Generator
) -> None:
    x, dy, weight, bias = operands((4, 3, 5), axis, np.float64, rng)
    where = rng.random(form) < 0.6
    if op == "batch_norm":
        where[..., 0] = True

    def loss() -> float:
        return float((getattr(nk, op)(x, weight, bias, axis=axis, where=where) * dy).sum())

    _, moments = getattr(nk, op)(x, weight, bias, axis=axis, where=where, return_moments=True)
    gradients = getattr(nk, f"{op}_backward")(dy, x, moments, weight, axis=axis, where=where)
    for computed, operand in zip(gradients, (x, weight, bias), strict=True):
        # At one element the variance is 0, and x̂ moves by 1/sqrt(eps).
        assert_close(computed, numeric_gradient(loss, operand, 1e-6), 2e-4)


def test_rows_that_count_are_a_batch_of_their_own(rng: np.random.Generator) -> None:
    """A published reproducer, and padding: statistics over the rows that are there."""
    x, where = np.ones((1, 2, 3, 4), np.float32), np.ones((1, 2, 1, 1), bool)
    np.testing.assert_array_equal(nk.batch_norm(x, axis=-1, where=where), 0.0)
    lengths = np.array([5, 1, 8, 0])
    x = rng.standard_normal((4, 8, 16)).astype(np.float32)
    where = (np.arange(8) < lengths[:, None])[..., None]
    y, moments = nk.batch_norm(x, axis=-1, where=where, return_moments=True)
    expected, alone = nk.batch_norm(x[where[..., 0]], return_moments=True)
    np.testing.assert_allclose(y[where[..., 0]], expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(moments, alone, rtol=1e-13, atol=1e-14)
    assert moments.samples == alone.samples == lengths.sum()


@pytest.mark.parametrize("op", ["batch_norm", "layer_norm"])
def test_layouts_and_targets(op: str, rng: np.random.Generator) -> None:
    x, dy, weight, bias = operands((6, 8, 10, 8), 1, np.float32, rng)
    axis = 1
    where = rng.random((6, 1, 10, 8)) < 0.5
    expected = everything(op, x, dy, weight, bias, axis, where=where)
    transposed = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    strided = np.repeat(x, 2, axis=3)[..., ::2]
    for view, mask in itertools.product(
        (transposed, strided, x[::-1][::-1]),
        (where, np.asfortranarray(where), np.broadcast_to(where, x.shape), np.repeat(where, 2, 0)[::2]),
    ):
        for a, b in zip(everything(op, view, dy, weight, bias, axis, where=mask), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
    y, moments = getattr(nk, op)(x, weight, bias, axis=axis, where=where, return_moments=True)
    backward = getattr(nk, f"{op}_backward")
    into = x.copy()
    assert getattr(nk, op)(into, weight, bias, axis=axis, where=where, out=into) is into
    np.testing.assert_array_equal(into, y)
    for target in (0, 1):
        both = [dy.copy(), x.copy()]
        dx = backward(*both, moments, weight, axis=axis, where=where, out=both[target]).dx
        assert dx is both[target]
        np.testing.assert_array_equal(dx, expected[3])


@pytest.mark.parametrize("op", ["batch_norm", "layer_norm"])
def test_errors_say_what_to_do(op: str) -> None:
    x = np.zeros((4, 3), np.float32)
    forward, backward = getattr(nk, op), getattr(nk, f"{op}_backward")
    _, moments = forward(x, return_moments=True)
    by_hand = nk.Moments(*moments, training=True)
    calls = [lambda where: forward(x, where=where), lambda where: backward(x, x, by_hand, where=where)]
    for call in calls:
        with pytest.raises(TypeError, match=r"where must be bool, .*got int64; convert it with where.astype"):
            call(np.ones((4, 3), np.int64))
        for shape in ((3, 4), (4,), (1, 4, 3), (2, 3)):
            with pytest.raises(ValueError, match=r"where must broadcast to the shape of x, \(4, 3\), got"):
                call(np.ones(shape, bool))
        with pytest.raises(
            TypeError, match=r"where is a masked array.*fill it first with where.filled\(False\)"
        ):
            call(np.ma.masked_array(np.ones((4, 3), bool), mask=True))
        with pytest.raises(
            ValueError, match=r"where must be an array of bool, got list that is none: .*inhomo"
        ):
            call([[True], [True, False]])
    shared = np.zeros(48, np.uint8)
    out, where = shared.view(np.float32).reshape(4, 3), shared[:12].view(bool).reshape(4, 3)
    with pytest.raises(ValueError, match="out overlaps where"):
        forward(x, where=where, out=out)


def test_empty_arrays() -> None:
    for shape in ((0, 3), (3, 0)):
        x = np.zeros(shape, np.float32)
        for op in ("batch_norm", "layer_norm"):
            assert everything(op, x, x, None, None, -1, where=np.zeros(shape, bool))[0].shape == shape


def test_moments_count_channel_by_channel(rng: np.random.Generator) -> None:
    x = (rng.standard_normal((50, 4)) + 1e5).astype(np.float32)
    where = rng.random(x.shape) < [0.9, 0.5, 0.02, 0.0]
    moments = nk.batch_moments(x, where=where)
    np.testing.assert_array_equal(moments.samples, where.sum(axis=0))
    _, others = nk.batch_norm(x, where=where, return_moments=True)
    assert isinstance(others, BatchMoments)
    np.testing.assert_array_equal(others.var, moments.var)
    np.testing.assert_array_equal(others, moments)
    halves = [nk.batch_moments(x[part], where=where[part]) for part in (slice(13), slice(13, 50))]
    merged = BatchMoments.merged(halves)
    np.testing.assert_array_equal(merged.samples, moments.samples)
    np.testing.assert_allclose(merged.mean, moments.mean, rtol=1e-15)
    np.testing.assert_allclose(merged.var, moments.var, rtol=1e-9)
    np.testing.assert_allclose(merged.rstd, moments.rstd, rtol=1e-9)
    assert nk.batch_moments(x, where=where[:, :1]).samples == where[:, 0].sum()


RULES = [{}, {"momentum": None}, {"debias": True}, {"skip_nonfinite": True}, {"unbiased": False}]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_running_statistics_of_each_channel_are_its_own(rule: Any, rng: np.random.Generator) -> None:
    """Each channel steps as if its values had come alone, a batch that has none for it being no batch."""
    together = RunningStats(3, dtype=np.float64, **rule)
    alone = [RunningStats(1, dtype=np.float64, **rule) for _ in range(3)]
    for t in range(6):
        x = rng.standard_normal((5, 3))
        where = rng.random(x.shape) < 0.6
        where[:, 1] &= t % 2 == 0
        where[1:, 2] = False
        nk.batch_norm(x, stats=together, where=where)
        for c, stats in enumerate(alone):
            nk.batch_norm(x[where[:, c], c : c + 1], stats=stats)
    for name in ("mean", "var", "count", "samples"):
        expected = [np.ravel(getattr(stats, name))[0] for stats in alone]
        np.testing.assert_allclose(getattr(together, name), expected, rtol=1e-13, err_msg=name)
    again = RunningStats(3, dtype=np.float64, **rule)
    again.load_state_dict(json.loads(json.dumps(together.state_dict(), default=lambda array: array.tolist())))
    for name, value in together.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], value)
    twin = together.copy()
    twin.merge(together)
    np.testing.assert_allclose(twin.mean, together.mean, rtol=1e-13)
    np.testing.assert_array_equal(twin.samples, 2 * np.asarray(together.samples))


def test_a_batch_that_counts_nowhere_is_no_batch(rng: np.random.Generator) -> None:
    stats = RunningStats(3)
    before = stats.state_dict()
    nk.batch_norm(rng.standard_normal((5, 3)).astype(np.float32), stats=stats, where=False)
    for name, value in stats.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    with pytest.raises(ValueError, match="one number or one for each of 3 channels"):
        stats.load_state_dict({**before, "samples": [1, 2]})


@pytest.mark.parametrize("form", [(6, 3), (3,), (7, 7), ()])
@pytest.mark.parametrize("frozen", [False, True])
def test_where_no_statistics_are_taken_a_mask_is_refused(frozen: bool, form: Any) -> None:
    x = np.zeros((6, 3), np.float32)
    stats = RunningStats(3)
    stats.frozen = frozen
    where = np.ones(form, bool)
    with pytest.raises(
        ValueError, match=r"where chooses the elements that statistics are taken of.*leave where out"
    ):
        nk.batch_norm(x, stats=stats, training=frozen, where=where)
    _, moments = nk.batch_norm(x, stats=stats, training=False, return_moments=True)
    where[...] = False
    with pytest.raises(ValueError, match="leave where out"):
        nk.batch_norm_backward(x, x, moments, where=where)


def test_a_layers_counts_of_each_channel_are_saved(rng: np.random.Generator) -> None:
    layer = BatchNormalization()
    x = rng.standard_normal((8, 3)).astype(np.float32)
    layer(x)
    assert layer.stats is not None
    nk.batch_norm(x, stats=layer.stats, where=rng.random(x.shape) < [1.0, 0.5, 0.0])
    state = json.loads(json.dumps(layer.get_state()))
    other = BatchNormalization()
    other(x)
    other.set_state(state)
    assert other.stats is not None
    np.testing.assert_array_equal(other.stats.samples, layer.stats.samples)
    np.testing.assert_array_equal(other.stats.count, [1, 1, 0])


@pytest.mark.parametrize("op", ["batch_norm", "layer_norm"])
def test_the_reference_agrees_with_numpy(op: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 6))
    where = rng.random(x.shape) < 0.7
    axis = 0 if op == "batch_norm" else 1
    where[0] = where[:, 0] = True
    y, moments = getattr(reference, op)(x, where=where, eps=1e-3)
    np.testing.assert_allclose(moments.mean, x.mean(axis, where=where), rtol=1e-12)
    var = x.var(axis, where=where, keepdims=True)
    expected = (x - x.mean(axis, where=where, keepdims=True)) / np.sqrt(var + 1e-3)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


@pytest.mark.parametrize("form", [(64, 1, 50, 50), (64, 32, 50, 50), (1, 32, 1, 1)])
def test_nothing_of_the_size_of_x_is_copied(form: Any, rng: np.random.Generator) -> None:
    x = rng.standard_normal((64, 32, 50, 50)).astype(np.float32)
    where, out = rng.random(form) < 0.5, np.empty_like(x)
    _, moments = nk.batch_norm(x, where=where, return_moments=True)
    tracemalloc.start()
    try:
        nk.batch_norm(x, where=where, out=out)
        nk.batch_norm_backward(x, x, moments, where=where, out=out)
        if form[1] > 1:
            nk.layer_norm(x, axis=(1, 2, 3), where=where, out=out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Layer norm's columns share (1, 32, 1, 1) in part: it is written out for one row.
    assert peak < x[0].size + 20_000
