"""A process ends quietly and at once, whatever its daemon threads are doing; and sub-interpreters are refused."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest

from subprocesses import output_of, run_python

# What a daemon thread does over and over. `view` and `where` make NumPy copy and reduce without the GIL; `python` is
# called back from C++; `error` unwinds for a reason of its own.
LOOPS = {
    "layer_norm": "nk.layer_norm(x, num_threads=threads)",
    "backward": "nk.layer_norm_backward(x, x, moments, num_threads=threads)",
    "batch_norm": "nk.batch_norm(x, stats=stats, num_threads=threads)",
    "group_norm": "nk.group_norm(images, num_groups=4, num_threads=threads)",
    "view": "nk.batch_norm(fortran[::2], out=out[::2], num_threads=threads)",
    "where": "nk.layer_norm(x, where=x > 0.5, num_threads=threads)",
    "loss": "_core.softmax_cross_entropy(x, labels, None)",
    "python": "nk.layer_norm(x, axis=Axis(), num_threads=threads)",
    "error": "refuse()",
    "configuration": "nk.show_config(); nk.set_num_threads(threads); nk.empty_cache()",
    "training": "model.fit(x[:300], x[:300, :1], epochs=1, verbose=0)",
}
SETUP = """
import sys, threading, time
import numpy as np, normkit as nk
from normkit import _core
name, rows, threads, ends = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
x = np.random.default_rng(0).random((rows, 256), dtype=np.float32)
fortran, out, images = np.asfortranarray(x), np.empty_like(x), x.reshape(rows, 16, 16)
labels = np.zeros(rows, np.int64)
stats = nk.RunningStats(256)
moments = nk.layer_norm(x, return_moments=True)[1]
class Axis:
    def __index__(self):
        return sum(range(200)) // 19900
def refuse():
    try:
        nk.layer_norm(x, x)
    except ValueError:
        pass
def built():
    layers = nk.layers
    model = nk.Sequential([layers.Dense(32, input_shape=(256,)), layers.BatchNormalization(), layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse")
    return model
loops = dict(LOOPS)
started = threading.Barrier(4)
def forever():
    names = {"model": built()} if name == "training" else {}
    code = compile(loops[name], name, "exec")
    started.wait()
    while True:
        exec(code, globals(), names)
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
started.wait()
time.sleep(float(sys.argv[5]))
if ends == "error":
    sys.exit(7)
"""
SCRIPT = SETUP.replace("dict(LOOPS)", repr(LOOPS))


def run_script(*arguments: object, code: str = SCRIPT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", LOOPS)
def test_a_process_ends_while_daemon_threads_compute(name) -> None:
    """Small calls and large, alone and in a team; the moments of the end are spread over the calls."""
    cases = list(product((20, 6000), (1, 2)))
    with ThreadPoolExecutor(2) as pool:
        ends = list(
            pool.map(
                lambda case: run_script(name, *case[1], "normally", 0.01 + 0.007 * case[0]), enumerate(cases)
            )
        )
    assert [(end.returncode, end.stdout, end.stderr) for end in ends] == [(0, "", "")] * len(cases)


def test_the_exit_code_is_that_of_the_program() -> None:
    end = run_script("layer_norm", 6000, 2, "error", 0.02)
    assert (end.returncode, end.stderr) == (7, "")


def test_exit_handlers_may_compute_and_wait_for_daemon_threads() -> None:
    """They run before the interpreter ends, so no thread may have been stopped by then."""
    code = """
    import atexit, threading
    import numpy as np
    results = []
    go = threading.Event()
    def finish():
        go.set()
        worker.join()
        results.append(nk.layer_norm(x, num_threads=2))
        print(len(results), all((r == results[0]).all() for r in results))
    atexit.register(finish)  # before the import: it runs after whatever normkit could register
    import normkit as nk
    x = np.random.default_rng(0).random((6000, 256), dtype=np.float32)
    def work():
        go.wait()
        for _ in range(5):
            results.append(nk.layer_norm(x, num_threads=2))
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    """
    assert output_of(code) == "6 True"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_ends_quietly_whatever_the_parents_threads_did() -> None:
    code = """
    import os, sys, threading
    import numpy as np, normkit as nk
    x = np.random.default_rng(0).random((6000, 256), dtype=np.float32)
    def forever():
        while True:
            nk.batch_norm(x, num_threads=2)
    for _ in range(2):
        threading.Thread(target=forever, daemon=True).start()
    nk.layer_norm(x)
    codes = []
    for index in range(8):
        child = os.fork()
        if child == 0:
            threading.Thread(target=forever, daemon=True).start()
            nk.layer_norm(x, num_threads=2)
            sys.exit(index)  # through the interpreter's end, with a daemon thread of its own
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(codes)
    """
    done = run_python(code, warnings="ignore")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(list(range(8)))


INTERPRETERS = """
import sys
def run(code):
    try:
        import _interpreters as interpreters  # Python 3.13 and later
    except ImportError:
        import _xxsubinterpreters as interpreters
    made = interpreters.create()
    try:
        failure = interpreters.run_string(made, code)
        if failure is not None:
            raise RuntimeError(failure.formatted)
    finally:
        interpreters.destroy(made)
ATTEMPT = '''
for _ in range(2):
    try:
        import normkit
    except ImportError as error:
        print(error)
    else:
        print("imported")
import sys
print("numpy" in sys.modules)
'''
"""
REFUSED = (
    "normkit works in the main interpreter only, since NumPy does not support sub-interpreters; import it there, or use "
    "processes"
)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python itself refuses, in words of its own")
@pytest.mark.parametrize("before", ["", "import normkit", "import numpy"])
def test_a_sub_interpreter_is_refused(before) -> None:
    code = (
        textwrap.dedent(before)
        + INTERPRETERS
        + """
for _ in range(3):
    run(ATTEMPT)
import numpy as np, normkit
print(normkit.batch_norm(np.eye(3, dtype=np.float32)).shape, normkit.Sequential().name)
"""
    )
    lines = output_of(code, warnings="ignore").splitlines()
    assert lines == [REFUSED, REFUSED, "False"] * 3 + ["(3, 3) sequential"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there the words are normkit's own")
def test_a_sub_interpreter_is_refused_by_python() -> None:
    code = INTERPRETERS + "run(ATTEMPT)\nimport normkit\nprint('main')\n"
    lines = output_of(code, warnings="ignore").splitlines()
    assert "imported" not in lines
    assert lines[-2:] == ["False", "main"]


CTRL_C = """
import os, signal, threading, time
import numpy as np, normkit as nk
x = np.random.default_rng(0).random((30000, 256), dtype=np.float32)
calls = CALLS
expected = {name: call().tobytes() for name, call in calls.items()}
for index in range(15):
    deadline = time.monotonic() + 30
    try:
        threading.Timer(0.003 * (index + 1), os.kill, (os.getpid(), signal.SIGINT)).start()
        while time.monotonic() < deadline:
            for name, call in calls.items():
                assert call().tobytes() == expected[name], name
        print("no interrupt")
    except KeyboardInterrupt:
        pass
for name, call in calls.items():
    assert call().tobytes() == expected[name], name
print("done")
""".replace(
    "CALLS",
    """{
    "layer_norm": lambda: nk.layer_norm(x, num_threads=2),
    "batch_norm": lambda: nk.batch_norm(x, num_threads=2),
    "where": lambda: nk.layer_norm(x, where=x > 0.5, num_threads=2),
}""",
)


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
def test_ctrl_c_ends_a_call_with_keyboard_interrupt_and_hurts_nothing() -> None:
    assert output_of(CTRL_C) == "done"
