"""fork(), Python threads, foreign floating-point modes, and what an import costs."""

from __future__ import annotations

import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

import normkit as nk
from subprocesses import output_of, run_python

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")

WORK = """
import multiprocessing, os, sys, hashlib
import numpy as np
import normkit as nk
rng = np.random.default_rng(0)
x = rng.standard_normal((3000, 768)).astype(np.float32)
small = rng.standard_normal((1, 2, 4)).astype(np.float32)
def work(_=None):
    y, moments = nk.layer_norm(x, return_moments=True, num_threads=2)
    gradients = nk.layer_norm_backward(x, x, moments, num_threads=2)
    z = nk.batch_norm(x, num_threads=2)
    parts = [y, *moments, *gradients, z, nk.layer_norm(small)]
    return hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest()
"""


@needs_fork
@pytest.mark.parametrize("used_before", [True, False], ids=["used in the parent", "not used in the parent"])
def test_forked_children_compute_the_same_bits(used_before: bool) -> None:
    code = (
        WORK
        + f"""
if {used_before}:
    work()
with multiprocessing.get_context("fork").Pool(5) as pool:
    results = pool.map(work, range(10))
print(len(set(results)), results[0] == work())
"""
    )
    # Python 3.12 and later warn about any fork of a process that has threads, numpy's among them.
    assert output_of(code, warnings="ignore") == "1 True"


@needs_fork
def test_fork_while_another_thread_is_in_a_kernel() -> None:
    code = (
        WORK
        + """
import threading
expected = work()
stop = False
def busy():
    while not stop:
        work()
thread = threading.Thread(target=busy)
thread.start()
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if work() == expected else 1)
    assert os.waitpid(pid, 0)[1] == 0
stop = True
thread.join()
print("done")
"""
    )
    assert output_of(code, warnings="ignore") == "done"


def test_eight_python_threads_at_once(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1500, 512)).astype(np.float32)
    channels = rng.standard_normal((8, 16, 40, 40)).astype(np.float32)

    def work(_: object) -> bytes:
        y, moments = nk.layer_norm(x, return_moments=True)
        gradients = nk.layer_norm_backward(x, x, moments)
        z, channel_moments = nk.batch_norm(channels, return_moments=True)
        parts = [y, *moments, *gradients, z, *nk.batch_norm_backward(channels, channels, channel_moments)]
        return b"".join(part.tobytes() for part in parts)

    expected = work(None)
    barrier = Barrier(8)

    def together(_: int) -> bool:
        barrier.wait()
        return all(work(None) == expected for _ in range(5))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(together, range(8)))
    finally:
        sys.setswitchinterval(interval)


def test_subnormals_survive_import_and_calls() -> None:
    code = """
    import numpy as np
    def subnormals():
        return float(np.float64(5e-324) * 1.0), float(np.float32(1e-45) * np.float32(1.0))
    before = subnormals()
    import normkit as nk
    after_import = subnormals()
    nk.layer_norm(np.random.default_rng(0).standard_normal((2000, 700)))
    print(before == after_import == subnormals(), min(before) > 0)
    """
    assert output_of(code) == "True True"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of the modes are those of x86-64")
def test_the_callers_rounding_mode_neither_matters_nor_changes() -> None:
    code = """
    import ctypes, ctypes.util
    import numpy as np
    import normkit as nk
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    x = np.random.default_rng(0).standard_normal((900, 700)).astype(np.float32)
    extreme, upstream = np.random.default_rng(1).standard_normal((2, 40, 9001))
    extreme *= 1e200
    def bits():
        y, moments = nk.layer_norm(x, return_moments=True)
        parts = [y, *moments, *nk.layer_norm_backward(x, x, moments), nk.batch_norm(x)]
        y, moments = nk.layer_norm(extreme, return_moments=True)
        parts += [y, *moments, *nk.layer_norm_backward(upstream, extreme, moments)]
        return b"".join(a.tobytes() for a in parts)
    expected = bits()
    for mode in (0x400, 0x800, 0xC00):
        libm.fesetround(mode)
        try:
            got, left = bits(), libm.fegetround()
        finally:
            libm.fesetround(0)
        assert got == expected, hex(mode)
        assert left == mode, hex(left)
    print("same")
    """
    assert output_of(code) == "same"


def test_import_is_light() -> None:
    code = """
    import sys
    import numpy
    before = set(sys.modules)
    import normkit
    heavy = {m.split('.')[0] for m in set(sys.modules) - before} - {'normkit', 'numpy'}
    print(sorted(heavy - set(sys.stdlib_module_names)), 'normkit.models' in sys.modules)
    """
    assert output_of(code) == "[] False"


def test_nothing_is_printed() -> None:
    code = "import numpy as np, normkit as nk; nk.layer_norm(np.ones((3, 4), np.float32)); nk.show_config()"
    result = run_python(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
