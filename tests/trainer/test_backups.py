"""What a backup can be gone on from: the same training; another is refused or warned of, by name."""

import warnings

import numpy as np
import pytest

from normkit.callbacks import (
    BackupAndRestore,
    EarlyStopping,
    LambdaCallback,
)
from normkit.data import MiniBatches, NpyFile, Stream
from normkit.layers import BatchNormalization, Dense, Dropout, LayerNormalization
from normkit.losses import SparseCategoricalCrossentropy
from normkit.metrics import F1Score, Metric, R2Score
from normkit.models import Sequential, archive
from normkit.optimizers import SGD, Adam
from normkit.optimizers.schedules import CosineDecay
from test_checkpoints import Crash, CrashError
from trainer_support import assert_same_weights, blobs
from whole_state import assert_same_state, state_of

X, Y = blobs(40)
WEIGHTS = np.linspace(0.5, 1.5, 40)


def model(layers=None, seed=0, optimizer=None, loss="sparse_categorical_crossentropy", **options):
    made = Sequential(layers or network(), seed=seed)
    made.compile(optimizer or Adam(0.01), loss, **{"metrics": ["accuracy"], **options})
    return made


def network(units=8, activation="relu", rate=0.2, momentum=0.9, **options):
    return [
        Dense(units, activation, input_shape=(6,)),
        BatchNormalization(momentum=momentum, **options),
        Dropout(rate),
        Dense(3, "softmax"),
    ]


def interrupted(folder, made=None, callbacks=(), x=X, y=Y, **arguments):
    """Leave a backup after the first of three epochs."""
    arguments = {"batch_size": 8, "validation_data": (X, Y), **arguments}
    with pytest.raises(CrashError):
        (made or model()).fit(
            x,
            y,
            epochs=3,
            verbose=0,
            callbacks=[*callbacks, BackupAndRestore(folder), Crash(1, 1)],
            **arguments,
        )


def resumed(folder, made=None, callbacks=(), x=X, y=Y, epochs=3, **arguments):
    arguments = {"batch_size": 8, "validation_data": (X, Y), **arguments}
    return (made or model(seed=1)).fit(
        x, y, epochs=epochs, verbose=0, callbacks=[*callbacks, BackupAndRestore(folder)], **arguments
    )


OTHER_X, OTHER_Y = X.copy(), Y.copy()
OTHER_X[-1, -1] += 1e-3
OTHER_Y[0] = (Y[0] + 1) % 3

OTHER_ARGUMENTS = [
    ({}, {"shuffle": False}, "made with shuffle=True, now there is shuffle=False;"),
    ({}, {"batch_size": 7}, "made with batch_size=8, now there is batch_size=7;"),
    ({}, {"batch_size": None}, "made with batch_size=8, now there is batch_size=32;"),
    ({}, {"last": "drop"}, "made with last='keep', now there is last='drop';"),
    ({}, {"steps_per_epoch": 4}, "made with steps_per_epoch=None, now there is steps_per_epoch=4;"),
    ({}, {"class_weight": {0: 2.0}}, "made with class_weight=None, now there is class_weight={0: 2.0};"),
    ({}, {"class_weight": {0: 2.0, 1: 1.0, 2: 3.0}}, "class_weight=None, now there is class_weight={0: 2.0, 1: 1.0, 2: 3.0};"),
    ({"class_weight": {0: 2.0}}, {}, "made with class_weight={0: 2.0}, now there is class_weight=None;"),
    ({"class_weight": {0: 2.0}}, {"class_weight": {0: 2.0, 1: 3.0}}, "with class_weight 1=None, now there is class_weight 1=3.0;"),
    ({}, {"x": MiniBatches(X, Y, batch_size=8, seed=3), "y": None, "batch_size": None}, "made with order=drawn with a random generator, now there is order=drawn with the seed of a MiniBatches;"),
    ({"x": MiniBatches(X, Y, batch_size=8, seed=3), "y": None, "batch_size": None}, {}, "made with order=drawn with the seed of a MiniBatches, now there is order=drawn with a random generator;"),
    ({"class_weight": {0: 2.0}}, {"class_weight": {0: 3.0}}, "class_weight 0=2.0, now there is class_weight 0=3.0"),
    ({}, {"sample_weight": WEIGHTS}, r"sample_weight=None, now there is sample_weight=float32 of shape \(40,\)"),
    ({"sample_weight": WEIGHTS}, {}, r"sample_weight=float32 of shape \(40,\), checksum \w+, now"),
    ({"sample_weight": WEIGHTS}, {"sample_weight": WEIGHTS[::-1]}, "sample_weight=float32 of shape"),
    ({}, {"x": OTHER_X}, r"made with x=float32 of shape \(40, 6\), checksum \w+, now there is x=float32"),
    ({}, {"x": X[::-1]}, "made with x="),
    ({}, {"y": OTHER_Y}, "made with y="),
    ({}, {"x": X[:39], "y": Y[:39]}, "made with num_samples=40, "),
    ({}, {"validation_data": None, "validation_split": 0.2}, "made with num_samples=40, "),
]  # fmt: skip

