"""The native softmax with its cross-entropy: beside exact arithmetic, hostile rows, and the same bits everywhere."""

import importlib.util

import numpy as np
import pytest

from normkit import _core, isa
from normkit.models.blas import WORTH_THREADS, blas_threads
from trainer_support import blobs, classifier

RNG = np.random.default_rng(0)


def exact(z, labels, weights=None):
    """In long double, whose exponentials have 64 bits."""
    z = z.astype(np.longdouble)
    shifted = z - z.max(axis=-1, keepdims=True)
    e = np.exp(shifted)
    p = e / e.sum(axis=-1, keepdims=True)
    w = np.ones(len(z)) if weights is None else weights
    rows = np.arange(len(z))
    losses = np.log(e.sum(axis=-1)) - shifted[rows, labels]
    gradient = p.copy()
    gradient[rows, labels] -= 1
    share = (np.longdouble(1) / len(z)) * w
    return float((losses * w).sum() / len(z)), gradient * share[:, None], p


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (32, 10), (7, 33), (4, 1000), (200, 17)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 600.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_beside_long_double(dtype, shape, scale, weighted):
    z = (RNG.normal(size=shape) * scale).astype(dtype)
    labels = RNG.integers(0, shape[1], shape[0])
    weights = RNG.uniform(0, 2, shape[0]).astype(dtype) if weighted else None
    value, gradient, p = _core.softmax_cross_entropy(z, labels, weights)
    expected_value, expected_gradient, expected_p = exact(z, labels, weights)
    eps = np.finfo(dtype).eps
    # In double, the difference to the largest logit is rounded, and its exponential has that error as a relative one.
    away = (z.max(axis=-1, keepdims=True) - z) if dtype == np.float64 else 0.0
    allowed = (4 + away) * eps * expected_p + 2 * np.finfo(dtype).tiny
    assert gradient.dtype == p.dtype == dtype
    np.testing.assert_allclose(value, expected_value, rtol=4e-15, atol=1e-15)
    assert (abs(p - expected_p) <= allowed).all()
    # That of the label is a difference of p and 1, whose error is that of p.
    share = (np.ones(len(z)) if weights is None else weights)[:, None] / len(z)
    assert (abs(gradient - expected_gradient) <= 3 * eps * abs(expected_gradient) + allowed * share).all()


def test_hostile_rows():
    inf, nan = np.inf, np.nan
    rows = np.array(
        [
            [1e38, -1e38, 0.0],
            [-inf, 0.0, 0.0],
            [-700.0, -750.0, 0.0],
            [5.0, 5.0, 5.0],
            [nan, 0.0, 0.0],
            [inf, 0.0, 0.0],
            [-inf, -inf, -inf],
        ],
        np.float32,
    )
    for row, expected in zip(
        rows,
        [[1, 0, 0], [0, 0.5, 0.5], [0, 0, 1], [1 / 3] * 3, [nan] * 3, [nan] * 3, [nan] * 3],
        strict=True,
    ):
        _, gradient, p = _core.softmax_cross_entropy(row[None], np.array([2]), None)
        np.testing.assert_allclose(p[0], np.float32(expected), rtol=1e-7)
        np.testing.assert_allclose(gradient[0], np.float32(expected) - np.array([0, 0, 1]), rtol=1e-6)
    value, _, p = _core.softmax_cross_entropy(rows, np.full(7, 1), None)
    assert np.isnan(value)
    assert np.isnan(p).sum() == 9


def test_the_same_bits_on_every_instruction_set():
    z = RNG.normal(size=(50, 37)) * 20
    labels = RNG.integers(0, 37, 50)
    results = []
    for name in isa.available():
        with isa.use(name):
            for dtype in (np.float32, np.float64):
                value, gradient, p = _core.softmax_cross_entropy(z.astype(dtype), labels, None)
                results.append((dtype, value, gradient.tobytes(), p.tobytes()))
    assert len(set(results)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((2, 3)), np.array([0, 3]), None), r"labels must be in \[0, 3\), got 3"),
        ((np.ones((2, 3)), np.array([-1, 0]), None), r"labels must be in \[0, 3\), got -1"),
        ((np.ones((2, 3)), np.array([0]), None), "there must be a label for each of 2 rows, got 1"),
        ((np.ones((2, 3)), np.array([0, 1]), np.ones(3)), r"weights must have shape \(2,\), got \(3,\)"),
        ((np.ones((2, 0)), np.array([], int), None), r"logits must be float32 or float64 of shape \(..., classes\)"),
        ((np.ones((2, 3), np.float16), np.array([0, 1]), None), "logits must be float32 or float64"),
    ],
)  # fmt: skip
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=f"sparse_categorical_crossentropy: {message}"):
        _core.softmax_cross_entropy(*arguments)


def test_strides_and_more_axes():
    z = np.asfortranarray(RNG.normal(size=(6, 5, 4)))
    labels = RNG.integers(0, 4, (6, 5))
    value, gradient, p = _core.softmax_cross_entropy(z, labels, None)
    flat = _core.softmax_cross_entropy(z.reshape(30, 4), labels.reshape(-1).astype(np.int8), None)
    assert value == flat[0]
    np.testing.assert_array_equal(gradient.reshape(30, 4), flat[1])
    np.testing.assert_array_equal(p.reshape(30, 4), flat[2])


@pytest.mark.skipif(importlib.util.find_spec("threadpoolctl") is None, reason="needs threadpoolctl")
def test_small_products_have_one_blas_thread():
    from threadpoolctl import threadpool_info

    def blas():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = blas()
    small, large = np.ones((10, 10)), np.ones((1000, WORTH_THREADS // 64_000))
    with blas_threads(32, [small, large[:-1]]):
        assert set(blas()) == {1}
    with blas_threads(32, [small, large]):
        assert blas() == before
    x, y = blobs(40)
    with pytest.raises(ValueError, match="labels"):
        classifier().fit(x, y + 9, verbose=0)
    classifier().fit(x, y, verbose=0)
    assert blas() == before
