"""Packages that only some parts need: imported when these are used."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["optional"]


def optional(module: str, use: str, extra: str) -> Any:
    """Return a module, or raise ModuleNotFoundError that says how to install its package.

    Parameters
    ----------
    module : str
        Its name.
    use : str
        What it is for, as the start of a sentence that its package ends: 'x.h5 is read by'.
    extra : str
        The extra of normkit that has the package.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise ModuleNotFoundError(
            f"{use} {package}, which is not installed: pip install 'normkit[{extra}]'"
        ) from error
