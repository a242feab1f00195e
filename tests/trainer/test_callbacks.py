"""What is told about training while it goes on: hooks, progress, and Ctrl-C."""

import inspect
import os
import re
import signal
import sys

import numpy as np
import pytest

from normkit.callbacks import Callback, CallbackList, History, LambdaCallback, ProgbarLogger
from normkit.data import MiniBatches
from normkit.layers import (
    Dense,
    Input,
    Layer,
)
from normkit.models import Sequential
from trainer_support import assert_same_weights, blobs, classifier


class Interrupt(Layer):
    """Sends SIGINT to this process in the backward pass of a given step."""

    def __init__(self, step):
        super().__init__()
        self.countdown = step

    def forward(self, x, training):
        return x

    def backward(self, dy, input_gradient=True):
        self.countdown -= 1
        if self.countdown == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return dy


def test_ctrl_c_waits_for_the_end_of_the_step():
    x, y = blobs(64)
    layers = lambda: [Dense(3, "softmax")]
    stopped = Sequential([Input((6,)), Dense(4), Interrupt(3), *layers()], seed=0)
    whole = Sequential([Input((6,)), Dense(4), *layers()], seed=0)
    for model in (stopped, whole):
        model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(x, y, batch_size=8, epochs=2, verbose=0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert stopped.optimizer.iterations == 3
    for (xb, yb), _ in zip(MiniBatches(x, y, batch_size=8, seed=whole.rng), range(3), strict=False):
        whole.train_on_batch(xb, yb)
    assert_same_weights(stopped.get_weights(), whole.get_weights())
    stopped.fit(x, y, batch_size=8, verbose=0)


def test_silent_unless_asked(capfd):
    x, y = blobs(40)
    model = classifier()
    model.fit(x, y)
    model.fit(x, y, verbose=0)
    model.evaluate(x, y)
    model.predict(x)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("verbose", [1, 2])
def test_lines_where_there_is_no_terminal(capfd, verbose):
    x, y = blobs(40)
    model = classifier()
    model.fit(x, y, epochs=2, validation_data=(x, y), verbose=verbose)
    model.evaluate(x, y, verbose=verbose)
    model.predict(x, verbose=verbose)
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert [line.split(" - ")[0] for line in lines] == ["Epoch 1/2", "Epoch 2/2", "Evaluate", "Predict"]
    assert all(f"{name}: " in lines[1] for name in ("loss", "accuracy", "val_loss", "val_accuracy"))
    assert "loss: " in lines[2]
    assert "accuracy: " in lines[2]


def test_small_numbers_are_shown(capfd):
    x, y = blobs(40)
    model = classifier()
    model.fit(x, y, sample_weight=np.full(40, 1e-5), verbose=2)
    assert re.search(r"loss: \d\.\d{4}e-0\d", capfd.readouterr().out)


def test_progress_bar_on_a_terminal(monkeypatch, capsys):
    pytest.importorskip("tqdm", reason="the bar needs tqdm (the 'train' extra)")
    x, y = blobs(40)
    model = classifier()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert ProgbarLogger.style("auto") == ProgbarLogger.style(1) == "bar"
    assert ProgbarLogger.style(0) is None
    assert ProgbarLogger.style(2) == "line"
    model.fit(x, y, batch_size=8, epochs=2, validation_data=(x, y))
    model.evaluate(x, y)
    model.predict(x)
    captured = capsys.readouterr()
    assert captured.out == ""
    for text in ("Epoch 1/2", "Epoch 2/2", "5/5", "val_loss", "Evaluate", "Predict"):
        assert text in captured.err


def test_the_bar_is_closed_when_training_fails(monkeypatch, capsys):
    pytest.importorskip("tqdm", reason="the bar needs tqdm (the 'train' extra)")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    class Fail(Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        classifier().fit(*blobs(40), callbacks=[Fail()])
    assert capsys.readouterr().err.endswith("\n")


def test_works_without_tqdm(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert ProgbarLogger.style("auto") == "line"
    classifier().fit(*blobs(40), verbose=0)


def test_callback_hooks_and_their_order():
    x, y = blobs(40)
    calls = []

    class Recorder(Callback):
        pass

    hooks = [
        name
        for name, _ in inspect.getmembers(Callback, inspect.isfunction)
        if name.startswith("on_") and name not in ("on_batch_begin", "on_batch_end")
    ]
    for hook in hooks:
        setattr(Recorder, hook, lambda self, *args, hook=hook: calls.append(hook))
    model = classifier()
    model.fit(x, y, batch_size=20, validation_data=(x, y), verbose=0, callbacks=[Recorder()])
    model.predict(x, callbacks=[Recorder()])
    step = ["on_train_batch_begin", "on_train_batch_end"]
    test = ["on_test_batch_begin", "on_test_batch_end"]
    predict = ["on_predict_batch_begin", "on_predict_batch_end"]
    assert calls == [
        "on_train_begin", "on_epoch_begin", *step, *step,
        "on_test_begin", *test, *test, "on_test_end", "on_epoch_end", "on_train_end",
        "on_predict_begin", *predict, *predict, "on_predict_end",
    ]  # fmt: skip
    assert len(hooks) == 15


def test_hooks_without_a_default_for_logs():
    """As Keras's documentation of LambdaCallback writes them."""
    seen = []
    functions = {
        f"on_{what}_{when}": (lambda logs: seen.append(logs)) if what in ("train", "test") else (lambda i, logs: seen.append(logs))
        for what in ("train", "test", "epoch", "batch", "test_batch")
        for when in ("begin", "end")
    }  # fmt: skip
    x, y = blobs(40)
    classifier().fit(
        x, y, batch_size=40, validation_data=(x, y), verbose=0, callbacks=LambdaCallback(**functions)
    )
    assert len(seen) == 10
    assert all(isinstance(logs, dict) for logs in seen)


def test_initial_epoch_and_stop_training():
    x, y = blobs(50)

    class Stop(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 3

    history = classifier().fit(x, y, initial_epoch=2, epochs=9, verbose=0, callbacks=[Stop()])
    assert history.epoch == [2, 3]


def test_older_names_of_hooks():
    seen = []

    class Old(Callback):
        def on_batch_begin(self, batch, logs=None):
            seen.append(("begin", batch))

        def on_batch_end(self, batch, logs=None):
            seen.append(("end", batch, sorted(logs)))

    classifier().fit(*blobs(40), batch_size=20, verbose=0, callbacks=Old())
    logs = ["accuracy", "loss"]
    assert seen == [("begin", 0), ("end", 0, logs), ("begin", 1), ("end", 1, logs)]


def test_a_list_of_callbacks_for_a_loop_of_ones_own():
    x, y = blobs(40)
    calls = []

    class Recorder(Callback):
        def on_epoch_end(self, epoch, logs=None):
            calls.append((epoch, logs["loss"], self.params["epochs"], self.model))

    model = classifier()
    callbacks = CallbackList([Recorder()], add_history=True, model=model, epochs=2, steps=1)
    callbacks.on_train_begin()
    for epoch in range(2):
        callbacks.on_epoch_begin(epoch)
        logs = model.train_on_batch(x, y, return_dict=True)
        callbacks.on_epoch_end(epoch, logs)
    callbacks.on_train_end()
    assert [call[:1] + call[2:] for call in calls] == [(0, 2, model), (1, 2, model)]
    history = callbacks.callbacks[-1]
    assert history.history["loss"] == [call[1] for call in calls]
    assert not callbacks.listens("on_train_batch_end")
    assert callbacks.listens("on_epoch_end")


def test_a_history_of_ones_own_goes_on():
    x, y = blobs(40)
    model, history = classifier(), History()
    assert model.fit(x, y, epochs=2, verbose=0, callbacks=[history]) is history
    model.fit(x, y, epochs=3, initial_epoch=2, verbose=0, callbacks=[history])
    assert len(history.history["loss"]) == 3
    assert history.epoch == [2]
    assert history.model is model


def test_a_callback_that_ends_training_within_an_epoch():
    class Stop(Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    model = classifier()
    history = model.fit(*blobs(40), batch_size=8, epochs=3, verbose=0, callbacks=[Stop()])
    assert model.optimizer.iterations == 2
    assert history.epoch == [0]


def test_all_are_closed_whatever_happens():
    closed = []

    class Closes(Callback):
        def close(self):
            closed.append(self)

    class Fails(Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("enough")

    first, second = Closes(), Closes()
    with pytest.raises(RuntimeError, match="enough"):
        classifier().fit(*blobs(40), verbose=0, callbacks=[first, Fails(), second])
    assert closed == [first, second]
