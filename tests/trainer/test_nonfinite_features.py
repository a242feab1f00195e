"""NaN and infinities in the features: told of once, with count and column, without a pass over data that have none."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest

import normkit as nk
from normkit import callbacks, optimizers
from normkit.layers import Dense, Flatten

rng = np.random.default_rng(0)
x = rng.normal(size=(60, 4)).astype(np.float32)
y = rng.integers(0, 3, 60)
images = rng.normal(size=(60, 8, 8)).astype(np.float32)


def net(optimizer: Any = "adam", *front: Any) -> Any:
    model = nk.Sequential([*front, Dense(8, "relu"), Dense(3, "softmax")], seed=0)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def said_of(features: Any, **kwargs: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        model = kwargs.pop("model", None) or net()
        model.fit(features, np.resize(y, len(features)), verbose=0, **kwargs)
    return [str(w.message) for w in caught]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("row", [0, 31, 32, 59])
def test_nan_in_x_is_told_once_with_count_and_column(row: int, shuffle: bool) -> None:
    bad = x.copy()
    bad[row, 2] = np.nan
    (text,) = said_of(bad, epochs=3, batch_size=8, shuffle=shuffle)
    assert text.startswith("x has 1 NaN value in 1 of 60 rows, in column 2 (from 0)")
    assert "np.nan_to_num" in text


def test_infinities_and_many_columns() -> None:
    bad = rng.normal(size=(20_000, 9)).astype(np.float32)
    bad[::5000] = np.inf
    bad[1, 3] = np.nan
    (text,) = said_of(bad, batch_size=5000)
    assert text.startswith(
        "x has 1 NaN and 36 infinite values in 5 of 20000 rows, in columns 0, 1, 2, 3, 4 and 4 more"
    )


def test_nan_in_images_names_the_place() -> None:
    bad = images.copy()
    bad[3, 2, 5] = np.nan
    (text,) = said_of(bad, model=net("adam", Flatten()))
    assert "in column (2, 5) (from 0)" in text


def test_nan_from_a_generator_is_told_of_its_batch() -> None:
    bad = x.copy()
    bad[40, 1] = np.nan
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        net().fit(((bad[i : i + 20], y[i : i + 20]) for i in (0, 20, 40)), verbose=0)
    (text,) = [str(w.message) for w in caught]
    assert text.startswith("this batch has 1 NaN value in 1 of 20 rows, in column 1")


def test_large_values_and_a_diverging_loss_are_not_taken_for_nan() -> None:
    assert said_of(np.full((60, 4), 3e38, np.float32)) == []
    assert said_of(x, model=net(optimizers.SGD(1e30)), epochs=3) == []


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("row", [0, 31, 59])
@pytest.mark.parametrize("value", [1e300, -1e39])
def test_what_is_too_large_for_the_layers_is_told(value: float, row: int, shuffle: bool) -> None:
    """Finite in the array, infinite in the model."""
    bad = x.astype(np.float64)
    bad[row, 2] = value
    (text,) = said_of(bad, epochs=3, batch_size=8, shuffle=shuffle)
    assert text.startswith(
        "x has 1 value too large for float32 in 1 of 60 rows, in column 2 (from 0); they make"
    )
    bad[5:8, 1] = np.nan, np.inf, value
    (text,) = said_of(bad, epochs=3, batch_size=8, shuffle=shuffle)
    assert text.startswith(
        "x has 1 NaN and 1 infinite values and 2 values too large for float32 in 4 of 60 rows, in columns 1, 2"
    )


def test_what_float64_holds_is_not_too_large_for_it() -> None:
    model = nk.Sequential([Dense(3, "softmax", dtype="float64")], seed=0, dtype="float64")
    model.compile("sgd", "sparse_categorical_crossentropy")
    bad = x.astype(np.float64)
    bad[3, 2] = 1e300
    assert said_of(bad, model=model) == []


def test_a_value_too_large_in_one_batch_is_told_of() -> None:
    bad = x.astype(np.float64)
    bad[3, 2] = 1e300
    with pytest.warns(UserWarning, match="this batch has 1 value too large for float32 in 1 of 60 rows"):
        net().train_on_batch(bad, y)


def test_an_infinity_that_the_loss_of_its_batch_does_not_show() -> None:
    """tanh makes 1 of it, and the gradient NaN: the loss of the next batch tells."""
    bad = x.copy()
    bad[59, 2] = np.inf
    model = nk.Sequential([Dense(8, "tanh"), Dense(3, "softmax")], seed=0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    (text,) = said_of(bad, model=model, batch_size=8, shuffle=False, epochs=2)
    assert text.startswith("x has 1 infinite value in 1 of 60 rows")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numpy_does_not_say_it_again(value: float) -> None:
    """After the warning that names the column, at least where it is in the first batch."""
    bad = x.astype(np.float64)
    bad[3, 2] = value
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net().fit(bad, y, epochs=3, batch_size=8, shuffle=False, verbose=0)
    assert len(caught) == 1, [str(w.message) for w in caught]


def test_a_second_fit_warns_again_and_a_model_keeps_no_data() -> None:
    bad = x.copy()
    bad[3, 2] = np.nan
    model = net()
    assert len(said_of(bad, model=model)) == 1
    assert len(said_of(bad, model=model)) == 1
    big = np.zeros((100_000, 4), np.float32)

    class Copies(callbacks.Callback):
        size = 0

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            Copies.size = len(pickle.dumps(self.model.compiled_state.watch))

    model.fit(big, np.zeros(len(big), int), batch_size=50_000, verbose=0, callbacks=Copies())
    assert 0 < Copies.size < 1000
    assert model.compiled_state.watch._all is None


def test_finite_features_are_read_once() -> None:
    """No pass over the data that are finite: only the first batch is looked at."""
    from normkit.models import nonfinite

    seen: list[int] = []
    original = nonfinite.Watch.before

    def before(self: Any, batch: Any, dtype: Any) -> None:
        if self._first:
            seen.append(len(batch))
        original(self, batch, dtype)

    nonfinite.Watch.before = before
    try:
        net().fit(x, y, epochs=3, batch_size=8, verbose=0)
    finally:
        nonfinite.Watch.before = original
    assert seen == [8]