OTHER_MODELS = [
    (lambda: model(network(activation="gelu")), r"layer 0 \(Dense\) activation='relu', now .* activation='gelu';"),
    (lambda: model(network(units=9)), r"layer 0 \(Dense\) units=8, now there is .* units=9;"),
    (lambda: model(network(rate=0.3)), r"layer 2 \(Dropout\) rate=0.2, now there is .* rate=0.3;"),
    (lambda: model(network(momentum=0.8)), r"layer 1 \(BatchNormalization\) momentum=0.9, now there is .* momentum=0.8;"),
    (lambda: model(network(trainable=False)), r"layer 1 \(BatchNormalization\) trainable=True, now there is .*=False;"),
    (lambda: model(network(ghost_size=4)), r"layer 1 \(BatchNormalization\) ghost_size=None, now there is .*=4;"),
    (lambda: model([*network()[:-1], Dense(5), Dense(3, "softmax")]), "layers="),
    (lambda: model([Dense(8, "relu", input_shape=(6,)), LayerNormalization(), Dropout(0.2), Dense(3, "softmax")]), "layers="),
    (lambda: model(optimizer=SGD(0.01)), "made with optimizer='Adam', now there is optimizer='SGD';"),
    (lambda: model(optimizer=Adam(0.01, beta_1=0.8)), "optimizer Adam beta_1=0.9, now there is optimizer Adam beta_1=0.8;"),
    (lambda: model(optimizer=Adam(0.01, weight_decay=0.1)), "weight_decay=None, now there is optimizer Adam weight_decay=0.1;"),
    (lambda: model(optimizer=Adam(CosineDecay(0.01, 40))), "with optimizer Adam learning_rate=a number, now there is optimizer Adam learning_rate=CosineDecay;"),
    (lambda: model(loss=SparseCategoricalCrossentropy(from_logits=True)), "from_logits=False, now .* from_logits=True;"),
    (lambda: model(metrics=[]), r"made with metrics=\['accuracy'\], now there is metrics=\[\];"),
    (lambda: model(metrics=["accuracy", "sparse_top_k_categorical_accuracy"]), "now there is metrics="),
]  # fmt: skip


def refused(folder, message, made, **arguments):
    """Going on is refused, and neither the model, the backup nor a callback has changed."""
    made.evaluate(X, Y, verbose=0)
    before = state_of(made)
    content = (folder / "latest.safetensors").read_bytes()
    watch = EarlyStopping("loss")
    with pytest.raises(ValueError, match=message) as error:
        resumed(folder, made, [watch], **arguments)
    assert str(error.value).startswith(
        f"{folder / 'latest.safetensors'}: is the backup of another training: it was "
    )
    assert str(error.value).endswith("; go on as before, or remove it to begin anew")
    assert "\n" not in str(error.value)
    assert_same_state(state_of(made), before, but=("built optimizer", "metrics"))
    assert (watch.best, watch.wait) == (None, 0)
    assert (folder / "latest.safetensors").read_bytes() == content


@pytest.mark.parametrize(("then", "now", "message"), OTHER_ARGUMENTS)
def test_other_arguments_or_data_are_refused_by_name(tmp_path, then, now, message):
    interrupted(tmp_path, callbacks=[EarlyStopping("loss")], **then)
    refused(tmp_path, message, model(seed=1), **now)


@pytest.mark.parametrize(("other", "message"), OTHER_MODELS)
def test_another_model_or_compilation_is_refused_by_name(tmp_path, other, message):
    interrupted(tmp_path, callbacks=[EarlyStopping("loss")])
    made = other()
    refused(tmp_path, message, made)


