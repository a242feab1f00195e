"""Training, evaluation and prediction on data that are read while they go on: the same bits as from memory."""

from __future__ import annotations

import json

import numpy as np
import pytest

from normkit.data import BadDataWarning, CsvFile, Hdf5File, MiniBatches, NpyFile, Stream
from normkit.metrics import SparseCategoricalAccuracy
from trainer_support import assert_same_weights, blobs, classifier

X, Y = blobs()


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    return NpyFile(tmp_path / "x.npy"), NpyFile(tmp_path / "y.npy")


def csv(path):
    path.write_text(
        "".join(",".join(map(repr, [*map(float, row), int(y)])) + "\n" for row, y in zip(X, Y, strict=True))
    )
    return CsvFile(path, y=-1)


def trained(*data, epochs=3, model=None, **options):
    model = model or classifier(seed=5)
    history = model.fit(*data, epochs=epochs, verbose=0, **options)
    return model, history.history


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("last", ["keep", "drop", "merge", "spread"])
def test_files_train_as_arrays_do(files, shuffle, last):
    """With the optimizer's state, statistics and dropout's random numbers: any difference in a batch would show."""
    memory, expected = trained(X, Y, shuffle=shuffle, last=last, batch_size=33)
    model, history = trained(*files, shuffle=shuffle, last=last, batch_size=33)
    assert history == expected
    assert_same_weights(model.get_weights(), memory.get_weights())
    assert model.evaluate(*files, verbose=0) == memory.evaluate(X, Y, verbose=0)
    np.testing.assert_array_equal(model.predict(files[0], verbose=0), memory.predict(X, verbose=0))


def test_every_format_trains_alike(files, tmp_path):
    import h5py
    import pyarrow as pa
    import pyarrow.parquet as pq

    from normkit.data import ArrowFiles

    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["x"], file["y"] = X, Y
    columns = {f"x{i}": X[:, i] for i in range(X.shape[1])}
    pq.write_table(pa.table(columns | {"y": Y}), tmp_path / "t.parquet", row_group_size=40)
    memory, _ = trained(X, Y)
    for source in (
        csv(tmp_path / "t.csv"),
        Hdf5File(tmp_path / "t.h5", "x", "y"),
        ArrowFiles(tmp_path / "t.parquet", y="y"),
    ):
        assert_same_weights(trained(source)[0].get_weights(), memory.get_weights())


def test_a_buffer_smaller_than_the_file(files):
    """The same blocks of arrays in memory are the independent way to the same order."""
    memory, expected = trained(MiniBatches(X, Y, shuffle_buffer=100, seed=3))
    model, history = trained(MiniBatches(*files, shuffle_buffer=100, seed=3, prefetch=4))
    assert history == expected
    assert_same_weights(model.get_weights(), memory.get_weights())
    by_hand = classifier(seed=5)
    batches = MiniBatches(*files, shuffle_buffer=100, seed=3)
    for _ in range(3):
        for x, y in batches:
            by_hand.train_on_batch(x, y)
    assert_same_weights(by_hand.get_weights(), model.get_weights())


def test_batches_keep_their_size_and_position(files):
    batches = MiniBatches(*files, batch_size=100, shuffle_buffer=100, seed=3)
    model, _ = trained(batches, batch_size=7)
    assert model.optimizer.iterations == 9
    assert batches.state_dict()["epoch"] == 3


def test_training_goes_on_where_it_stopped(files):
    """Epochs 0 to 3 at once, or two, a new process's objects, and two more: the same weights."""

    def batches():
        return MiniBatches(*files, batch_size=33, shuffle_buffer=90, seed=3)

    once, _ = trained(batches(), epochs=4)
    first = batches()
    model, _ = trained(first, epochs=2)
    state = json.loads(json.dumps(first.state_dict()))
    second = batches()
    second.load_state_dict(state)
    trained(second, epochs=2, model=model)
    assert_same_weights(model.get_weights(), once.get_weights())


def test_weights_of_samples_and_classes(files, tmp_path):
    weight = np.linspace(0, 2, len(X))
    np.save(tmp_path / "w.npy", weight)
    memory, _ = trained(X, Y, sample_weight=weight)
    for given in (weight, NpyFile(tmp_path / "w.npy")):
        model, _ = trained(*files, sample_weight=given)
        assert_same_weights(model.get_weights(), memory.get_weights())
    whole, _ = trained(X, Y, sample_weight=weight, shuffle=False)
    batches, _ = trained(MiniBatches(X, Y, weight, shuffle=False))
    assert_same_weights(batches.get_weights(), whole.get_weights())
    by_class, _ = trained(X, Y, class_weight={0: 2.0, 1: 0.5})
    from_files, _ = trained(*files, class_weight={0: 2.0, 1: 0.5})
    assert_same_weights(by_class.get_weights(), from_files.get_weights())
    with pytest.raises(ValueError, match="give sample_weight or class_weight, not both"):
        trained(*files, sample_weight=weight, class_weight={0: 1.0})


