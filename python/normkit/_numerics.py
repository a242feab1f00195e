"""The arithmetic that results are computed in, whatever the caller has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

__all__ = ["default_arithmetic"]


@contextmanager
def default_arithmetic() -> Iterator[None]:
    """Compute with no floating-point error raised or warned of."""
    with np.errstate(all="ignore"):
        yield
