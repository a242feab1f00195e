"""Moments as the whole context of a backward pass: what a forgotten, a contradicting or a lost word leads to."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import normkit as nk
from normkit.distributed import sync_batch_norm

SHAPE = (6, 8, 5, 3)  # every axis of another length, and none of length 1
Step = Callable[..., Any]


@dataclasses.dataclass
class Operation:
    """How an operation is called forward and backward, with what it may be asked for."""

    name: str
    axis: Any  # another one than the default
    channel_axes: tuple[int, ...]  # the axes of weight and bias
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    num_groups: int | None = None
    takes_residual: bool = False

    def forward(self, x: Any, weight: Any, bias: Any, **more: Any) -> tuple[Any, ...]:
        groups = () if self.num_groups is None else (self.num_groups,)
        first = (x, x * 0.5) if self.takes_residual else (x,)
        options = {"axis": self.axis, "return_moments": True, **self.options, **more}
        return getattr(nk, self.name)(*first, *groups, weight, bias, **options)

    def backward(self, *operands: Any, **more: Any) -> Any:
        return getattr(nk, f"{self.name}_backward")(*operands, **more)


def of(name: str, **options: Any) -> Operation:
    if name == "batch_norm":
        return Operation(name, 2, (2,), options)
    if name in ("group_norm", "instance_norm"):
        return Operation(name, 3, (3,), options, num_groups=3 if name == "group_norm" else None)
    return Operation(name, (1, 3), (1, 3), options, takes_residual=name.startswith("add_"))


MASK = np.random.default_rng(5).random(SHAPE) < 0.6
CASES = {
    "batch norm": of("batch_norm"),
    "batch norm, mask": of("batch_norm", where=MASK),
    "batch norm, relu": of("batch_norm", activation="relu"),
    "batch norm, relu and mask": of("batch_norm", activation="relu", where=MASK),
    "layer norm": of("layer_norm"),
    "layer norm, mask": of("layer_norm", where=MASK),
    "layer norm, relu": of("layer_norm", activation="relu"),
    "layer norm, gelu and mask": of("layer_norm", activation="gelu", where=MASK),
    "RMS norm, silu": of("rms_norm", activation="silu"),
    "RMS norm, mask": of("rms_norm", where=MASK),
    "group norm": of("group_norm"),
    "group norm, relu and mask": of("group_norm", activation="relu", where=MASK),
    "instance norm, relu": of("instance_norm", activation="relu"),
    "instance norm, mask": of("instance_norm", where=MASK),
    "add and layer norm, dropout": of("add_layer_norm", dropout=0.4, seed=7),
    "add and layer norm, gelu": of("add_layer_norm", activation="gelu"),
    "add and RMS norm, dropout": of("add_rms_norm", dropout=0.4, seed=7),
}


@dataclasses.dataclass
class Run:
    op: Operation
    x: Any  # what the backward pass takes: x, or the sum
    dy: Any
    weight: Any
    bias: Any
    moments: Any
    extra: dict[str, Any]

    def gradients(self, moments: Any = None, **more: Any) -> list[Any]:
        got = self.op.backward(
            self.dy, self.x, self.moments if moments is None else moments, self.weight, **self.extra, **more
        )
        return [*got, *([got.dresidual] if hasattr(got, "dresidual") else [])]


@pytest.fixture(params=CASES, ids=list(CASES))
def run(request: pytest.FixtureRequest, rng: np.random.Generator) -> Run:
    op = CASES[request.param]
    x, dy = rng.standard_normal((2, *SHAPE)) + 0.25
    form = tuple(SHAPE[axis] for axis in op.channel_axes)
    weight, bias = rng.standard_normal((2, *form)) + 1.5
    _, *total, moments = op.forward(x, weight, bias)
    takes_bias = op.name.endswith(("layer_norm", "rms_norm"))
    return Run(op, total[0] if total else x, dy, weight, bias, moments, {"bias": bias} if takes_bias else {})


def same(one: list[Any], other: list[Any]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_has_to_be_said_again(run: Run) -> None:
    """The gradient without a word is the derivative of the sum of dy·y by finite differences."""
    dx, dweight, dbias, *_ = run.gradients()
    if run.op.takes_residual:
        return  # x is not at hand; its gradient is compared with reference.py elsewhere
    step = 1e-5
    rng = np.random.default_rng(3)
    for operand, gradient in ((run.x, dx), (run.weight, dweight), (run.bias, dbias)):
        direction = rng.standard_normal(operand.shape)
        values = []
        for sign in (1, -1):
            moved = [
                a + sign * step * direction if a is operand else a for a in (run.x, run.weight, run.bias)
            ]
            values.append(float(np.sum(run.dy * run.op.forward(*moved)[0])))
        np.testing.assert_allclose(
            (values[0] - values[1]) / (2 * step), np.sum(gradient * direction), rtol=2e-5, atol=2e-5
        )


def test_saying_it_again_changes_nothing(run: Run) -> None:
    expected = run.gradients()
    axis = run.op.axis
    negative = tuple(a - 4 for a in axis)[::-1] if isinstance(axis, tuple) else axis - 4
    spelled = [axis, negative, np.int64(axis) if isinstance(axis, int) else list(axis)]
    for one in spelled:
        same(run.gradients(axis=one), expected)
    options = dict(run.op.options)
    if "where" in options:
        same(run.gradients(where=options["where"].copy()), expected)
    if run.op.name == "batch_norm":
        same(run.gradients(training=True), expected)
        options.pop("activation", None)
    if run.op.name in ("group_norm", "instance_norm"):
        options.pop("activation", None)
    same(run.gradients(**options), expected)


def test_a_contradiction_is_an_error(run: Run) -> None:
    other = 1 if isinstance(run.op.axis, int) else (0, 2)
    wrong: list[dict[str, Any]] = [{"axis": other}, {"axis": -1 if run.op.axis != 3 else 1}]
    if not run.op.takes_residual:
        wrong += [{"where": ~MASK}, {"where": MASK[0] & False}]
        if "where" in run.op.options:
            wrong += [{"where": np.ones(SHAPE, bool)}]
    if run.op.name == "batch_norm":
        wrong += [{"training": False}]
    if run.op.name.endswith(("layer_norm", "rms_norm")):
        wrong += [{"activation": a} for a in ("relu", "gelu", "silu") if a != run.moments.activation]
    if run.op.takes_residual:
        wrong += [{"dropout": 0.25}, {"seed": 8}]
    for words in wrong:
        with pytest.raises(
            ValueError, match=f"{run.op.name}_backward: {next(iter(words))}.* contradicts the moments"
        ):
            run.gradients(**words)


def test_a_parameter_that_is_forgotten_is_an_error(run: Run) -> None:
    for name in ("weight", "bias"):
        operands = {"weight": run.weight, **run.extra}
        if name not in operands or (name == "bias" and run.moments.activation is None):
            continue
        del operands[name]
        with pytest.raises(ValueError, match=f"the forward pass had a {name}, which the gradient depends on"):
            run.op.backward(run.dy, run.x, run.moments, **operands)


def test_moments_of_another_operation_are_an_error(run: Run) -> None:
    for name in {case.name for case in CASES.values()} - {run.op.name}:
        with pytest.raises(
            ValueError, match=f"moments must be those of {name}, got those of {run.op.name}; call"
        ):
            getattr(nk, f"{name}_backward")(run.dy, run.x, run.moments, run.weight)


def test_copies_keep_everything(run: Run) -> None:
    expected = run.gradients()
    copies = [
        copy.copy(run.moments),
        copy.deepcopy(run.moments),
        *(pickle.loads(pickle.dumps(run.moments, protocol)) for protocol in range(6)),
        dataclasses.replace(run.moments),
        dataclasses.replace(run.moments, mean=run.moments.mean.copy()),
    ]
    for twin in copies:
        assert type(twin) is type(run.moments)
        assert twin == run.moments
        assert repr(twin) == repr(run.moments)
        same(run.gradients(twin), expected)


def test_comparison_takes_in_every_field(run: Run) -> None:
    for field in dataclasses.fields(run.moments):
        value = getattr(run.moments, field.name)
        if isinstance(value, np.ndarray):
            changed = value.copy()
            changed.flat[0] = ~changed.flat[0] if changed.dtype == bool else changed.flat[0] + 1
        else:
            changed = {"operation": "other", "activation": "relu"}.get(field.name, 0.125)
        if field.name == "activation" and value == "relu":
            changed = "silu"
        twin = run.moments._with(**{field.name: changed})
        assert twin != run.moments, field.name
        assert run.moments == run.moments._with()


def test_they_are_frozen_and_unpack_as_two(run: Run) -> None:
    mean, rstd = run.moments
    assert mean is run.moments.mean
    assert rstd is run.moments[1]
    assert len(run.moments) == 2
    for field in dataclasses.fields(run.moments):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(run.moments, field.name, None)
    with pytest.raises(TypeError):
        hash(run.moments)


@pytest.mark.parametrize("made", ["inference", "frozen"])
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu"])
def test_constants_are_known_to_be_constants(
    made: str, activation: str | None, rng: np.random.Generator
) -> None:
    x, dy = rng.standard_normal((2, 7, 4))
    weight, bias = rng.standard_normal((2, 4)) + 1.5
    stats = nk.RunningStats(4, dtype=np.float64)
    stats.mean, stats.var = rng.standard_normal(4), rng.uniform(0.5, 2, 4)
    stats.frozen = made == "frozen"
    y, moments = nk.batch_norm(
        x, weight, bias, stats=stats, training=made == "frozen", activation=activation, return_moments=True
    )
    assert moments.training is False
    source = {"y": y} if activation == "leaky_relu" else {"x": x}
    gradients = nk.batch_norm_backward(dy, moments=moments, weight=weight, bias=bias, **source)
    slope = {None: 1.0, "relu": 0.0, "leaky_relu": 0.01}[activation]
    z = (x - stats.mean) / np.sqrt(stats.var + 1e-5) * weight + bias
    exact = dy * np.where(z > 0, 1.0, slope) * weight / np.sqrt(stats.var + 1e-5)
    np.testing.assert_allclose(gradients.dx, exact, rtol=1e-12, atol=1e-12)
    with pytest.raises(
        ValueError, match="training=True contradicts the moments, which were made with training=False"
    ):
        nk.batch_norm_backward(dy, moments=moments, weight=weight, bias=bias, training=True, **source)


def test_ghost_batch_norm_leaves_frozen_statistics_alone(rng: np.random.Generator) -> None:
    x, dy = rng.standard_normal((2, 10, 4))
    stats = nk.RunningStats(4, dtype=np.float64)
    stats.mean, stats.var = rng.standard_normal(4), rng.uniform(0.5, 2, 4)
    stats.freeze()
    before = stats.state_dict()
    y, moments = nk.ghost_batch_norm(x, ghost_size=3, stats=stats)
    expected, whole = nk.batch_norm(x, stats=stats, return_moments=True)
    np.testing.assert_array_equal(y, expected)
    got = nk.ghost_batch_norm_backward(dy, x, moments, ghost_size=3)
    wanted = nk.batch_norm_backward(dy, x, whole)
    np.testing.assert_array_equal(got.dx, wanted.dx)
    np.testing.assert_allclose(got.dweight, wanted.dweight, rtol=1e-12)
    for name, value in stats.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_renormalization_leaves_frozen_statistics_alone(rng: np.random.Generator) -> None:
    x, dy = rng.standard_normal((2, 10, 4))
    weight, bias = rng.standard_normal((2, 4))
    stats = nk.RunningStats(4, dtype=np.float64)
    stats.mean, stats.var = rng.standard_normal(4), rng.uniform(0.5, 2, 4)
    stats.freeze()
    y, moments = nk.batch_renorm(x, weight, bias, stats=stats, r_max=3.0, d_max=5.0)
    expected, plain = nk.batch_norm(x, weight, bias, stats=stats, return_moments=True)
    np.testing.assert_array_equal(y, expected)
    for a, b in zip(
        nk.batch_renorm_backward(dy, x, moments, weight),
        nk.batch_norm_backward(dy, x, plain, weight),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-13)
    assert stats.count == 0


def test_renorm_moments_keep_r_and_d(rng: np.random.Generator) -> None:
    x = rng.standard_normal((10, 4)).astype(np.float32)
    weight = np.full(4, 2.0, np.float32)
    stats = nk.RunningStats(4)
    stats.mean, stats.var = [0.5, -0.5, 1.0, 0.0], [0.5, 2.0, 1.0, 3.0]
    _, moments = nk.batch_renorm(x, weight, stats=stats, r_max=3.0, d_max=5.0)
    expected = nk.batch_renorm_backward(x, x, moments, weight)
    for twin in (
        copy.copy(moments),
        copy.deepcopy(moments),
        pickle.loads(pickle.dumps(moments)),
        dataclasses.replace(moments, eps=moments.eps),
    ):
        assert twin == moments
        same(list(nk.batch_renorm_backward(x, x, twin, weight)), list(expected))
    with pytest.raises(ValueError, match="got those of batch_renorm; call batch_renorm_backward"):
        nk.batch_norm_backward(x, x, moments, weight)


def test_moments_made_by_hand_must_be_told(rng: np.random.Generator) -> None:
    x, dy = rng.standard_normal((2, 9, 4))
    _, moments = nk.batch_norm(x, return_moments=True)
    by_hand = nk.Moments(*moments)
    with pytest.raises(
        ValueError, match="do not know whether they are the statistics of x; pass training=True"
    ):
        nk.batch_norm_backward(dy, x, by_hand)
    expected = nk.batch_norm_backward(dy, x, moments)
    same(list(nk.batch_norm_backward(dy, x, by_hand, training=True)), list(expected))
    same(list(nk.batch_norm_backward(dy, x, nk.Moments(*moments, training=True))), list(expected))
    halves = nk.BatchMoments.merged([nk.batch_moments(x[:4]), nk.batch_moments(x[4:])])
    with pytest.raises(ValueError, match="pass training=True if they are"):
        nk.batch_norm_backward(dy, x, halves)


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm"])
@pytest.mark.parametrize("wrong", [None, (), 1.0, "moments", (np.zeros(4), np.ones(4)), [1, 2], {}], ids=repr)
def test_what_is_no_moments_is_an_error(name: str, wrong: Any) -> None:
    x = np.zeros((4, 4), np.float32)
    with pytest.raises(
        TypeError, match=rf"{name}_backward: moments must be Moments, got {type(wrong).__name__}"
    ):
        getattr(nk, f"{name}_backward")(x, x, wrong)


@pytest.mark.parametrize("wrong", [{"mean": "a"}, {"rstd": None}, {"mean": [[1], [2, 3]]}])
def test_moments_of_no_numbers_are_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"Moments: (mean|rstd) must be an array of numbers, got"):
        nk.Moments(**{"mean": np.zeros(4), "rstd": np.ones(4), **wrong})


def test_bits_cannot_get_lost() -> None:
    _, moments = nk.batch_norm(np.ones((4, 3), np.float32), activation="relu", return_moments=True)
    with pytest.raises(ValueError, match="the gradient of relu needs active, the bits of the forward pass"):
        dataclasses.replace(moments, active=None)


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm", "rms_norm"])
def test_x_or_y(name: str) -> None:
    x = np.ones((4, 4), np.float32)
    y, moments = getattr(nk, name)(x, return_moments=True)
    backward = getattr(nk, f"{name}_backward")
    with pytest.raises(ValueError, match=r"pass x, the input of the forward pass, or y=, .* got both"):
        backward(x, x, moments, y=y)
    for nothing in ((), (None, moments)):
        with pytest.raises(ValueError, match=r"pass x, the input of the forward pass, or y=, .* got neither"):
            backward(x, *nothing)
    with pytest.raises(TypeError, match="unexpected keyword argument 'from_output'"):
        backward(x, y, moments, from_output=True)


X = np.ones((4, 3), np.float32)
STATS = nk.RunningStats(3)
MISTAKES = [
    (
        lambda: nk.batch_renorm(X, np.ones(4, "f4"), stats=STATS, r_max=1, d_max=0),
        ValueError,
        r"batch_renorm: weight must have shape \(3,\), got \(4,\)",
    ),
    (
        lambda: nk.batch_renorm(X, [1, 1, 1], stats=STATS, r_max=1, d_max=0),
        TypeError,
        r"batch_renorm: weight must be a numpy array, got list",
    ),
    (
        lambda: nk.batch_renorm(X, np.ones(3), stats=STATS, r_max=1, d_max=0),
        TypeError,
        r"batch_renorm: weight must be float32 like x, got float64",
    ),
    (
        lambda: nk.batch_renorm(X, stats=STATS, r_max="2", d_max=0),
        TypeError,
        r"batch_renorm: r_max must be a number, got '2'",
    ),
    (
        lambda: nk.batch_renorm(X.tolist(), stats=STATS, r_max=1, d_max=0),
        TypeError,
        r"batch_renorm: x must be a numpy array, got list",
    ),
    (lambda: sync_batch_norm(X.tolist()), TypeError, r"sync_batch_norm: x must be a numpy array, got list"),
    (
        lambda: sync_batch_norm(X, axis=5),
        ValueError,
        r"sync_batch_norm: axis 5 is out of range for x with 2 axes",
    ),
    (lambda: sync_batch_norm(X, axis="a"), TypeError, r"sync_batch_norm: axis must be an integer, got 'a'"),
    (lambda: sync_batch_norm(X, eps="a"), TypeError, r"sync_batch_norm: eps must be a number, got 'a'"),
    (
        lambda: setattr(nk.RunningStats(3), "mean", None),
        ValueError,
        r"mean must be one number, or one for each of 3 channels, got None",
    ),
    (
        lambda: nk.RunningStats(3).load_state_dict(
            {"running_mean": X[0], "running_var": X[0], "num_batches_tracked": [[1, 2], [3]]}
        ),
        ValueError,
        r"num_batches_tracked must be whole and not negative",
    ),
    (
        lambda: nk.Moments(np.array(["a", None], object), np.ones(2)),
        TypeError,
        r"Moments: mean must be an array of numbers",
    ),
    (
        lambda: nk.batch_norm(X, stats=(X[0], X[1])),
        TypeError,
        r"batch_norm: stats must be RunningStats, got tuple; for a mean",
    ),
    (
        lambda: nk.batch_renorm(X, stats={}, r_max=1, d_max=0),
        TypeError,
        r"batch_renorm: stats must be RunningStats, got dict",
    ),
    (
        lambda: nk.ghost_batch_norm(X, ghost_size=2, stats=3),
        TypeError,
        r"ghost_batch_norm: stats must be RunningStats, got int",
    ),
    (
        lambda: nk.batch_norm(X, stats=STATS, training=None),
        TypeError,
        r"batch_norm: training must be True or False, got None",
    ),
    (
        lambda: nk.batch_norm(X, stats=STATS, training="no"),
        TypeError,
        r"training must be True or False, got 'no'",
    ),
    (lambda: nk.batch_norm(X, stats=STATS, training=2), TypeError, r"training must be True or False, got 2"),
    (
        lambda: nk.batch_norm(X, activation="gelu"),
        ValueError,
        r"activation must be 'relu', 'leaky_relu' or None, got 'gelu'",
    ),
    (
        lambda: nk.instance_norm(X, activation="tanh"),
        ValueError,
        r"activation must be 'relu' or None, got 'tanh'",
    ),
    (
        lambda: nk.layer_norm(X, activation="tanh"),
        ValueError,
        r"activation must be one of relu, gelu, silu, or None, got 'tanh'",
    ),
    (lambda: nk.ghost_batch_norm(X, ghost_size=2, axis="a"), TypeError, r"axis must be an integer, got 'a'"),
    (
        lambda: nk.ghost_batch_norm_backward(X, X, nk.batch_moments(X), ghost_size=2),
        TypeError,
        r"moments must be a list",
    ),
    (
        lambda: nk.ghost_batch_norm_backward(X, X, [1, 2], ghost_size=2),
        TypeError,
        r"moments must be Moments, got int",
    ),
    (
        lambda: nk.BatchMoments.merged([1, 2]),
        TypeError,
        r"all must be BatchMoments, got int; pass what batch_moments",
    ),
    (lambda: nk.BatchMoments.merged(3), TypeError, r"all must be BatchMoments, got int"),
    (
        lambda: nk.RunningStats.from_batches(3),
        TypeError,
        r"batches must be mini-batches, a list of arrays say, got int",
    ),
    (lambda: nk.RunningStats(3, momentum="a"), TypeError, r"momentum must be a number or None, got str"),
    (
        lambda: nk.RunningStats(3, dtype="floaty"),
        TypeError,
        r"dtype must be float32 or float64, got 'floaty'",
    ),
    (
        lambda: nk.RunningStats(3).merge(3),
        TypeError,
        r"RunningStats.merge: other must be RunningStats, got int",
    ),
    (
        lambda: setattr(nk.RunningStats(3), "mean", [1, 2]),
        ValueError,
        r"mean must be one number, or one for each of 3 channels, got \[1, 2\]",
    ),
    (
        lambda: setattr(nk.RunningStats(3), "var", "a"),
        ValueError,
        r"var must be one number, or one for each of 3 channels, got 'a'",
    ),
    (
        lambda: nk.RunningStats(3).load_state_dict({"running_mean": "a", "running_var": X[0]}),
        ValueError,
        r"running_mean must be an array of numbers",
    ),
    (
        lambda: nk.add_layer_norm(X, X, dropout="a"),
        TypeError,
        r"add_layer_norm: dropout must be a number, got str",
    ),
    (
        lambda: nk.add_layer_norm_backward(
            X, X, nk.add_layer_norm(X, X, return_moments=True)[2], dropout="a"
        ),
        ValueError,
        r"dropout='a' contradicts the moments",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), MISTAKES, ids=[text[:50] for *_, text in MISTAKES])
def test_mistakes_are_explained(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("shape", [(6, 5), (2, 5, 40), (3, 4, 5, 1)])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("out", [None, "dy", "x"])
def test_the_gradient_of_a_residual(
    shape: tuple[int, ...], activation: str | None, out: str | None, rng: np.random.Generator
) -> None:
    x, dy, residual = rng.standard_normal((3, *shape)).astype(np.float32)
    y, moments = nk.batch_norm(x, residual=residual, activation=activation, return_moments=True)
    expected = nk.batch_norm_backward(dy, x, moments)
    passed = dy.copy() if activation is None else np.where(y > 0, dy, np.float32(0))
    operands = {"dy": dy, "x": x}
    got = nk.batch_norm_backward(
        dy, x, moments, return_dresidual=True, out=None if out is None else operands[out]
    )
    np.testing.assert_array_equal(got.dresidual, passed)
    same(list(got), list(expected))
    for twin in (copy.copy(got), pickle.loads(pickle.dumps(got)), dataclasses.replace(got, dx=got.dx)):
        assert twin == got
        np.testing.assert_array_equal(twin.dresidual, passed)


def test_a_residual_that_was_not_there(rng: np.random.Generator) -> None:
    x, dy, residual = rng.standard_normal((3, 6, 4))
    _, moments = nk.batch_norm(x, return_moments=True)
    with pytest.raises(ValueError, match="return_dresidual=True, and the forward pass had no residual"):
        nk.batch_norm_backward(dy, x, moments, return_dresidual=True)
    y, moments = nk.batch_norm(x, residual=residual, return_moments=True)
    with pytest.raises(ValueError, match="y= cannot serve with a residual"):
        nk.batch_norm_backward(dy, None, moments, y=y)


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm"])
def test_a_parameter_that_was_not_there(name: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((6, 4))
    groups = (2,) if name == "group_norm" else ()
    _, moments = getattr(nk, name)(x, *groups, return_moments=True)
    with pytest.raises(ValueError, match="the forward pass had no weight, which the gradient depends on"):
        getattr(nk, f"{name}_backward")(x, x, moments, np.ones(4))
    if name.endswith(("layer_norm", "rms_norm")):
        _, moments = getattr(nk, name)(x, activation="silu", return_moments=True)
        with pytest.raises(ValueError, match="the forward pass had no bias, which the gradient depends on"):
            getattr(nk, f"{name}_backward")(x, x, moments, bias=np.ones(4))


def test_moments_of_other_arrays_are_an_error(rng: np.random.Generator) -> None:
    x = rng.standard_normal((10, 4))
    _, moments = nk.batch_norm(x, return_moments=True)
    with pytest.raises(ValueError, match="moments are of 10 values per channel, and x has 5; pass the x"):
        nk.batch_norm_backward(x[:5], x[:5], moments)
    _, ghosts = nk.ghost_batch_norm(x[:5], ghost_size=3)
    with pytest.raises(ValueError, match="moments are of virtual batches of another size than ghost_size=4"):
        nk.ghost_batch_norm_backward(x[:5], x[:5], ghosts, ghost_size=4)


def test_what_is_not_known_is_not_guessed(rng: np.random.Generator) -> None:
    x = rng.standard_normal((10, 4))
    _, moments = nk.batch_norm(x, return_moments=True)
    with pytest.raises(ValueError, match="do not know whether they are the statistics of x"):
        nk.batch_norm_backward(x, x, dataclasses.replace(moments, training=None))
    for activation in ("relu", "leaky_relu", "gelu"):
        by_hand = nk.Moments(*moments, activation=activation)
        with pytest.raises(ValueError, match=f"activation='{activation}' without what its gradient needs"):
            nk.batch_norm_backward(x, x, by_hand, training=True)
    _, groups = nk.group_norm(x, 2, return_moments=True)
    with pytest.raises(ValueError, match="activation='relu' without the bits"):
        nk.group_norm_backward(x, x, nk.Moments(*groups, activation="relu"))
    for name in ("layer_norm", "group_norm"):
        with pytest.raises(ValueError, match=f"said to be constants, and {name} has none"):
            getattr(nk, f"{name}_backward")(x, x, nk.Moments(*groups, training=False))
    for wrong in (1.0, True, "a", np.array([1.5])):
        with pytest.raises(TypeError, match="axis must be an integer or a tuple of integers"):
            nk.batch_norm_backward(x, x, moments, axis=wrong)
    with pytest.raises(TypeError, match="training must be True or False, got 'no'"):
        nk.batch_norm_backward(x, x, nk.Moments(*moments), training="no")
    for bits in ("abc", [1, "a"]):
        with pytest.raises(
            TypeError, match=r"moments\.active must be the bits that the forward pass returned"
        ):
            nk.batch_norm_backward(x, x, dataclasses.replace(moments, active=bits))
    for words in ({}, {"activation": "relu"}):
        with pytest.raises(ValueError, match="negative_slope is that of activation='leaky_relu'"):
            nk.batch_norm(x, negative_slope=0.3, **words)


def test_virtual_batches_do_not_overlap_their_result(rng: np.random.Generator) -> None:
    memory = rng.standard_normal((12, 4))
    for out in (memory[3:8], memory[4:9][::-1]):
        with pytest.raises(ValueError, match="out overlaps an operand in part"):
            nk.ghost_batch_norm(memory[:5], ghost_size=3, out=out)
    expected, _ = nk.ghost_batch_norm(memory[:5], ghost_size=3)
    nk.ghost_batch_norm(memory[:5], ghost_size=3, out=memory[:5])
    np.testing.assert_array_equal(memory[:5], expected)


def test_frozen_statistics_of_several_ranks(rng: np.random.Generator) -> None:
    from normkit.distributed import sync_batch_norm, sync_batch_norm_backward

    x, dy = rng.standard_normal((2, 10, 4))
    weight, bias = rng.standard_normal((2, 4))
    stats = nk.RunningStats(4, dtype=np.float64)
    stats.mean, stats.var = rng.standard_normal(4), rng.uniform(0.5, 2, 4)
    stats.freeze()
    y, moments = sync_batch_norm(x, weight, bias, stats=stats)
    expected, plain = nk.batch_norm(x, weight, bias, stats=stats, return_moments=True)
    np.testing.assert_array_equal(y, expected)
    same(
        list(sync_batch_norm_backward(dy, x, moments, weight)),
        list(nk.batch_norm_backward(dy, x, plain, weight)),
    )


def test_moments_beside_arrays() -> None:
    _, moments = nk.batch_norm(np.eye(4), return_moments=True)
    assert moments != np.ones(4)
    assert np.ones(4) != moments
    gradients = nk.batch_norm_backward(np.eye(4), np.eye(4), moments)
    assert gradients == copy.deepcopy(gradients)
    assert gradients != nk.batch_norm_backward(2 * np.eye(4), np.eye(4), moments)
