"""Keras's interface against Keras: the same weights, data and arguments give the same logs, rates and files."""

import csv
import inspect

import numpy as np
import pytest

from normkit import callbacks, layers, losses, metrics, models, optimizers, regularizers

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


class Normkit:
    """The modules by Keras's names."""

    callbacks, layers, losses, metrics, optimizers = callbacks, layers, losses, metrics, optimizers
    Sequential, Input = models.Sequential, layers.Input


def data(n=200, features=8, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    centers = rng.normal(size=(classes, features))
    return (centers[y] + rng.normal(size=(n, features))).astype(np.float32), y


def make(library, classes=3, features=8, dtype="float32"):
    # "float32" is each library's default; Keras takes a layer's dtype, which works in both.
    kwargs = {} if dtype == "float32" else {"dtype": dtype}
    activation = "softmax" if classes > 1 else "sigmoid"
    return library.Sequential(
        [
            library.Input((features,)),
            library.layers.Dense(12, activation="relu", **kwargs),
            library.layers.BatchNormalization(**kwargs),
            library.layers.Dense(7, activation="tanh", **kwargs),
            library.layers.LayerNormalization(**kwargs),
            library.layers.Dense(classes, activation=activation, **kwargs),
        ]
    )


@pytest.fixture
def pair(keras):
    """Make the same model in both libraries, with the same weights."""

    def pair(**kwargs):
        ours, theirs = make(Normkit, **kwargs), make(keras, **kwargs)
        rng = np.random.default_rng(1)
        weights = [w + 0.01 * rng.normal(size=w.shape) for w in ours.get_weights()]
        ours.set_weights(weights)
        theirs.set_weights(weights)
        return (ours, Normkit), (theirs, keras)

    return pair


def assert_same_history(mine, other, rel=2e-4):
    assert set(mine.history) == set(other.history)
    assert mine.epoch == other.epoch
    for name, values in mine.history.items():
        assert values == pytest.approx([float(v) for v in other.history[name]], rel=rel, abs=2e-6), name


SCHEDULES = [
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.9}),
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.9, "staircase": True}),
    ("PiecewiseConstantDecay", {"boundaries": [10, 20, 35], "values": [0.1, 0.05, 0.01, 0.5]}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 30}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 16, "power": 2.5, "cycle": True}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.9}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.9, "staircase": True}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 40, "alpha": 0.1}),
    ("CosineDecay", {"initial_learning_rate": 0.0, "decay_steps": 40, "warmup_target": 0.1, "warmup_steps": 12}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 10}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 10, "t_mul": 1.0, "m_mul": 0.8}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 10, "t_mul": 1.5, "alpha": 0.2}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments"), SCHEDULES)
def test_schedules(keras, name, arguments):
    mine = getattr(optimizers.schedules, name)(**arguments)
    other = getattr(keras.optimizers.schedules, name)(**arguments)
    theirs = [float(other(step)) for step in range(100)]
    # Where a decay starts again, float32 may put the start a step early or late.
    restarts = set()
    if name.endswith("Restarts"):
        restarts = {25} if "t_mul" in arguments else {30, 70}
    for step in set(range(100)) - restarts:
        assert mine(step) == pytest.approx(theirs[step], rel=1e-4, abs=1e-7), step
    assert mine.get_config() == other.get_config()


