"""Callbacks find their state in a backup by class and label; what has no partner is named; logs go on."""

import pytest

from normkit.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    EarlyStopping,
    JSONLinesLogger,
    LambdaCallback,
    ModelCheckpoint,
    ReduceLROnPlateau,
)
from test_backups import X, Y, interrupted, model, resumed
from test_checkpoints import Crash, CrashError


def whole():
    watches = EarlyStopping("val_loss", patience=9), EarlyStopping("accuracy", patience=9)
    history = resumed("never", model(seed=0), watches)
    return history, watches


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [2, 1, 0], [2, 0, 1]])
def test_callbacks_find_their_state_in_any_order(tmp_path, monkeypatch, order):
    """Two of a class by what they watch; and History, which comes last."""
    monkeypatch.chdir(tmp_path)
    history, expected = whole()
    watches = lambda: [
        EarlyStopping("val_loss", patience=9),
        EarlyStopping("accuracy", patience=9),
        LambdaCallback(),
    ]
    interrupted(tmp_path / "b", callbacks=watches())
    now = watches()
    again = resumed(tmp_path / "b", callbacks=[now[i] for i in order])
    assert again.history == history.history
    assert [(w.best, w.wait, w.best_epoch) for w in now[:2]] == [
        (w.best, w.wait, w.best_epoch) for w in expected
    ]


def test_two_callbacks_that_cannot_be_told_apart_go_by_their_order(tmp_path):
    class Counts(Callback):
        def __init__(self, count):
            self.count = count

        def get_state(self):
            return {"count": self.count}

        def set_state(self, state):
            self.count = state["count"]

    interrupted(tmp_path, callbacks=[Counts(1), Counts(2)])
    now = [Counts(0), Counts(0)]
    resumed(tmp_path, callbacks=[now[0], LambdaCallback(), now[1]])
    assert [one.count for one in now] == [1, 2]


@pytest.mark.parametrize("first", [True, False])
def test_a_callback_that_is_added_is_named_and_none_loses_its_state(tmp_path, monkeypatch, first):
    monkeypatch.chdir(tmp_path)
    history, expected = whole()
    watches = lambda: [EarlyStopping("val_loss", patience=9), EarlyStopping("accuracy", patience=9)]
    interrupted(tmp_path / "b", callbacks=watches())
    now, added = watches(), CSVLogger("log.csv")
    with pytest.warns(
        UserWarning, match="latest.safetensors: has no state of CSVLogger 'log.csv', which starts anew$"
    ):
        again = resumed(tmp_path / "b", callbacks=[added, *now] if first else [*now, added])
    assert (again.history, again.epoch) == (history.history, [0, 1, 2])
    assert now[0].best == expected[0].best


def test_callbacks_that_are_gone_or_watch_something_else_are_named(tmp_path):
    interrupted(tmp_path, callbacks=[EarlyStopping("loss"), ReduceLROnPlateau("loss"), LambdaCallback()])
    with pytest.warns(UserWarning, match="latest") as told:
        resumed(tmp_path, callbacks=[EarlyStopping("accuracy"), ModelCheckpoint(tmp_path / "m.safetensors")])
    text = str(told[0].message)
    assert (
        f"has no state of EarlyStopping 'accuracy', ModelCheckpoint '{tmp_path / 'm.safetensors'}', which starts anew"
        in text
    )
    assert (
        "has the state of EarlyStopping 'loss', ReduceLROnPlateau 'loss', which is not among the callbacks now"
        in text
    )


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("kind", [CSVLogger, JSONLinesLogger])
@pytest.mark.parametrize("crash", [(1, 1), (1, None), (2, 4)])
def test_a_log_goes_on_as_if_there_had_been_no_crash(tmp_path, kind, append, crash):
    """Also if a row was written after the last backup, or the file has gone."""
    files = []
    for name in ("whole", "cut", "gone"):
        (tmp_path / name).write_text(
            "" if kind is JSONLinesLogger or not append else "epoch,loss,val_loss\n7,1.0,1.0\n"
        )
        log = lambda name=name: kind(tmp_path / name, append=append)
        if name != "whole":
            backup = BackupAndRestore(tmp_path / "b", save_freq=3)
            with pytest.raises(CrashError):
                model().fit(X, Y, batch_size=8, epochs=3, verbose=0, callbacks=[log(), backup, Crash(*crash)])
        if name == "gone" and not append:
            (tmp_path / name).unlink()
        backup = BackupAndRestore(tmp_path / ("none" if name == "whole" else "b"), save_freq=3)
        model().fit(X, Y, batch_size=8, epochs=3, verbose=0, callbacks=[log(), backup])
        files.append((tmp_path / name).read_text())
    assert files[0].count("\n") == 3 + (kind is CSVLogger) + (append and kind is CSVLogger)
    assert files[1] == files[0]
    assert files[2] == files[0]
