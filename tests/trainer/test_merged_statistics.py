"""Gradient accumulation with batch norm: what merge_statistics makes exact, and what not."""

import numpy as np
import pytest

from normkit import BatchMoments, RenormSchedule, RunningStats, batch_moments
from normkit.layers import BatchNormalization, Dense
from normkit.models import Sequential, load_model
from normkit.optimizers import SGD
from trainer_support import assert_same_weights


def data(n=96):
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, size=(n, 5)).astype(np.float32)
    return x, rng.integers(0, 3, n)


def model(steps=None, merge=False, dtype="float64", norm=None, rate=0.1):
    made = Sequential(
        [Dense(4, input_shape=(5,)), norm or BatchNormalization(momentum=0.8), Dense(3, "softmax")],
        seed=0,
        dtype=dtype,
    )
    optimizer = SGD(rate, gradient_accumulation_steps=steps)
    made.compile(optimizer, "sparse_categorical_crossentropy", merge_statistics=merge)
    return made


def moving(made):
    return [w.value.copy() for w in made.layers[1].weights if w.name.startswith("moving")]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("steps", [2, 3, 8])
def test_the_moving_statistics_are_those_of_the_whole_batch(dtype, steps):
    """The first batch norm, whose input does not depend on how the batch is cut: exact to rounding."""
    x, y = data()
    size = 24 // steps
    small, whole = model(steps, merge=True, dtype=dtype, rate=0.0), model(dtype=dtype, rate=0.0)
    small.fit(x, y, batch_size=size, epochs=2, shuffle=False, verbose=0)
    whole.fit(x, y, batch_size=24, epochs=2, shuffle=False, verbose=0)
    assert small.optimizer.iterations == whole.optimizer.iterations == 8
    stats, expected = small.layers[1].stats, whole.layers[1].stats
    assert (stats.count, stats.samples) == (expected.count, expected.samples) == (8, 192)
    tolerance = 1e-13 if dtype == "float64" else 2e-6
    for mine, other in zip(moving(small), moving(whole), strict=True):
        np.testing.assert_allclose(mine, other, rtol=tolerance)
    # Without merging, the variance between the small batches is lost, and there are `steps` times as many steps.
    apart = model(steps, dtype=dtype, rate=0.0)
    apart.fit(x, y, batch_size=size, epochs=2, shuffle=False, verbose=0)
    assert apart.layers[1].stats.count == 8 * steps
    assert np.abs(moving(apart)[1] / moving(whole)[1] - 1).max() > 100 * tolerance


def test_a_step_is_that_of_the_merged_moments():
    x, _ = data()
    x = x.astype(np.float64)
    layer, stats = BatchNormalization(dtype="float64"), RunningStats.keras(5, dtype="float64")
    layer.holds_statistics = True
    parts = [x[:7], x[7:50], x[50:51], x[51:]]
    for part in parts:
        layer(part, training=True)
        assert layer.stats.count == 0
    layer.release_statistics()
    stats.update(BatchMoments.merged([batch_moments(part, axis=-1, eps=1e-3) for part in parts]))
    np.testing.assert_array_equal(layer.moving_mean.value, stats.mean)
    np.testing.assert_array_equal(layer.moving_variance.value, stats.var)
    whole = RunningStats.keras(5, dtype="float64")
    whole.update(batch_moments(x, axis=-1, eps=1e-3))
    np.testing.assert_allclose(layer.moving_variance.value, whole.var, rtol=1e-14)
    layer.release_statistics()
    assert layer.stats.count == 1


def test_gradients_are_those_of_the_small_batches():
    """What is not exact, as documented: each small batch is normalized with its own statistics."""
    x, y = data(24)
    small, whole = model(3, merge=True), model()
    small.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    whole.fit(x, y, batch_size=24, shuffle=False, verbose=0)
    difference = np.abs(small.get_weights()[0] - whole.get_weights()[0]).max()
    assert 1e-6 < difference < 0.1


def test_frozen_layers_and_statistics_stay():
    x, y = data()
    for norm in (
        BatchNormalization(trainable=False),
        BatchNormalization(stats=RunningStats(4, dtype="float64")),
    ):
        made = model(2, merge=True, norm=norm)
        norm.stats.freeze()
        before = moving(made)
        made.fit(x, y, batch_size=8, verbose=0)
        assert_same_weights(before, moving(made))


def test_accumulation_goes_on_over_epochs_and_files(tmp_path):
    x, y = data(40)
    whole, cut = model(3, merge=True), model(3, merge=True)
    whole.fit(x, y, batch_size=8, epochs=4, verbose=0)
    cut.fit(x, y, batch_size=8, epochs=1, verbose=0)
    assert cut.optimizer.batches % 3 == 2
    cut.save(tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    again.fit(x, y, batch_size=8, epochs=3, verbose=0)
    assert_same_weights(whole.get_weights(), again.get_weights())


def test_compiling_again_without_it_lets_the_statistics_move():
    x, y = data(24)
    made = model(3, merge=True)
    made.fit(x[:8], y[:8], verbose=0)
    assert made.layers[1].stats.count == 0
    made.compile("sgd", "sparse_categorical_crossentropy")
    made.fit(x, y, batch_size=8, verbose=0)
    assert made.layers[1].stats.count == 3


def test_errors():
    with pytest.raises(ValueError, match="needs gradient_accumulation_steps of 2 or more, and has none"):
        model(None, merge=True)
    x, y = data(24)
    for norm in (BatchNormalization(ghost_size=2), BatchNormalization(renorm=RenormSchedule())):
        made = model(2, merge=True, norm=norm)
        before = made.get_weights()
        with pytest.raises(
            ValueError, match="ghost_size or renorm needs the statistics of each batch; compile"
        ):
            made.fit(x, y, verbose=0)
        assert_same_weights(before, made.get_weights())


def test_many_batches_are_merged_channel_by_channel(rng):
    mean, var = rng.normal(5, 1, (700, 101)), rng.uniform(0.5, 2, (700, 101))
    samples = rng.integers(0, 9, (700, 101))
    merged = BatchMoments.of_rows(mean, var, samples, 1e-3)
    for first in range(0, 100, 10):
        some = slice(first, first + 10)
        part = BatchMoments.of_rows(mean[:, some], var[:, some], samples[:, some], 1e-3)
        for name in ("mean", "rstd", "var", "samples"):
            np.testing.assert_array_equal(getattr(merged, name)[some], getattr(part, name))
    total = samples.sum(axis=0)
    expected = (samples * mean).sum(axis=0) / total
    np.testing.assert_allclose(merged.mean, expected, rtol=1e-13)
    squares = (samples * (var + np.square(mean - expected))).sum(axis=0) / total
    np.testing.assert_allclose(merged.var, squares, rtol=1e-12)
