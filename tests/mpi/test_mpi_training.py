"""Training on several ranks against one process with the whole batch."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

# 83 samples in batches of 16: the last has 3, so that of four ranks one has none.
MODEL = """
import hashlib, json
import numpy as np
import normkit as nk
from normkit.distributed import DataParallel
from normkit.layers import *
from normkit.models import Sequential
from trainer_support import blobs

x, y = blobs(83)
w = np.random.default_rng(1).uniform(0.1, 2.0, 83)


def model(dtype, distribution, noise=(), **compiling):
    layers = [
        Dense(8, activation="relu", input_shape=(6,)), BatchNormalization(momentum=0.8),
        *noise, Dense(7, kernel_regularizer="l2"), BatchNormalization(scale=False), LayerNormalization(),
        Dense(3, activation="softmax"),
    ]
    made = Sequential(layers, seed=3, dtype=dtype)
    optimizer = nk.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=1.0, **compiling.pop("optimizer", {}))
    made.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"],
                 weighted_metrics=["sparse_categorical_crossentropy"], distribution=distribution, **compiling)
    return made


def fit(made, **options):
    return made.fit(x, y, batch_size=16, epochs=3, sample_weight=w, validation_data=(x[:30], y[:30]), verbose=0,
                    **options).history


def digest(made):
    return hashlib.sha256(b"".join(v.tobytes() for v in made.get_weights())).hexdigest()
"""


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_losses_metrics_and_weights_are_those_of_one_process(printed, ranks):
    code = MODEL + (
        """
for dtype in ("float32", "float64"):
    for extra in ({}, {"merge_statistics": True, "optimizer": {"gradient_accumulation_steps": 2}}):
        alone, shared = model(dtype, None, **dict(extra)), model(dtype, DataParallel(), **dict(extra))
        assert shared.distribution.comm.size == """
        + str(ranks)
        + """
        histories = fit(alone), fit(shared)
        evaluated = alone.evaluate(x, y, batch_size=20), shared.evaluate(x, y, batch_size=20)
        on_batch = alone.train_on_batch(x[:9], y[:9]), shared.train_on_batch(x[:9], y[:9])
        everywhere = shared.distribution.comm.objects((histories[1], evaluated[1], on_batch[1], digest(shared)))
        assert all(other == everywhere[0] for other in everywhere)
        weights = [[v.ravel().tolist() for v in m.get_weights()] for m in (alone, shared)]
        if shared.is_first_rank:
            print(json.dumps([dtype, histories, evaluated, on_batch, weights]))
"""
    )
    lines = printed(ranks, code)
    assert len(lines) == 4
    for line in lines:
        dtype, (alone, shared), evaluated, on_batch, weights = json.loads(line)
        rtol = 1e-5 if dtype == "float32" else 1e-12
        assert list(alone) == list(shared)
        for name, values in alone.items():
            np.testing.assert_allclose(shared[name], values, rtol=rtol, err_msg=name)
        np.testing.assert_allclose(*evaluated, rtol=rtol)
        np.testing.assert_allclose(*on_batch, rtol=rtol)
        for one, other in zip(*weights, strict=True):
            np.testing.assert_allclose(other, one, rtol=100 * rtol, atol=100 * rtol)


def test_deterministic_gives_the_same_bits_at_any_number_of_ranks(printed):
    code = (
        MODEL
        + """
for dtype in ("float32", "float64"):
    noise = [Dropout(0.2), GaussianNoise(0.1), Dropout(0.1, seed=5)]
    made = model(dtype, DataParallel(deterministic=True), noise)
    history = fit(made)
    if made.is_first_rank:
        print(json.dumps(history), digest(made), made.rng.random())
    made = model(dtype, DataParallel(deterministic=True, chunks=5))
    fit(made)
    if made.is_first_rank:
        print(digest(made))
"""
    )
    results = [printed(ranks, code) for ranks in (1, 2, 3, 4)]
    assert len(set(results[0])) == 4
    assert results[1:] == results[:1] * 3


def test_without_it_dropout_goes_by_the_rank_and_is_repeatable(printed):
    code = (
        MODEL
        + """
made = model("float32", DataParallel(), [Dropout(0.2)])
fit(made)
if made.is_first_rank:
    print(digest(made))
