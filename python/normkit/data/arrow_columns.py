"""`Columns`: columns of an Arrow table as one array, and which of its rows lack a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from normkit._names import did_you_mean
from normkit._optional import optional
from normkit.data.source import Array

__all__ = ["Columns", "Refused"]

Refused = tuple[int, str]  # a row, and why it is bad


class Columns:
    """One or more columns of numbers side by side, or one column of lists of equal length.

    Parameters
    ----------
    schema : pyarrow.Schema
        The table's.
    names : str or sequence of str
        Of the columns; a string is a column alone, whose array has no axis for columns.
    first_list : callable
        Returns a list of the column of that name, or None, to learn the length where the type does not tell it.

    Raises
    ------
    ValueError
        If there is no such column, or it is not of real numbers.
    """

    def __init__(self, schema: Any, names: str | Sequence[str], first_list: Callable[[str], Any]) -> None:
        self.names = [names] if isinstance(names, str) else list(names)
        self._types = optional("pyarrow", "Parquet is read by", "data").types
        if not self.names:
            raise ValueError(
                f"no column is left for an array; columns are {', '.join(schema.names) or 'none'}"
            )
        values = [self._values(schema, name) for name in self.names]
        self._dtype = np.result_type(*(np.dtype(value.to_pandas_dtype()) for value in values))
        self._length: int | None = None
        if any(self._is_list(schema.field(name).type) for name in self.names):
            if len(self.names) > 1:
                raise ValueError(f"a column of lists must be named alone, not {self.names}")
            kind = schema.field(self.names[0]).type
            example = None if self._types.is_fixed_size_list(kind) else first_list(self.names[0])
            self._length = len(example) if example is not None else getattr(kind, "list_size", 0)
            if not self._length:
                raise ValueError(f"column {self.names[0]!r} has no list that has values")
        self._alone = isinstance(names, str) and self._length is None

    def _is_list(self, kind: Any) -> bool:
        return any(
            check(kind)
            for check in (self._types.is_list, self._types.is_large_list, self._types.is_fixed_size_list)
        )

    def _values(self, schema: Any, name: str) -> Any:
        """Return the type of the numbers in a column."""
        if name not in schema.names:
            hint = did_you_mean(name, schema.names)
            raise ValueError(f"has no column {name!r}; columns are {', '.join(schema.names)}{hint}")
        kind = schema.field(name).type
        value = kind.value_type if self._is_list(kind) else kind
        if not (
            self._types.is_integer(value) or self._types.is_floating(value) or self._types.is_boolean(value)
        ):
            raise ValueError(f"column {name!r} must be of real numbers, is {kind}")
        return value

    def allocated(self, rows: int) -> Array:
        """Return an array for so many rows."""
        shape = (rows,) if self._alone else (rows, self._length or len(self.names))
        return np.zeros(shape, self._dtype)

    def described(self, position: tuple[int, ...]) -> str:
        """Say in which column a position in a row is."""
        if self._length is not None or len(self.names) == 1:
            inside = f"[{position[0]}]" if position and self._length is not None else ""
            return f", column {self.names[0]!r}{inside}"
        return f", column {self.names[position[0]]!r}" if position else ""

    def fill(self, target: Array, batch: Any, first: int) -> list[Refused]:
        """Copy the columns of a record batch into `target`; return the rows that lack a value, counted from `first`."""
        refused: list[Refused] = []
        for number, name in enumerate(self.names):
            column = batch.column(name)
            if self._length is not None:
                wrong = self._fill_lists(target, column, self._length)
            else:
                wrong = _fill_numbers(target if target.ndim == 1 else target[:, number], column)
            refused += [(first + row, f", column {name!r}{reason}") for row, reason in wrong]
        return refused

    def _fill_lists(self, target: Array, column: Any, length: int) -> list[Refused]:
        there = _is_there(column)
        refused = [(row, " is missing") for row in np.flatnonzero(~there).tolist()]
        if not self._types.is_fixed_size_list(column.type):
            sizes = np.zeros(len(column), np.int64)
            sizes[there] = column.drop_null().value_lengths().to_numpy(zero_copy_only=False)
            wrong = there & (sizes != length)
            refused += [
                (row, f" has {sizes[row]} values, expected {length}")
                for row in np.flatnonzero(wrong).tolist()
            ]
            there &= ~wrong
        rows = np.flatnonzero(there)
        flat = (column if len(rows) == len(column) else column.take(rows)).flatten()
        values = np.zeros(len(flat), target.dtype)
        for place, reason in _fill_numbers(values, flat):
            refused.append((int(rows[place // length]), f"[{place % length}]{reason}"))
        target[rows] = values.reshape(-1, length)
        return refused


def _fill_numbers(target: Array, column: Any) -> list[Refused]:
    if not column.null_count:
        target[:] = column.to_numpy(zero_copy_only=False)
        return []
    there = _is_there(column)
    target[there] = column.drop_null().to_numpy(zero_copy_only=False)
    return [(row, " is missing") for row in np.flatnonzero(~there).tolist()]


def _is_there(column: Any) -> Array:
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), bool)
