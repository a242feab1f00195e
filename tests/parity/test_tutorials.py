"""Keras's tutorials and guides for multi-layer perceptrons, with only the import changed.

Each is the code of the page, `keras` being the one library or the other, on data made here. `start` gives both the
same weights, so that the figures must be the same; where there is dropout, whose draws differ, it has rate 0.
"""

import warnings

import numpy as np
import pytest

import normkit

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


def clusters(n, features, classes, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return (rng.normal(size=(classes, features))[y] + rng.normal(size=(n, features))).astype("float32"), y


def basic_classification(keras, start, folder):
    """tensorflow.org/tutorials/keras/classification and /quickstart/beginner."""
    pixels, train_labels = clusters(320, 64, 10)
    train_images = pixels.reshape(-1, 8, 8)
    model = keras.Sequential(
        [
            keras.layers.Flatten(input_shape=(8, 8)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dropout(0.0),
            keras.layers.Dense(10),
        ]
    )
    start(model)
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(train_images, train_labels, epochs=3, shuffle=False, verbose=0)
    test_loss, test_acc = model.evaluate(train_images, train_labels, verbose=0)
    return [
        *history.history["loss"],
        test_loss,
        test_acc,
        *model.predict(train_images[:2], verbose=0).ravel(),
    ]


def regression(keras, start, folder):
    """tensorflow.org/tutorials/keras/regression, and the house prices of "Deep Learning with Python"."""
    rng = np.random.default_rng(0)
    train_data = rng.normal(size=(200, 9)).astype("float32")
    train_targets = (train_data @ rng.normal(size=9)).astype("float32")

    def build_model():
        model = keras.Sequential(
            [
                keras.layers.Dense(64, activation="relu"),
                keras.layers.Dense(64, activation="relu"),
                keras.layers.Dense(1),
            ]
        )
        model.build((None, 9))
        start(model)
        model.compile(optimizer=keras.optimizers.Adam(0.001), loss="mean_absolute_error", metrics=["mse"])
        return model

    numbers = []
    k = 2
    num_val_samples = len(train_data) // k
    for i in range(k):
        val_data = train_data[i * num_val_samples : (i + 1) * num_val_samples]
        val_targets = train_targets[i * num_val_samples : (i + 1) * num_val_samples]
        model = build_model()
        history = model.fit(
            np.delete(train_data, range(i * num_val_samples, (i + 1) * num_val_samples), axis=0),
            np.delete(train_targets, range(i * num_val_samples, (i + 1) * num_val_samples)),
            validation_split=0.2,
            epochs=4,
            verbose=0,
            shuffle=False,
        )
        val_mae, val_mse = model.evaluate(val_data, val_targets, verbose=0)
        numbers += [val_mae, val_mse, *history.history["val_loss"]]
    return numbers


def overfit_and_underfit(keras, start, folder):
    """tensorflow.org/tutorials/keras/overfit_and_underfit."""
    features, labels = clusters(400, 28, 2)
    labels = labels[:, None]
    train, validate = slice(0, 300), slice(300, 400)
    batch_size = 50
    steps_per_epoch = 300 // batch_size
    lr_schedule = keras.optimizers.schedules.InverseTimeDecay(
        0.001, decay_steps=steps_per_epoch * 10, decay_rate=1, staircase=False
    )
    layers, regularizers = keras.layers, keras.regularizers
    combined_model = keras.Sequential(
        [
            layers.Dense(32, kernel_regularizer=regularizers.l2(0.0001), activation="elu", input_shape=(28,)),
            layers.Dropout(0.0),
            layers.Dense(32, kernel_regularizer=regularizers.l2(0.0001), activation="elu"),
            layers.Dropout(0.0),
            layers.Dense(1),
        ]
    )
    start(combined_model)
    combined_model.compile(
        optimizer=keras.optimizers.Adam(lr_schedule),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[
            keras.metrics.BinaryCrossentropy(from_logits=True, name="binary_crossentropy"),
            "accuracy",
        ],
    )
    history = combined_model.fit(
        features[train],
        labels[train].astype("float32"),
        batch_size=batch_size,
        epochs=5,
        validation_data=(features[validate], labels[validate].astype("float32")),
        callbacks=[
            keras.callbacks.EarlyStopping(monitor="val_binary_crossentropy", patience=200, mode="min")
        ],
        shuffle=False,
        verbose=0,
    )
    return [
        value
        for name in ("loss", "binary_crossentropy", "val_loss", "val_binary_crossentropy", "val_accuracy")
        for value in history.history[name]
    ]


def imbalanced_classification(keras, start, folder):
    """keras.io/examples/structured_data/imbalanced_classification."""
    train_features, train_targets = clusters(500, 30, 2)
    train_targets = (train_targets & (np.arange(500) % 5 == 0)).astype("uint8")[:, None]
    val_features, val_targets = train_features[400:], train_targets[400:]
    counts = np.bincount(train_targets[:, 0])
    weight_for_0, weight_for_1 = 1.0 / counts[0], 1.0 / counts[1]
    model = keras.Sequential(
        [
            keras.Input(shape=train_features.shape[1:]),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dropout(0.0),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dropout(0.0),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.summary(print_fn=lambda *args, **kwargs: None)
    start(model)
    metrics = [
        keras.metrics.FalseNegatives(name="fn"),
        keras.metrics.FalsePositives(name="fp"),
        keras.metrics.TrueNegatives(name="tn"),
        keras.metrics.TruePositives(name="tp"),
        keras.metrics.Precision(name="precision"),
        keras.metrics.Recall(name="recall"),
    ]
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="binary_crossentropy", metrics=metrics)
    callbacks = [keras.callbacks.ModelCheckpoint(f"{folder}/fraud_model_at_epoch_{{epoch}}.keras")]
    class_weight = {0: weight_for_0, 1: weight_for_1}
    history = model.fit(
        train_features,
        train_targets,
        batch_size=64,
        epochs=3,
        verbose=2,
        callbacks=callbacks,
        validation_data=(val_features, val_targets),
        class_weight=class_weight,
        shuffle=False,
    )
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"fraud_model_at_epoch_{epoch}.keras" for epoch in (1, 2, 3)]
    keys = (
        "loss",
        "precision",
        "recall",
        "val_loss",
        "val_fn",
        "val_fp",
        "val_tn",
        "val_tp",
        "val_precision",
    )
    return [value for name in keys for value in history.history[name]]


def save_and_load(keras, start, folder):
    """tensorflow.org/tutorials/keras/save_and_load."""
    train_images, train_labels = clusters(200, 84, 10)
    test_images, test_labels = clusters(100, 84, 10)

    def create_model():
        model = keras.Sequential(
            [
                keras.layers.Dense(64, activation="relu", input_shape=(84,)),
                keras.layers.Dropout(0.0),
                keras.layers.Dense(10),
            ]
        )
        model.compile(
            optimizer="adam",
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy()],
        )
        return model

    checkpoint_path = f"{folder}/cp-{{epoch:04d}}.weights.h5"
    cp_callback = keras.callbacks.ModelCheckpoint(
        filepath=checkpoint_path, verbose=0, save_weights_only=True, save_freq=7
    )
    model = create_model()
    start(model)
    model.save_weights(checkpoint_path.format(epoch=0))
    model.fit(
        train_images, train_labels, epochs=4, callbacks=[cp_callback], shuffle=False,
        validation_data=(test_images, test_labels), verbose=0,
    )  # fmt: skip
    names = sorted(path.name for path in folder.iterdir())
    model = create_model()
    model.load_weights(f"{folder}/{names[-1]}")
    numbers = [len(names), *model.evaluate(test_images, test_labels, verbose=0)]
    model.save(f"{folder}/my_model.keras")
    new_model = keras.models.load_model(f"{folder}/my_model.keras")
    # load_weights gives the new model the optimizer's state here, and in Keras not yet; so both start it anew.
    new_model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    new_model.fit(train_images, train_labels, epochs=1, shuffle=False, verbose=0)
    return [*numbers, *new_model.evaluate(test_images, test_labels, verbose=0)]


def writing_your_own_callbacks(keras, start, folder):
    """keras.io/guides/writing_your_own_callbacks."""
    x_train, y_train = clusters(200, 20, 3)
    rows = []

    class EarlyStoppingAtMinLoss(keras.callbacks.Callback):
        def __init__(self, patience=0):
            super().__init__()
            self.patience = patience
            self.best_weights = None

        def on_train_begin(self, logs=None):
            self.wait = 0
            self.stopped_epoch = 0
            self.best = np.inf

        def on_epoch_end(self, epoch, logs=None):
            current = logs.get("loss")
            if np.less(current, self.best):
                self.best = current
                self.wait = 0
                self.best_weights = self.model.get_weights()
            else:
                self.wait += 1
                if self.wait >= self.patience:
                    self.stopped_epoch = epoch
                    self.model.stop_training = True
                    self.model.set_weights(self.best_weights)

    class CustomLearningRateScheduler(keras.callbacks.Callback):
        def __init__(self, schedule):
            super().__init__()
            self.schedule = schedule

        def on_epoch_begin(self, epoch, logs=None):
            if not hasattr(self.model.optimizer, "learning_rate"):
                raise ValueError('Optimizer must have a "learning_rate" attribute.')
            lr = float(self.model.optimizer.learning_rate)
            self.model.optimizer.learning_rate = self.schedule(epoch, lr)

    class LossAndErrorPrintingCallback(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            rows.append(logs["loss"])

        def on_test_batch_end(self, batch, logs=None):
            rows.append(logs["loss"])

        def on_epoch_end(self, epoch, logs=None):
            rows.append(logs["mean_absolute_error"])

    model = keras.Sequential()
    model.add(keras.layers.Dense(1))
    model.build((None, 20))
    start(model)
    model.compile(
        optimizer=keras.optimizers.RMSprop(learning_rate=0.1),
        loss="mean_squared_error",
        metrics=["mean_absolute_error"],
    )
    schedule = {3: 0.05, 6: 0.01}
    model.fit(
        x_train, y_train.astype("float32"), batch_size=64, epochs=12, verbose=0, validation_split=0.5, shuffle=False,
        callbacks=[
            LossAndErrorPrintingCallback(),
            EarlyStoppingAtMinLoss(patience=1),
            CustomLearningRateScheduler(lambda epoch, lr: schedule.get(epoch, lr)),
        ],
    )  # fmt: skip
    return [
        len(rows),
        *(float(row) for row in rows),
        *model.evaluate(x_train, y_train.astype("float32"), verbose=0),
    ]


def batch_and_layer_normalization(keras, start, folder):
    """The example of every page on them, by names and by `fit`, with a plateau, a checkpoint and early stopping."""
    x, y = clusters(300, 40, 4)
    x = 50 + 10 * x
    model = keras.Sequential(
        [
            keras.layers.Dense(64, input_shape=(40,)),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("relu"),
            keras.layers.Dense(32, use_bias=False),
            keras.layers.LayerNormalization(),
            keras.layers.LeakyReLU(negative_slope=0.1),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    start(model)
    model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        x, keras.utils.to_categorical(y, 4), batch_size=32, epochs=6, validation_split=0.25, shuffle=False, verbose=0,
        callbacks=[
            keras.callbacks.ReduceLROnPlateau(patience=2, factor=0.5),
            keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True),
            keras.callbacks.ModelCheckpoint(f"{folder}/best.keras", save_best_only=True),
        ],
    )  # fmt: skip
    best = keras.models.load_model(f"{folder}/best.keras")
    return [
        *history.history["val_loss"],
        *history.history["learning_rate"],
        *best.predict(x[:3], verbose=0).ravel(),
    ]


TUTORIALS = (
    basic_classification,
    regression,
    overfit_and_underfit,
    imbalanced_classification,
    save_and_load,
    writing_your_own_callbacks,
    batch_and_layer_normalization,
)


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda tutorial: tutorial.__name__)
def test_figures_are_kerass(keras, tutorial, tmp_path):
    figures = []

    def start(model):
        rng = np.random.default_rng(0)
        model.set_weights(
            [rng.normal(size=w.shape) / np.sqrt(w.shape[0]) if w.ndim > 1 else w for w in model.get_weights()]
        )

    for index, library in enumerate((normkit, keras)):
        folder = tmp_path / str(index)
        folder.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            figures.append(np.array([float(value) for value in tutorial(library, start, folder)]))
    np.testing.assert_allclose(*figures, rtol=2e-3, atol=2e-5)
