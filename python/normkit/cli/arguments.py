"""What the parsers of all commands share: types of values, help on data, errors of one line."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import NoReturn, TypeAlias

__all__ = [
    "Commands",
    "Parser",
    "add_data",
    "add_saved",
    "count",
    "positive",
    "seed",
    "share",
]


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
Labels are whole numbers from 0. Images are used as rows of pixels.
What a model was trained on decides for all its data: if its pixels were
divided by 255, then so are those of a .csv that is evaluated or predicted.
"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are exceptions of one line."""

    def error(self, message: str) -> NoReturn:
        """Raise a ValueError."""
        raise ValueError(f"{message} (see {self.prog} --help)")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_data(parser: Parser, default: str) -> None:
    """Add --data, and the formats to the end of the help."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = textwrap.fill(parser.description or "", 79)
    parser.epilog = DATA_HELP
    parser.add_argument("--data", metavar="PATH", help=f"what to read, see below; default: {default}")


def add_saved(parser: Parser) -> None:
    """Add what a command on a saved model takes: MODEL and --data."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="folder that train wrote, or the model in it"
    )
    add_data(parser, "what the model was trained on")


def count(text: str) -> int:
    """Parse a whole number of at least 1."""
    return _whole(text, 1)


def seed(text: str) -> int:
    """Parse a whole number of at least 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    # A longer number is one that int() refuses to read.
    if not (text.isdecimal() and len(text) < 1000 and least <= int(text)):
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
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < limit:
        bounds = "above 0" if limit == float("inf") else f"between 0 and {limit:g}"
        raise argparse.ArgumentTypeError(f"expected a number {bounds}, got '{text}'")
    return value