@pytest.mark.parametrize(("total", "share"), [(100, 0.3), (37, 0.45), (10, 0.25)])
def test_one_cycle_is_torchs(torch, total, share):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total, pct_start=share, cycle_momentum=False)
    mine = optimizers.schedules.OneCycle(0.5, total, share)
    for step in range(total):
        assert mine(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
        optimizer.step()
        if step < total - 1:
            theirs.step()


OPTIMIZERS = [
    ("SGD", {"learning_rate": 0.1, "clipnorm": 0.05}),
    ("SGD", {"learning_rate": 0.1, "clipvalue": 0.01}),
    ("SGD", {"learning_rate": 0.1, "global_clipnorm": 0.1, "momentum": 0.9}),
    ("SGD", {"learning_rate": 0.1, "weight_decay": 0.05, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"learning_rate": 0.1, "gradient_accumulation_steps": 3}),
    ("Adam", {"gradient_accumulation_steps": 4, "clipnorm": 0.1, "weight_decay": 0.01}),
    ("Adam", {"learning_rate": 0.01, "use_ema": True, "ema_momentum": 0.9}),
    ("Adam", {"learning_rate": 0.01, "use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 5}),
    ("SGD", {"learning_rate": 0.1, "use_ema": True, "ema_momentum": 0.8, "gradient_accumulation_steps": 2}),
    (
        "SGD",
        {
            "learning_rate": 0.1,
            "use_ema": True,
            "ema_momentum": 0.8,
            "gradient_accumulation_steps": 2,
            "ema_overwrite_frequency": 3,
        },
    ),
    ("AdamW", {"learning_rate": 0.01, "weight_decay": 0.1, "global_clipnorm": 0.5}),
    ("RMSprop", {"learning_rate": 0.005, "clipvalue": 0.02}),
    ("Adagrad", {"learning_rate": 0.05}),
    ("Adadelta", {"learning_rate": 1.0}),
    ("Adamax", {"learning_rate": 0.01}),
    ("Nadam", {"learning_rate": 0.005}),
    ("Nadam", {"learning_rate": 0.005, "gradient_accumulation_steps": 2}),
    ("Lion", {"learning_rate": 0.0005}),
]


@pytest.mark.parametrize("steps", [None, 2, 3, 4])
@pytest.mark.parametrize("frequency", [None, 1, 2, 3, 5])
def test_moving_averages_of_weights(keras, frequency, steps):
    """After each batch, and at the end."""
    rng = np.random.default_rng(5)
    start, gradients = rng.normal(size=4).astype(np.float32), rng.normal(size=(31, 4)).astype(np.float32)
    options = {"use_ema": True, "ema_momentum": 0.7, "ema_overwrite_frequency": frequency}
    options |= {"gradient_accumulation_steps": steps, "learning_rate": 0.1}
    mine, other = optimizers.Adam(**options), keras.optimizers.Adam(**options)
    value, grad, theirs = start.copy(), np.zeros(4, np.float32), keras.Variable(start)
    mine.build([(value, grad)])
    other.build([theirs])
    for gradient in gradients:
        grad[:] = gradient
        mine.step()
        other.apply([keras.ops.convert_to_tensor(gradient)])
        np.testing.assert_allclose(value, keras.ops.convert_to_numpy(theirs), rtol=1e-5, atol=1e-5)
    mine.finalize()
    other.finalize_variable_values([theirs])
    np.testing.assert_allclose(value, keras.ops.convert_to_numpy(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "arguments"), OPTIMIZERS)
def test_optimizers(pair, name, arguments):
    x, y = data()
    histories = []
    for model, library in pair():
        model.compile(getattr(library.optimizers, name)(**arguments), "sparse_categorical_crossentropy")
        histories.append(
            model.fit(x, y, batch_size=16, epochs=3, shuffle=False, validation_data=(x, y), verbose=0)
        )
    assert_same_history(*histories)
    for mine, other in zip(*(history.model.get_weights() for history in histories), strict=True):
        np.testing.assert_allclose(mine, other, rtol=5e-3, atol=2e-3 if name == "Lion" else 3e-4)
    assert int(histories[1].model.optimizer.iterations) == histories[0].model.optimizer.iterations


@pytest.mark.parametrize("accumulation", [None, 3])
def test_a_schedule_in_training(pair, accumulation):
    x, y = data()
    histories, rates = [], []
    for model, library in pair():
        schedule = library.optimizers.schedules.CosineDecay(0.0, 20, warmup_target=0.3, warmup_steps=8)
        optimizer = library.optimizers.SGD(schedule, gradient_accumulation_steps=accumulation)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        seen = []

        class Rates(library.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None, seen=seen):
                seen.append(float(self.model.optimizer.learning_rate))

        histories.append(
            model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0, callbacks=[Rates()])
        )
        rates.append(seen)
    assert rates[0] == pytest.approx(rates[1], rel=1e-5, abs=1e-8)
    assert_same_history(*histories)


RNG = np.random.default_rng(3)
PROBABILITIES = RNG.dirichlet(np.ones(4), size=50).astype(np.float32)
ONE_HOT = np.eye(4, dtype=np.float32)[RNG.integers(0, 4, 50)]
LABELS = ONE_HOT.argmax(axis=1)
REALS, PREDICTED = (RNG.normal(size=(50, 3)).astype(np.float32) for _ in range(2))
BITS, SCORES = RNG.integers(0, 2, (50, 1)).astype(np.float32), RNG.random((50, 1)).astype(np.float32)
WEIGHT = RNG.random(50).astype(np.float32)

LOSSES = [
    ("MeanSquaredError", {}, REALS, PREDICTED),
    ("MeanAbsoluteError", {}, REALS, PREDICTED),
    ("MeanAbsolutePercentageError", {}, REALS, PREDICTED),
    ("MeanSquaredLogarithmicError", {}, np.abs(REALS), PREDICTED),
    ("Huber", {"delta": 0.7}, REALS, PREDICTED),
    ("LogCosh", {}, 5 * REALS, PREDICTED),
    ("CosineSimilarity", {}, REALS, PREDICTED),
    ("KLDivergence", {}, ONE_HOT, PROBABILITIES),
    ("Poisson", {}, np.rint(np.abs(3 * REALS)), np.abs(PREDICTED)),
    ("Hinge", {}, BITS, 2 * SCORES - 1),
    ("Hinge", {}, 2 * BITS - 1, 2 * SCORES - 1),
    ("SquaredHinge", {}, BITS, 2 * SCORES - 1),
    ("CategoricalHinge", {}, ONE_HOT, 3 * PROBABILITIES),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, BITS, SCORES),
    ("BinaryCrossentropy", {"from_logits": True}, BITS, 4 * SCORES - 2),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, ONE_HOT, PROBABILITIES),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, LABELS, PROBABILITIES),
]


