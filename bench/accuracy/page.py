"""Tables of a run, for the terminal and as a Markdown page; the worst case first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from bench.accuracy import words
from bench.accuracy.errors import RESULTS, bounds, broken
from bench.report import columns, markdown

Record = dict[str, Any]
OURS = "normkit"


def severity(value: float) -> float:
    """NaN is worse than infinity, so that it is not lost in a maximum."""
    return math.inf if math.isnan(value) else min(value, 1e308)


def worse(values: Iterable[float]) -> float:
    return max(values, key=severity)


def figure(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf"
    if value >= 1e308:
        return "≥ 1e308"
    if value >= 9999.5:
        return f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
    if value >= 99.5:
        return f"{value:.0f}"
    return f"{value:.2f}" if value >= 0.005 or value == 0 else "< 0.01"


def pairs(records: list[Record], contender: str, result: str) -> list[list[float]]:
    """[largest, 99.9th percentile] of every case that the contender computes."""
    found = (r["errors"].get(contender, {}).get(result) for r in records)
    return [pair for pair in found if pair is not None]


def cell(records: list[Record], contender: str, result: str, *, percentile: bool = True) -> str:
    """The largest error of the cases and their largest 99.9th percentile."""
    found = pairs(records, contender, result)
    if not found:
        return "–"
    largest = figure(worse(pair[0] for pair in found))
    return f"{largest} / {figure(worse(pair[1] for pair in found))}" if percentile else largest


def level(records: list[Record], result: str) -> tuple[float, float]:
    """What tables are sorted by: normkit's largest error, then the peers'."""
    own = [pair[0] for pair in pairs(records, OURS, result)]
    peers = [e[result][0] for r in records for e in r["errors"].values() if result in e]
    return severity(worse(own)) if own else 0.0, severity(worse(peers)) if peers else 0.0


def grouped(records: list[Record], key: Callable[[Record], Any]) -> dict[Any, list[Record]]:
    found: dict[Any, list[Record]] = {}
    for record in records:
        found.setdefault(key(record), []).append(record)
    return found


def shown(document: dict[str, Any]) -> list[str]:
    """The contenders that have a column: normkit once, since all its instruction sets but the baseline agree."""
    return [name for name in document["versions"] if name != "normkit baseline"]


def worst_case(records: list[Record], contender: str, result: str) -> Record:
    having = [r for r in records if result in r["errors"].get(contender, {})]
    return max(having, key=lambda r: severity(r["errors"][contender][result][0]))


def within_table(document: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """In how many cases each contender is within the contract's bounds."""
    header = ["", *RESULTS, "NaN or infinity"]
    lines = []
    for name in document["versions"]:
        cells = []
        for result in RESULTS:
            found = pairs(document["cases"], name, result)
            within = sum(pair[0] <= bounds.LIMITS[result] for pair in found)
            cells.append(f"{within} of {len(found)}" if found else "–")
        results = [r["errors"][name].values() for r in document["cases"] if name in r["errors"]]
        lost = sum(not all(math.isfinite(pair[0]) for pair in one) for one in results)
        lines.append([name, *cells, f"{lost} of {len(results)}"])
    return header, lines


