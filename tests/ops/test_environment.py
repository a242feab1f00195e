"""Numbers in environment variables are digits, with a suffix where it is a size; anything else is told at import."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from subprocesses import output_of

BYTES = (
    "ValueError: NORMKIT_POOL must be a number of bytes in digits, alone or followed by K, M, G or T, such as 0, 1048576, "
    "512M or 2G, and at most 1048576T, got "
)
THREADS = (
    "ValueError: NORMKIT_NUM_THREADS must be a positive number of threads in digits, at most 1048576, got "
)
NO_NUMBERS = [
    *(
        "0x10",
        "0X10",
        "010x",
        "1e3",
        "1E3",
        "0b1",
        "0o7",
        "1p3",
        "1.5",
        "1.",
        ".5",
        "1.5G",
        "1,000",
        "1.000,5",
    ),
    *(" 5", "5 ", "\t5", "5\n", "+5", "-1", "-0", "--5", "1_000", "1'000", "1 000", "5,", "5;6", "2/1"),
    *("inf", "nan", "INF", "infinity", "none", "auto", "all", "true", "much", "'5'", '"5"', "$5", "%d", "5%"),
    *("M", "K5", "5M5", "5MM", "5MB", "5MiB", "5m", "5k", "5P", "5B", "5 M", "M5"),
    *("١٢", "１０", "²", "½", "五", "5\u00a0", "\ufeff5"),
    *("9" * 30, "18446744073709551616", "18446744073709551617", "9223372036854775808T"),
]


def imported(name: str, value: bytes | str) -> str:
    """Return the last line of what importing with this variable wrote to stderr."""
    env = {**os.environb, os.fsencode(name): os.fsencode(value)}
    done = subprocess.run([sys.executable, "-c", "import normkit"], env=env, capture_output=True, check=False)
    assert done.returncode in (0, 1)
    lines = done.stderr.decode().splitlines()
    assert (done.returncode == 1) == bool(lines)
    return lines[-1] if lines else ""


def as_shown(value: str) -> str:
    shown = "".join(chr(b) if 32 <= b < 127 else f"\\x{b:02x}" for b in value.encode())
    return f"'{shown}'"


@pytest.mark.parametrize(
    "value", ["0x10", "1e3", " 5", "+5", "nan", "-1", "1_000", "5M5", "١٢", "9" * 30, "0b1"]
)
def test_what_is_no_number_is_an_error_at_import(value) -> None:
    assert imported("NORMKIT_POOL", value) == BYTES + as_shown(value)
    assert imported("NORMKIT_NUM_THREADS", value) == THREADS + as_shown(value)


def test_no_bytes_and_no_length_break_the_message() -> None:
    assert imported("NORMKIT_POOL", b"\xff\n\x01") == BYTES + r"'\xff\x0a\x01'"
    assert imported("NORMKIT_NUM_THREADS", "x" * 100_000).startswith(THREADS + "'" + "x" * 50)
    assert len(imported("NORMKIT_NUM_THREADS", "x" * 100_000)) < 200


@pytest.mark.skipif(os.name != "posix", reason="bytes in the environment")
def test_no_bytes_break_the_message_about_an_instruction_set() -> None:
    code = """
    import os, normkit as nk
    os.environb[b"NORMKIT_ISA"] = b"avx\\xff"
    try:
        nk.isa.active()
    except ValueError as error:
        print(str(error).split(";")[0])
    """
    assert output_of(code) == r"NORMKIT_ISA: 'avx\xff' is not available on this machine"


def test_every_other_way_to_write_a_number_of_threads_is_refused() -> None:
    """They are read at every call that asks for threads, so one process can try them all."""
    code = f"""
    import os, normkit as nk
    accepted = []
    for value in {[*NO_NUMBERS, "0", "00", "1048577", "5K", "5M", "5G", "5T"]!r}:
        os.environ["NORMKIT_NUM_THREADS"] = value
        try:
            accepted.append((value, nk.get_num_threads()))
        except ValueError as error:
            assert str(error).startswith({THREADS.removeprefix("ValueError: ")!r}), error
    print(accepted)
    for value in ("1", "7", "007", "1048576"):
        os.environ["NORMKIT_NUM_THREADS"] = value
        print(nk.get_num_threads())
    """
    assert output_of(code, PYTHONUTF8="1").splitlines() == ["[]", "1", "7", "7", "1048576"]


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        *(("0", 0), ("1", 1), ("0016", 16), ("3K", 3 << 10), ("512M", 512 << 20), ("2G", 2 << 30)),
        *(("5T", 5 << 40), ("1048576T", 1 << 60), (str(1 << 60), 1 << 60)),
    ],
)
def test_sizes_of_the_pool(value, limit) -> None:
    code = "import normkit as nk; print(nk.show_config()['pool_limit_bytes'])"
    assert int(output_of(code, NORMKIT_POOL=value)) == limit


@pytest.mark.parametrize("value", ["1048577T", str((1 << 60) + 1), "5k", "5MB", "5P", "1.5G", "M", "5\n"])
def test_sizes_that_the_pool_refuses(value) -> None:
    assert imported("NORMKIT_POOL", value) == BYTES + as_shown(value)


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    code = "import normkit as nk; print(nk.show_config()['pool_limit_bytes'], nk.get_num_threads())"
    assert output_of(code, NORMKIT_POOL="", NORMKIT_NUM_THREADS="") == output_of(code)