@pytest.mark.parametrize(
    ("name", "arguments", "y", "p"), LOSSES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_losses(keras, torch, name, arguments, y, p):
    mine, other = getattr(losses, name)(**arguments), getattr(keras.losses, name)(**arguments)
    for weight in (None, WEIGHT):
        assert mine(y, p, weight) == pytest.approx(float(other(y, p, sample_weight=weight)), rel=2e-5)
        tensor = torch.tensor(p, requires_grad=True)
        other(torch.tensor(y), tensor, sample_weight=weight).backward()
        targets = mine.targets(y, p.shape, p.dtype)
        gradient = mine.mean_and_gradient(targets, p, weight)[1]
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-3, atol=1e-6)


METRICS = [
    ("Accuracy", {}, LABELS, LABELS[::-1]),
    ("BinaryAccuracy", {"threshold": 0.3}, BITS, SCORES),
    ("CategoricalAccuracy", {}, ONE_HOT, PROBABILITIES),
    ("SparseCategoricalAccuracy", {}, LABELS, PROBABILITIES),
    ("TopKCategoricalAccuracy", {"k": 2}, ONE_HOT, PROBABILITIES),
    ("SparseTopKCategoricalAccuracy", {"k": 3}, LABELS, PROBABILITIES),
    ("MeanSquaredError", {}, REALS, PREDICTED),
    ("RootMeanSquaredError", {}, REALS, PREDICTED),
    ("MeanAbsoluteError", {}, REALS, PREDICTED),
    ("MeanAbsolutePercentageError", {}, REALS, PREDICTED),
    ("MeanSquaredLogarithmicError", {}, np.abs(REALS), np.abs(PREDICTED)),
    ("LogCoshError", {}, REALS, PREDICTED),
    ("CosineSimilarity", {}, REALS, PREDICTED),
    ("R2Score", {}, REALS, PREDICTED),
    ("R2Score", {"class_aggregation": "variance_weighted_average"}, REALS, PREDICTED),
    ("R2Score", {"class_aggregation": None}, REALS, PREDICTED),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, BITS, SCORES),
    ("CategoricalCrossentropy", {}, ONE_HOT, PROBABILITIES),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, LABELS, PROBABILITIES),
    ("KLDivergence", {}, ONE_HOT, PROBABILITIES),
    ("Poisson", {}, np.rint(np.abs(3 * REALS)), np.abs(PREDICTED)),
    ("Hinge", {}, BITS, SCORES),
    ("SquaredHinge", {}, BITS, SCORES),
    ("CategoricalHinge", {}, ONE_HOT, PROBABILITIES),
    ("TruePositives", {}, BITS, SCORES),
    ("FalsePositives", {"thresholds": [0.7, 0.2]}, BITS, SCORES),
    ("TrueNegatives", {"thresholds": 0.3}, ONE_HOT, PROBABILITIES),
    ("FalseNegatives", {}, BITS, SCORES),
    ("Precision", {}, BITS, SCORES),
    ("Precision", {"thresholds": [0.2, 0.4, 0.9]}, ONE_HOT, PROBABILITIES),
    ("Precision", {"top_k": 2}, ONE_HOT, PROBABILITIES),
    ("Recall", {"class_id": 1, "thresholds": 0.3}, ONE_HOT, PROBABILITIES),
    ("Recall", {"top_k": 2, "class_id": 0}, ONE_HOT, PROBABILITIES),
    ("AUC", {}, BITS, SCORES),
    ("AUC", {"curve": "PR"}, BITS, SCORES),
    ("AUC", {"num_thresholds": 20, "summation_method": "minoring"}, BITS, SCORES),
    ("AUC", {"curve": "PR", "summation_method": "majoring", "thresholds": [0.1, 0.5, 0.8]}, BITS, SCORES),
    ("AUC", {"from_logits": True}, BITS, 4 * SCORES - 2),
    ("F1Score", {}, ONE_HOT, PROBABILITIES),
    ("F1Score", {"average": "micro", "threshold": 0.4}, ONE_HOT, PROBABILITIES),
    ("FBetaScore", {"average": "weighted", "beta": 2.0}, ONE_HOT, PROBABILITIES),
    ("FBetaScore", {"average": "macro", "beta": 0.5}, ONE_HOT, PROBABILITIES),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "y", "p"), METRICS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_metrics(keras, name, arguments, y, p):
    mine, other = getattr(metrics, name)(**arguments), getattr(keras.metrics, name)(**arguments)
    assert other.name.startswith(mine.name)  # Keras numbers a second object of a class
    assert mine.direction == getattr(other, "_direction", None) or name in ("Poisson", "KLDivergence")
    for weight in (None, WEIGHT):
        for start in (0, 20):
            part = slice(start, start + 30)
            w = None if weight is None else weight[part]
            mine.update_state(y[part], p[part], w)
            other.update_state(y[part], p[part], sample_weight=w)
        np.testing.assert_allclose(mine.result(), np.asarray(other.result()), rtol=3e-5, atol=1e-6)
        mine.reset_state()
        other.reset_state()
        assert not np.nan_to_num(mine.result()).any()


