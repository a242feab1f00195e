"""The error table: every operation, forward and backward, against exact results, beside other libraries."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from bench.accuracy import page, picture, problems, reproducers
from bench.accuracy.errors import broken, measure
from bench.contenders.passes import everyone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="lengths up to 10,000 alone, some minutes")
    parser.add_argument(
        "--only",
        metavar="REGEX",
        default="",
        help="cases whose name matches, such as 'float32 layer norm .* constant'",
    )
    parser.add_argument("--no-peers", action="store_true", help="normkit alone")
    parser.add_argument("--json", type=Path, help="write every case's errors here")
    parser.add_argument("--from", dest="source", type=Path, help="an earlier run's JSON instead of a run")
    parser.add_argument("--page", type=Path, help="Markdown page to write, such as docs/accuracy.md")
    parser.add_argument(
        "--picture", type=Path, help="only draw the forward error against mean/σ into this PNG file"
    )


def collect(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every case that was asked for."""
    contenders, absent = everyone(peers=not arguments.no_peers)
    for name, reason in absent.items():
        print(f"without {name}: {reason}")
    lengths = problems.QUICK_LENGTHS if arguments.quick else problems.LENGTHS
    began, records = time.monotonic(), []
    with np.errstate(all="ignore"):  # of the peers' results
        for problem in chain(problems.grid(lengths, arguments.only), reproducers.problems(arguments.only)):
            records.append(measure(problem, contenders))
            if sys.stderr.isatty():
                print(f"\r{len(records):5} {problem.name:70}", end="", file=sys.stderr)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "minutes": (time.monotonic() - began) / 60,
        "quick": arguments.quick,
        "isa": getattr(contenders[0], "isa", ""),
        "versions": {contender.name: contender.version for contender in contenders},
        "absent": absent,
        "cases": records,
    }


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: their names."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    for record in document["cases"]:
        for results in record["errors"].values():
            results.update({name: [float(v) for v in pair] for name, pair in results.items()})
    return document


def run(arguments: argparse.Namespace) -> None:
    if arguments.picture:
        picture.run(arguments.picture)
        return
    document = load(arguments.source) if arguments.source else collect(arguments)
    if not document["cases"]:
        raise SystemExit("no case matches; names are like 'float64 batch norm NHWC 2x1x5x410 mean/σ 1e4'")
    if arguments.json:
        arguments.json.write_text(json.dumps(_plain(document), ensure_ascii=False, indent=1) + "\n")
    print(page.terminal(document))
    ours = [name for name in document["versions"] if name.startswith("normkit")]
    for text in broken(document["cases"], ours):
        print(f"over its bound: {text}")
    if arguments.page:
        arguments.page.write_text(page.markdown_page(document), encoding="utf-8")
        print(f"wrote {arguments.page}")
