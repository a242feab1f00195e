"""What a beginner does wrong, and what is said to it: what was expected, what came, and how to mend it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import normkit as nk
from normkit import callbacks, data, layers, losses, metrics, models, optimizers
from normkit.layers import Dense, Flatten, Input
from normkit.optimizers import schedules

rng = np.random.default_rng(0)
x = rng.normal(size=(60, 4)).astype(np.float32)
y = rng.integers(0, 3, 60)
numbers = rng.normal(size=60)
one_hot = np.eye(3)[y]
images = rng.normal(size=(60, 8, 8)).astype(np.float32)
ragged = [[1, 2], [3]]

SPARSE, CATEGORICAL, BINARY = (
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
)


def net(units: int = 3, activation: str | None = "softmax", loss: Any = SPARSE, **kwargs: Any) -> Any:
    model = nk.Sequential([Dense(8, "relu"), Dense(units, activation)], seed=0)
    model.compile(kwargs.pop("optimizer", "adam"), loss, **kwargs)
    return model


def regression(**kwargs: Any) -> Any:
    return net(1, None, "mse", **kwargs)


def trained() -> Any:
    model = net()
    model.fit(x, y, verbose=0)
    return model


def fit(features: Any = x, targets: Any = y, *, model: Any = None, **kwargs: Any) -> Any:
    return (model or net()).fit(features, targets, verbose=kwargs.pop("verbose", 0), **kwargs)


class Frame:
    """What a table of another library is to NumPy: something with `__array__`."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)
        self.shape = self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.values.astype(dtype or self.values.dtype)


def add_after_fit() -> Any:
    model = trained()
    model.add(Dense(3))
    return model.fit(x, y, verbose=0)


def same_layer_twice() -> Any:
    layer = Dense(4)
    return nk.Sequential([layer, layer])


def nan_in(values: Any, *rows: int) -> Any:
    values = np.array(values, np.float64)
    values[list(rows)] = np.nan
    return values


NUMBER = "must be a number, got "
FLATTEN = "if each sample has one target, put Flatten() before the first Dense"

