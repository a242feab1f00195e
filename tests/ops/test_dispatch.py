"""The instruction set that was asked for is the one that runs, and threads are counted as documented."""

from __future__ import annotations

import platform

import pytest

import normkit as nk
from subprocesses import output_of, run_python

ASK = "import normkit as nk; print(nk.isa.active())"


def test_the_best_instruction_set_is_the_default() -> None:
    assert output_of(ASK) == nk.isa.available()[0]


@pytest.mark.parametrize("name", nk.isa.available())
def test_the_environment_chooses(name: str) -> None:
    assert output_of(ASK, NORMKIT_ISA=name) == name


@pytest.mark.parametrize("name", ["sse9", "AVX2", "neon" if platform.machine() == "x86_64" else "avx2"])
def test_an_unknown_name_in_the_environment_is_an_error_at_the_first_use(name: str) -> None:
    result = run_python(ASK, NORMKIT_ISA=name)
    assert result.returncode != 0
    assert f"ValueError: NORMKIT_ISA: '{name}' is not available on this machine; available: " in result.stderr
    assert ", ".join(nk.isa.available()) in result.stderr
    assert run_python("import normkit", NORMKIT_ISA=name).returncode == 0


def test_use_and_back() -> None:
    before = nk.isa.active()
    last = nk.isa.available()[-1]
    with nk.isa.use(last):
        assert nk.isa.active() == last
    assert nk.isa.active() == before
    nk.isa.use(last)
    assert nk.isa.active() == last
    nk.isa.use(before)


def test_number_of_threads_by_precedence() -> None:
    ask = "import normkit as nk; print(nk.get_num_threads())"
    assert output_of(ask, NORMKIT_NUM_THREADS="3", OMP_NUM_THREADS="5") == "3"
    assert output_of(ask, OMP_NUM_THREADS="5") == "5"
    assert (
        output_of(
            "import normkit as nk; nk.set_num_threads(7); print(nk.get_num_threads())",
            NORMKIT_NUM_THREADS="3",
        )
        == "7"
    )
    back = (
        "import normkit as nk; nk.set_num_threads(7); nk.set_num_threads(None); print(nk.get_num_threads())"
    )
    assert output_of(back, NORMKIT_NUM_THREADS="3") == "3"
    affinity = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});" + ask
    assert output_of(affinity) == "1"


def test_show_config_names_everything() -> None:
    config = nk.show_config()
    assert config["isa_active"] == nk.isa.active()
    assert config["isa_available"] == nk.isa.available()
    assert config["normkit"] == nk.__version__
    assert config["threads"] in ("OpenMP", "std::thread")
    for key in ("compiler", "num_threads", "usable_cores", "python", "numpy", "platform"):
        assert config[key], key


def test_an_absurd_number_of_threads_is_survived() -> None:
    code = """
    import numpy as np, normkit as nk
    x = np.random.default_rng(0).standard_normal((3000, 768)).astype(np.float32)
    expected = nk.layer_norm(x, num_threads=1)
    print(np.array_equal(nk.layer_norm(x), expected), np.array_equal(nk.layer_norm(x, num_threads=1 << 20), expected))
    """
    assert output_of(code, NORMKIT_NUM_THREADS="1000000") == "True True"
