"""NumPy: the formula, expression by expression, with an array for each."""

from __future__ import annotations

import numpy as np

from bench.contenders import Call, formula, repeated
from bench.grid import Case
from bench.inputs import Inputs


class NumPy:
    name = "numpy"
    version = np.__version__

    def supports(self, case: Case) -> bool:
        return case.mib <= 16  # beyond, it only takes long

    def prepare(self, inputs: Inputs) -> Call:
        function, arguments = formula.of(inputs, np)
        return repeated(
            lambda: function(*arguments), lambda r: tuple(r) if isinstance(r, tuple) else (r,), "expressions"
        )
