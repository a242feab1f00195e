"""Training that is stopped in any way, at any time, and goes on: the same bits as one that never stopped."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from normkit.callbacks import BackupAndRestore, Callback, LambdaCallback
from normkit.data import Stream
from subprocesses import run_python
from trainer_support import assert_same_weights, blobs, classifier

SCRIPT = """
import os, time
import numpy as np
from normkit.callbacks import BackupAndRestore, CSVLogger, EarlyStopping, LambdaCallback
from normkit.data import MiniBatches, NpyFile
from normkit.layers import BatchNormalization, Dense, Dropout
from normkit.models import Sequential, archive
from normkit.optimizers import Adam

folder, pause = os.environ["FOLDER"], float(os.environ["PAUSE"])
rng = np.random.default_rng(0)
x, y = rng.normal(size=(90, 5)), rng.integers(0, 3, 90)
data = os.path.join(folder, "data.npy")
if not os.path.exists(data):
    np.save(data + ".new.npy", x)
    os.replace(data + ".new.npy", data)

fsync, print_ = os.fsync, lambda *words: print(*words, flush=True)

def slow_fsync(descriptor):
    # A kill that the parent sends on reading "half" finds half a file, or a whole one under its temporary name.
    print_("half")
    time.sleep(pause)
    fsync(descriptor)
    print_("whole")
    time.sleep(pause)

if pause:
    archive.os.fsync = slow_fsync
