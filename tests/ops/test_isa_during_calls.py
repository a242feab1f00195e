"""`isa.use` in one thread while others compute: every result has the bits of one instruction set, never of two."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import normkit as nk
from cases import DTYPES
from normkit import _core

pytestmark = pytest.mark.skipif(len(nk.isa.available()) < 2, reason="one instruction set alone")

BEST, OTHER = nk.isa.available()[0], nk.isa.available()[-1]
CALLS = 6
Operation = Callable[[int], list[bytes]]  # of the number of threads

# A shape for each plan, long enough for a switch to fall into a call: op, shape, options of the forward pass.
CASES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("layer_norm", (600, 512), {}),
    ("layer_norm", (9, 40_000), {}),
    ("layer_norm", (300, 512), {"activation": "gelu"}),
    ("rms_norm", (600, 512), {}),
    ("rms_norm", (9, 40_000), {}),
    ("add_layer_norm", (600, 512), {"dropout": 0.25, "seed": 3}),
    ("add_rms_norm", (9, 40_000), {"dropout": 0.25, "seed": 3}),
    ("batch_norm", (4000, 80), {}),
    ("batch_norm", (4000, 80), {"activation": "relu"}),
    ("batch_norm", (20, 64, 16, 16), {}),
    ("batch_norm", (500, 64, 9), {}),
    ("group_norm", (20, 64, 16, 16), {"num_groups": 8}),
    ("group_norm", (20, 16, 16, 64), {"num_groups": 8, "axis": -1}),
    ("group_norm", (4000, 80), {"num_groups": 4}),
    ("instance_norm", (20, 64, 16, 16), {}),
    ("instance_norm", (20, 16, 16, 64), {"axis": -1}),
]


def operations(name: str, shape: tuple[int, ...], options: dict[str, Any], dtype: Any) -> list[Operation]:
    """Forward, and backward with moments that stay.

    The instruction sets round alike but for rare cases. What tells them apart are NaNs: of two operands that are NaN an
    instruction gives the first, and which one that is differs from code to code.
    """
    rng = np.random.default_rng(5)
    x, dy = (colored(rng.standard_normal(shape), dtype, rng) for _ in range(2))
    given = {"return_moments": True} | options
    by_rows = name.endswith(("layer_norm", "rms_norm"))
    length = shape[-1 if by_rows else given.get("axis", 1)]
    weight, bias = rng.standard_normal((2, length)).astype(dtype)
    arrays = {"x": x, "weight": weight, "bias": bias} | ({"residual": dy} if name.startswith("add_") else {})
    forward, backward = getattr(nk, name), getattr(nk, f"{name}_backward")
    _, *total, moments = forward(**arrays, **given)
    again = {key: given[key] for key in ("axis", "dropout", "seed") if key in given}
    if by_rows and "activation" in given:
        again |= {"activation": given["activation"], "bias": bias}
    return [
        lambda threads: parts(forward(**arrays, **given, num_threads=threads)),
        lambda threads: parts(backward(dy, *(total or [x]), moments, weight, num_threads=threads, **again)),
    ]


def colored(values: Any, dtype: Any, rng: np.random.Generator) -> Any:
    """Every third element a NaN with bits of its own."""
    colored = values.astype(dtype)
    bits = colored.view(f"u{colored.itemsize}")
    some = rng.random(values.shape) < 1 / 3
    quiet = bits.dtype.type(np.array(np.nan, dtype).view(bits.dtype))
    bits[some] = quiet | rng.integers(1, 1 << 20, some.sum(), bits.dtype)
    return colored


def parts(results: Any) -> list[bytes]:
    """The bytes of every array of a result, whose moments are the last."""
    arrays = [a for r in results for a in ([r] if isinstance(r, np.ndarray) else r or ())]
    return [np.asarray(a).tobytes() for a in arrays]


@contextmanager
def switching(*names: str) -> Iterator[None]:
    """Another thread takes the one instruction set and the other, as fast as it can."""
    before, over = nk.isa.active(), threading.Event()

    def switch() -> None:
        while not over.is_set():
            for name in names:
                _core.isa_use(name)

    thread = threading.Thread(target=switch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        nk.isa.use(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "shape", "options"), CASES)
def test_a_call_keeps_its_kernels(
    name: str, shape: tuple[int, ...], options: dict[str, Any], dtype: Any
) -> None:
    apart = False
    for run in operations(name, shape, options, dtype):
        expected = []
        for isa in (BEST, OTHER):
            with nk.isa.use(isa):
                expected += [run(1), run(2)]
        apart |= expected[:2] != expected[2:]
        with switching(BEST, OTHER), ThreadPoolExecutor(2) as pool:
            # Two calls at once: one has the team, the other computes on its own.
            results = list(pool.map(run, [2] * CALLS))
        assert all(result in expected for result in results)
    assert apart or dtype == np.float64, "these data do not tell the instruction sets apart"


def test_steps_and_losses_keep_their_kernels() -> None:
    rng = np.random.default_rng(5)
    logits = rng.standard_normal((4000, 40)).astype(np.float32)
    labels = rng.integers(0, 40, 4000)

    def loss() -> list[bytes]:
        _, *arrays = _core.softmax_cross_entropy(logits, labels, None)
        return [a.tobytes() for a in arrays]

    def step() -> list[bytes]:
        value, momentum, velocity = (np.array(logits) for _ in range(3))
        np.abs(velocity, out=velocity)
        _core.adam_step(value, logits, momentum, velocity, None, 0.9, 0.999, 1e-7, 0.01)
        return [value.tobytes(), momentum.tobytes(), velocity.tobytes()]

    for run in (loss, step):
        expected = []
        for isa in (BEST, OTHER):
            with nk.isa.use(isa):
                expected.append(run())
        with switching(BEST, OTHER):
            assert all(run() in expected for _ in range(CALLS))
