"""What happens when a rank fails: the job ends, with an error that says why, and does not hang."""

from __future__ import annotations

import time

import pytest

MODEL = """
import os, signal
import numpy as np
from normkit.callbacks import LambdaCallback
from normkit.data import MiniBatches
from normkit.distributed import DataParallel, RankError
from trainer_support import blobs, classifier

x, y = blobs()
shared = DataParallel()
rank = shared.comm.rank
model = classifier()
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], distribution=shared)
"""


def ended(job, seconds=60):
    assert job.returncode != 0, job.stdout
    return job.stdout + job.stderr


@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_rank_ends_the_job(launch, victim):
    start = time.monotonic()
    job = launch(
        3,
        MODEL
        + f"""
def kill(batch, logs):
    if rank == {victim} and batch == 3:
        os.kill(os.getpid(), signal.SIGKILL)
model.fit(x, y, epochs=1000, verbose=0, callbacks=LambdaCallback(on_train_batch_end=kill))
print("through")
""",
    )
    text = ended(job)
    assert "through" not in text
    assert "KILLED BY SIGNAL: 9" in text or "exit code" in text.lower() or "signal 9" in text.lower()
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("where", ["on_train_batch_end", "on_epoch_end", "on_test_begin", "on_train_begin"])
def test_an_error_of_one_rank_in_training_ends_the_job(launch, where):
    job = launch(
        3,
        MODEL
        + f"""
def fail(*_):
    if rank == 1:
        raise OSError("no space left on device")
try:
    model.fit(x, y, epochs=3, verbose=0, validation_data=(x, y), callbacks=LambdaCallback({where}=fail)
              if "{where}" != "on_test_begin" else type("C", (LambdaCallback,), dict(on_test_begin=fail))())
except OSError:
    print("went on")  # while the others wait
""",
    )
    text = ended(job)
    assert "normkit: rank 1 of 3 failed and ends the job" in text
    assert "OSError: no space left on device" in text
    assert "went on" not in text


def test_an_error_of_the_program_on_one_rank_ends_the_job(launch):
    job = launch(
        3,
        MODEL
        + """
if rank == 2:
    raise LookupError("only here")
model.fit(x, y, epochs=3, verbose=0)
print("through")
""",
    )
    text = ended(job)
    assert "normkit: rank 2 of 3 failed and ends the job" in text
    assert "LookupError: only here" in text
    assert "through" not in text


CASES = {
    "argument": (
        "model.fit(x[: 10 if rank == 1 else None], y, verbose=0)",
        "ValueError x and y must have the same length, got 10 and 300",
        "RankError rank 1 failed: ValueError: x and y must have the same length, got 10 and 300",
    ),
    "batch": (
        """
def batches():
    for i in range(5):
        if rank == 1 and i == 3:
            raise OSError("cannot read")
        yield x[i * 9 : i * 9 + 9], y[i * 9 : i * 9 + 9]
model.fit(batches(), epochs=1, verbose=0)""",
        "OSError cannot read",
        "RankError rank 1 failed: OSError: cannot read",
    ),
    "number of rows": (
        "model.fit(x[: 290 + 10 * rank], y[: 290 + 10 * rank], shuffle=False, verbose=0)",
        *[
            "ValueError the ranks have batches of different length (2, 12 rows); give every rank the same data, batch_size and seed"
        ]
        * 2,
    ),
    "number of batches": (
        "model.fit(x[: 160 + 32 * rank], y[: 160 + 32 * rank], shuffle=False, verbose=0)",
        *[
            "ValueError the ranks have batches of different length (none, 32 rows); give every rank the same data, batch_size and seed"
        ]
        * 2,
    ),
    "order": (
        "model.fit(MiniBatches(x, y, seed=rank), verbose=0)",
        *[
            "ValueError the ranks have different samples in the same batch; give every rank the same data, in the same order"
        ]
        * 2,
    ),
    "epochs": (
        "model.fit(x, y, epochs=2 + rank, verbose=0)",
        *[
            "ValueError where training begins must be the same on every rank, got (0, 0, 2) on rank 0 and (0, 0, 3) on rank 1"
        ]
        * 2,
    ),
    "evaluation": (
        "model.evaluate(x, y + 9 * rank, verbose=0)",
        "ValueError sparse_categorical_crossentropy: labels must be 0 to 2, as the last layer has 3 units, got 11; give the last layer 12 units",
        "RankError rank 1 failed: ValueError: sparse_categorical_crossentropy: labels must be 0 to 2, as the last layer has 3 units, got 11; give the last layer 12 units",
    ),
    "drift": (
        """
def drift(epoch, logs):
    model.layers[0].kernel.value[0, 0] += rank
model.fit(x, y, epochs=3, verbose=0, callbacks=LambdaCallback(on_epoch_end=drift))""",
        *["ValueError the state after an epoch must be the same on every rank"] * 2,
    ),
    "model": (
        """
from normkit.layers import Dense
from normkit.models import Sequential
model = Sequential([Dense(3 + rank, activation="softmax", input_shape=(6,))])
model.compile("adam", "sparse_categorical_crossentropy", distribution=shared)
model.fit(x, y, verbose=0)""",
        *["ValueError the weights of the model must be the same on every rank"] * 2,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_only_one_rank_has_wrong_is_an_error_on_all_that_can_be_caught(printed, case):
    code, on_this, on_others = CASES[case]
    lines = printed(
        2,
        MODEL
        + f"""
try:
    {code.strip().replace(chr(10), chr(10) + "    ")}
except Exception as error:
    text = f"{{type(error).__name__}} {{error}}"
texts = shared.comm.objects(text)
# and the ranks can go on together
model = classifier()
model.compile("sgd", "sparse_categorical_crossentropy", distribution=shared)
model.fit(x, y, verbose=0)
if rank == 0:
    print(*texts, sep="\\n")
""",
    )
    assert len(lines) == 2
    assert lines[1].startswith(on_this)
    assert lines[0].startswith(on_others)


def test_more_ranks_than_chunks_are_refused(printed):
    lines = printed(
        3,
        """
from normkit.distributed import DataParallel
from normkit.distributed.communicator import world
try:
    DataParallel(deterministic=True, chunks=2)
except ValueError as error:
    text = str(error)
texts = world().objects(text)
if world().rank == 0:
    print(*texts, sep="\\n")
""",
    )
    text = (
        "DataParallel: 2 chunks leave some of the 3 ranks without work; pass chunks=3 or more, the same for every "
        "number of ranks whose bits are to agree"
    )
    assert lines == [text] * 3
