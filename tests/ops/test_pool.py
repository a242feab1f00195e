"""Memory of results: recycled, bounded, owned by its array, and safe in threads and forks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import normkit as nk
from normkit import _core
from subprocesses import output_of

ROWS, COLS = 3000, 256  # 3 MB


@pytest.fixture
def x() -> np.ndarray:
    nk.empty_cache()
    return np.random.default_rng(3).standard_normal((ROWS, COLS), dtype=np.float32)


def in_use() -> int:
    return _core.pool_usage()[0]


def waiting() -> int:
    return _core.pool_usage()[1]


def test_memory_of_a_result_that_ended_is_used_again(x) -> None:
    y = nk.layer_norm(x)
    first = y.ctypes.data
    del y
    assert waiting() >= x.nbytes
    assert nk.batch_norm(x).ctypes.data == first


@pytest.mark.parametrize("rows", [70, 600, 3000, 9000])
def test_results_begin_at_a_line_and_large_ones_at_a_huge_page(rows) -> None:
    y = nk.layer_norm(np.ones((rows, COLS), np.float32))
    assert y.ctypes.data % (2**21 if y.nbytes >= 2**21 else 64) == 0


def test_an_array_owns_its_memory(x) -> None:
    expected = nk.layer_norm(x).copy()
    y = nk.layer_norm(x)
    assert y.flags.owndata
    assert y.base is None
    view = y[5:7]
    del y
    others = [nk.layer_norm(x * 2 + k) for k in range(4)]
    np.testing.assert_array_equal(view, expected[5:7])
    del others


@pytest.mark.parametrize("factor", [0.1, 0.8, 1, 3])
def test_an_array_can_be_resized(x, factor) -> None:
    y = nk.layer_norm(x)
    before = y.ravel().copy()
    count = int(before.size * factor)
    y.resize(count, refcheck=False)
    kept = min(count, before.size)
    np.testing.assert_array_equal(y[:kept], before[:kept])
    assert (y[kept:] == 0).all()


def test_memory_does_not_grow_in_a_loop(x) -> None:
    y, moments = nk.layer_norm(x, return_moments=True)
    seen = set()
    for _ in range(50):
        y = nk.layer_norm(x)
        gradients = nk.layer_norm_backward(y, x, moments)
        seen.add((in_use(), waiting()))
    assert len(seen) <= 3
    del y, gradients
    assert in_use() == 0


def test_sizes_that_change_stay_within_the_bound() -> None:
    nk.empty_cache()
    largest = 0
    for rows in range(300, 3000, 37):
        nk.layer_norm(np.ones((rows, COLS), np.float32))
        largest = max(largest, waiting())
    assert 0 < largest <= _core.pool_usage()[2]
    nk.empty_cache()
    assert waiting() == 0


def test_empty_cache_leaves_arrays_alone(x) -> None:
    y = nk.layer_norm(x)
    copy = y.copy()
    nk.layer_norm(x)
    assert waiting() > 0
    nk.empty_cache()
    assert waiting() == 0
    assert in_use() >= y.nbytes
    np.testing.assert_array_equal(y, copy)


def test_a_failing_call_gives_its_memory_back(x) -> None:
    before = in_use()
    with pytest.raises(ValueError, match="weight must have shape"):
        nk.layer_norm(x, np.ones(3, np.float32))
    assert in_use() == before


def test_other_arrays_are_not_from_the_pool(x) -> None:
    before = in_use()
    nk.layer_norm(x)
    other = np.ones((ROWS, COLS), np.float32)
    assert in_use() == before
    assert other.flags.owndata


def test_threads_share_the_pool(x) -> None:
    expected = nk.layer_norm(x).tobytes()
    start = threading.Barrier(4)

    def work(_: int) -> bool:
        start.wait()
        kept = [nk.layer_norm(x) for _ in range(5)]
        return all(nk.layer_norm(x).tobytes() == expected for _ in range(20)) and all(
            y.tobytes() == expected for y in kept
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    assert in_use() == 0


SETTINGS = """
import numpy as np, normkit as nk
from normkit import _core
x = np.ones((3000, 256), np.float32)
kept = [nk.layer_norm(x) for _ in range(3)]
used = _core.pool_usage()[0]
del kept
print(used, *_core.pool_usage()[1:])
"""


def test_the_pool_can_be_turned_off() -> None:
    used, left, limit = map(int, output_of(SETTINGS, NORMKIT_POOL="0").split())
    assert (used, left, limit) == (0, 0, 0)


def test_the_bound_can_be_set() -> None:
    used, left, limit = map(int, output_of(SETTINGS, NORMKIT_POOL="8M").split())
    assert limit == 8 * 2**20
    assert used >= 3 * 3000 * 256 * 4
    assert 0 < left <= limit


FORK = """
import os, threading
import numpy as np, normkit as nk
x = np.random.default_rng(0).standard_normal((3000, 256), dtype=np.float32)
expected = nk.layer_norm(x).tobytes()
stop = threading.Event()
def busy():
    while not stop.is_set():
        nk.layer_norm(x)
threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads: thread.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        os._exit(0 if nk.layer_norm(x).tobytes() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads: thread.join()
print("ok")
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_child_forked_while_others_allocate_can_allocate() -> None:
    assert output_of(FORK, warnings="ignore") == "ok"
