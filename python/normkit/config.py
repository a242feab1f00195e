"""Threads, and what this build is and runs on."""

from __future__ import annotations

import os
import platform
import sys

import numpy as np

from normkit import _core

__all__ = ["empty_cache", "get_num_threads", "set_num_threads", "show_config"]

_core.check_environment()  # so that a wrong number is told at import, not by the first large array


def set_num_threads(num_threads: int | None) -> None:
    """Set how many threads the kernels use in this process; None goes back to the default.

    The default is NORMKIT_NUM_THREADS (digits alone), else what OpenMP would use (OMP_NUM_THREADS, or a limit set by
    threadpoolctl or torch), but never more than the cores this process may use by affinity and
    cgroup quota. The bits of a result do not depend on the number.

    Raises
    ------
    ValueError
        If the number is not positive.
    """
    _core.set_num_threads(num_threads)


def get_num_threads() -> int:
    """Return how many threads a large enough call made from here would use."""
    return _core.get_num_threads()


def empty_cache() -> None:
    """Give the memory of results that no longer exist back to the system.

    Results of 64 KiB and more take their memory from a pool and give it back there when they end, because
    the first touch of fresh memory takes longer than the arithmetic. What the pool holds is at most an
    eighth of the machine's memory; the environment variable NORMKIT_POOL, read at
    import, sets another bound, and NORMKIT_POOL=0 turns the pool off. It takes digits, alone or followed by
    K, M, G or T (1048576, 512M, 2G). Arrays that still exist are not touched.
    """
    _core.empty_cache()


def show_config() -> dict[str, object]:
    """Return the build and the machine as a dictionary: version, compiler, ISAs, threads, caches."""
    built = dict(_core.build_config())
    return {
        "normkit": _core.__version__,
        **built,
        "isa_active": _core.isa_active(),
        "isa_available": _core.isa_available(),
        "num_threads": _core.get_num_threads(),
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "platform": platform.platform(),
        "environment": {
            name: os.environ[name]
            for name in ("NORMKIT_ISA", "NORMKIT_NUM_THREADS", "NORMKIT_POOL", "OMP_NUM_THREADS")
            if name in os.environ
        },
    }
