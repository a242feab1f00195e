"""Callbacks that watch the logs: when they act, and what they do then."""

import csv
import json

import numpy as np
import pytest

from normkit.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    JSONLinesLogger,
    LambdaCallback,
    LearningRateScheduler,
    ReduceLROnPlateau,
    TensorBoard,
    TerminateOnNaN,
)
from normkit.layers import BatchNormalization, Dense
from normkit.metrics import F1Score, Metric
from normkit.models import Sequential
from normkit.optimizers import SGD
from normkit.optimizers.schedules import ExponentialDecay
from normkit.stats import RunningStats
from trainer_support import assert_same_weights, blobs, classifier


class Says(Callback):
    """Puts numbers into the logs, one per epoch; comes before the callback that watches them."""

    def __init__(self, values, name="val_loss"):
        self.values, self.name = values, name

    def on_epoch_end(self, epoch, logs=None):
        if self.values[epoch] is not None:
            logs[self.name] = self.values[epoch]


def epochs_run(values, callback, name="val_loss", model=None, **kwargs):
    model = model or classifier()
    callbacks = [Says(values, name), callback]
    return model.fit(*blobs(30), epochs=len(values), verbose=0, callbacks=callbacks, **kwargs).epoch


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([3, 2, 2, 1], {}, 3),
        ([3, 2, 2, 1], {"patience": 1}, 3),
        ([3, 2, 2, 2, 1], {"patience": 2}, 4),
        ([3, 2, 2, 1, 1, 0], {"patience": 2}, 6),
        ([3, 2.9, 2.8, 2.7, 2.6], {"min_delta": 0.5, "patience": 2}, 3),
        ([1, 2, 3, 2], {"mode": "max"}, 4),
        ([1, 2, 3, 2, 9], {"mode": "max"}, 4),
        ([5, 4, 3, 2], {"baseline": 1.0, "patience": 2}, 4),
        ([5, 4, 3, 4, 2], {"baseline": 1.0, "patience": 2}, 4),
        ([5, 6, 7, 8, 9], {"start_from_epoch": 2, "patience": 1}, 4),
        ([1, 2], {}, 2),
        ([float("nan"), 1, 2], {}, 3),
        ([float("nan"), float("nan"), 1], {}, 3),
    ],
)
def test_early_stopping(values, options, expected):
    callback = EarlyStopping(**options)
    assert len(epochs_run(values, callback)) == expected
    if expected < len(values):
        assert callback.stopped_epoch == expected - 1


def test_modes_of_metrics():
    x, y = blobs(60)
    watch = EarlyStopping("val_accuracy", patience=1)
    model = classifier(optimizer=SGD(0.0))
    assert len(model.fit(x, y, epochs=5, validation_data=(x, y), verbose=0, callbacks=[watch]).epoch) == 2
    rising = EarlyStopping("accuracy")
    assert len(epochs_run([1, 2, 3], rising, "accuracy")) == 3
    falling = EarlyStopping("mae")
    assert len(epochs_run([1, 2, 3], falling, "mae", Sequential([Dense(3)]) and regression())) == 2


def regression():
    model = Sequential([Dense(1, input_shape=(6,))], seed=0)
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def test_a_direction_that_is_not_known():
    class Odd(Metric):
        def reset_state(self):
            self.seen = 0

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.seen += 1

        def result(self):
            return float(self.seen)

    model = classifier(metrics=[Odd()])
    with pytest.raises(
        ValueError, match="better cannot be told from its name; pass mode='max' or mode='min'"
    ):
        model.fit(*blobs(30), epochs=2, verbose=0, callbacks=[EarlyStopping("odd")])
    assert (
        len(model.fit(*blobs(30), epochs=3, verbose=0, callbacks=[EarlyStopping("odd", mode="max")]).epoch)
        == 2
    )


def test_a_number_that_is_not_there_is_said_once():
    with pytest.warns(
        UserWarning, match="monitor='val_loss' is not in the logs, which have loss, accuracy"
    ) as seen:
        classifier().fit(*blobs(30), epochs=3, verbose=0, callbacks=[EarlyStopping()])
    assert len(seen) == 1


def test_best_weights_come_back(capfd):
    model = classifier()
    kept = []
    keep = LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()))
    watch = EarlyStopping(patience=2, restore_best_weights=True, verbose=1)
    values = [3, 1, 2, 2, 2]
    model.fit(*blobs(30), epochs=5, verbose=0, callbacks=[Says(values), keep, watch])
    assert len(kept) == 4
    assert_same_weights(model.get_weights(), kept[1])
    assert (watch.best, watch.best_epoch, watch.stopped_epoch) == (1, 1, 3)
    assert capfd.readouterr().out == (
        "Epoch 4: early stopping\nRestoring model weights from the end of the best epoch: 2.\n"
    )