def test_the_backup_before_does_not_hide_a_refusal(tmp_path):
    with pytest.raises(CrashError):
        model().fit(
            X,
            Y,
            epochs=3,
            verbose=0,
            callbacks=[BackupAndRestore(tmp_path, double_checkpoint=True), Crash(2)],
        )
    with pytest.raises(
        ValueError, match=r"latest.safetensors: is the backup of another training: .*shuffle=True"
    ):
        model().fit(X, Y, epochs=3, verbose=0, shuffle=False, callbacks=[BackupAndRestore(tmp_path)])


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({"validation_data": (OTHER_X, Y)}, r"validation_data x=float32 of shape \(40, 6\), checksum"),
        ({"validation_data": None}, r"made with validation_data={x: float32 of shape \(40, 6\), .*, now there is validation_data=None; training goes on"),
        ({"validation_freq": 2}, "made with validation_freq=1, now there is validation_freq=2;"),
        ({"validation_steps": 2}, "made with validation_steps=5, now there is validation_steps=2;"),
        ({"validation_batch_size": 9}, "made with .*validation_batch_size=8, now there is .*validation_batch_size=9;"),
        ({"initial_epoch": 1}, "made with initial_epoch=0, now there is initial_epoch=1; training goes on from the backup's epoch"),
        ({"made": lambda: model(optimizer=Adam(0.5))}, "learning_rate=0.01, now there is learning_rate=0.5; .*the backup's learning rate"),
    ],
)  # fmt: skip
def test_what_may_be_another_is_warned_of_by_name(tmp_path, now, message):
    interrupted(tmp_path)
    now = {name: value() if callable(value) else value for name, value in now.items()}
    made = now.setdefault("made", model(seed=1))
    with pytest.warns(UserWarning, match=message):
        history = resumed(tmp_path, **now)
    assert history.epoch == [0, 1, 2]
    assert made.optimizer.learning_rate == 0.01


class Grows(Metric):
    """One that adds arrays in place to what was a number."""

    state_names = ("sums",)

    def reset_state(self):
        self.sums = 0.0

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.sums = (
            self.sums + y_pred.sum(0)
            if np.ndim(self.sums) == 0
            else np.add(self.sums, y_pred.sum(0), self.sums)
        )

    def result(self):
        return float(np.mean(self.sums))


@pytest.mark.parametrize("metric", [lambda: F1Score(average="macro"), R2Score, Grows])
def test_a_metric_that_has_grown_goes_on_in_the_middle_of_an_epoch(tmp_path, metric):
    """From a number, or from an array of one element, to one of each output."""
    targets = np.eye(3, dtype=np.float32)[Y]
    build = lambda: model(loss="categorical_crossentropy", metrics=[metric()])
    fit = lambda made, *callbacks: made.fit(
        X, targets, batch_size=8, epochs=2, verbose=0, callbacks=callbacks
    )
    expected = fit(build()).history
    with pytest.raises(CrashError):
        fit(build(), BackupAndRestore(tmp_path, save_freq=2), Crash(1, 4))
    assert fit(build(), BackupAndRestore(tmp_path, save_freq=2)).history == expected


def test_fewer_epochs_than_are_done_are_warned_of(tmp_path):
    with pytest.raises(CrashError):
        model().fit(X, Y, epochs=3, verbose=0, callbacks=[BackupAndRestore(tmp_path), Crash(2, 0)])
    with pytest.warns(UserWarning, match="is of a training of 2 epochs, which is more than epochs=1"):
        model().fit(X, Y, epochs=1, verbose=0, callbacks=[BackupAndRestore(tmp_path)])


def test_a_warning_that_is_an_error_changes_nothing(tmp_path):
    interrupted(tmp_path)
    made = model(seed=1)
    made.evaluate(X, Y, verbose=0)
    before = state_of(made)
    with pytest.raises(UserWarning, match="validation_freq"):
        resumed(tmp_path, made, validation_freq=2)
    assert_same_state(state_of(made), before, but=("built optimizer", "metrics"))


def test_more_epochs_other_seeds_and_names_are_nothing_to_tell(tmp_path):
    layers = network()
    layers[0].name = "first"
    interrupted(tmp_path)
    assert resumed(tmp_path, model(layers, seed=9), epochs=5).epoch == [0, 1, 2, 3, 4]


def test_going_on_in_the_same_process_after_a_callback_has_lowered_the_rate(tmp_path):
    made = model()
    lower = lambda: LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(made.optimizer, "learning_rate", 0.004)
    )
    interrupted(tmp_path, made, [lower()])
    assert made.optimizer.learning_rate == 0.004
    resumed(tmp_path, made, [lower()])


