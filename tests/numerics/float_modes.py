"""Floating-point modes that other code may leave a thread in, and ways to enter them."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
from collections.abc import Iterator
from contextlib import contextmanager

from normkit import _core

# Bits of MXCSR or of FPCR: flush to zero (and denormals are zero), rounding downward, upward and towards zero. Subnormal
# numbers and rounding are set together too, since one mode can hide another.
MODES = {
    "x86_64": {
        "flush to zero": 0x9F80,
        "denormals are zero": 0x1FC0,
        "both": 0x9FC0,
        "downward": 0x3F80,
        "upward": 0x5F80,
        "towards zero": 0x7F80,
        "towards zero and both": 0xFFC0,
    },
    "aarch64": {
        "flush to zero": 1 << 24,
        "upward": 1 << 22,
        "downward": 2 << 22,
        "towards zero": 3 << 22,
        "towards zero, flush to zero": (1 << 24) | (3 << 22),
    },
}.get(platform.machine(), {})
FLAGS = 0x3F if platform.machine() == "x86_64" else 0
DEFAULT = 0x1F80 if platform.machine() == "x86_64" else 0


def current_mode() -> int:
    """Return the mode of this thread, without the flags of what happened."""
    mode = _core.enter_default_float_mode()
    _core.set_float_mode(mode)
    return mode & ~FLAGS


@contextmanager
def float_mode(mode: int) -> Iterator[None]:
    """Put this thread into a mode; at the end into the default."""
    _core.set_float_mode(mode)
    try:
        yield
    finally:
        _core.set_float_mode(DEFAULT)


def round_by(libm_mode: int) -> int:
    """Call C's fesetround."""
    return ctypes.CDLL(ctypes.util.find_library("m")).fesetround(libm_mode)