def test_validation_on_files(files):
    train = [file.part(0, 200) for file in files]
    test = [file.part(200, 300) for file in files]
    _, history = trained(*train, validation_data=tuple(test))
    _, expected = trained(X[:200], Y[:200], validation_data=(X[200:], Y[200:]))
    assert history == expected
    with pytest.raises(ValueError, match="validation_split needs arrays in memory; give validation_data"):
        trained(*files, validation_split=0.5)
    for data in (
        MiniBatches(X[200:], Y[200:], shuffle=False),
        Stream(lambda: iter([(X[200:250], Y[200:250]), (X[250:], Y[250:])])),
    ):
        _, history = trained(*train, validation_data=data)
        assert history == expected
    _, history = trained(
        *train, validation_data=Stream(lambda: iter([(X[200:], Y[200:])])), validation_steps=2
    )
    _, expected = trained(X[:200], Y[:200], validation_data=(X[200:264], Y[200:264]))
    assert history == expected
    for data in (X, [X], (X,), (X, None), (X, Y, Y, Y)):
        with pytest.raises(
            ValueError, match=r"validation_data must be \(x, y\), \(x, y, sample_weight\), or data of"
        ):
            trained(X, Y, validation_data=data)


def test_evaluation_and_prediction_on_batches():
    model, _ = trained(X, Y)
    expected, outputs = model.evaluate(X, Y, verbose=0), model.predict(X, verbose=0)

    def pairs():
        return ((X[i : i + 32], Y[i : i + 32]) for i in range(0, 300, 32))

    for data in (pairs, lambda: Stream(pairs()), lambda: MiniBatches(X, Y, shuffle=False)):
        assert model.evaluate(data(), verbose=0) == expected
        np.testing.assert_array_equal(model.predict(data(), verbose=0), outputs)
    assert model.evaluate(pairs(), steps=2, verbose=0) == model.evaluate(X[:64], Y[:64], verbose=0)
    np.testing.assert_array_equal(model.predict(pairs(), steps=2, verbose=0), outputs[:64])
    with pytest.raises(ValueError, match="predict: the batches are shuffled, so which row an output is of"):
        model.predict(MiniBatches(X, Y))
    for one in (model.train_on_batch, model.test_on_batch):
        with pytest.raises(
            TypeError, match="x must be an array with the samples of one batch, got MiniBatches"
        ):
            one(MiniBatches(X, Y))


def test_generators_and_streams():
    def batches():
        for i in range(0, 300, 25):
            yield X[i : i + 25], Y[i : i + 25]

    memory, _ = trained(X, Y, batch_size=25, shuffle=False)
    model, _ = trained(Stream(batches, length=300), batch_size=25, shuffle=False)
    assert_same_weights(model.get_weights(), memory.get_weights())

    def forever():
        while True:
            yield from batches()

    model, _ = trained(forever(), steps_per_epoch=12)
    assert_same_weights(model.get_weights(), memory.get_weights())
    once, _ = trained(X, Y, batch_size=25, shuffle=False, epochs=1)
    model, _ = trained(batches(), epochs=1)
    assert_same_weights(model.get_weights(), once.get_weights())
    with pytest.raises(ValueError, match="the iterator is used up after one epoch; give a function"):
        trained(batches())


def test_a_label_out_of_range_is_named_and_can_be_skipped(tmp_path):
    source = csv(tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    lines[41] = lines[41].rpartition(",")[0] + ",3"
    (tmp_path / "t.csv").write_text("\n".join(lines))
    source = CsvFile(tmp_path / "t.csv", y=-1)
    text = r"t\.csv: line 42, column 7: sparse_categorical_crossentropy: labels must be 0 to 2, as the last layer has 3 units, got 3"
    with pytest.raises(ValueError, match=text):
        trained(source)
    batches = MiniBatches(source, on_bad="skip", shuffle=False)
    with pytest.warns(BadDataWarning, match=r"skipped 1 bad rows \(1 faults\): .*line 42, column 7"):
        model, _ = trained(batches, epochs=1)
    assert batches.skipped == 1
    keep = np.arange(300) != 41
    memory, _ = trained(X[keep], Y[keep], shuffle=False, epochs=1)
    assert_same_weights(model.get_weights(), memory.get_weights())


def test_what_does_not_fit_is_said_before_the_first_step(files, tmp_path):
    model = classifier()
    before = model.get_weights()
    none = tmp_path / "none.npy"
    np.save(none, np.zeros((0, 6)))
    for data, error, message in (
        (
            (files[0],),
            ValueError,
            r"training and evaluation need \(x, y\) or \(x, y, sample_weight\), got 1 arrays",
        ),
        ((files[1], files[0]), ValueError, "shape"),
        ((files[0], Y[:-1]), ValueError, r"all arrays must have the same length, got \[300, 299\]"),
        ((files[0], X), ValueError, "y must be integer labels"),
        ((MiniBatches(X, Y), Y), ValueError, "MiniBatches has y and sample_weight in its batches"),
        ((NpyFile(none), NpyFile(none)), ValueError, "x must have at least one sample"),
    ):
        with pytest.raises(error, match=message):
            model.fit(*data, verbose=0)
    assert_same_weights(model.get_weights(), before)


def test_predict_takes_the_first_array_alone(files, tmp_path):
    model = classifier()
    np.testing.assert_array_equal(
        model.predict(csv(tmp_path / "t.csv"), verbose=0), model.predict(X, verbose=0)
    )


def test_metrics_on_batches_of_an_iterable():
    model = classifier(metrics=[SparseCategoricalAccuracy()])
    loss, accuracy = model.evaluate(MiniBatches(X, Y, batch_size=50, shuffle=False), verbose=0)
    assert [loss, accuracy] == pytest.approx(model.evaluate(X, Y, batch_size=50, verbose=0), rel=0)
