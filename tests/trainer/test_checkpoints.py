"""Checkpoints: what is saved when, weights alone, and training that goes on to the bit after a crash."""

import signal

import numpy as np
import pytest

from normkit.callbacks import (
    BackupAndRestore,
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    ReduceLROnPlateau,
)
from normkit.layers import BatchNormalization, Dense, Dropout, Layer
from normkit.metrics import AUC, Precision
from normkit.models import Sequential, load_model
from normkit.optimizers import SGD, Adam
from normkit.optimizers.schedules import CosineDecay
from normkit.stats import RunningStats
from subprocesses import run_python
from test_callbacks_monitoring import Says
from trainer_support import assert_same_weights, blobs, classifier


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_names_of_files(tmp_path):
    x, y = blobs(40)
    pattern = tmp_path / "at" / "{epoch:02d}-{val_loss:.2f}.keras"
    model = classifier()
    history = model.fit(
        x, y, epochs=2, validation_data=(x, y), verbose=0, callbacks=[ModelCheckpoint(pattern)]
    )
    losses = history.history["val_loss"]
    assert names(tmp_path) == [f"at/01-{losses[0]:.2f}.keras", f"at/02-{losses[1]:.2f}.keras"]
    again = load_model(tmp_path / names(tmp_path)[1])
    assert_same_weights(again.get_weights(), model.get_weights())


def test_the_best_only(tmp_path, capfd):
    model = classifier()
    path = tmp_path / "best.safetensors"
    watch = ModelCheckpoint(path, save_best_only=True, verbose=1)
    weights = []

    class Keep(Callback):
        def on_epoch_end(self, epoch, logs=None):
            weights.append(self.model.get_weights())

    values = [3, 1, 2, None]
    with pytest.warns(UserWarning, match="'val_loss' is not in the logs"):
        model.fit(*blobs(40), epochs=4, verbose=0, callbacks=[Says(values), Keep(), watch])
    assert_same_weights(load_model(path).get_weights(), weights[1])
    assert capfd.readouterr().out.splitlines() == [
        f"Epoch 1: val_loss improved from None to 3.00000, saving model to {path}",
        f"Epoch 2: val_loss improved from 3.00000 to 1.00000, saving model to {path}",
        "Epoch 3: val_loss did not improve from 1.00000",
    ]
    threshold = ModelCheckpoint(path, save_best_only=True, initial_value_threshold=0.5)
    model.fit(*blobs(40), epochs=1, verbose=0, callbacks=[Says([0.6]), threshold])
    assert_same_weights(load_model(path).get_weights(), weights[1])


def test_every_so_many_batches(tmp_path):
    x, y = blobs(40)
    watch = ModelCheckpoint(tmp_path / "{epoch}-{batch}.safetensors", save_freq=3)
    classifier().fit(x, y, batch_size=10, epochs=2, verbose=0, callbacks=[watch])
    assert names(tmp_path) == ["1-3.safetensors", "2-2.safetensors"]


def test_weights_alone(tmp_path):
    x, y = blobs(40)
    model, path = classifier(), tmp_path / "checkpoint.safetensors"
    model.fit(x, y, epochs=2, verbose=0, callbacks=[ModelCheckpoint(path, save_weights_only=True)])
    again = classifier(seed=7)
    again.load_weights(path)
    assert_same_weights(again.get_weights(), model.get_weights())
    assert again.optimizer.iterations == 4
    first, second = (m.fit(x, y, shuffle=False, verbose=0) for m in (model, again))
    assert first.history == second.history
    with pytest.raises(
        ValueError, match="it has weights alone; make the model as before and call its load_weights"
    ):
        load_model(path)


def test_weights_into_a_model_that_is_not_built_or_not_compiled(tmp_path):
    model = classifier()
    model.fit(*blobs(40), verbose=0)
    model.save_weights(tmp_path / "w.safetensors")
    model.save(tmp_path / "m.safetensors")
    for path in (tmp_path / "w.safetensors", tmp_path / "m.safetensors"):
        lazy = Sequential([Dense(8), BatchNormalization(), Dense(3, "softmax")])
        lazy.load_weights(path)
        assert_same_weights(lazy.get_weights(), model.get_weights())
        assert not lazy.compiled


def test_weights_of_layers_of_ones_own(tmp_path):
    class Double(Layer):
        def forward(self, x, training):
            return 2 * x

    model, again = (Sequential([Dense(2, input_shape=(3,)), Double()], seed=seed) for seed in range(2))
    model.save_weights(tmp_path / "w.safetensors")
    again.load_weights(tmp_path / "w.safetensors")
    assert_same_weights(model.get_weights(), again.get_weights())


