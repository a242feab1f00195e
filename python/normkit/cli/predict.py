"""`normkit predict`: labels and probabilities of a saved model, as CSV."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from normkit.cli.arguments import Commands, add_saved, path
from normkit.cli.outputs import is_stdout, naming, new_file
from normkit.cli.saved import Run, division

__all__ = ["add_parser", "run"]


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "predict",
        help="labels and probabilities by a saved model, as CSV",
        description=(
            "Write a line per row: the predicted label, and the probability of every label (label,p0,p1,...). "
            "A .csv is predicted whole, in its order, and needs no label column; of the other formats the "
            "validation rows are predicted."
        ),
    )
    add_saved(parser)
    parser.add_argument(
        "--out", type=path, metavar="FILE", help="new file to write; default: standard output"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the predictions."""
    out: Path | None = arguments.out
    if out is None or is_stdout(out):
        _write(sys.stdout, _predict(arguments)[1])
        return 0
    with new_file(out, streams=True) as made:
        saved, probabilities = _predict(arguments)
        with naming(out), made.open("w", encoding="utf-8") as file:
            _write(file, probabilities)
    told = (f"{len(probabilities)} rows", division(saved.divisor))
    print(f"wrote {out}: " + ", ".join(filter(None, told)))
    return 0


def _predict(arguments: argparse.Namespace) -> tuple[Run, NDArray[Any]]:
    saved = Run(arguments.model)
    return saved, saved.model.predict(saved.features(arguments.data), verbose=0)


def _write(file: TextIO, probabilities: NDArray[Any]) -> None:
    """Nine digits tell a float32 exactly."""
    classes = probabilities.shape[1]
    header = ",".join(("label", *(f"p{label}" for label in range(classes))))
    table = np.column_stack([probabilities.argmax(axis=1), probabilities])
    np.savetxt(file, table, fmt=["%d"] + ["%.9g"] * classes, delimiter=",", header=header, comments="")
