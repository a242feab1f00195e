"""The floating-point mode that results are computed in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from normkit import _core

__all__ = ["default_arithmetic", "default_float_mode"]


@contextmanager
def default_float_mode() -> Iterator[None]:
    """Compute with the default rounding and with subnormal numbers, whatever mode this thread is in.

    At the end the thread has its own mode again, also after an error. Use it in a ``with`` statement or as a decorator
    (of a function, not of a generator); it nests. NumPy's warnings stay as the caller wants them.
    """
    mode = _core.enter_default_float_mode()
    try:
        yield
    finally:
        _core.set_float_mode(mode)


@contextmanager
def default_arithmetic() -> Iterator[None]:
    """Compute in the default mode, and without NumPy's floating-point warnings and errors.

    As `default_float_mode`, with ``np.errstate(all="ignore")``: for the library's own arithmetic, which must not stop in
    the middle because the caller has asked NumPy to raise.
    """
    with default_float_mode(), np.errstate(all="ignore"):
        yield
