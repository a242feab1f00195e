"""`normkit info`: what this build is and what it runs on."""

from __future__ import annotations

import argparse

from normkit import show_config
from normkit.cli.arguments import Commands

__all__ = ["add_parser", "run"]


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    text = "show the version, the build, the instruction sets and the threads"
    parser = commands.add_parser("info", help=text, description=text)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print `normkit.show_config` as a table."""
    rows: dict[str, object] = {}
    for name, value in show_config().items():
        rows |= value if isinstance(value, dict) else {name: value}
    width = max(map(len, rows))
    for name, value in rows.items():
        shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        print(f"{name:{width}}  {shown}")
    return 0