# id: call, kind of error, fragments of its text
MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], tuple[str, ...]]] = {
    # images
    "images, labels": (lambda: fit(images), ValueError, ("labels of shape (batch, 8), got (60,)", FLATTEN)),
    "images with channels": (lambda: fit(images[..., None]), ValueError, (FLATTEN,)),
    "images, regression": (
        lambda: fit(images, numbers, model=regression()),
        ValueError,
        ("(batch, 8, 1), got (60,)", FLATTEN),
    ),
    "images, one-hot": (lambda: fit(images, one_hot, model=net(loss=CATEGORICAL)), ValueError, (FLATTEN,)),
    "images, binary": (
        lambda: fit(images, y > 0, model=net(1, "sigmoid", BINARY)),
        ValueError,
        (FLATTEN,),
    ),
    "images from a generator": (
        lambda: net().fit(((a, b) for a, b in [(images, y)]), verbose=0),
        ValueError,
        (FLATTEN,),
    ),
    "images for a model of rows": (
        lambda: nk.Sequential([Dense(3, input_dim=64)]).predict(images),
        ValueError,
        ("expected 64 features, got 8; put Flatten() before it (input of shape (batch, 8, 8))",),
    ),
    "images, as many features as no axis has": (
        lambda: nk.Sequential([Input((6,)), Dense(3)]).predict(np.ones((10, 28, 28))),
        ValueError,
        (
            "expected 6 features, got 28",
            "the model takes samples of shape (6,), and x has samples of shape (28, 28): Flatten() as the first layer",
        ),
    ),
    "images, for a norm of rows": (
        lambda: nk.Sequential([Input((6,)), layers.BatchNormalization(), Dense(3)])(images),
        ValueError,
        ("x has samples of shape (8, 8): Flatten() as the first layer",),
    ),
    "images, for a fitted model of rows": (
        lambda: trained().evaluate(images, y, verbose=0),
        ValueError,
        ("x has samples of shape (8, 8): Flatten() as the first layer",),
    ),
    # one row
    "a row, predict": (
        lambda: trained().predict(x[0]),
        ValueError,
        ("expected input of shape (batch, 4), got (4,); a single sample x is given as x[None]",),
    ),
    "a row, called": (lambda: trained()(x[0]), ValueError, ("x[None]",)),
    "a row, predict_on_batch": (lambda: trained().predict_on_batch(x[0]), ValueError, ("x[None]",)),
    "a row, fit": (lambda: fit(x[0], y[:1]), ValueError, ("got 4 and 1", "a single row is x[None]")),
    "a row, evaluate": (lambda: trained().evaluate(x[0], y[0]), ValueError, ("x[None]",)),
    "a row, unbuilt": (lambda: net().predict(x[0]), ValueError, ("x[:, None]", "x[None]")),
    "an image, predict": (
        lambda: nk.Sequential([Input((8, 8)), Flatten(), Dense(3)]).predict(images[0]),
        ValueError,
        ("expected input of shape (batch, 8, 8), got (8, 8); a single sample x is given as x[None]",),
    ),
    "one feature": (lambda: fit(x[:, 0]), ValueError, ("as a column, x[:, None]",)),
    # what x and y are
    "fit((x, y))": (lambda: net().fit((x, y)), ValueError, ("call fit(x, y), not fit((x, y))",)),
    "fit([x, y])": (lambda: net().fit([x, y]), ValueError, ("x is a list of 2: call fit(x, y)",)),
    "fit((x, y, w))": (lambda: net().fit((x, y, numbers)), ValueError, ("call fit(x, y)",)),
    "fit((x, y)) with validation_split": (
        lambda: net().fit((x, y), validation_split=0.2),
        ValueError,
        ("call fit(x, y)",),
    ),
    "evaluate((x, y))": (lambda: trained().evaluate((x, y)), ValueError, ("call fit(x, y)",)),
    "train_on_batch((x, y))": (lambda: net().train_on_batch((x, y)), ValueError, ("call fit(x, y)",)),
    "predict((x, y))": (
        lambda: trained().predict((x, y)),
        ValueError,
        ("tuple of 2 with the shapes (60, 4)",),
    ),
    "two inputs": (lambda: fit((x, x)), ValueError, ("x is a tuple of 2 arrays, and a model has one input",)),
    "a data set": (
        lambda: net().fit(data.load()),
        ValueError,
        ("y is missing", "call fit(data.x_train, data.y_train)"),
    ),
    "no y": (lambda: net().fit(x), ValueError, ("y is missing",)),
    "x and y swapped": (lambda: fit(y, x), ValueError, ("are they swapped? x comes first",)),
    "other lengths": (lambda: fit(x, y[:50]), ValueError, ("same length, got 60 and 50",)),
    "other features": (lambda: trained().predict(x[:, :2]), ValueError, ("expected 4 features, got 2",)),
    "other features, validation": (
        lambda: fit(validation_data=(x[:, :2], y)),
        ValueError,
        ("expected 4 features, got 2",),
    ),
    "a name of a file": (
        lambda: fit("data.csv"),
        TypeError,
        ("x must be an array of numbers, got 'data.csv' of type str",),
    ),
    "x None": (lambda: fit(None), TypeError, ("x must be an array of numbers, got None",)),
    "x a dict": (lambda: fit({"x": x}), TypeError, ("x must be an array of numbers", "of type dict")),
    "x a set": (lambda: fit({1, 2}, [1, 2]), TypeError, ("got {1, 2} of type set",)),
    "x a number": (lambda: fit(3, 3), ValueError, ("at least one sample",)),
    "predict(None)": (
        lambda: trained().predict(None),
        TypeError,
        ("x must be an array of numbers, got None",),
    ),
    "model(None)": (lambda: trained()(None), TypeError, ("x must be an array of numbers, got None",)),
    "y a text": (lambda: fit(x, "y"), TypeError, ("y must be an array of numbers, got 'y' of type str",)),
    "a frame of text": (
        lambda: fit(Frame([["a", "b"]] * 60)),
        TypeError,
        ("x must be an array of numbers, got text such as 'a'",),
    ),
    "objects": (
        lambda: fit(np.array([[None] * 4] * 60)),
        TypeError,
        ("got dtype object; if all are numbers, give np.asarray(x, float)",),
    ),
    "complex": (lambda: fit(x.astype(complex)), TypeError, ("got dtype complex128; give x.real and x.imag",)),
    "complex, called": (lambda: trained()(x.astype(complex)), TypeError, ("got dtype complex128",)),
    "complex y": (lambda: fit(x, y + 0j, model=regression()), TypeError, ("y must be an array of numbers",)),
    "dates": (lambda: fit(np.zeros((60, 2), "M8[s]")), TypeError, ("got dtype datetime64[s]",)),
    "empty": (
        lambda: fit(x[:0], y[:0]),
        ValueError,
        ("at least one sample along its first axis, got shape (0, 4)",),
    ),
    "empty list": (lambda: fit([], []), ValueError, ("at least one sample",)),
    "predict([])": (lambda: trained().predict([]), ValueError, ("at least one sample",)),
    "no features": (
        lambda: fit(x[:, :0]),
        ValueError,
        ("at least one value in each sample, got shape (60, 0)",),
    ),
    **{
        f"ragged, {name}": (call, ValueError, ("whose rows differ in length: 1 and 2; make them equal",))
        for name, call in {
            "fit": lambda: fit(ragged, [0, 1]),
            "y": lambda: fit(x[:2], ragged),
            "predict": lambda: trained().predict(ragged),
            "evaluate": lambda: trained().evaluate(ragged, [0, 1]),
            "called": lambda: trained()(ragged),
            "layer": lambda: Dense(2)(ragged),
            "train_on_batch": lambda: net().train_on_batch(ragged, [0, 1]),
            "sample_weight": lambda: fit(x[:2], y[:2], sample_weight=ragged),
            "validation_split": lambda: fit(ragged, [0, 1], validation_split=0.5),
            "validation_data": lambda: fit(validation_data=(ragged, [0, 1])),
            "MiniBatches": lambda: data.MiniBatches(ragged),
            "generator": lambda: net().fit(((a, b) for a, b in [(ragged, [0, 1])]), verbose=0),
            "stream": lambda: net().fit(data.Stream([(ragged, [0, 1])]), verbose=0),
            "to_categorical": lambda: nk.utils.to_categorical(ragged),
            "loss": lambda: losses.MeanSquaredError()(ragged, ragged),
        }.items()
    },
    # targets
    "labels from 1": (
        lambda: fit(x, y + 1),
        ValueError,
        ("labels must be 0 to 2, as the last layer has 3 units, got 3; if they start at 1, give y - 1",),
    ),
    "too few units": (
        lambda: fit(model=net(2)),
        ValueError,
        ("labels must be 0 to 1, as the last layer has 2 units, got 2; give the last layer 3 units",),
    ),
    "one unit for labels": (
        lambda: fit(model=net(1, None)),
        ValueError,
        ("1 unit, got 2; give the last layer 3",),
    ),
    "labels below 0": (lambda: fit(x, y - 1), ValueError, ("got -1; labels start at 0",)),
    "one-hot rows, sparse": (lambda: fit(x, one_hot), ValueError, (f"for one-hot rows use '{CATEGORICAL}'",)),
    "labels, categorical": (
        lambda: fit(model=net(loss=CATEGORICAL)),
        ValueError,
        (f"integers use '{SPARSE}'",),
    ),
    "labels in a column, categorical": (
        lambda: fit(x, y[:, None], model=net(loss=CATEGORICAL)),
        ValueError,
        (f"integers use '{SPARSE}'",),
    ),
    "labels of text": (
        lambda: fit(x, np.array(["cat", "dog", "emu"])[y]),
        TypeError,
        ("got text such as '", "classes, y = np.unique(y, return_inverse=True)"),
    ),
    "labels of text as objects": (
        lambda: fit(x, np.array(["cat", "dog", "emu"], object)[y]),
        TypeError,
        ("got text such as '", "classes, y = np.unique(y, return_inverse=True)"),
    ),
    "no labels, text": (
        lambda: fit(x, np.array([], str)),
        TypeError,
        ("y must be an array of numbers, got text",),
    ),
    "fit((x, y)), ragged": (lambda: net().fit(([[1], [2, 3]], [0, 1])), ValueError, ("call fit(x, y)",)),
    "text among numbers": (
        lambda: fit(np.array([[1, 2, "?", 4.0]] * 60, object)),
        TypeError,
        ("x must be an array of numbers, got text such as '?'",),
    ),
    "labels in a list of text": (lambda: fit(x, ["cat"] * 60), TypeError, ("got text such as 'cat'",)),
    "labels are numbers": (
        lambda: fit(x, numbers),
        ValueError,
        ("labels must be integers", "for targets that are no classes use 'mean_squared_error'"),
    ),
    "labels with NaN": (
        lambda: fit(x, nan_in(y, 3, 5)),
        ValueError,
        ("labels must be integers, got nan", "2 of 60"),
    ),
    "two sigmoids": (
        lambda: fit(x, y > 0, model=net(2, "sigmoid", BINARY)),
        ValueError,
        ("(batch, 2), got (60,); for one value a sample the last layer has 1 unit",),
    ),
    "three classes, binary": (
        lambda: fit(model=net(1, "sigmoid", BINARY)),
        ValueError,
        ("targets must be in [0, 1], got values in [0, 2]", f"use '{SPARSE}'"),
    ),
    "-1 and 1, binary": (
        lambda: fit(x, np.where(y > 0, 1, -1), model=net(1, "sigmoid", BINARY)),
        ValueError,
        ("use 'hinge', or give (y + 1) / 2",),
    ),
    "NaN in y": (
        lambda: fit(x, nan_in(numbers, 3, 7), model=regression()),
        ValueError,
        (
            "y must be finite, got 2 NaN or infinite values, the first in row 3 (from 0); leave these rows out",
        ),
    ),
    "infinity in y": (
        lambda: fit(x, np.where(y == 1, np.inf, 0.0), model=regression()),
        ValueError,
        ("y must be finite",),
    ),
    "NaN in y, validation": (
        lambda: fit(x, numbers, model=regression(), validation_data=(x, nan_in(numbers, 4))),
        ValueError,
        ("y must be finite, got 1 NaN or infinite value, the first in row 4",),
    ),
    "NaN in y, binary": (
        lambda: fit(x, nan_in(y > 0, 3), model=net(1, "sigmoid", BINARY)),
        ValueError,
        ("y must be finite",),
    ),
    "accuracy of a regression": (
        lambda: fit(x, numbers, model=regression(metrics=["accuracy"])),
        ValueError,
        ("accuracy: y must be classes, 0 or 1, got ", "use metrics=['mae'] or ['mse']"),
    ),
    "acc of a regression": (
        lambda: fit(x, y, model=regression(metrics=["acc"])),
        ValueError,
        ("acc: y must be classes",),
    ),
    "binary accuracy of a regression": (
        lambda: fit(x, numbers, model=regression(metrics=[metrics.BinaryAccuracy()])),
        ValueError,
        ("binary_accuracy: y must be classes",),
    ),
    "accuracy of a regression, several outputs": (
        lambda: fit(x, rng.normal(size=(60, 3)), model=net(3, None, "mae", metrics=["accuracy"])),
        ValueError,
        ("accuracy: y must be classes, as one-hot rows",),
    ),
    "accuracy of a regression, generator": (
        lambda: regression(metrics=["accuracy"]).fit(((a, b) for a, b in [(x, numbers)]), verbose=0),
        ValueError,
        ("accuracy: y must be classes",),
    ),
    "areas of several classes": (
        lambda: fit(model=net(metrics=[metrics.AUC()])),
        ValueError,
        ("auc: targets and predictions do not match", "given as one-hot rows"),
    ),
    # weights
    "class_weight, list": (lambda: fit(class_weight=[1, 2, 3]), TypeError, ("a dict from label to factor",)),
    "class_weight, text": (lambda: fit(class_weight="balanced"), TypeError, ("a dict from label to factor",)),
    "class_weight, names": (
        lambda: fit(class_weight={"cat": 2.0}),
        TypeError,
        ("class_weight must have labels, which are integers, as keys, got 'cat' of type str",),
    ),
    "class_weight, factor": (
        lambda: fit(class_weight={0: "a"}),
        TypeError,
        (f"class_weight: the factor of class 0 {NUMBER}'a' of type str",),
    ),
    "sample_weight, length": (lambda: fit(sample_weight=np.ones(3)), ValueError, ("shape (60,), got (3,)",)),
    "sample_weight, NaN": (
        lambda: fit(sample_weight=np.full(60, np.nan)),
        ValueError,
        ("sample_weight must be finite, got 60",),
    ),
    # arguments of fit
    "batch_size=0": (
        lambda: fit(batch_size=0),
        ValueError,
        ("batch_size must be a positive integer, got 0",),
    ),
    "batch_size='32'": (lambda: fit(batch_size="32"), ValueError, ("must be a positive integer, got '32'",)),
    "batch_size=3.5": (lambda: fit(batch_size=3.5), ValueError, ("must be a positive integer, got 3.5",)),
    "epochs='3'": (
        lambda: fit(epochs="3"),
        ValueError,
        ("fit: epochs must be an integer, 0 or more, got '3'",),
    ),
    "epochs=1.5": (lambda: fit(epochs=1.5), ValueError, ("fit: epochs must be an integer",)),
    "validation_split=1.0": (lambda: fit(validation_split=1.0), ValueError, ("must be in [0, 1), got 1.0",)),
    "validation_split=20": (lambda: fit(validation_split=20), ValueError, ("must be in [0, 1), got 20",)),
    "validation_split='0.2'": (
        lambda: fit(validation_split="0.2"),
        TypeError,
        (f"validation_split {NUMBER}'0.2' of type str; leave out the quotes",),
    ),
    "validation_data=x": (lambda: fit(validation_data=x), ValueError, ("validation_data must be (x, y)",)),
    "validation_data, text": (
        lambda: fit(validation_data="v"),
        ValueError,
        ("validation_data must be (x, y)",),
    ),
    "verbose": (lambda: fit(verbose="yes"), ValueError, ("verbose must be 'auto', 0, 1 or 2, got 'yes'",)),
    "shuffle='batch'": (
        lambda: fit(shuffle="batch"),
        TypeError,
        ("fit: shuffle must be True or False, got 'batch' of type str",),
    ),
    "steps_per_epoch=0": (lambda: fit(steps_per_epoch=0), ValueError, ("must be a positive integer, got 0",)),
    "a callback's class": (
        lambda: fit(callbacks=[callbacks.EarlyStopping]),
        TypeError,
        ("callbacks must be instances of Callback, got the class EarlyStopping; write EarlyStopping()",),
    ),
    "a callback's class alone": (
        lambda: fit(callbacks=callbacks.EarlyStopping),
        TypeError,
        ("got the class EarlyStopping; write EarlyStopping()",),
    ),
    "a function as callback": (
        lambda: fit(callbacks=print),
        TypeError,
        ("must be instances of Callback, got <",),
    ),
    "a name as callback": (lambda: fit(callbacks=["early"]), TypeError, ("got 'early' of type str",)),
    # data that come in batches
    "generator of x": (
        lambda: net().fit((a for a in [x]), verbose=0),
        ValueError,
        ("need (x, y) or (x, y, sample_weight), got 1 arrays",),
    ),
    "generator and y": (lambda: fit(a for a in [x]), ValueError, ("has y and sample_weight in its batches",)),
    "generator of numbers": (
        lambda: net().fit((a for a in [1, 2]), verbose=0),
        ValueError,
        ("must be a batch of samples, such as (x, y) of arrays, got 1",),
    ),
    "generator of text": (
        lambda: net().fit((a for a in [("a", "b")]), verbose=0),
        ValueError,
        ("must be a batch of samples, such as (x, y) of arrays, got 'a' of type str, ",),
    ),
    "generator of varying shapes": (
        lambda: net().fit((pair for pair in [(x, y), (x[:, :2], y)]), verbose=0),
        ValueError,
        ("samples of the same shape in all batches, (4,), got (2,)",),
    ),
    "MiniBatches((x, y))": (lambda: data.MiniBatches((x, y)), ValueError, ("a tuple of 2 with the shapes",)),
    "MiniBatches, lengths": (lambda: data.MiniBatches(x, y[:3]), ValueError, ("same length, got [60, 3]",)),
    # compile
    "not compiled, fit": (
        lambda: nk.Sequential([Dense(1)]).fit(x, y),
        ValueError,
        ("call compile(optimizer, loss) before fit",),
    ),
    "not compiled, evaluate": (
        lambda: nk.Sequential([Dense(1)]).evaluate(x, y),
        ValueError,
        ("call compile(optimizer, loss) before evaluate",),
    ),
    "loss forgotten": (
        lambda: nk.Sequential().compile("adam"),
        ValueError,
        ("loss is missing; for example",),
    ),
    "loss and optimizer swapped": (
        lambda: nk.Sequential().compile("mse", "adam"),
        ValueError,
        ("'mse' is a loss, and the optimizer comes first: compile('adam', 'mse')",),
    ),
    "optimizer's class": (
        lambda: net(optimizer=optimizers.Adam),
        TypeError,
        ("optimizer must be an instance or a name, got the class Adam; write Adam() with its arguments",),
    ),
    "optimizer a number": (
        lambda: net(optimizer=0.01),
        TypeError,
        ("optimizer must be one of sgd, ", "got 0.01"),
    ),
    "optimizer None": (
        lambda: net(optimizer=None),
        TypeError,
        ("optimizer must be one of sgd, ", "got None"),
    ),
    "loss's class": (lambda: net(loss=losses.Huber), TypeError, ("got the class Huber; write Huber()",)),
    "loss a function": (
        lambda: net(loss=lambda a, b: 0),
        TypeError,
        ("or an instance of Loss, got <function",),
    ),
    "loss a list": (
        lambda: net(loss=["mse"]),
        TypeError,
        ("or an instance of Loss, got ['mse'] of type list",),
    ),
    "metric's class": (lambda: net(metrics=[metrics.AUC]), TypeError, ("got the class AUC; write AUC()",)),
    "metrics a number": (
        lambda: net(metrics=3),
        TypeError,
        ("metrics must be a list, such as ['accuracy'], got 3 of type int",),
    ),
    "metrics by output": (
        lambda: net(metrics={"out": "mae"}),
        ValueError,
        ("metric as a dict must have the keys 'class_name' and 'config'", "got ['out']"),
    ),
    "metrics without a name": (
        lambda: nk.Sequential().compile("adam", "mse", ["mae"]),
        TypeError,
        ("compile: takes 2 positional arguments, got 3; by name: metrics, ",),
    ),
    # optimizers
    "SGD('0.01')": (
        lambda: optimizers.SGD("0.01"),
        TypeError,
        (f"SGD: learning_rate {NUMBER}'0.01' of type str; leave out the quotes",),
    ),
    "learning_rate='fast'": (
        lambda: optimizers.Adam(learning_rate="fast"),
        TypeError,
        (f"Adam: learning_rate {NUMBER}'fast' of type str",),
    ),
    "learning_rate=None": (lambda: optimizers.Adam(None), TypeError, (f"learning_rate {NUMBER}None",)),
    "learning_rate=[0.1]": (
        lambda: optimizers.Adam([0.1]),
        TypeError,
        (f"learning_rate {NUMBER}[0.1] of type",),
    ),
    "learning_rate=-1": (
        lambda: optimizers.Adam(-1),
        ValueError,
        ("must be finite and not negative, got -1",),
    ),
    "learning_rate=nan": (lambda: optimizers.Adam(np.nan), ValueError, ("must be finite and not negative",)),
    "a schedule's class": (
        lambda: optimizers.Adam(schedules.CosineDecay),
        TypeError,
        ("got the class CosineDecay; write CosineDecay()",),
    ),
    "learning_rate assigned": (
        lambda: setattr(net().optimizer, "learning_rate", "0.1"),
        TypeError,
        (f"learning_rate {NUMBER}'0.1' of type str",),
    ),
    # layers
    "Dense(0)": (lambda: Dense(0), ValueError, ("Dense: units must be a positive integer, got 0",)),
    "Dense('64')": (lambda: Dense("64"), ValueError, ("Dense: units must be a positive integer, got '64'",)),
    "Dense(64.0)": (lambda: Dense(64.0), ValueError, ("Dense: units must be a positive integer, got 64.0",)),
    "Dense(3, 4)": (
        lambda: Dense(3, 4),
        TypeError,
        ("activation must be one of relu, ", "got 4 of type int"),
    ),
    "activation's class": (
        lambda: Dense(3, layers.ReLU),
        TypeError,
        ("activation must be", "the class ReLU"),
    ),
    "activation's layer": (
        lambda: Dense(3, layers.ReLU()),
        TypeError,
        ("got ReLU() of type ReLU; a layer goes into the model after this one",),
    ),
    "activation a function": (lambda: Dense(3, np.tanh), TypeError, ("activation must be one of relu, ",)),
    "initializer a number": (
        lambda: Dense(3, kernel_initializer=3),
        TypeError,
        ("initializer must be one of zeros, ", "got 3 of type int"),
    ),
    "regularizer a number": (
        lambda: Dense(3, kernel_regularizer=0.01),
        TypeError,
        ("regularizer must be one of l1, l2, ", "got 0.01 of type float"),
    ),
    "Dropout(1.5)": (lambda: layers.Dropout(1.5), ValueError, ("Dropout: rate must be in [0, 1), got 1.5",)),
    "Dropout(50)": (lambda: layers.Dropout(50), ValueError, ("Dropout: rate must be in [0, 1), got 50",)),
    "Input(784)": (lambda: Input(784), ValueError, ("a tuple of positive integers", "got 784; write (784,)")),
    "Input((None, 4))": (lambda: Input((None, 4)), ValueError, ("without the batch axis", "got (None, 4)")),
    "input_shape=4": (lambda: Dense(3, input_shape=4), ValueError, ("got 4; write (4,)",)),
    "dtype": (lambda: nk.Sequential(dtype="float16"), TypeError, ("float32 or float64, got float16",)),
    "dtype mistyped": (
        lambda: nk.Sequential(dtype="flaot32"),
        TypeError,
        ("float32 or float64, got 'flaot32'",),
    ),
    "Reshape('x')": (lambda: layers.Reshape("x"), TypeError, ("target_shape must be an integer, got 'x'",)),
    "axis of the batch": (
        lambda: layers.LayerNormalization(axis=0)(x),
        ValueError,
        ("axis 0 is the batch axis",),
    ),
    "axis that is not": (
        lambda: layers.BatchNormalization(axis=5)(x),
        ValueError,
        ("axis 5 does not exist",),
    ),
    "name=3": (lambda: Dense(3, name=3), TypeError, ("Dense: name must be a string, got 3 of type int",)),
    # models
    "a layer alone": (
        lambda: nk.Sequential(Dense(3)),
        TypeError,
        ("layers must be a list, such as [Dense(10)], got Dense(3) of type Dense",),
    ),
    "layers without a list": (
        lambda: nk.Sequential(Dense(3), Dense(4)),
        TypeError,
        ("layers must be a list, such as [Dense(10)], got Dense(3) of type Dense",),
    ),
    "a layer's class": (
        lambda: nk.Sequential([Flatten, Dense(3)]),
        TypeError,
        ("expected a layer, got the class Flatten; write Flatten()",),
    ),
    "layers by numbers": (
        lambda: nk.Sequential([64, 10]),
        TypeError,
        ("expected a layer, got 64 of type int",),
    ),
    "layers by name": (lambda: nk.Sequential(["dense"]), TypeError, ("expected a layer, got 'dense'",)),
    "layers in a list in a list": (
        lambda: nk.Sequential([[Dense(3)]]),
        TypeError,
        ("got [Dense(3)] of type list",),
    ),
    "a layer twice": (same_layer_twice, ValueError, ("'dense' is already part of a model; make a new one",)),
    "Input later": (lambda: nk.Sequential([Dense(3), Input((3,))]), ValueError, ("Input must come first",)),
    "no layers": (lambda: fit(model=compiled_empty()), ValueError, ("has no layers; add some first",)),
    "a layer after fit": (add_after_fit, ValueError, ("changed since compile(); call compile() again",)),
    "build(4)": (lambda: nk.Sequential([Dense(3)]).build(4), TypeError, ("such as (None, 784), got 4",)),
    "set_weights(None)": (
        lambda: trained().set_weights(None),
        TypeError,
        ("must be a list of arrays, got None",),
    ),
    "set_weights, number": (lambda: trained().set_weights([x]), ValueError, ("expected 4 weights", "got 1")),
    "get_layer(index=7)": (lambda: trained().get_layer(index=7), ValueError, ("no layer 7; there are 2",)),
    "find_learning_rate of no model": (
        lambda: models.find_learning_rate(x, y, 32),
        TypeError,
        ("the first argument must be a Sequential, got ",),
    ),
    # the rest
    "to_categorical of text": (lambda: nk.utils.to_categorical(["a"]), TypeError, ("got text such as 'a'",)),
    "to_categorical below 0": (
        lambda: nk.utils.to_categorical([-1]),
        ValueError,
        ("must be in [0, 1), got -1",),
    ),
    "patience='3'": (
        lambda: callbacks.EarlyStopping(patience="3"),
        ValueError,
        ("EarlyStopping: patience must be an integer, 0 or more, got '3'",),
    ),
    "monitor=3": (
        lambda: callbacks.EarlyStopping(monitor=3),
        TypeError,
        ("monitor must be a name of the logs",),
    ),
    "mode": (
        lambda: callbacks.EarlyStopping(mode="mni"),
        ValueError,
        ("must be 'auto', 'min' or 'max', got 'mni'",),
    ),
    "a loss of other shapes": (
        lambda: losses.MeanSquaredError()(np.ones(3), np.ones(4)),
        ValueError,
        ("y_true and y_pred must have the same length, got 3 and 4",),
    ),
    "a loss of text": (
        lambda: losses.MeanSquaredError()(["a"], [1.0]),
        TypeError,
        ("y must be an array of numbers",),
    ),
    "stats=(mean, var)": (
        lambda: layers.BatchNormalization(stats=(np.zeros(4), np.ones(4))),
        TypeError,
        ("BatchNormalization: stats must be a RunningStats, got (array(",),
    ),
    "renorm=3": (
        lambda: layers.BatchNormalization(renorm=3),
        TypeError,
        ("renorm must be a RenormSchedule, got 3",),
    ),
    "distribution=3": (
        lambda: net(distribution=3),
        TypeError,
        ("distribution must be a DataParallel, got 3 of type int",),
    ),
    "a saved optimizer": (
        lambda: optimizers.get({"class_name": "Adam", "config": 3}),
        TypeError,
        ("optimizer: 'config' must be a dict of arguments, got 3",),
    ),
    "a regularizer's numbers": (
        lambda: nk.regularizers.get({"l1": 0.3}),
        ValueError,
        ("the keys 'class_name' and 'config'", "got ['l1']"),
    ),
    "boundaries=3": (
        lambda: schedules.PiecewiseConstantDecay(3, 4),
        TypeError,
        ("boundaries must be a list",),
    ),
    "a rate that is a text, later": (
        lambda: fit(x, numbers, model=regression(optimizer=optimizers.SGD(lambda: "a"))),
        TypeError,
        (f"SGD: learning_rate {NUMBER}'a' of type str",),
    ),
    "a metric's 'accuracy'": (
        lambda: metrics.get("accuracy"),
        ValueError,
        ("depends on the targets", "use 'sparse_categorical_accuracy', "),
    ),
    "a metric of text": (
        lambda: metrics.AUC()(["a"], ["b"]),
        TypeError,
        ("auc: y_true must be an array of numbers",),
    ),
    "a metric of None": (lambda: metrics.Precision()(None, None), TypeError, ("precision: y_true must be",)),
    "a metric of numbers": (lambda: metrics.MeanSquaredError()(1.0, 2.0), ValueError, ("need a batch axis",)),
    "a metric, ragged": (
        lambda: metrics.F1Score()(ragged, ragged),
        ValueError,
        ("whose rows differ in length",),
    ),
    "a metric, weights": (
        lambda: metrics.MeanSquaredError()(np.ones((3, 1)), np.ones((3, 1)), sample_weight=[1, 2]),
        ValueError,
        ("sample_weight must have shape (3,), got (2,)",),
    ),
    "a metric, labels": (
        lambda: metrics.SparseTopKCategoricalAccuracy()([7], [[1.0, 2.0]]),
        ValueError,
        ("labels must be 0 to 1, got 7",),
    ),
    "a metric, class_id": (
        lambda: metrics.Precision(class_id=7)(one_hot, one_hot),
        ValueError,
        ("precision: class_id must be 0 to 2, got 7",),
    ),
    "a mean of text": (lambda: metrics.Mean()("a"), TypeError, ("mean: values must be an array of numbers",)),
    "a loss, weights": (
        lambda: losses.MeanSquaredError()(np.ones((3, 1)), np.ones((3, 1)), sample_weight=[1, 2]),
        ValueError,
        ("sample_weight must have shape (3,), got (2,)",),
    ),
    "an activation of text": (
        lambda: nk.activations.relu("a"),
        TypeError,
        ("relu: z must be an array of numbers",),
    ),
    "batches of text": (
        lambda: net().fit(data.MiniBatches([["a"], ["b"]], [0, 1]), verbose=0),
        TypeError,
        ("x must be an array of numbers, got text",),
    ),
    "batches of text, predict": (
        lambda: trained().predict((a for a in [np.array([["a"]])]), verbose=0),
        TypeError,
        ("x must be an array of numbers, got text",),
    ),
    "batches of other lengths": (
        lambda: net().fit((pair for pair in [(x, y[:3])]), verbose=0),
        ValueError,
        ("same length in each batch, got shapes (60, 4) and (3,)",),
    ),
    "a dict of arrays in a generator": (
        lambda: net().fit((pair for pair in [({"x": x}, y)]), verbose=0),
        ValueError,
        ("must be a batch of samples", "of type dict, shape (60,)"),
    ),
    "class_weight, NaN": (
        lambda: fit(class_weight={0: np.nan}),
        ValueError,
        ("class 0 must be finite, got nan",),
    ),
    "verbose, array": (
        lambda: fit(verbose=np.array([1, 2])),
        ValueError,
        ("verbose must be 'auto', 0, 1 or 2",),
    ),
    "validation as third argument": (
        lambda: net().fit(x, y, (x, y)),
        ValueError,
        ("batch_size must be a positive integer, got (array(",),
    ),
    "load, split": (lambda: data.load(validation_split="a"), TypeError, (f"validation_split {NUMBER}'a'",)),
    "isa.use(3)": (lambda: nk.isa.use(3), TypeError, ("isa.use: name must be one of ", "got 3 of type int")),
}


