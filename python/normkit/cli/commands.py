"""The commands of `normkit`: each is a module with `add_parser`, and here they are put together."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from normkit import __version__
from normkit.cli import bench, evaluate, export, info, predict, train
from normkit.cli.arguments import Parser

__all__ = ["run"]

EXIT_USAGE = 2


def run(argv: Sequence[str] | None) -> int:
    """Run the command that the arguments ask for, and return its exit code."""
    parser = Parser(
        prog="normkit", description="Train, evaluate and predict from the shell, and show what this build is."
    )
    parser.add_argument("--version", action="version", version=f"normkit {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for command in (train, evaluate, predict, export, info, bench):
        command.add_parser(commands)
    arguments = parser.parse_args(argv)
    # argparse takes the -- of --epochs=-- for the end of the options, and gives the option an empty list.
    for name, value in vars(arguments).items():
        if value == [] and name != "words":
            raise ValueError(f"argument --{name.replace('_', '-')}: expected a value, got '--'")
    if "run" not in arguments:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    # A model that diverges shows it in its numbers; NumPy's warnings would only be in the way.
    with np.errstate(all="ignore"):
        code: int = arguments.run(arguments)
    return code
