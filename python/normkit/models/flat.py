"""`FlatVariables`: all trainable weights in one array, all their gradients in another.

An optimizer step is then a handful of NumPy calls for the whole model, not for each weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit.layers.variable import Variable

__all__ = ["FlatVariables"]

Array = NDArray[Any]


class FlatVariables:
    """Moves the values and gradients of variables into flat arrays, one pair for each dtype.

    Parameters
    ----------
    variables : sequence of Variable
        Their `value` and `grad` become views.

    Attributes
    ----------
    arrays : list of (ndarray, ndarray)
        Values and gradients, each one-dimensional.
    sizes : list of list of int
        Lengths of the variables in each pair, in the order of their elements.
    """

    def __init__(self, variables: Sequence[Variable]) -> None:
        self.variables = list(variables)
        self.arrays: list[tuple[Array, Array]] = []
        self._groups: list[list[Variable]] = []
        for dtype in dict.fromkeys(v.value.dtype for v in self.variables):
            group = [v for v in self.variables if v.value.dtype == dtype]
            values = np.concatenate([v.value.ravel() for v in group])
            self.arrays.append((values, np.zeros_like(values)))
            self._groups.append(group)
        self.sizes = [[v.value.size for v in group] for group in self._groups]
        self._bind()

    def _bind(self) -> None:
        for (values, gradients), group in zip(self.arrays, self._groups, strict=True):
            parts = zip(group, _parts(values, group), _parts(gradients, group), strict=True)
            for variable, value, gradient in parts:
                variable.value, variable.grad = value, gradient

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make views again, which copying and pickling turn into arrays of their own."""
        self.__dict__.update(state)
        self._bind()

    def take(self) -> None:
        """Move the values here again if another model, which shares these variables, has moved them since."""
        for (values, _), group in zip(self.arrays, self._groups, strict=True):
            if any(variable.value.base is not values for variable in group):
                for variable, part in zip(group, _parts(values, group), strict=True):
                    part[...] = variable.value
        self._bind()

    def split(self, arrays: Sequence[Array]) -> list[Array]:
        """Cut arrays laid out like the values into views, one for each variable, in the order of `variables`."""
        by_variable = {
            id(variable): part
            for array, group in zip(arrays, self._groups, strict=True)
            for variable, part in zip(group, _parts(array, group), strict=True)
        }
        return [by_variable[id(variable)] for variable in self.variables]


def _parts(flat: Array, group: Sequence[Variable]) -> list[Array]:
    ends = np.cumsum([v.value.size for v in group]).tolist()
    return [flat[end - v.value.size : end].reshape(v.shape) for v, end in zip(group, ends, strict=True)]
