"""The prefetch thread: what it makes ahead, errors in it, and that it ends with the iteration in whatever way."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback

import numpy as np
import pytest

from normkit.data import MiniBatches, Stream
from subprocesses import output_of, run_python


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("normkit-prefetch")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    assert not threads()


def stream(items=1000, made=None, size=10):
    def make():
        for number in range(items):
            if made is not None:
                made.append(number)
            yield np.full((size, 2), float(number))

    return Stream(make)


def batches(*args, prefetch=3, **kwargs):
    return MiniBatches(stream(*args, **kwargs), batch_size=10, shuffle=False, prefetch=prefetch)


def test_no_more_than_so_many_are_made_ahead():
    made: list[int] = []
    iterator = iter(batches(made=made, prefetch=3))
    next(iterator)
    for taken in range(1, 20):
        time.sleep(0.01)
        assert len(made) <= taken + 3
        next(iterator)
    assert len(threads()) == 1
    iterator.close()
    assert not threads()


def test_same_batches_as_without():
    for a, b in zip(batches(50, prefetch=0), batches(50, prefetch=4), strict=True):
        np.testing.assert_array_equal(a[0], b[0])


def test_an_end_an_early_stop_and_an_abandoned_iterator_leave_no_thread():
    for _ in batches(30):
        pass
    assert not threads()
    for _ in batches():
        break
    assert not threads()
    iterator = iter(batches())
    next(iterator)
    assert threads()
    del iterator
    assert not threads()
    for _ in range(50):
        next(iter(batches()))
    assert not threads()


def test_an_error_of_the_consumer_leaves_no_thread():
    def consume():
        for _ in batches():
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as caught:
        consume()
    assert not threads()
    assert caught.value is not None


def failing():
    yield np.zeros((10, 2))
    yield np.zeros((10, 2))
    raise OSError("the disk is gone")


def test_an_error_in_the_thread_is_raised_in_its_place_with_its_traceback():
    iterator = iter(MiniBatches(Stream(failing), batch_size=10, shuffle=False))
    next(iterator), next(iterator)
    with pytest.raises(OSError, match="the disk is gone") as caught:
        next(iterator)
    assert "in failing" in "".join(traceback.format_tb(caught.value.__traceback__))


def test_the_cause_of_an_error_in_the_thread_is_kept():
    def chained():
        yield np.zeros((10, 2))
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    with pytest.raises(ValueError, match="outer") as caught:
        list(MiniBatches(Stream(chained), batch_size=10, shuffle=False))
    assert isinstance(caught.value.__cause__, KeyError)


def test_after_an_error_the_next_iteration_works():
    calls = []

    def sometimes():
        calls.append(1)
        yield np.zeros((10, 2))
        if len(calls) == 1:
            raise OSError("once")

    data = MiniBatches(Stream(sometimes), batch_size=5, shuffle=False)
    with pytest.raises(OSError, match="once"):
        list(data)
    assert len(list(data)) == 2


def test_keyboard_interrupt_while_waiting():
    def slow():
        yield np.zeros((10, 2))
        time.sleep(0.5)
        yield np.zeros((10, 2))

    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in MiniBatches(Stream(slow), batch_size=10, shuffle=False, prefetch=1):
            pass
    timer.join()
    assert not threads()


def test_garbage_collection_in_the_thread_itself():
    """A cycle around an iterator may be collected by any thread, its own included."""

    def collecting():
        while True:
            gc.collect()
            yield np.zeros((10, 2))

    class Holder:
        pass

    for _ in range(20):
        holder = Holder()
        holder.iterator = iter(MiniBatches(Stream(collecting), batch_size=10, shuffle=False, prefetch=2))
        holder.itself = holder
        next(holder.iterator)
        del holder
        time.sleep(0.005)
    deadline = time.monotonic() + 10
    while threads() and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)


EXIT = """
import numpy as np
from normkit.data import MiniBatches, Stream
def forever():
    while True:
        yield np.zeros((10, 2))
iterator = iter(MiniBatches(Stream(forever), batch_size=10, prefetch=4, shuffle=False))
next(iterator)
"""


@pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "del iterator"])
def test_interpreter_exit(end):
    result = run_python(EXIT + "print('end', flush=True)\n" + end, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "end\n", "")


def test_exit_with_an_error_while_iterating():
    result = run_python(EXIT + "for _ in iterator:\n    raise RuntimeError('mine')\n", timeout=60)
    assert result.returncode == 1
    assert result.stderr.strip().endswith("RuntimeError: mine")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork():
    """A child says that it cannot go on with the parent's thread, and can begin anew; the parent goes on."""
    quiet = "ignore" if sys.version_info >= (3, 12) else "error"  # 3.12 warns of any fork with threads
    code = """
    import os
    import numpy as np
    from normkit.data import MiniBatches, Stream
    def items():
        for number in range(20):
            yield np.full((10, 2), float(number))
    data = MiniBatches(Stream(items), batch_size=10, prefetch=2, shuffle=False)
    iterator = iter(data)
    next(iterator)
    child = os.fork()
    if child == 0:
        try:
            next(iterator)
        except RuntimeError as error:
            assert "a thread of the parent process" in str(error), error
            assert len(list(data)) == 20
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len(list(iterator)) == 19
    print("ok")
    """
    assert output_of(code, warnings=quiet, timeout=60) == "ok"
