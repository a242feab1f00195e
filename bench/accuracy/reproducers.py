"""Inputs on which other libraries failed, as their users reported them.

What has no error to measure (empty batches, drift over steps, strides) is in tests/numerics/test_reproducers.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.accuracy.problems import Data, Problem, make, name_of


@dataclass(frozen=True)
class Report:
    """source: the issue on GitHub, as owner/name#number."""

    what: str
    source: str
    op: str
    shape: tuple[int, ...]
    axis: int
    x: Data
    format: str = "float32"
    given: dict[str, Any] = field(default_factory=dict)

    def problem(self) -> Problem:
        given = {"source": self.source, **self.given}
        return make(self.op, self.format, self.what, self.shape, self.axis, self.x, **given)


def _values(*values: float) -> Data:
    return lambda _, shape: np.array(values).reshape(shape)


def _full(value: float) -> Data:
    return lambda _, shape: np.full(shape, value)


def _normal(mean: float, deviation: float) -> Data:
    return lambda rng, shape: mean + deviation * rng.standard_normal(shape)


def _thousandths(mean: float) -> Data:
    return lambda _, shape: (mean + np.arange(16) * 1e-3).reshape(shape)


LN, NC, NCHW, NHWC = "layer norm", "batch norm NC", "batch norm NCHW", "batch norm NHWC"
FAR = [(NHWC, (4, 8, 8, 1), 3), (NCHW, (4, 3, 8, 8), 1), (NHWC, (4, 8, 8, 8), 3)]
ONE = {"bias": np.array([0.25])}

REPORTS = [
    *[
        Report(f"{base}, +1, +2, +3", "microsoft/onnxruntime#28463", LN, (1, 4), -1, _values(*range(base, base + 4)))
        for base in (40_000, 80_000)
    ],
    Report("constant 1234", "microsoft/onnxruntime#21935", LN, (3, 256), -1, _full(1234.0)),
    Report("mean 2000, σ 1", "pytorch/pytorch#51102", LN, (5, 4), -1, _normal(2000.0, 1.0)),
    Report("mean 100, σ 0.01", "pytorch/pytorch#40307", LN, (64, 32_768), -1, _normal(100.0, 0.01)),
    Report("uniform, 4 million", "pytorch/pytorch#59987", LN, (1, 1 << 22), -1, lambda rng, shape: rng.random(shape)),
    Report("[[2, 2], [14, 14]]", "pytorch/pytorch#108072", LN, (2, 2), -1, _values(2, 2, 14, 14), given={"eps": 1e-6}),
    Report("rows of one value, 1e6", "pytorch/pytorch#188375", LN, (7, 1), -1, _full(1e6), given={"bias": ONE["bias"].astype("f4")}),
    Report("rows of one value, weight 1e11", "pytorch/pytorch#98075", LN, (7, 1), -1, _full(1e6), "float64",
           {**ONE, "weight": np.array([1e11])}),
    Report("−11 and noise of 2e-6", "jax-ml/jax#30426", LN, (1000, 3), -1, _normal(-11.0, 2e-6)),
    *[
        Report(f"16 values from {mean} in steps of 0.001", "tracel-ai/burn#5607", LN, (1, 16), -1, _thousandths(float(mean)))
        for mean in ("0", "1e2", "1e3", "1e4")
    ],
    *[
        Report(f"mean {'−' if mean < 0 else ''}{abs(mean):g}, σ 0.1", "tenstorrent/tt-metal#45968", NCHW, (2, 64, 32, 32), 1, _normal(mean, 0.1))
        for mean in (5.0, -5.0)
    ],
    *[
        Report(f"mean {mean}, σ 1", "tensorflow/tensorflow#118701", op, shape, axis, _normal(float(mean), 1.0))
        for mean in ("1e4", "1e5", "1e6", "1e7")
        for op, shape, axis in FAR
    ],
    *[
        Report(f"constant {value}", "pytorch/pytorch#5410", NCHW, (3, 5, 9, 9), 1, _full(float(value)))
        for value in ("1e4", "1e7", "1e10")
    ],
    Report("zeros, eps 1e-12", "pytorch/pytorch#41527", LN, (4, 32), -1, _full(0.0), given={"eps": 1e-12}),
    Report("weight without bias", "pytorch/pytorch#69208", LN, (37, 50), -1, _normal(0.0, 1.0), given={"bias": None}),
    Report("bias without weight", "pytorch/pytorch#69208", LN, (37, 50), -1, _normal(0.0, 1.0), given={"weight": None}),
]  # fmt: skip


def problems(only: str = "") -> Iterator[Problem]:
    for report in REPORTS:
        if re.search(only, name_of(report.op, report.format, report.what, report.shape)):
            yield report.problem()