def test_metrics_of_a_fit(pair):
    x, y = data(classes=2)
    weight = np.linspace(0, 2, len(x)).astype(np.float32)
    histories = []
    for model, library in pair(classes=1):
        m = library.metrics
        model.compile(
            "adam",
            "binary_crossentropy",
            metrics=["accuracy", "mae", m.TruePositives(name="tp"), m.FalseNegatives(name="fn"), m.Precision(name="p"),
                     m.Recall(name="r"), m.AUC(name="auc"), m.AUC(name="prc", curve="PR")],
            weighted_metrics=["mse", m.Recall(name="weighted_r"), m.BinaryCrossentropy(name="ce")],
        )  # fmt: skip
        histories.append(
            model.fit(x, y[:, None], batch_size=16, epochs=3, shuffle=False, sample_weight=weight,
                      validation_data=(x, y[:, None], weight), verbose=0)
        )  # fmt: skip
    for history in histories:
        # Keras's counts are views, which the validation overwrites before the history gets them.
        for name in ("tp", "fn"):
            del history.history[name]
    assert_same_history(*histories, rel=1e-3)


FITS = [
    {"validation_split": 0.25},
    {"validation_split": 0.25, "validation_freq": 2, "class_weight": {0: 2.0, 1: 0.5}},
    {"validation_split": 0.5, "validation_freq": [1, 4], "initial_epoch": 1},
    {"validation_split": 0.5, "validation_steps": 2, "validation_batch_size": 10},
    {"steps_per_epoch": 5, "batch_size": 20},
    {"steps_per_epoch": 3},
    {"sample_weight": np.linspace(0, 2, 200).astype(np.float32)},
]


@pytest.mark.parametrize("arguments", FITS)
def test_arguments_of_fit(pair, arguments):
    x, y = data()
    histories = []
    for model, _ in pair():
        model.compile(
            "sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"]
        )
        histories.append(
            model.fit(x, y, **{"batch_size": 16, "epochs": 4, "shuffle": False, "verbose": 0, **arguments})
        )
    assert_same_history(*histories)


