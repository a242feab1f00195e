"""The errors of every contender on a problem, in the contract's units, against exact results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

import normkit as nk
from bench.accuracy.problems import Problem
from bench.contenders import UnsupportedError
from bench.contenders.passes import Passes

import bounds  # isort: skip  # of the tests, which bench.accuracy.problems has made importable
from pairs import EXTENDED  # isort: skip

RESULTS = ("y", "dx", "dweight", "dbias")
DECIMALS = 5000  # elements, up to which decimals take no longer than a second


def exact_results(problem: Problem, *, decimals: bool) -> tuple[bounds.Exact, Any, Any]:
    """What is exact, and weight and bias as they broadcast."""
    p = problem
    weight, bias = (
        np.full(p.spread, default) if a is None else np.asarray(a, np.float64).reshape(p.spread)
        for a, default in ((p.weight, 1.0), (p.bias, 0.0))
    )
    oracle = bounds.by_decimal if decimals else bounds.by_pairs
    exact = oracle(p.dy, p.x, weight, p.axes, p.eps)
    return bounds.summed(exact, bias, p.summed_axes, (p.x.shape[p.axis],)), weight, bias


def largest_and_percentile(units: NDArray[np.float64]) -> list[float]:
    """The largest, NaN if any is, and the 99.9th percentile, in which NaN counts as infinity."""
    flat = np.where(np.isnan(units), np.inf, units).ravel()
    rank = math.ceil(0.999 * flat.size) - 1
    return [float(np.max(units)), float(np.partition(flat, rank)[rank])]


def measure(problem: Problem, contenders: list[Passes], *, decimals: bool | None = None) -> dict[str, Any]:
    """A record: of each contender and result [the largest error, the 99.9th percentile] in units of the contract.

    decimals: whether the oracle counts in decimals; by default for small arrays.
    """
    if decimals is None:
        decimals = problem.x.size <= DECIMALS or not EXTENDED
    exact, weight, bias = exact_results(problem, decimals=decimals)
    record: dict[str, Any] = {
        "case": problem.name,
        "op": problem.op,
        "format": problem.format,
        "data": problem.data,
        "length": problem.length,
        "shape": list(problem.x.shape),
        "eps": problem.eps,
        "source": problem.source,
        "oracle": "decimals" if decimals else "pairs",
        "errors": {},
        "absent": {},
    }
    for contender in contenders:
        try:
            got = contender(problem)
        except UnsupportedError as reason:
            record["absent"][contender.name] = str(reason)
            continue
        units = {"y": bounds.forward_units(got["y"], exact, weight, bias)}
        if "dx" in got:
            nothing = np.zeros(problem.x.shape[problem.axis], problem.x.dtype)
            gradients = nk.NormGradients(*(got.get(name, nothing) for name in RESULTS[1:]))
            units |= zip(RESULTS[1:], bounds.gradient_units(gradients, exact), strict=True)
        record["errors"][contender.name] = {name: largest_and_percentile(units[name]) for name in got}
    return record


def broken(records: list[dict[str, Any]], contenders: list[str]) -> list[str]:
    """The cases in which one of the contenders exceeds a bound of the contract."""
    return [
        f"{record['case']}: {contender} {result} {pair[0]:.3g} of {bounds.LIMITS[result]:g}"
        for record in records
        for contender in contenders
        for result, pair in record["errors"].get(contender, {}).items()
        if not pair[0] <= bounds.LIMITS[result]
    ]