"""
    )
    assert printed(2, code) == printed(2, code) != printed(3, code)


def test_models_without_a_seed_begin_with_the_weights_and_order_of_the_first_rank(printed):
    code = (
        MODEL
        + """
made = model("float32", DataParallel())
made.set_weights([v + made.distribution.comm.rank for v in made.get_weights()])
made.rng = np.random.default_rng(made.distribution.comm.rank)
fit(made)
every = made.distribution.comm.objects(digest(made))
if made.is_first_rank:
    print(len(set(every)), len(every))
"""
    )
    assert printed(3, code) == ["1 3"]


def test_callbacks_stop_all_ranks_and_only_the_first_writes(printed, tmp_path):
    code = (
        MODEL
        + """
from normkit.callbacks import CSVLogger, EarlyStopping, LambdaCallback, ModelCheckpoint

made = model("float32", DataParallel())
rank = made.distribution.comm.rank
# A callback that only one rank has, and that wants the logs of batches; it stops all in the same step.
seen = []
def stop(batch, logs):
    seen.append(logs["loss"])
    if len(seen) == 9:
        made.stop_training = True
own = [LambdaCallback(on_train_batch_end=stop)] if rank == 1 else []
history = fit(made, callbacks=[CSVLogger(f"log-{rank}.csv"), ModelCheckpoint(f"model-{rank}.safetensors", verbose=1), *own])
steps = made.distribution.comm.objects(made.optimizer.iterations)
if rank == 0:
    print(len(history["loss"]), steps)
made.fit(x, y, epochs=9, verbose=2, callbacks=EarlyStopping("loss", patience=0, mode="max", verbose=1))
"""
    )
    lines = printed(3, code)
    assert [line.split(":")[0] for line in lines[:2]] == ["Epoch 1", "Epoch 2"]
    assert lines[2] == "2 [9, 9, 9]"
    assert sum("early stopping" in line for line in lines) == 1
    assert len(lines) == 6
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["job.py", "log-0.csv", "model-0.safetensors"]


def test_a_training_that_was_cut_off_goes_on_to_the_bit(printed):
    code = (
        MODEL
        + """
import shutil
from normkit.callbacks import BackupAndRestore, LambdaCallback

class Cut(Exception):
    ranks_agreed = True  # all ranks raise it, in the same step

for every in ("epoch", 4):
    whole = model("float32", DataParallel(deterministic=True), [Dropout(0.2)])
    expected = fit(whole)
    first = model("float32", DataParallel(deterministic=True), [Dropout(0.2)])
    def stop(batch, logs=None):
        if first.optimizer.iterations == 11:
            raise Cut
    try:
        fit(first, callbacks=[BackupAndRestore("backup", every), LambdaCallback(on_train_batch_begin=stop)])
    except Cut:
        pass
    second = model("float32", DataParallel(deterministic=True), [Dropout(0.2)])
    found = fit(second, callbacks=[BackupAndRestore("backup", every), LambdaCallback()])
    assert digest(second) == digest(whole)
    assert second.optimizer.iterations == 18
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)
    if whole.is_first_rank:
        print(every, found == expected)
"""
    )
    assert printed(3, code)[0] == "epoch True"


def test_streams_files_and_an_epoch_of_some_steps(printed):
    code = (
        MODEL
        + """
from normkit.data import NpyFile, Stream

shared = DataParallel()
if shared.is_first:
    np.save("x.npy", x)
    np.save("y.npy", y)
shared.any(False)  # wait for the files
for data in (lambda: ((x, y), {"steps_per_epoch": 4}), lambda: ((NpyFile("x.npy"), NpyFile("y.npy")), {}),
             lambda: ((Stream([(x[i:i + 10], y[i:i + 10]) for i in range(0, 83, 10)]),), {})):
    losses = []
    for distribution in (None, shared):
        made = model("float64", distribution)
        given, options = data()
        losses.append(made.fit(*given, batch_size=16, epochs=3, verbose=0, **options).history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-12)
    if shared.is_first:
        print(len(losses[1]))
"""
    )
    assert printed(2, code) == ["3", "3", "3"]


def test_the_program_of_the_page(printed, tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs" / "distributed.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    lines = printed(2, code)
    assert len(lines) == 3
    assert all(line.startswith("Epoch ") for line in lines)
    assert (tmp_path / "model.safetensors").exists()