def test_best_weights_come_back_without_stopping_and_with_the_counts_of_statistics():
    stats = RunningStats(8, debias=True)
    model = Sequential(
        [Dense(8, input_shape=(6,)), BatchNormalization(stats=stats), Dense(3, "softmax")], seed=0
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    watch = EarlyStopping(patience=9, restore_best_weights=True)
    model.fit(*blobs(30), epochs=3, verbose=0, callbacks=[Says([2, 1, 3]), watch])
    assert stats.count == 2


@pytest.mark.parametrize(
    ("values", "options", "rates"),
    [
        ([3, 2, 2, 2, 2], {"patience": 2}, [1, 1, 1, 0.5, 0.5]),
        ([3, 2, 2, 2, 2, 2], {"patience": 1}, [1, 1, 0.5, 0.25, 0.125, 0.0625]),
        ([3, 3, 3, 3, 3, 3], {"patience": 1, "cooldown": 2}, [1, 0.5, 0.5, 0.25, 0.25, 0.125]),
        ([3, 3, 3, 3], {"patience": 1, "min_lr": 0.4}, [1, 0.5, 0.4, 0.4]),
        ([1, 2, 3, 3], {"patience": 1, "mode": "max"}, [1, 1, 1, 0.5]),
        ([3, 2.99995, 2.99992], {"patience": 1}, [1, 0.5, 0.25]),
    ],
)
def test_reduce_on_plateau(values, options, rates):
    model = classifier(optimizer=SGD(1.0))
    after = []
    note = LambdaCallback(on_epoch_end=lambda epoch, logs: after.append(model.optimizer.learning_rate))
    callback = ReduceLROnPlateau(factor=0.5, **options)
    history = model.fit(*blobs(30), epochs=len(values), verbose=0, callbacks=[Says(values), callback, note])
    assert after == rates
    assert history.history["learning_rate"] == [1, *rates[:-1]]


def test_learning_rate_scheduler(capfd):
    model = classifier(optimizer=SGD(1.0))
    rates = []
    note = LambdaCallback(on_epoch_end=lambda epoch, logs: rates.append(model.optimizer.learning_rate))
    for schedule in (lambda epoch, rate: rate * 0.5, lambda epoch: 1.0 / (epoch + 1)):
        model.fit(
            *blobs(30), epochs=2, verbose=0, callbacks=[LearningRateScheduler(schedule, verbose=1), note]
        )
    assert rates == [0.5, 0.25, 1.0, 0.5]
    assert "Epoch 2: LearningRateScheduler setting learning rate to 0.25." in capfd.readouterr().out
    with pytest.raises(TypeError, match="schedule must return a float, got None of type NoneType"):
        model.fit(*blobs(30), verbose=0, callbacks=[LearningRateScheduler(lambda epoch: None)])
    scheduled = classifier(optimizer=SGD(ExponentialDecay(0.1, 10, 0.5)))
    with pytest.raises(TypeError, match="learning_rate follows the schedule ExponentialDecay"):
        scheduled.fit(*blobs(30), verbose=0, callbacks=[LearningRateScheduler(lambda epoch: 0.1)])


def test_terminate_on_nan(capfd):
    x, y = blobs(40)
    x[25] = np.nan
    ended = []
    model = classifier()
    end = LambdaCallback(on_train_end=lambda logs: ended.append(logs))
    with pytest.warns(UserWarning, match="x has 6 NaN values in 1 of 40 rows"):
        model.fit(x, y, batch_size=8, shuffle=False, epochs=4, verbose=0, callbacks=[TerminateOnNaN(), end])
    assert model.optimizer.iterations == 4
    assert len(ended) == 1
    assert capfd.readouterr().out == "Batch 3: Invalid loss, terminating training\n"
    with (
        pytest.raises(RuntimeError, match="the loss is nan after batch 0; a smaller learning rate, clipnorm"),
        pytest.warns(UserWarning, match="x has 6 NaN values"),
    ):
        model.fit(x, y, shuffle=False, verbose=0, callbacks=[TerminateOnNaN(raise_error=True), end])
    assert len(ended) == 1


def rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_csv_logger(tmp_path):
    x, y = blobs(40)
    path, model = tmp_path / "log.csv", classifier()
    history = model.fit(x, y, epochs=2, validation_data=(x, y), verbose=0, callbacks=[CSVLogger(path)])
    head, *body = rows(path)
    assert head == ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
    assert [row[0] for row in body] == ["0", "1"]
    assert [float(row[2]) for row in body] == history.history["loss"]
    model.fit(
        x,
        y,
        epochs=4,
        initial_epoch=2,
        validation_data=(x, y),
        verbose=0,
        callbacks=[CSVLogger(path, append=True)],
    )
    assert [row[0] for row in rows(path)] == ["epoch", "0", "1", "2", "3"]
    model.fit(x, y, verbose=0, callbacks=[CSVLogger(path, append=True)])
    assert rows(path)[-1][3:] == ["NA", "NA"]
    model.fit(
        x, y, epochs=2, validation_data=(x, y), validation_freq=2, verbose=0, callbacks=[CSVLogger(path, ";")]
    )
    lines = path.read_text().splitlines()
    assert lines[0] == "epoch;accuracy;loss;val_accuracy;val_loss"
    assert lines[1].endswith(";NA;NA")
    assert not lines[2].endswith("NA")


def test_csv_logger_writes_as_it_goes(tmp_path):
    path = tmp_path / "log.csv"
    seen = []
    look = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(len(rows(path))))
    classifier().fit(*blobs(40), epochs=3, verbose=0, callbacks=[CSVLogger(path), look])
    assert seen == [2, 3, 4]


