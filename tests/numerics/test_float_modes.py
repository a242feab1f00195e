"""Results have the bits of the default floating-point mode, whatever mode the caller is in, and the caller keeps it."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import normkit as nk
from float_modes import DEFAULT, MODES, current_mode, float_mode, round_by
from normkit import _core
from normkit._numerics import default_arithmetic, default_float_mode
from subprocesses import output_of

pytestmark = pytest.mark.skipif(not MODES, reason="the modes of this processor are not known here")

DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
# Ordinary numbers; and numbers near the smallest normal one and below it, which only another mode makes zero.
SCALES = {
    "ordinary": dict.fromkeys(DTYPES, 1.0),
    "smallest normal": {np.float32: 2e-38, np.float64: 4e-308, np.float16: 1e-4, ml_dtypes.bfloat16: 2e-38},
    "subnormal": {np.float32: 1e-42, np.float64: 1e-318, np.float16: 2e-6, ml_dtypes.bfloat16: 5e-40},
}
Arrays = tuple[Any, ...]


class Problem:
    """Arrays of one dtype: x and dy of shape (rows, 24), weight and bias in their dtype."""

    def __init__(self, dtype: Any, scale: float, rows: int) -> None:
        rng = np.random.default_rng(5)
        real = np.float64 if dtype is np.float64 else np.float32
        self.x = ((rng.standard_normal((rows, 24)) + 0.3) * scale).astype(dtype)
        self.dy = (rng.standard_normal((rows, 24)) * scale).astype(dtype)
        self.weight = (1.0 + rng.random(24) / 3.0).astype(dtype)
        self.bias = (rng.random(24) * scale).astype(dtype)
        self.where = rng.random((rows, 24)) < 0.8
        self.images, self.real = self.x.reshape(-1, 6, 4), real
        self.x_real, self.dy_real, self.weight_real = (a.astype(real) for a in (self.x, self.dy, self.weight))
        self.labels = np.arange(rows) % 24
        self.state = (
            np.full((rows, 24), scale / 3.0, real),
            np.linspace(0.1, 1.0, rows).astype(real) * real(scale),
        )
        self.stats = nk.RunningStats(24, dtype=real)
        self.stats.mean = np.linspace(-1.0, 1.0, 24) * scale / 3.0
        self.stats.var = np.linspace(0.5, 2.0, 24) * max(scale**2, float(np.finfo(real).smallest_subnormal))


def rows_norm(name: str, **given: Any) -> Callable[[Problem], Arrays]:
    def run(p: Problem) -> Arrays:
        weights = (p.weight, p.bias)
        masked = {"where": p.where} if given.get("where") else {}
        forward, backward = getattr(nk, name), getattr(nk, f"{name}_backward")
        eps = given.get("eps", 1e-5)
        y, moments = forward(p.x, *weights, eps=eps, return_moments=True, **masked)
        return y, moments.mean, moments.rstd, *backward(p.dy, p.x, moments, *weights[:1], **masked)

    return run


def groups(name: str, **number: int) -> Callable[[Problem], Arrays]:
    def run(p: Problem) -> Arrays:
        weight, bias = p.weight[:6], p.bias[:6]
        forward, backward = getattr(nk, name), getattr(nk, f"{name}_backward")
        y, moments = forward(p.images, weight=weight, bias=bias, return_moments=True, **number)
        dy = p.dy.reshape(p.images.shape)
        return y, moments.mean, moments.rstd, *backward(dy, p.images, moments, weight)

    return run


def added(name: str) -> Callable[[Problem], Arrays]:
    def run(p: Problem) -> Arrays:
        options = {"dropout": 0.3, "seed": 7}
        y, total, moments = getattr(nk, name)(p.x, p.dy, p.weight, p.bias, return_moments=True, **options)
        gradients = getattr(nk, f"{name}_backward")(p.dy, total, moments, p.weight, **options)
        return y, total, moments.mean, moments.rstd, *gradients

    return run


def training(activation: str | None = None, eps: float = 1e-5) -> Callable[[Problem], Arrays]:
    def run(p: Problem) -> Arrays:
        stats = p.stats.copy()
        options = {"activation": activation, "eps": eps}
        y, moments = nk.batch_norm(p.x, p.weight, p.bias, stats=stats, return_moments=True, **options)
        gradients = nk.batch_norm_backward(p.dy, p.x, moments, p.weight)
        return y, moments.mean, moments.rstd, *gradients[:3], stats.mean, stats.var

    return run


def inference(eps: float) -> Callable[[Problem], Arrays]:
    def run(p: Problem) -> Arrays:
        stats = p.stats.copy()
        y, moments = nk.batch_norm(
            p.x, p.weight, p.bias, stats=stats, training=False, eps=eps, return_moments=True
        )
        return y, moments.mean, moments.rstd, stats.mean, stats.var

    return run


def batch_moments(p: Problem) -> Arrays:
    moments = nk.batch_moments(p.x, where=p.where)
    return moments.mean, moments.rstd, moments.var


def strided(p: Problem) -> Arrays:
    """Copies between layouts, and parameters of other dtypes, are made on the calling thread."""
    x, weight = p.x[::-1, ::2], p.weight_real[::2]
    return nk.layer_norm(x, weight), nk.layer_norm(x, axis=0), nk.batch_norm(x, weight)


def fused(activation: str) -> Callable[[Problem], Arrays]:
    def run(p: Problem) -> Arrays:
        return nk.layer_norm(p.x, p.weight, p.bias, activation=activation), nk.rms_norm(
            p.x, p.weight, activation=activation
        )

    return run


def loss(p: Problem) -> Arrays:
    return _core.softmax_cross_entropy(p.x_real, p.labels, p.state[1])


def step(p: Problem) -> Arrays:
    value = p.x_real.copy()
    momentum, velocity, largest = (p.state[0].copy() for _ in range(3))
    _core.adam_step(value, p.dy_real, momentum, velocity, largest, 0.1, 0.001, 1e-7, 1e-3)
    return value, momentum, velocity, largest


OPERATIONS: dict[str, Callable[[Problem], Arrays]] = {
    "layer_norm": rows_norm("layer_norm"),
    "layer_norm eps=0": rows_norm("layer_norm", eps=0.0),
    "layer_norm where": rows_norm("layer_norm", where=True),
    "rms_norm": rows_norm("rms_norm"),
    "rms_norm eps=0": rows_norm("rms_norm", eps=0.0),
    "group_norm": groups("group_norm", num_groups=3),
    "instance_norm": groups("instance_norm"),
    "add_layer_norm": added("add_layer_norm"),
    "add_rms_norm": added("add_rms_norm"),
    "batch_norm": training(),
    "batch_norm eps=0": training(eps=0.0),
    "batch_norm relu": training("relu"),
    "inference": inference(1e-5),
    "inference eps=0": inference(0.0),
    "batch_moments": batch_moments,
    "strided": strided,
    "gelu": fused("gelu"),
    "silu": fused("silu"),
    "softmax_cross_entropy": loss,
    "adam_step": step,
}


def bits(arrays: Arrays) -> list[bytes]:
    return [np.ascontiguousarray(a).tobytes() for a in arrays if a is not None]


def traces_of_the_mode() -> list[float]:
    """Results of NumPy that differ from mode to mode: a subnormal operand, a subnormal result, and rounding."""
    operand, result = np.array([5e-324]) * 1.0, np.array([2.0**-1022]) * 0.5
    return [*operand.tolist(), *result.tolist(), *(1.0 / np.array([3.0, 10.0])).tolist()]


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_the_modes_are_other_modes(mode) -> None:
    expected = traces_of_the_mode()
    with float_mode(mode):
        assert current_mode() == mode
        got = traces_of_the_mode()
    assert got != expected
    assert current_mode() == DEFAULT


@pytest.mark.parametrize(("rows", "scale"), [*((12, scale) for scale in SCALES), (3200, "smallest normal")])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_has_the_bits_of_the_default_mode(name, dtype, scale, rows) -> None:
    problem = Problem(dtype, SCALES[scale][dtype], rows)
    expected = bits(OPERATIONS[name](problem))
    for mode_name, mode in MODES.items():
        with float_mode(mode):
            got = OPERATIONS[name](problem)
            after = current_mode()
        assert after == mode, mode_name
        assert bits(got) == expected, mode_name


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("scale", SCALES)
def test_running_statistics_are_averaged_in_the_default_mode(scale, mode) -> None:
    problem = Problem(np.float32, SCALES[scale][np.float32], 40)

    def trained(mode: int) -> list[bytes]:
        stats = problem.stats.copy()
        with float_mode(mode):
            for part in range(4):
                nk.batch_norm(problem.x[part * 10 :][:10], stats=stats)
        return bits((stats.mean, stats.var))

    assert trained(mode) == trained(DEFAULT)


def test_an_error_leaves_the_callers_mode_too() -> None:
    x = np.ones((4, 3), np.float32)
    hopeless: list[Callable[[], object]] = [
        lambda: nk.layer_norm(x, np.ones(5, np.float32)),
        lambda: nk.batch_norm(x, eps=-1.0),
        lambda: nk.layer_norm(x, axis=7),
        lambda: nk.layer_norm(object()),
        lambda: _core.layer_norm(x),
        lambda: _core.adam_step(x, x, x, x, None, "a", 0.0, 0.0, 0.0),
        lambda: nk.set_num_threads(-1),
        lambda: nk.isa.use("none"),
    ]
    for mode in MODES.values():
        for call in hopeless:
            with float_mode(mode):
                with pytest.raises((TypeError, ValueError)):
                    call()
                assert current_mode() == mode


@pytest.mark.parametrize("libm_mode", [0x400, 0x800, 0xC00] if DEFAULT else [1 << 22, 2 << 22, 3 << 22])
def test_the_rounding_that_c_sets(libm_mode) -> None:
    problem = Problem(np.float32, 1.0, 40)
    expected = {name: bits(run(problem)) for name, run in OPERATIONS.items()}
    round_by(libm_mode)
    try:
        before = current_mode()
        got = {name: run(problem) for name, run in OPERATIONS.items()}
        after = current_mode()
    finally:
        round_by(0)
    assert before == after != DEFAULT
    assert {name: bits(arrays) for name, arrays in got.items()} == expected


@pytest.mark.skipif(DEFAULT == 0, reason="this processor need not have traps")
def test_a_caller_that_traps_errors_is_not_ended_by_them() -> None:
    code = """
    import numpy as np, normkit as nk
    from normkit import _core
    x = np.zeros((5, 4), np.float32)
    x[0] = np.inf
    x[1] = 3e38
    _core.set_float_mode(0x1900)  # division by zero, overflow and invalid operations end the process
    nk.layer_norm(x, eps=0.0)
    nk.batch_norm(x, eps=0.0, stats=nk.RunningStats(4))
    print(hex(_core.enter_default_float_mode()))
    """
    assert int(output_of(code), 16) & ~0x3F == 0x1900


@pytest.mark.parametrize("manager", [default_arithmetic, default_float_mode])
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_numpy_computes_in_the_default_mode_within_the_context(manager, mode) -> None:
    expected = traces_of_the_mode()

    @manager()
    def decorated(depth: int = 2) -> list[float]:
        if depth == 0:
            raise ZeroDivisionError
        return traces_of_the_mode() if depth == 1 else decorated(depth - 1)

    with float_mode(mode):
        with manager():
            within = traces_of_the_mode()
            with float_mode(mode), manager():
                nested = traces_of_the_mode()
            _core.set_float_mode(mode)  # what the block does to the mode ends with it
        after = current_mode()
        by_call = decorated()
        with pytest.raises(ZeroDivisionError):
            decorated(0)
        after_error = current_mode()
    assert within == nested == by_call == expected
    assert after == after_error == mode


def test_the_context_ignores_what_numpy_was_told_to_raise() -> None:
    zero = np.zeros(1)
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        with default_arithmetic():
            assert np.isnan(zero / zero)[0]
            assert np.isinf(np.array([1e300]) * 1e300)[0]
        with default_float_mode(), pytest.raises(FloatingPointError):
            zero / zero
        with pytest.raises(FloatingPointError):
            zero / zero


def test_each_thread_has_its_own_mode() -> None:
    modes = list(MODES.values())
    barrier = threading.Barrier(len(modes))

    def work(mode: int) -> bool:
        with float_mode(mode):
            for _ in range(50):
                barrier.wait()
                with default_arithmetic():
                    barrier.wait()
                    if current_mode() != DEFAULT or traces_of_the_mode()[0] == 0.0:
                        return False
                if current_mode() != mode:
                    return False
        return True

    with ThreadPoolExecutor(len(modes)) as pool:
        assert all(pool.map(work, modes))


def train(mode: int, dtype: str = "float32") -> tuple[list[bytes], list[int]]:
    """Train, evaluate and predict in this mode; return the bits, and the modes that a callback and a loss saw."""
    from normkit import callbacks, layers

    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((60, 7)), rng.standard_normal((60, 1))
    seen: list[int] = []

    class Watch(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(current_mode())
            assert np.geterr()["under"] == "raise"

    model = nk.Sequential(
        [layers.Dense(6, input_shape=(7,)), layers.BatchNormalization(), layers.Dense(1)], seed=1, dtype=dtype
    )
    model.compile(optimizer="rmsprop", loss="mse")
    with np.errstate(under="raise", divide="ignore"), float_mode(mode):
        history = model.fit(x, y, epochs=2, batch_size=20, verbose=0, callbacks=[Watch()])
        one = model.train_on_batch(x[:9], y[:9])
        tested = model.test_on_batch(x, y), model.evaluate(x, y, verbose=0)
        outputs = model.predict(x, verbose=0), model.predict_on_batch(x), model(x)
        assert current_mode() == mode
    numbers = [*history.history["loss"], one, *tested]
    return bits((*model.get_weights(), np.array(numbers), *outputs)), seen


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_model_computes_in_the_default_mode(mode, dtype) -> None:
    expected, _ = train(DEFAULT, dtype)
    got, seen = train(mode, dtype)
    assert got == expected
    assert set(seen) == {DEFAULT}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_folding_computes_in_the_default_mode(mode) -> None:
    from normkit import layers

    model = nk.Sequential([layers.Dense(6, input_shape=(7,)), layers.BatchNormalization()], seed=1)
    dense, norm = model.layers
    dense.set_weights([w * np.float32(1e-30) + np.float32(3e-39) for w in dense.get_weights()])
    norm.set_weights([np.full(6, v, np.float32) for v in (2e-8, 1e-39, 0.3, 1e-2)])
    expected = bits(tuple(layers.fold_batch_norm(dense, norm).get_weights()))
    with float_mode(mode):
        got = layers.fold_batch_norm(dense, norm).get_weights()
        assert current_mode() == mode
    assert bits(tuple(got)) == expected
