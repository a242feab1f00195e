"""What the parsers of all commands share: types of values, help on data, errors of one line."""

from __future__ import annotations

import argparse
import re
import textwrap
from pathlib import Path
from typing import NoReturn, TypeAlias

from normkit._paths import find_ending, path_fault

__all__ = [
    "Commands",
    "Parser",
    "add_data",
    "add_saved",
    "count",
    "folder",
    "path",
    "positive",
    "seed",
    "share",
]

# Epochs, or rows of a batch: far beyond what anybody waits for, and within what an index can be.
MOST = 10**9
LONGEST = 400

DATA_HELP = """\
data formats:
  digits    1797 digits of 8x8 pixels from scikit-learn; pixels divided by 16
            (a folder of that name is ./digits)
  a folder  of IDX files named as MNIST's (train-images-idx3-ubyte,
            train-labels-idx1-ubyte, t10k-...), plain or .gz; uint8 pixels
            divided by 255; the t10k files are the validation rows
  x.npz     arrays x_train, y_train, x_test, y_test as in Keras's mnist.npz;
            uint8 divided by 255; x_test, y_test are the validation rows
  x.csv     numbers separated by commas, trained on as they are. The
            first line is a header if it names a label column or holds no
            number. The label column is the one named label, else target,
            else class, else the last one
Data are files or folders, not pipes: they are read more than once.
Labels are whole numbers from 0. Images are used as rows of pixels.
What a model was trained on decides for all its data: if its pixels were
divided by 255, then so are those of a .csv that is evaluated or predicted.
"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are exceptions of one line."""

    def error(self, message: str) -> NoReturn:
        """Raise a ValueError."""
        if len(message) > LONGEST:  # argparse repeats what was given
            message = f"{message[: LONGEST // 2]}...{message[-LONGEST // 2 :]}"
        raise ValueError(f"{message} (see {self.prog} --help)")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_data(parser: Parser, default: str) -> None:
    """Add --data, and the formats to the end of the help."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = textwrap.fill(parser.description or "", 79)
    parser.epilog = DATA_HELP
    parser.add_argument(
        "--data", type=data, metavar="PATH", help=f"what to read, see below; default: {default}"
    )


def add_saved(parser: Parser) -> None:
    """Add what a command on a saved model takes: MODEL and --data."""
    parser.add_argument(
        "model",
        type=path,
        metavar="MODEL",
        help="folder that train wrote, the model in it, or a .keras file of a classifier",
    )
    add_data(parser, "what the model was trained on")


def path(text: str) -> Path:
    """Parse the name of a file or folder, which is not empty."""
    if (fault := path_fault(text)) is not None:
        raise argparse.ArgumentTypeError(f"expected the name of a file or folder, {fault}")
    return Path(text)


def data(text: str) -> str:
    """Parse what to read; './digits' is a folder, 'digits' is not."""
    path(text)
    return text


def folder(text: str) -> Path:
    """Parse the name of a folder for results, which is not that of a model's file."""
    ending = find_ending(Path(text))
    if ending is not None:
        raise argparse.ArgumentTypeError(
            f"expected the name of a folder, got '{text}'; train into a folder, then write the {ending} with normkit export"
        )
    return path(text)


def count(text: str) -> int:
    """Parse a whole number from 1 to 1e9."""
    number = _whole(text, 1)
    if number > MOST:
        raise argparse.ArgumentTypeError(f"expected at most {MOST}, got '{text[:30]}'")
    return number


def seed(text: str) -> int:
    """Parse a whole number of at least 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    # Digits of other scripts, and spaces, are int()'s but not ours. It refuses to read longer numbers.
    if not (re.fullmatch("[0-9]{1,999}", text) and least <= int(text)):
        raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got '{text[:30]}'")
    return int(text)


def positive(text: str) -> float:
    """Parse a finite number above 0."""
    return _between(text, float("inf"))


def share(text: str) -> float:
    """Parse a number between 0 and 1, both excluded."""
    return _between(text, 1.0)


def _between(text: str, limit: float) -> float:
    try:
        value = float(text) if text.isascii() and "_" not in text else 0.0
    except ValueError:
        value = 0.0
    if not 0.0 < value < limit:
        bounds = "above 0" if limit == float("inf") else f"between 0 and {limit:g}"
        raise argparse.ArgumentTypeError(f"expected a number {bounds}, got '{text[:30]}'")
    return value
