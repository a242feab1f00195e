"""Packages that only some formats need."""

from __future__ import annotations

from typing import Any

from normkit import _optional

__all__ = ["optional"]


def optional(module: str, what: str) -> Any:
    """Return a module, or raise ModuleNotFoundError that says how to install its package."""
    return _optional.optional(module, f"{what} is read by", "data")
