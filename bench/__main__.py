"""``python -m bench accuracy | contract | trainer``: each prints a table of what it measured."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import accuracy, contract, trainer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure normkit beside its peers.")
    commands = parser.add_subparsers(dest="command", required=True)
    errors = commands.add_parser("accuracy", help="largest error of the forward pass against mean/σ")
    errors.add_argument("--picture", type=Path, help="also draw the table into this PNG file")
    commands.add_parser("contract", help="errors of every result as a share of the contract's bounds")
    steps = commands.add_parser("trainer", help="time of the tutorial example, per step and per epoch")
    steps.add_argument(
        "--data", type=Path, help="folder of IDX files; default: random digits of MNIST's shape"
    )
    steps.add_argument("--rounds", type=int, default=7, help="rounds of all contenders (default %(default)s)")
    arguments = parser.parse_args()
    if arguments.command == "accuracy":
        accuracy.run(arguments.picture)
    elif arguments.command == "contract":
        contract.run()
    else:
        trainer.run(arguments.data, arguments.rounds)


if __name__ == "__main__":
    main()
