"""`normkit bench`: the benchmark of the source tree, which a wheel does not carry."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to those of `normkit`."""
    parser = commands.add_parser(
        "bench",
        help="time the operations beside torch and oneDNN (from a checkout)",
        description="Run `python -m bench` of the source tree with the arguments that follow.",
        add_help=False,
    )
    parser.add_argument("words", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark in the current folder."""
    if not Path("bench", "__main__.py").exists():
        raise FileNotFoundError(
            "the benchmark is part of the source tree, and there is no bench/ here; run normkit bench in a checkout"
        )
    sys.path.insert(0, str(Path.cwd()))
    importlib.import_module("bench.__main__").main(arguments.words)
    return 0
