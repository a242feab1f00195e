"""`normkit evaluate`: loss and accuracy of a saved model on labelled rows."""

from __future__ import annotations

import argparse

from normkit.cli.arguments import Commands, add_saved
from normkit.cli.saved import LOSS, METRICS, Run, division
from normkit.losses import SparseCategoricalCrossentropy

__all__ = ["add_parser", "run"]


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "evaluate",
        help="loss and accuracy of a saved model",
        description=(
            "Print loss and accuracy of a saved model: on the validation rows of its training if --data is left "
            "out or is what it was trained on, else on all rows of a .csv or the validation rows of the others."
        ),
    )
    add_saved(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the number of rows, the loss and the accuracy."""
    saved = Run(arguments.model)
    x, y = saved.held_out(arguments.data)
    if not (saved.model.compiled and isinstance(saved.model.loss, SparseCategoricalCrossentropy)):
        saved.model.compile("sgd", LOSS, metrics=METRICS)
    results = saved.model.evaluate(x, y, verbose=0, return_dict=True)
    assert isinstance(results, dict)
    width = max(map(len, results))
    print(f"{'rows':{width}}  {len(x)}")
    if division(saved.divisor):
        print(f"{'divisor':{width}}  {saved.divisor:g}")
    for name, value in results.items():
        print(f"{name:{width}}  {value:.6f}")
    return 0
