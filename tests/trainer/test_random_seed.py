"""`utils.set_random_seed`: whoever calls it gets the same bits again."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import normkit as nk
from normkit import data, layers
from normkit.utils import set_random_seed

x = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
y = np.random.default_rng(1).integers(0, 3, 64)


def training() -> Any:
    """Initial weights, noise, dropout, shuffling and the cut of the validation rows."""
    model = nk.Sequential(
        [
            layers.Dense(8, kernel_initializer="he_normal"),
            layers.GaussianNoise(0.1),
            layers.Dropout(0.3),
            layers.Dense(3, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=2, batch_size=8, verbose=0, validation_split=0.2)
    return np.concatenate([w.ravel() for w in model.get_weights()])


def mini_batches() -> Any:
    return np.concatenate([b for _ in range(2) for _, b in data.MiniBatches(x, y, batch_size=4)])


def layer_alone() -> Any:
    return layers.Dense(4)(x)


def dropout_alone() -> Any:
    return layers.Dropout(0.5)(x, training=True)


def estimator() -> Any:
    pytest.importorskip("sklearn")
    from normkit.sklearn import MLPClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two epochs are not enough
        return MLPClassifier(hidden_layer_sizes=(4,), max_iter=2).fit(x, y).predict_proba(x)


def other_generators() -> Any:
    return np.array([random.random(), np.random.random()])  # noqa: NPY002


DRAWING = [training, mini_batches, layer_alone, dropout_alone, estimator, other_generators]


@pytest.mark.parametrize("draw", DRAWING)
def test_the_same_seed_gives_the_same_bits(draw: Callable[[], Any]) -> None:
    set_random_seed(812)
    first, second = draw(), draw()
    set_random_seed(812)
    np.testing.assert_array_equal(first, draw())
    np.testing.assert_array_equal(second, draw())  # not the first over again
    assert not np.array_equal(first, second)
    set_random_seed(813)
    assert not np.array_equal(first, draw())


def test_two_processes_get_the_same_bits() -> None:
    source = (
        "import sys; sys.path[:0] = sys.argv[1:2]\n"
        "import hashlib, normkit, test_random_seed as t\n"
        "normkit.utils.set_random_seed(5); print(hashlib.sha256(t.training().tobytes()).hexdigest())"
    )
    command = [sys.executable, "-c", source, __file__.rpartition("/")[0]]
    said = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    set_random_seed(5)
    assert said == [hashlib.sha256(training().tobytes()).hexdigest() + "\n"] * 2


def test_what_has_a_seed_of_its_own_keeps_it() -> None:
    def own() -> Any:
        return nk.Sequential([layers.Dense(3, input_shape=(5,))], seed=1).get_weights()[0]

    before = own()
    set_random_seed(99)
    np.testing.assert_array_equal(own(), before)


def test_what_was_made_before_is_left_alone() -> None:
    batches, same = data.MiniBatches(y, seed=3), data.MiniBatches(y, seed=3)
    set_random_seed(1)
    for (a,), (b,) in zip(batches, same, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "1", None, True])
def test_what_is_no_seed_seeds_nothing(seed: Any) -> None:
    set_random_seed(3)
    first = other_generators(), layer_alone()
    set_random_seed(3)
    with pytest.raises(ValueError, match="set_random_seed: seed must be"):
        set_random_seed(seed)
    np.testing.assert_array_equal(first[0], other_generators())
    np.testing.assert_array_equal(first[1], layer_alone())


def test_without_it_chance_is_the_systems() -> None:
    source = "from normkit import _random; print(_random.new_seed())"
    command = [sys.executable, "-c", source]
    said = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(said) == 2


@pytest.fixture(autouse=True)
def unseeded() -> Any:
    """Leave no trace for other tests of the process."""
    yield
    from normkit import _random

    _random._seeds = None


@pytest.mark.parametrize(
    "make",
    [
        lambda: nk.Sequential(seed="0"),
        lambda: nk.Sequential(seed=-1),
        lambda: layers.Dropout(0.5, seed=1.5),
        lambda: nk.initializers.HeNormal(seed="3"),
        lambda: data.MiniBatches(y, seed="3"),
    ],
)
def test_a_wrong_seed_is_refused_where_it_is_given(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="seed must be an integer, 0 or more"):
        make()
