"""`LearningRateSchedule`: what all schedules share."""

from __future__ import annotations

import math
from typing import Any

from normkit._checks import finite, number
from normkit._registry import Configured

__all__ = ["LearningRateSchedule"]


class LearningRateSchedule(Configured):
    """Base of the schedules. A subclass writes `__call__`, and keeps each argument of `__init__` as an attribute."""

    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` batches."""
        raise NotImplementedError

    def _positive(self, name: str, value: Any) -> float:
        checked = number(f"{type(self).__name__}: {name}", value)
        if not (math.isfinite(checked) and checked > 0.0):
            raise ValueError(f"{type(self).__name__}: {name} must be finite and above 0, got {checked:g}")
        return checked

    def _rate(self, name: str, value: Any) -> float:
        return finite(f"{type(self).__name__}: {name}", value)