def test_a_layer_and_a_loss_of_ones_own(tmp_path):
    """What they do not tell is not compared."""

    class Mine(Dense):
        def get_config(self):
            raise NotImplementedError

    class Loss(SparseCategoricalCrossentropy):
        pass

    made = lambda cls, activation: model(
        [cls(8, activation, input_shape=(6,)), Dense(3, "softmax")], loss=Loss()
    )
    interrupted(tmp_path, made(Mine, "relu"))
    with pytest.raises(
        ValueError, match=r"layer 0 \(Mine\) activation='relu', now there is .* activation='tanh'"
    ):
        resumed(tmp_path, made(Mine, "tanh"))
    resumed(tmp_path, made(Mine, "relu"))


def test_other_files_are_refused_and_streams_are_taken_as_they_come(tmp_path):
    path, other = tmp_path / "x.npy", X.copy()
    np.save(path, X)
    options = {"batch_size": None, "validation_data": None}
    batches = lambda: MiniBatches(NpyFile(path), Y, batch_size=8, seed=3)
    interrupted(tmp_path / "b", x=batches(), y=None, **options)
    other[20] = 0
    np.save(path, other)
    with pytest.raises(
        ValueError, match=r"made with x=float32 of shape \(40, 6\), checksum of some \w+, now"
    ):
        resumed(tmp_path / "b", x=batches(), y=None, **options)
    np.save(path, X)
    resumed(tmp_path / "b", x=batches(), y=None, **options)
    noise = np.random.default_rng()
    moved = lambda: NpyFile(path).map(lambda x: x + noise.normal(size=x.shape)).part(0, 40)
    interrupted(tmp_path / "d", x=moved(), y=Y)  # augmented at random: nobody could tell
    resumed(tmp_path / "d", x=moved(), y=Y)
    interrupted(tmp_path / "e", x=moved(), y=Y)
    with pytest.raises(ValueError, match="made with y="):
        resumed(tmp_path / "e", x=moved(), y=OTHER_Y)
    stream = lambda: Stream(lambda: ((X[i : i + 8], Y[i : i + 8]) for i in range(0, 40, 8)))
    interrupted(tmp_path / "c", x=stream(), y=None, batch_size=8, shuffle=False)
    resumed(tmp_path / "c", x=stream(), y=None, batch_size=8, shuffle=False)


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path):
    (tmp_path / "file").touch()
    made = model()
    with pytest.raises(NotADirectoryError, match="file/b"):
        made.fit(X, Y, verbose=0, callbacks=[BackupAndRestore(tmp_path / "file" / "b")])
    assert made.optimizer.batches == 0


# --- an error leaves all as it was -------------------------------------------------------------------


def broken(change):
    def rewrite(path):
        config, arrays = archive.read(path)
        arrays = dict(arrays)
        change(config, arrays)
        archive.write(path, config, arrays)

    return rewrite


def callback_state(config, name):
    return next(one for one in config["progress"]["callbacks"] if one["class_name"] == name)["state"]


@pytest.mark.parametrize(
    "change",
    [
        lambda c, a: c["progress"]["metrics"]["accuracy"].pop("count"),
        lambda c, a: c["progress"]["passes"]["batches"].pop("generator"),
        lambda c, a: c["progress"]["passes"]["batches"].update(epoch=-1),
        lambda c, a: callback_state(c, "EarlyStopping").pop("wait"),
        lambda c, a: callback_state(c, "History").pop("epoch"),
        lambda c, a: callback_state(c, "BackupAndRestore").pop("seen"),
        lambda c, a: c["progress"].pop("batch"),
        lambda c, a: c["random_state"].update(state=-1),
        lambda c, a: c["states"][1].update(count=-3),
        lambda c, a: c.update(iterations=-1),
        lambda c, a: a.pop("weights/3/bias"),
        lambda c, a: a.pop("optimizer/velocity/3/bias"),
        lambda c, a: a.update({"optimizer/velocity/3/bias": np.zeros(9, np.float32)}),
    ],
)
def test_a_backup_that_cannot_be_taken_over_changes_nothing(tmp_path, change):
    watch = lambda: EarlyStopping("loss", patience=5, restore_best_weights=True)
    interrupted(tmp_path, callbacks=[watch()])
    broken(change)(tmp_path / "latest.safetensors")
    made = model(seed=1)
    made.fit(X, Y, verbose=0)
    before, now = state_of(made), watch()
    with warnings.catch_warnings(), pytest.raises(ValueError, match="cannot be read as a normkit model"):
        resumed(tmp_path, made, [now])
    assert_same_state(state_of(made), before)
    assert (now.best, now.wait, now.best_weights) == (None, 0, None)
    assert made.history.history == {}
    assert_same_weights(made.get_weights(), before["weights"])