def compiled_empty() -> Any:
    model = nk.Sequential()
    model.compile("adam", "mse")
    return model


# What NumPy and the interpreter say of what goes on inside.
FOREIGN = re.compile(
    "inhomogeneous|broadcast|operands|object has no attribute|object is not|not supported between|ufunc|"
    "core dimension|not aligned|could not convert|setting an array|NoneType|__init__|invalid literal|float\\(\\)"
)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_in_plain_words(mistake: str) -> None:
    call, kind, fragments = MISTAKES[mistake]
    if mistake in ("a data set", "load, split"):
        pytest.importorskip("sklearn")
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    text = str(caught.value)
    assert type(caught.value) is kind, text
    for fragment in fragments:
        assert fragment in text
    assert not FOREIGN.search(text.replace("<ufunc 'tanh'> of type ufunc", "")), text
    assert "\n" not in text


# What looks odd and is right.
@pytest.mark.parametrize(
    "call",
    [
        lambda: fit(x[:1], y[:1]),
        lambda: fit(batch_size=1000),
        lambda: fit(x.tolist(), y.tolist()),
        lambda: fit(tuple(map(tuple, x.tolist())), tuple(y.tolist())),
        lambda: fit(list(x), list(y)),
        lambda: fit(Frame(x), Frame(y[:, None])),
        lambda: fit(x.astype(np.float16)),
        lambda: fit(x.astype(np.int64)),
        lambda: fit(x > 0),
        lambda: fit(x, y.astype(np.float64)),
        lambda: fit(x, y[:, None]),
        lambda: fit(x, y > 0, model=net(2)),
        lambda: fit(x, y > 0, model=net(1, "sigmoid", BINARY, metrics=["accuracy"])),
        lambda: fit(x, (y > 0) * 1.0, model=regression(metrics=["accuracy"])),
        lambda: fit(x, one_hot, model=net(3, "softmax", "mse", metrics=["accuracy"])),
        lambda: fit(x, one_hot * 0.9 + 0.1 / 3, model=net(loss=CATEGORICAL, metrics=["accuracy"])),
        lambda: fit(images, np.zeros((60, 8), np.int64)),
        lambda: fit(class_weight={0: 2.0, np.int64(1): 3, 2.0: 1}),
        lambda: fit(sample_weight=np.full(60, 1e30)),
        lambda: fit(x, np.full(60, 1e30), model=regression(optimizer="sgd"), epochs=0),
        lambda: fit(epochs=np.int64(1), batch_size=np.int32(8), shuffle=np.bool_(False)),
        lambda: nk.activations.softmax([1, 2]),
        lambda: nk.activations.leaky_relu([1, -2]),
        lambda: optimizers.Adam(np.float32(0.01)),
        lambda: optimizers.Adam(np.array(0.01)),
        lambda: optimizers.SGD(1),
        lambda: layers.LayerNormalization(axis=np.array([1])),
    ],
)
def test_what_is_no_mistake(call: Callable[[], Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call()


def test_accuracy_of_soft_targets_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="accuracy: y must be classes, 0 or 1, got 0.9"):
        fit(x, np.where(y > 0, 0.9, 0.1), model=net(1, "sigmoid", BINARY, metrics=["accuracy"]))


def test_softmax_of_one_unit_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="softmax of a single unit is always 1; use 'sigmoid'"):
        fit(x, y > 0, model=net(1, "softmax", BINARY))