CALLBACKS = {
    "early stopping": lambda c: [c.EarlyStopping(patience=1, restore_best_weights=True)],
    "early stopping by accuracy": lambda c: [c.EarlyStopping("accuracy", patience=2, baseline=0.99)],
    "warm-up": lambda c: [c.EarlyStopping(start_from_epoch=3, min_delta=10.0, patience=1)],
    "plateau": lambda c: [c.ReduceLROnPlateau("loss", factor=0.3, patience=1, min_delta=0.2, cooldown=1, min_lr=0.01)],
    "scheduler": lambda c: [c.LearningRateScheduler(lambda epoch, rate: float(rate * 0.5 if epoch else rate))],
    "both": lambda c: [
        c.ReduceLROnPlateau(factor=0.1, patience=1, min_delta=0.1), c.EarlyStopping(patience=3, min_delta=0.1),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks(pair, name):
    x, y = data()
    xv, yv = data(60, seed=1)
    histories = []
    for model, library in pair():
        model.compile(library.optimizers.SGD(0.5), "sparse_categorical_crossentropy", metrics=["accuracy"])
        histories.append(
            model.fit(x, y, batch_size=20, epochs=9, shuffle=False, validation_data=(xv, yv), verbose=0,
                      callbacks=CALLBACKS[name](library.callbacks))
        )  # fmt: skip
    assert_same_history(*histories, rel=2e-3)
    for mine, other in zip(*(history.model.get_weights() for history in histories), strict=True):
        np.testing.assert_allclose(mine, other, rtol=2e-2, atol=2e-3)


def test_files_of_callbacks(pair, tmp_path):
    """The rows of CSVLogger, and the names and number of files of ModelCheckpoint."""
    x, y = data()
    tables, files = [], []
    for index, (model, library) in enumerate(pair()):
        folder = tmp_path / str(index)
        folder.mkdir()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        for append, epochs in ((False, range(2)), (True, range(2, 4))):
            model.fit(
                x, y, epochs=epochs.stop, initial_epoch=epochs.start, shuffle=False, verbose=0, validation_split=0.2,
                callbacks=[
                    library.callbacks.CSVLogger(str(folder / "log.csv"), append=append),
                    library.callbacks.ModelCheckpoint(str(folder / "{epoch:02d}-{val_loss:.2f}.keras")),
                    library.callbacks.ModelCheckpoint(
                        str(folder / "batch-{epoch}-{batch:03d}.weights.h5"), save_weights_only=True, save_freq=3
                    ),
                    library.callbacks.ModelCheckpoint(str(folder / "best.keras"), "accuracy", save_best_only=True),
                ],
            )  # fmt: skip
        with (folder / "log.csv").open() as file:
            tables.append(list(csv.reader(file)))
        files.append(sorted(path.name for path in folder.iterdir()))
    assert files[0] == files[1]
    assert tables[0][0] == tables[1][0]
    mine, other = (np.array(table[1:], float) for table in tables)
    np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-6)


def test_hooks_and_what_they_are_told(keras):
    """Every hook, in order, with the batch or epoch and the names in the logs."""
    x, y = data(50)
    told = []
    for library in (Normkit, keras):
        calls = []

        def record(hook, calls=calls):
            def call(self, *args, **kwargs):
                values = [*args, *kwargs.values()]
                logs = values.pop() if values and not isinstance(values[-1], int) else None
                place = values
                calls.append((hook, *place, sorted(logs) if logs else None))

            return call  # noqa: B023 - it is used within this turn of the loop

        base = library.callbacks.Callback
        hooks = [name for name, _ in inspect.getmembers(callbacks.Callback) if name.startswith("on_")]
        recorder = type("Recorder", (base,), {hook: record(hook) for hook in hooks})()
        model = make(library)
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(x, y, batch_size=20, epochs=2, validation_data=(x, y), verbose=0, callbacks=[recorder])
        model.evaluate(x, y, verbose=0, callbacks=[recorder])
        model.predict(x, verbose=0, callbacks=[recorder])
        assert recorder.params["epochs"] == 1
        told.append(
            [call for call in calls if call[-1] is not None or "begin" in call[0] or "predict" in call[0]]
        )
    assert told[0] == told[1]


@pytest.mark.parametrize("dtypes", [("float64", "float64"), ("float32", "float64"), ("float64", "float32")])
def test_layers_of_mixed_dtype(keras, dtypes):
    x, y = data()
    first, second = dtypes
    histories, weights = [], None
    for library in (Normkit, keras):
        model = library.Sequential(
            [
                library.Input((8,)),
                library.layers.Dense(12, activation="relu", dtype=first),
                library.layers.BatchNormalization(dtype=second),
                library.layers.Dense(3, activation="softmax", dtype=second),
            ]
        )
        weights = weights or model.get_weights()
        model.set_weights(weights)
        kinds = {np.dtype(first), np.dtype(second)}
        assert {w.dtype for w in model.get_weights()} == kinds
        model.compile("adam", "sparse_categorical_crossentropy")
        histories.append(model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0))
        assert model.predict(x, verbose=0).dtype == second
    assert_same_history(*histories, rel=1e-5)


