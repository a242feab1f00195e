"""The command `normkit`: train, evaluate and predict from the shell, and show what this build is.

Here the commands are started, and their errors become one line and an exit code.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

__all__ = ["main"]

EXIT_ERROR = 2
EXIT_SIGNAL = 128  # plus the signal's number, as shells have it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; default: those of the process.

    Returns
    -------
    int
        Exit code: 0; 2 after an error that the user can mend, told in one line on stderr; 130 after Ctrl-C, and
        128 plus its number after another signal that ends a program.
    """
    _open_streams()
    try:
        with _ended_by_signals():
            # Imported here, so that Ctrl-C is answered while that takes its time.
            from normkit.cli.commands import run

            code = run(argv)
            sys.stdout.flush()
            return code
    except SystemExit as end:  # argparse, after --help and --version; a signal
        _give_up_stdout()
        return int(end.code or 0)
    except KeyboardInterrupt as stop:
        print(f"normkit: {str(stop) or 'interrupted, nothing was written'}", file=sys.stderr)
        return EXIT_SIGNAL + signal.SIGINT
    except BrokenPipeError:
        # The reader of stdout has gone (`normkit predict ... | head`).
        _give_up_stdout()
        return EXIT_SIGNAL + signal.SIGPIPE
    except (ValueError, OSError, ModuleNotFoundError, MemoryError) as error:
        print(f"normkit: {_one_line(error)}", file=sys.stderr)
        _give_up_stdout()
        return EXIT_ERROR


def _open_streams() -> None:
    """Let there be a stdout and a stderr, even if they were closed (`normkit info >&-`)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The name of a file that the terminal's encoding lacks is no reason to fail after the work is done.
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let signals that end a program do it by SystemExit, so that what it has begun to write is removed."""
    replaced = []
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # Under nohup it is ignored, and stays so.
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end)
                replaced.append(number)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one must not stop the removal
    raise SystemExit(EXIT_SIGNAL + number)


def _give_up_stdout() -> None:
    """If stdout does not take what was printed, keep Python from trying it again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:  # files have a name when this happens
        text = f"standard output: {error.strerror}"
    # What a terminal would take for a command, in the name of a file, is shown as Python writes it.
    signs = (sign if sign.isprintable() else repr(sign)[1:-1] for sign in " ".join(text.split()))
    return "".join(signs) or type(error).__name__