def test_the_summary_of_an_unbuilt_model_says_how_to_build_it() -> None:
    lines: list[str] = []
    nk.Sequential([Dense(3)]).summary(print_fn=lines.append)
    assert lines[-1].endswith("give the first layer input_shape=, or call fit.")
    lines.clear()
    nk.Sequential([Dense(3, input_shape=(4,))]).summary(print_fn=lines.append)
    assert lines[-1].startswith("Non-trainable params")


def test_an_error_changes_nothing() -> None:
    model = trained()
    before = model.get_weights()
    for features, targets in ((x, y + 1), (x, ["a"] * 60), (x[:, :2], y), (images, y), (None, y)):
        with pytest.raises((ValueError, TypeError)):
            model.fit(features, targets, verbose=0)
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


masked = np.ma.masked_invalid(np.where(x > 2.0, np.nan, x))
masked_y = np.ma.masked_equal(y, 2)
MASKED: dict[str, tuple[Callable[[], Any], str]] = {
    "predict": (lambda: trained().predict(masked), "x"),
    "predict_on_batch": (lambda: trained().predict_on_batch(masked), "x"),
    "called": (lambda: trained()(masked), "x"),
    "fit, x": (lambda: fit(masked), "x"),
    "fit, y": (lambda: fit(x, masked_y), "y"),
    "fit, sample_weight": (lambda: fit(sample_weight=np.ma.masked_less(numbers, 0)), "sample_weight"),
    "fit, validation_split": (lambda: fit(masked, validation_split=0.5), "x"),
    "fit, validation_data": (lambda: fit(validation_data=(masked, y)), "x"),
    "fit, nothing hidden": (lambda: fit(np.ma.masked_array(x)), "x"),
    "evaluate": (lambda: trained().evaluate(masked, y, verbose=0), "x"),
    "train_on_batch": (lambda: trained().train_on_batch(x, masked_y), "y"),
    "test_on_batch": (lambda: trained().test_on_batch(masked, y), "x"),
    "a list of rows": (lambda: trained().predict(list(masked)), "x"),
    "batches": (lambda: fit(data.MiniBatches(masked, y), None), "each of the data"),
    "a generator": (lambda: fit(((a, y) for a in [masked]), None), "each part of a batch"),
    "a loss": (lambda: losses.MeanSquaredError()(np.ma.masked_array([1.0, 2.0]), [1.0, 2.0]), "y"),
    "a metric": (lambda: metrics.Accuracy().update_state(np.ma.masked_array([1, 2]), [1, 2]), "y_true"),
    "a layer": (lambda: Dense(3)(masked), "x"),
    "weights": (lambda: trained().set_weights([np.ma.masked_array(w) for w in trained().get_weights()]), "0"),
    "to_categorical": (lambda: nk.utils.to_categorical(masked_y), "x"),
}


@pytest.mark.parametrize("name", MASKED)
def test_what_a_mask_hides_is_not_computed_with(name: str) -> None:
    call, argument = MASKED[name]
    with pytest.raises(TypeError) as caught:
        call()
    kind = "has" if name == "a list of rows" else "is"
    assert f"{argument} {kind} a masked array, and masks are not supported; fill it first" in str(
        caught.value
    )
    if argument == "x" and kind == "is":
        assert str(caught.value).endswith("fill it first with x.filled(value)")