@pytest.mark.parametrize("axis", [1, 2, 3, -1, -2, -3])
def test_batch_normalization_on_any_axis(keras, axis):
    compare_layer(keras, "BatchNormalization", axis)


@pytest.mark.parametrize("axis", [-1, 3, [2, 3], [-1, -2], [1, 2, 3]])
def test_layer_normalization_on_the_axes_that_keras_can(keras, axis):
    """On torch Keras normalizes trailing axes alone; the others are in tests/trainer/test_layers.py."""
    compare_layer(keras, "LayerNormalization", axis)


@pytest.mark.parametrize("axis", [-1, [2, 3], [1, 2, 3]])
def test_rms_normalization(keras, axis):
    compare_layer(keras, "RMSNormalization", axis)


@pytest.mark.parametrize(("axis", "groups"), [(-1, 5), (-1, 1), (1, 3), (2, 2), (-1, -1)])
def test_group_normalization(keras, axis, groups):
    compare_layer(keras, "GroupNormalization", axis, groups=groups)


def compare_layer(keras, name, axis, **options):
    """Training of a layer in the middle of a network, on (batch, 3, 4, 5), forward, backward and in inference."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(64, 3, 4, 5)) * 2 + 1).astype(np.float32)
    y = rng.integers(0, 3, 64)
    histories, weights = [], None
    for library in (Normkit, keras):
        model = library.Sequential(
            [
                library.Input((3, 4, 5)),
                library.layers.Dense(5, activation="tanh"),
                getattr(library.layers, name)(axis=axis, **options),
                library.layers.Activation("relu"),
                library.layers.Flatten(),
                library.layers.Dense(3, activation="softmax"),
            ]
        )
        weights = weights or [w + 0.1 * rng.random(w.shape) for w in model.get_weights()]
        model.set_weights(weights)
        model.compile("adam", "sparse_categorical_crossentropy")
        histories.append(
            model.fit(x, y, batch_size=16, epochs=3, shuffle=False, validation_data=(x, y), verbose=0)
        )
    assert_same_history(*histories)


ACTIVATIONS = (
    "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "sigmoid", "tanh", "softmax", "log_softmax", "softplus",
    "softsign", "silu", "swish", "mish", "hard_sigmoid", "exponential", "linear",
)  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(keras, name):
    """The output and the gradient, by a few steps of training."""
    x, y = data(64)
    rng = np.random.default_rng(2)
    weights = [0.3 * rng.normal(size=shape) for shape in ((8, 6), (6,), (6, 3), (3,))]
    histories = []
    for library in (Normkit, keras):
        model = library.Sequential([library.Input((8,)), library.layers.Dense(6, activation=name)])
        model.add(library.layers.Dense(3, activation="softmax"))
        model.set_weights(weights)
        model.compile(library.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        histories.append(model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0))
    assert_same_history(*histories, rel=1e-3 if name == "gelu" else 1e-5)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ReLU", {}), ("LeakyReLU", {}), ("LeakyReLU", {"negative_slope": 0.1}), ("ELU", {"alpha": 0.7}), ("Softmax", {}),
        ("Reshape", {"target_shape": (2, 4)}), ("Rescaling", {"scale": 0.3, "offset": 1.0}), ("Flatten", {}),
    ],
)  # fmt: skip
def test_layers_without_weights(keras, name, arguments):
    x, _ = data(20)
    mine, other = (getattr(library.layers, name)(**arguments) for library in (Normkit, keras))
    np.testing.assert_allclose(mine(x), np.asarray(other(x)), rtol=1e-5, atol=1e-6)
    assert mine.name == other.name or other.name.startswith(mine.name)


def test_regularizers(keras):
    x, y = data()
    histories, weights = [], None
    for library, r in ((Normkit, regularizers), (keras, keras.regularizers)):
        model = library.Sequential(
            [
                library.Input((8,)),
                library.layers.Dense(
                    9, "tanh", kernel_regularizer=r.L1L2(0.001, 0.01), bias_regularizer="l2"
                ),
                library.layers.BatchNormalization(gamma_regularizer=r.l1(0.01), beta_regularizer=r.L2(0.1)),
                library.layers.Dense(3, "softmax", kernel_regularizer=r.l1_l2(l1=0.001, l2=0.002)),
            ]
        )
        weights = weights or [w + 0.05 for w in model.get_weights()]
        model.set_weights(weights)
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        histories.append(
            model.fit(x, y, batch_size=16, epochs=3, shuffle=False, validation_split=0.2, verbose=0)
        )
    assert_same_history(*histories)
