"""The command `normkit`: train, evaluate and predict from the shell, and show what this build is.

Each command is a module with `add_parser`; here they are put together, and errors become one line and an exit code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import numpy as np

from normkit import __version__
from normkit.cli import evaluate, info, predict, train
from normkit.cli.arguments import Parser

__all__ = ["main"]

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
EXIT_PIPE_CLOSED = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; default: those of the process.

    Returns
    -------
    int
        Exit code: 0; 2 after an error that the user can mend, told in one line on stderr; 130 after Ctrl-C.
    """
    try:
        parser = _parser()
        arguments = parser.parse_args(argv)
        if "run" not in arguments:
            parser.print_help(sys.stderr)
            return EXIT_ERROR
        # A model that diverges shows it in its numbers; NumPy's warnings would only be in the way.
        with np.errstate(all="ignore"):
            code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as end:  # argparse, after --help and --version
        return int(end.code or 0)
    except KeyboardInterrupt as stop:
        print(f"normkit: {str(stop) or 'interrupted, nothing was written'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout has gone (`normkit predict ... | head`); Python must not flush into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except (ValueError, OSError, ModuleNotFoundError, MemoryError) as error:
        print(f"normkit: {_one_line(error)}", file=sys.stderr)
        return EXIT_ERROR


def _parser() -> Parser:
    parser = Parser(prog="normkit", description=__doc__.partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"normkit {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for command in (train, evaluate, predict, info):
        command.add_parser(commands)
    return parser


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