model = Sequential([Dense(8, "relu", input_shape=(5,)), BatchNormalization(), Dropout(0.4), Dense(3, "softmax")], seed=0)
model.compile(Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
batches = MiniBatches(NpyFile(data), y, batch_size=10, seed=7, shuffle_buffer=25)
history = model.fit(
    batches, epochs=5, validation_data=(x, y), verbose=0,
    callbacks=[
        LambdaCallback(on_train_begin=lambda logs: print_("begin")),
        EarlyStopping("val_loss", patience=9, restore_best_weights=True),
        BackupAndRestore(os.path.join(folder, "backup"), save_freq=2),
    ],
)
state = b"".join(array.tobytes() for array in [*model.get_weights(), *sum(model.optimizer.slots.values(), [])])
print_("result", state.hex(), history.history, model.rng.bit_generator.state, batches.state_dict())
"""


def start(folder, pause):
    environment = {**os.environ, "FOLDER": str(folder), "PAUSE": str(pause)}
    return subprocess.Popen([sys.executable, "-W", "error", "-c", SCRIPT], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


def run_to_the_end(folder, pause=0.0):
    with start(folder, pause) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    lines = out.splitlines()
    assert lines[-1].startswith("result ")
    return lines[-1]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return run_to_the_end(tmp_path_factory.mktemp("whole"))


def kill_when(process, line, count):
    """Kill the process when it has printed this line so many times; return whether it had not ended before."""
    for printed in process.stdout:
        count -= printed.strip() == line
        if count == 0:
            process.kill()
            return True
    return False


@pytest.mark.parametrize("line", ["half", "whole"])
def test_killed_while_a_checkpoint_is_written(tmp_path, line, uninterrupted):
    """At the first file, and in later runs at others; each run gets further, as the next starts from what is whole."""
    for count in (1, 2, 3, 5, 7):
        with start(tmp_path, 0.02) as process:
            assert kill_when(process, line, count)
        assert process.wait() == -signal.SIGKILL
    left = [path.name for path in (tmp_path / "backup").iterdir()]
    assert any(name.endswith(".tmp") for name in left)
    assert run_to_the_end(tmp_path) == uninterrupted
    assert not (tmp_path / "backup").exists()


def test_killed_at_random_moments(tmp_path, uninterrupted):
    moments = random.Random(5)
    kills = 0
    for _ in range(8):
        with start(tmp_path, 0.004) as process:
            process.stdout.readline()  # "begin"
            timer = threading.Timer(moments.uniform(0, 0.1), process.kill)
            timer.start()
            process.communicate(timeout=60)
            timer.join()
        kills += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
    assert kills >= 3
    assert run_to_the_end(tmp_path) == uninterrupted


def trained(*callbacks, **options):
    x, y = blobs(60)
    model = classifier(seed=1)
    options = {"validation_data": (x, y), **options}
    history = model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=list(callbacks), **options)
    return model, history


class PressesCtrlC(Callback):
    """Sends SIGINT in a hook, the n-th time."""

    def __init__(self, hook, count, times=1):
        def press(*args):
            self.count -= 1
            if self.count == 0:
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)

        self.count = count
        setattr(self, hook, press)


@pytest.mark.parametrize(
    ("hook", "count"),
    [
        ("on_train_begin", 1),
        ("on_epoch_begin", 2),
        ("on_train_batch_begin", 1),
        ("on_train_batch_begin", 11),
        ("on_train_batch_end", 8),
        ("on_train_batch_end", 13),
        ("on_test_begin", 2),
        ("on_test_batch_end", 3),
        ("on_test_end", 1),
        ("on_epoch_end", 1),
        ("on_epoch_end", 2),
    ],
)
def test_ctrl_c_leaves_a_checkpoint_wherever_it_comes(tmp_path, hook, count):
    """One that has not been saved for epochs, so that only what Ctrl-C leaves can bring the same bits."""
    whole, expected = trained()
    backup = tmp_path / "backup"
    with pytest.raises(KeyboardInterrupt):
        trained(BackupAndRestore(backup, save_freq=10_000), PressesCtrlC(hook, count))
    assert [path.name for path in backup.iterdir()] == ["latest.safetensors"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    steps = []
    resumed, history = trained(
        BackupAndRestore(backup, save_freq=10_000),
        LambdaCallback(on_train_batch_end=lambda i, logs: steps.append(i)),
    )
    assert history.history == expected.history
    assert_same_weights(resumed.get_weights(), whole.get_weights())
    assert resumed.rng.bit_generator.state == whole.rng.bit_generator.state
    assert (len(steps) < 24) == (hook not in ("on_train_begin",))


def test_a_second_ctrl_c_does_not_wait_and_leaves_no_checkpoint(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(BackupAndRestore(tmp_path / "b"), PressesCtrlC("on_train_batch_begin", 3, times=2))
    assert not (tmp_path / "b").exists()


def test_ctrl_c_while_waiting_for_data(tmp_path):
    """It waits for the batch; the batch is trained on, and not lost."""
    x, y = blobs(60)

    def slow():
        for i in range(0, 60, 10):
            if i == 30:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)
            yield x[i : i + 10], y[i : i + 10]

    quick = lambda: ((x[i : i + 10], y[i : i + 10]) for i in range(0, 60, 10))
    whole = classifier(seed=1)
    whole.fit(Stream(quick), batch_size=10, shuffle=False, epochs=2, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        classifier(seed=1).fit(
            Stream(slow),
            batch_size=10,
            shuffle=False,
            epochs=2,
            verbose=0,
            callbacks=[BackupAndRestore(tmp_path / "b")],
        )
    model = classifier(seed=1)
    model.fit(
        Stream(quick),
        batch_size=10,
        shuffle=False,
        epochs=2,
        verbose=0,
        callbacks=[BackupAndRestore(tmp_path / "b")],
    )
    assert_same_weights(model.get_weights(), whole.get_weights())


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    """The limit of the size of a file stands for the disk; what is written is larger from the third epoch on."""
    script = """
        import os, resource, signal
        import numpy as np
        from normkit.callbacks import BackupAndRestore, LambdaCallback
        from normkit.layers import Dense
        from normkit.models import Sequential

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(40, 5)), rng.integers(0, 3, 40)
        model = Sequential([Dense(50, input_shape=(5,)), Dense(3, "softmax")], seed=0)
        model.compile("adam", "sparse_categorical_crossentropy")

        def fill(epoch, logs):
            if epoch == 2 and os.environ["FULL"] == "yes":
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

        callbacks = [LambdaCallback(on_epoch_begin=fill), BackupAndRestore(os.environ["FOLDER"])]
        try:
            model.fit(x, y, epochs=5, verbose=0, callbacks=callbacks)
        except OSError as error:
            print(error)
        else:
            print(b"".join(w.tobytes() for w in model.get_weights()).hex())
    """
    folder = tmp_path / "b"

    def run(folder, full):
        result = run_python(script, FOLDER=str(folder), FULL=full)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout.strip()

    assert run(folder, "yes") == f"[Errno 27] File too large: '{folder / 'latest.safetensors'}'"
    assert [path.name for path in folder.iterdir()] == ["latest.safetensors"]
    assert run(folder, "no") == run(tmp_path / "other", "no")


def test_the_folder_keeps_what_is_not_of_the_backup(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    trained(BackupAndRestore(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    assert (tmp_path / "note.txt").read_text() == "mine"