def test_json_lines_logger(tmp_path):
    x, y = blobs(40)
    path = tmp_path / "log.jsonl"
    model = classifier(metrics=[F1Score()])
    model.compile("sgd", "categorical_crossentropy", metrics=[F1Score()])
    y = np.eye(3)[y]
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=[JSONLinesLogger(path)])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert [line["loss"] for line in lines] == history.history["loss"]
    assert lines[1]["f1_score"] == history.history["f1_score"][1].tolist()
    x[0] = np.nan
    with pytest.warns(UserWarning, match="x has 6 NaN values"):
        model.fit(x, y, epochs=3, initial_epoch=2, verbose=0, callbacks=[JSONLinesLogger(path, append=True)])
    assert json.loads(path.read_text().splitlines()[2])["loss"] is None
    with pytest.warns(UserWarning, match="x has 6 NaN values"):
        model.fit(x, y, verbose=0, callbacks=[JSONLinesLogger(path)])
    assert len(path.read_text().splitlines()) == 1


def test_lambda_callback(tmp_path):
    lines = []
    log = LambdaCallback(
        on_epoch_end=lambda epoch, logs: lines.append(json.dumps({"epoch": epoch, "loss": logs["loss"]})),
        on_train_batch_begin=lambda batch, logs=None: lines.append(f"batch {batch}"),
        on_train_end=lambda logs: lines.append("end"),
        on_train_begin=None,
    )
    classifier().fit(*blobs(40), batch_size=20, verbose=0, callbacks=[log])
    assert lines[:2] == ["batch 0", "batch 1"]
    assert json.loads(lines[2])["epoch"] == 0
    assert lines[3] == "end"


def test_tensorboard_without_a_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboard, or tensorboardX"):
        TensorBoard()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: EarlyStopping(mode="down"), ValueError, "EarlyStopping: mode must be 'auto', 'min' or 'max'"),
        (lambda: EarlyStopping(patience=-1), ValueError, "EarlyStopping: patience must be an integer, 0 or more"),
        (lambda: ReduceLROnPlateau(factor=1.0), ValueError, r"factor must be in \[0, 1\), got 1.0"),
        (lambda: ReduceLROnPlateau(min_lr=-1), ValueError, "min_lr must be finite and not negative, got -1"),
        (lambda: LearningRateScheduler(0.1), TypeError, "schedule must be a function of epoch and learning rate"),
        (lambda: LambdaCallback(on_epoch=print), TypeError, "no hook 'on_epoch'; did you mean 'on_epoch_end'\\? There are: on_train_begin, "),
        (lambda: LambdaCallback(on_epoch_end=3), TypeError, "on_epoch_end must be callable, got int"),
        (lambda: TensorBoard(profile_batch=2), ValueError, "profile_batch is not supported, got 2; leave it out"),
        (lambda: TensorBoard(update_freq="never"), ValueError, "update_freq, if not 'epoch' or 'batch', must be"),
    ],
)  # fmt: skip
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
