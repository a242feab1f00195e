"""``python -m bench``: how fast, beside the peers; and ``report``, ``accuracy``, ``contract``,
``family``, ``sixteen-bits``, ``trainer``, ``distributed``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench import accuracy, contract, distributed, family, report, speed, trainer


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure normkit beside its peers. Without a command: speed.",
    )
    commands = top.add_subparsers(dest="command", required=True)
    fast = commands.add_parser("speed", help="time of every operation on a grid of shapes (the default)")
    speed.add_arguments(fast)
    again = commands.add_parser("report", help="tables, page and pictures of a run")
    again.add_argument("json", type=Path, help="what a run wrote")
    again.add_argument("--page", type=Path, help="Markdown page to write, with pictures in images/ beside it")
    errors = commands.add_parser("accuracy", help="errors of every result beside other libraries, in ulp")
    accuracy.add_arguments(errors)
    commands.add_parser("contract", help="errors of every result as a share of the contract's bounds")
    relatives = commands.add_parser("family", help="RMS, group and instance norm, and the fusions")
    family.add_arguments(relatives)
    narrow = commands.add_parser("sixteen-bits", help="time of float16 and bfloat16 beside float32")
    narrow.add_argument("--rounds", type=int, default=9, help="rounds of all dtypes (default %(default)s)")
    steps = commands.add_parser("trainer", help="time of an epoch of training, beside torch and Keras")
    steps.add_argument(
        "--data", type=Path, help="folder of IDX files; default: random digits of MNIST's shape"
    )
    steps.add_argument("--rounds", type=int, default=7, help="rounds of all contenders (default %(default)s)")
    steps.add_argument("--workload", action="append", choices=list(trainer.WORKLOADS), help="default: all")
    steps.add_argument("--peers", help="comma-separated; default: all that are installed")
    ranks = commands.add_parser("distributed", help="rows a second on 1, 2 and 4 ranks of mpiexec")
    distributed.add_arguments(ranks)
    return top


def main(argv: list[str] | None = None) -> None:
    words = sys.argv[1:] if argv is None else argv
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words = ["speed", *words]
    arguments = parser().parse_args(words)
    if arguments.command == "speed":
        report.to_terminal(speed.run(arguments))
        print(
            f"\nwritten: {arguments.json}; tables and pictures: python -m bench report {arguments.json} --page PAGE.md"
        )
    elif arguments.command == "report":
        document = json.loads(arguments.json.read_text())
        report.to_terminal(document)
        if arguments.page:
            report.to_page(document, arguments.page)
    elif arguments.command == "accuracy":
        accuracy.run(arguments)
    elif arguments.command == "contract":
        contract.run()
    elif arguments.command == "family":
        family.run(arguments)
    elif arguments.command == "sixteen-bits":
        from bench import sixteen_bits

        sixteen_bits.run(arguments.rounds)
    elif arguments.command == "distributed":
        distributed.run(arguments)
    else:
        peers = None if arguments.peers is None else arguments.peers.split(",")
        trainer.run(arguments.data, arguments.rounds, arguments.workload, peers)


if __name__ == "__main__":
    main()