def test_another_optimizer_starts_anew_and_says_so(tmp_path):
    model = classifier()
    model.fit(*blobs(40), verbose=0)
    model.save_weights(tmp_path / "w.safetensors")
    for optimizer in ("sgd", Adam(amsgrad=True)):
        other = classifier(optimizer=optimizer)
        with pytest.warns(UserWarning, match="state of another optimizer than"):
            other.load_weights(tmp_path / "w.safetensors")
        assert_same_weights(other.get_weights(), model.get_weights())
        assert other.optimizer.iterations == 0


def test_weights_of_another_architecture_change_nothing(tmp_path):
    model = classifier()
    model.save_weights(tmp_path / "w.safetensors")
    for layers, message in (
        ([Dense(9, input_shape=(6,)), BatchNormalization(), Dense(3)], r"must have shape \(6, 9\), got \(6, 8\)"),
        ([Dense(8, input_shape=(6,)), BatchNormalization()], "it has 'weights/2/kernel', and the model has no"),
        ([Dense(8, input_shape=(6,)), BatchNormalization(), Dense(3), Dense(3)], "it has no 'weights/3/kernel'"),
    ):  # fmt: skip
        other = Sequential(layers)
        before = other.get_weights()
        with pytest.raises(ValueError, match=message):
            other.load_weights(tmp_path / "w.safetensors")
        assert_same_weights(before, other.get_weights())


def test_a_file_is_not_replaced_if_that_is_not_wanted(tmp_path):
    model, path = classifier(), tmp_path / "m.safetensors"
    for save in (model.save, model.save_weights):
        save(path)
        before = path.read_bytes()
        with pytest.raises(FileExistsError, match="is there already; pass overwrite=True to replace it"):
            save(path, overwrite=False)
        assert path.read_bytes() == before


def test_the_learning_rate_comes_back(tmp_path):
    model = classifier(optimizer=SGD(1.0))
    model.fit(*blobs(40), verbose=0)
    model.optimizer.learning_rate = 0.25
    model.save_weights(tmp_path / "w.safetensors")
    again = classifier(optimizer=SGD(1.0))
    again.load_weights(tmp_path / "w.safetensors")
    assert again.optimizer.learning_rate == 0.25


class CrashError(RuntimeError):
    """Stands for a power cut."""


class Crash(Callback):
    def __init__(self, epoch, batch=None):
        self.when = epoch, batch
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.when:
            raise CrashError

    def on_epoch_end(self, epoch, logs=None):
        if (epoch, None) == self.when:
            raise CrashError


def everything():
    """A model with all that has a state."""
    stats = RunningStats(8, debias=True)
    return Sequential(
        [
            Dense(8, "relu", input_shape=(6,)),
            BatchNormalization(stats=stats),
            Dropout(0.3),
            Dense(1, "sigmoid"),
        ],
        seed=5,
    )


OPTIMIZERS = {
    "adam": lambda: Adam(0.01),
    "schedule": lambda: Adam(CosineDecay(0.01, 40)),
    "accumulation": lambda: SGD(0.05, 0.9, gradient_accumulation_steps=3, use_ema=True, clipnorm=1.0),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("save_freq", "crash", "steps"),
    [("epoch", (2, 3), None), ("epoch", (3, None), None), (1, (2, 3), None), (4, (3, 2), None), (1, (1, 2), 5), ("epoch", (2, 1), 5)],
)  # fmt: skip
def test_training_goes_on_to_the_bit(tmp_path, optimizer, save_freq, crash, steps):
    """A crash in the middle of an epoch and between two, with shuffling, dropout, metrics, callbacks and history."""
    x, y = blobs(75, classes=2)
    merge = {"merge_statistics": True} if optimizer == "accumulation" else {}

    def run(*extra):
        model = everything()
        model.compile(
            OPTIMIZERS[optimizer](),
            "binary_crossentropy",
            metrics=["accuracy", Precision(), AUC(50)],
            **merge,
        )
        plateau = [ReduceLROnPlateau("loss", patience=1, min_delta=1.0)] if optimizer == "adam" else []
        watch = EarlyStopping("val_loss", patience=20, restore_best_weights=True)
        history = model.fit(
            x, y, batch_size=10, epochs=5, steps_per_epoch=steps, validation_data=(x, y), verbose=0,
            callbacks=[*extra, watch, *plateau],
        )  # fmt: skip
        return model, history, watch

    whole, history, watch = run()
    folder = tmp_path / "backup"
    backup = lambda: BackupAndRestore(folder, save_freq, double_checkpoint=True)
    with pytest.raises(CrashError):
        run(backup(), Crash(*crash))
    assert names(folder)
    resumed, resumed_history, resumed_watch = run(backup(), Crash(99))
    assert resumed_history.history == history.history
    assert resumed_history.epoch == history.epoch
    assert_same_weights(resumed.get_weights(), whole.get_weights())
    assert resumed.optimizer.batches == whole.optimizer.batches
    assert resumed.rng.bit_generator.state == whole.rng.bit_generator.state
    assert (resumed_watch.best, resumed_watch.best_epoch) == (watch.best, watch.best_epoch)
    assert not folder.exists()
    for a, b in zip(whole.optimizer.slots.values(), resumed.optimizer.slots.values(), strict=True):
        np.testing.assert_array_equal(a, b)


