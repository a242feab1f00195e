"""Packages that only some formats need."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["optional"]


def optional(module: str, what: str) -> Any:
    """Return a module, or raise ModuleNotFoundError that says how to install its package."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise ModuleNotFoundError(
            f"{what} is read by {package}, which is not installed: pip install 'normkit[data]'"
        ) from error