def contract_table(document: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Every bound, the largest error that was found beside it, and where."""
    ours = [name for name in document["versions"] if name.startswith(OURS)]
    header = ["dtype", "operation", "result", "worst case", "holds", "bound", *ours, "99.9 %", "bound used"]
    lines = []
    for (form, op), records in grouped(document["cases"], lambda r: (r["format"], r["op"])).items():
        for result in RESULTS:
            worst = worst_case(records, OURS, result)
            limit = bounds.LIMITS[result]
            largest = worse(pair[0] for name in ours for pair in pairs(records, name, result))
            shape = "×".join(map(str, worst["shape"]))
            cells = [cell(records, name, result, percentile=False) for name in ours]
            tail = figure(worse(pair[1] for pair in pairs(records, OURS, result)))
            where = f"{worst['data']}, {shape}"
            share = f"{largest / limit:.0%}" if largest < 10 * limit else f"{figure(largest / limit)}×"
            holds = "yes" if largest <= limit else "**no**"
            lines.append(
                (
                    severity(largest / limit),
                    [form, op, result, where, holds, f"{limit:g}", *cells, tail, share],
                )
            )
    return header, [line for _, line in sorted(lines, key=lambda pair: -pair[0])]


def data_table(
    document: dict[str, Any], form: str, result: str, records: list[Record]
) -> tuple[list[str], list[list[str]]]:
    """One result in one dtype: a line for every operation and kind of data, the worst over all lengths."""
    header = ["operation", "data", *shown(document)]
    chosen = grouped([r for r in records if r["format"] == form], lambda r: (r["op"], r["data"]))
    ordered = sorted(chosen.items(), key=lambda item: level(item[1], result), reverse=True)
    return header, [
        [op, data, *(cell(cases, name, result) for name in shown(document))] for (op, data), cases in ordered
    ]


def length_table(
    document: dict[str, Any], form: str, records: list[Record]
) -> tuple[list[str], list[list[str]]]:
    """Every length and result, all operations, at mean/σ of 0 and 1: what length alone does."""
    header = ["result", "n", *shown(document)]
    easy = [r for r in records if r["format"] == form and r["data"] in ("mean/σ 0", "mean/σ 1")]
    return header, [
        [result, f"{length:,}", *(cell(cases, name, result) for name in shown(document))]
        for result in RESULTS
        for length, cases in sorted(grouped(easy, lambda r: r["length"]).items())
    ]


def reproducer_table(document: dict[str, Any], result: str) -> tuple[list[str], list[list[str]]]:
    header = ["input", "operation, shape", "reported in", *shown(document)]
    reported = [r for r in document["cases"] if r["source"]]
    ordered = sorted(reported, key=lambda r: level([r], result), reverse=True)
    lines = []
    for record in ordered:
        repository, number = record["source"].split("#")
        link = f"[{record['source']}](https://github.com/{repository}/issues/{number})"
        shape = "×".join(map(str, record["shape"]))
        what = record["data"] + (", float64" if record["format"] == "float64" else "")
        cells = (cell([record], name, result, percentile=False) for name in shown(document))
        lines.append([what, f"{record['op']} {shape}", link, *cells])
    return header, lines


def terminal(document: dict[str, Any]) -> str:
    header, lines = within_table(document)
    parts = ["cases within the contract's bounds", columns([header, *lines])]
    header, lines = contract_table(document)
    parts += ["\nlargest errors in units of the contract, all cases", columns([header, *lines])]
    records = [r for r in document["cases"] if not r["source"]]
    for form in grouped(records, lambda r: r["format"]):
        for result in RESULTS:
            title = f"\n{form} {result}: largest error / 99.9th percentile; bound {bounds.LIMITS[result]:g}"
            header, lines = data_table(document, form, result, records)
            parts += [title, columns([header, *lines])]
    header, lines = reproducer_table(document, "y")
    if lines:
        parts += ["\ninputs on which other libraries failed, largest error of y", columns([header, *lines])]
    return "\n".join(parts)


def markdown_page(document: dict[str, Any]) -> str:
    cases = document["cases"]
    records = [r for r in cases if not r["source"]]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    absent = "".join(f" {name} was absent ({why})." for name, why in document["absent"].items())
    quick = ", lengths up to 10,000 alone (`--quick`)" if document["quick"] else ""
    decimals = sum(r["oracle"] == "decimals" for r in cases)
    parts = [
        "# Accuracy",
        "Generated by `python -m bench accuracy --page docs/accuracy.md`. The data of a case follow from its name alone.",
        (
            f"{len(cases)} cases{quick}, {decimals} of them against decimals of 100 digits and more, {len(cases) - decimals} "
            f"against pairs of floats. {document['date']}, {document['minutes']:.0f} minutes, {document['isa']}. "
            f"{versions}.{absent}"
        ),
        words.WITHIN,
        markdown(*within_table(document)),
        words.UNITS,
        "## The contract",
        words.CONTRACT,
        markdown(*contract_table(document), left=5),
        *([words.EXCEPTIONS] if broken(cases, [OURS]) else []),
        "## Beside other libraries, by data",
        words.DATA,
    ]
    for form in grouped(records, lambda r: r["format"]):
        for result in RESULTS:
            parts += [
                f"### {form}: {result}",
                f"Bound of the contract: {bounds.LIMITS[result]:g}.",
                markdown(*data_table(document, form, result, records), left=2),
            ]
    parts += ["## By length", words.LENGTH]
    for form in grouped(records, lambda r: r["format"]):
        parts += [f"### {form}", markdown(*length_table(document, form, records), left=1)]
    parts += ["## Inputs on which other libraries failed", words.REPRODUCERS]
    for result, title in (("y", "Forward: y"), ("dx", "Backward: dx"), ("dweight", "Backward: dweight")):
        parts += [f"### {title}", markdown(*reproducer_table(document, result), left=3)]
    return "\n\n".join(parts) + "\n"
