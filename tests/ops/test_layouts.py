"""Every operation on every layout of memory: all orders of the axes, lengths of 1 and 0 in every place, any strides.

What a contiguous array gives is the oracle: the same numbers at other addresses have the same result, up to the order of
the sums.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import normkit as nk

Array = Any


def as_stored(x: Array, order: tuple[int, ...]) -> Array:
    """Equal to x, with its axes in another order in memory."""
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


def sliced(x: Array) -> Array:
    """Equal to x, with gaps between the elements of every axis."""
    room = np.full([2 * length + 1 for length in x.shape], np.nan, x.dtype)
    view = room[tuple(slice(1, 2 * length + 1, 2) for length in x.shape)]
    view[...] = x
    return view


def reversed_axes(x: Array) -> Array:
    """Equal to x, with negative strides."""
    back = (slice(None, None, -1),) * x.ndim
    return np.ascontiguousarray(x[back])[back]


def unaligned(x: Array) -> Array:
    """Equal to x, at an odd address."""
    memory = np.zeros(x.nbytes + 1, np.uint8)
    view = memory[1:].view(np.uint8)[: x.nbytes].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def odd_strides(x: Array) -> Array:
    """Equal to x, whose axes of length 1 have strides that mean nothing."""
    strides = [s if length != 1 else 12345 * x.itemsize for s, length in zip(x.strides, x.shape, strict=True)]
    return np.lib.stride_tricks.as_strided(x, x.shape, strides)


def layouts(x: Array) -> Iterator[tuple[str, Array]]:
    for order in itertools.permutations(range(x.ndim)):
        # Numbers that mean nothing in every other order: each place of a length of 1 has them in some.
        stored = as_stored(x, order)
        yield f"order {order}", odd_strides(stored) if 1 in x.shape and order[0] % 2 else stored
    for name, change in (("sliced", sliced), ("reversed", reversed_axes), ("unaligned", unaligned)):
        yield name, change(x)
        yield f"{name}, last axes first", change(x.T).T


def calls(shape: tuple[int, ...]) -> Iterator[tuple[str, Any, Any]]:
    """Name, forward(x, residual, where, out) → results with moments last, and backward(dy, x, moments, out)."""
    ndim = len(shape)
    for axis in range(ndim):
        yield (
            f"batch_norm axis={axis}",
            lambda x, r, w, o, a=axis: nk.batch_norm(
                x, axis=a, residual=r, where=w, activation="relu", out=o, return_moments=True
            ),
            lambda dy, x, m, o: nk.batch_norm_backward(dy, x, m, return_dresidual=True, out=o),
        )
        yield (
            f"batch_norm axis={axis} inference",
            lambda x, r, w, o, a=axis: nk.batch_norm(
                x, axis=a, stats=nk.RunningStats(x.shape[a]), training=False, out=o, return_moments=True
            ),
            lambda dy, x, m, o: nk.batch_norm_backward(dy, x, m, out=o),
        )
        if axis > 0:
            yield (
                f"instance_norm axis={axis}",
                lambda x, r, w, o, a=axis: nk.instance_norm(
                    x, axis=a, where=w, activation="relu", out=o, return_moments=True
                ),
                lambda dy, x, m, o: nk.instance_norm_backward(dy, x, m, out=o),
            )
            groups = 2 if shape[axis] % 2 == 0 and shape[axis] > 0 else 1
            yield (
                f"group_norm axis={axis}",
                lambda x, r, w, o, a=axis, g=groups: nk.group_norm(
                    x, g, axis=a, where=w, out=o, return_moments=True
                ),
                lambda dy, x, m, o: nk.group_norm_backward(dy, x, m, out=o),
            )
    for count in range(1, ndim + 1):
        for axes in itertools.combinations(range(ndim), count):
            yield (
                f"layer_norm axis={axes}",
                lambda x, r, w, o, a=axes: nk.layer_norm(
                    x, axis=a, where=w, activation="gelu", out=o, return_moments=True
                ),
                lambda dy, x, m, o: nk.layer_norm_backward(dy, x, m, out=o),
            )
    axes = (ndim - 1,) if ndim == 1 else (0, ndim - 1)
    yield (
        f"rms_norm axis={axes}",
        lambda x, r, w, o: nk.rms_norm(x, axis=axes, where=w, out=o, return_moments=True),
        lambda dy, x, m, o: nk.rms_norm_backward(dy, x, m, out=o),
    )
    yield (
        f"add_layer_norm axis={axes}",
        lambda x, r, w, o: nk.add_layer_norm(
            x, x if r is None else r, axis=axes, dropout=0.25, seed=3, out=o, return_moments=True
        ),
        lambda dy, x, m, o: nk.add_layer_norm_backward(dy, x, m, out=o),
    )


def results(
    forward: Any, backward: Any, x: Any, dy: Any, r: Any, where: Any, out: Any, dout: Any
) -> list[Array]:
    *ys, moments = forward(x, r, where, out)
    got = backward(dy, ys[-1] if len(ys) > 1 else x, moments, dout)
    return [*ys, *moments, *got, *([got.dresidual] if hasattr(got, "dresidual") else [])]


def agree(got: list[Array], expected: list[Array], what: str) -> None:
    for k, (one, other) in enumerate(zip(got, expected, strict=True)):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=f"{what}, result {k}")


@pytest.fixture(autouse=True)
def used_memory() -> None:
    """Fill what the allocator hands out next, so that a result that nobody wrote is no zero by luck."""
    junk = [np.full(n, np.nan, np.float32) for n in (4, 8, 16, 24, 32, 48, 64, 96) for _ in range(64)]
    del junk


SHAPES = [
    *(
        tuple(2 if k in long else 1 for k in range(4))
        for n in range(5)
        for long in itertools.combinations(range(4), n)
    ),
    (2, 4, 3),
    (3, 1, 40),
    (2, 6, 1, 40),
    (3, 40, 2, 1),
    (2, 1, 5, 7),
    (1, 4, 33),
    (5, 2),
    (1, 1),
    (7, 1),
    (1, 7),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_layout_gives_the_same(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x, dy, residual = rng.standard_normal((3, *shape)).astype(np.float32)
    masks = [None, rng.random(shape) < 0.7]
    for name, forward, backward in calls(shape):
        for where in masks if "inference" not in name else [None]:
            expected = results(forward, backward, x, dy, residual, where, None, None)
            for layout, given in layouts(x):
                agree(
                    results(forward, backward, given, dy, residual, where, None, None),
                    expected,
                    f"{name}: x {layout}",
                )


@pytest.mark.parametrize("shape", [(2, 1, 3, 1), (2, 4, 3), (1, 2, 1, 5), (3, 2, 33)], ids=str)
def test_every_operand_in_every_layout(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    """x, dy, residual, mask and out in layouts that have nothing to do with each other."""
    x, dy, residual = rng.standard_normal((3, *shape)).astype(np.float32)
    where = rng.random(shape) < 0.7
    forms = [list(layouts(a)) for a in (x, dy, residual, where)]
    targets = list(layouts(np.zeros_like(x)))
    for name, forward, backward in calls(shape):
        mask = None if "inference" in name else where
        expected = results(forward, backward, x, dy, residual, mask, None, None)
        for k in range(12):
            picks = [form[int(rng.integers(len(form)))] for form in forms]
            outs = [targets[int(rng.integers(len(targets)))] for _ in range(2)]
            (_, a), (_, b), (_, c), (_, w) = picks
            got = results(
                forward,
                backward,
                a,
                b,
                c,
                None if mask is None else w,
                outs[0][1].copy("K"),
                outs[1][1].copy("K"),
            )
            agree(got, expected, f"{name}: {[n for n, _ in picks + outs]}, {k}")


@pytest.mark.parametrize("shape", [(2, 1, 3), (4, 6), (2, 3, 40)], ids=str)
def test_elements_that_share_memory(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    """Strides of 0 in inputs, in every set of axes."""
    for n in range(1, len(shape) + 1):
        for shared in itertools.combinations(range(len(shape)), n):
            small = [1 if k in shared else length for k, length in enumerate(shape)]
            x, dy, residual = (
                np.broadcast_to(a, shape) for a in rng.standard_normal((3, *small)).astype(np.float32)
            )
            where = np.broadcast_to(rng.random(small) < 0.7, shape)
            for name, forward, backward in calls(shape):
                mask = None if "inference" in name else where
                expected = results(
                    forward,
                    backward,
                    x.copy(),
                    dy.copy(),
                    residual.copy(),
                    None if mask is None else mask.copy(),
                    None,
                    None,
                )
                agree(
                    results(forward, backward, x, dy, residual, mask, None, None),
                    expected,
                    f"{name}: {shared}",
                )


@pytest.mark.parametrize(
    "shape", [(0, 3), (3, 0), (2, 0, 4), (0, 1, 1), (1, 0, 1), (2, 1, 0), (0, 0)], ids=str
)
def test_no_element_in_any_layout(shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, np.float32)
    for _, forward, backward in calls(shape):
        for _, given in layouts(x):
            for result in results(forward, backward, given, x, x, None, None, None):
                assert not np.isnan(result).any()