SCRIPT = """
import os, signal
import numpy as np
from normkit.callbacks import BackupAndRestore, Callback
from normkit.layers import BatchNormalization, Dense, Dropout
from normkit.models import Sequential

folder, kill = os.environ["FOLDER"], os.environ["KILL"] == "yes"
rng = np.random.default_rng(0)
x, y = rng.normal(size=(90, 5)), rng.integers(0, 3, 90)

class Kill(Callback):
    def on_train_batch_end(self, batch, logs=None):
        if kill and self.model.optimizer.iterations == 23:
            os.kill(os.getpid(), signal.SIGKILL)

model = Sequential([Dense(8, "relu", input_shape=(5,)), BatchNormalization(), Dropout(0.4), Dense(3, "softmax")], seed=0)
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x, y, batch_size=10, epochs=4, verbose=0, callbacks=[BackupAndRestore(folder, save_freq=2), Kill()])
print(b"".join(w.tobytes() for w in model.get_weights()).hex(), end="")
"""


def test_after_a_kill_the_same_script_ends_with_the_same_bits(tmp_path):
    def run(folder, kill):
        return run_python(SCRIPT, FOLDER=str(tmp_path / folder), KILL=kill)

    whole = run("whole", "no")
    assert whole.returncode == 0, whole.stderr
    killed = run("cut", "yes")
    assert killed.returncode == -signal.SIGKILL
    assert names(tmp_path) == ["cut/latest.safetensors"]
    resumed = run("cut", "no")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout == whole.stdout
    assert names(tmp_path) == []


def test_a_damaged_backup_gives_way_to_the_one_before(tmp_path):
    x, y = blobs(40)
    folder = tmp_path / "backup"
    with pytest.raises(CrashError):
        classifier().fit(
            x,
            y,
            epochs=5,
            verbose=0,
            callbacks=[BackupAndRestore(folder, double_checkpoint=True), Crash(2, 0)],
        )
    assert names(folder) == ["latest.safetensors", "previous.safetensors"]
    latest = folder / "latest.safetensors"
    latest.write_bytes(latest.read_bytes()[:-100])
    epochs = []

    class Note(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            epochs.append(epoch)

    (folder / "previous.safetensors").rename(tmp_path / "aside")
    with pytest.raises(ValueError, match=r"latest.safetensors: cannot be read as a normkit model"):
        classifier().fit(x, y, epochs=5, verbose=0, callbacks=[BackupAndRestore(folder)])
    (tmp_path / "aside").rename(folder / "previous.safetensors")
    classifier().fit(
        x, y, epochs=5, verbose=0, callbacks=[BackupAndRestore(folder, delete_checkpoint=False), Note()]
    )
    assert epochs == [1, 2, 3, 4]
    assert names(folder) == ["latest.safetensors", "previous.safetensors"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelCheckpoint("m.keras", save_freq="batch"), "save_freq must be 'epoch' or a number of batches, got 'batch'"),
        (lambda: ModelCheckpoint("m.keras", save_freq=0), "ModelCheckpoint: save_freq, if not 'epoch', must be a positive"),
        (lambda: BackupAndRestore(""), "backup_dir must be the name of a file or folder, got an empty string"),
        (lambda: classifier().save_progress("x"), "is not training; progress is that of a fit at work"),
        (
            lambda: classifier().fit(*blobs(40), verbose=0, callbacks=[ModelCheckpoint("{val_loss}")]),
            r"filepath '\{val_loss\}' cannot be filled in .*; there are: epoch, loss, accuracy",
        ),
    ],
)  # fmt: skip
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
