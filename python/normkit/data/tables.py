"""Tables of numbers in CSV: read at NumPy's speed, and searched cell by cell only to name a fault."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_table"]

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def read_table(path: Path, header_names: Collection[str]) -> tuple[list[str], NDArray[np.float64]]:
    """Read a table of finite numbers separated by commas, in UTF-8.

    Parameters
    ----------
    path : Path
        The file.
    header_names : collection of str
        The first line is a header if it holds one of these names, or if none of its cells is a number.

    Returns
    -------
    header : list of str
        The header's cells, stripped and in lower case; empty without a header.
    cells : ndarray of float64, shape (rows, columns)
        Each in the range of float32. Not rounded to it: a label of 16777217 must not become another.

    Raises
    ------
    ValueError
        If there is no row, or a cell is not a finite number, or lines differ in length.
    """
    try:
        return _read(path, header_names)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8 (byte {error.start})") from error
    except csv.Error as error:
        raise ValueError(f"{path}: not a table in CSV ({error})") from error


def _read(path: Path, header_names: Collection[str]) -> tuple[list[str], NDArray[np.float64]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        lines = (line for line in reader if line)
        header = [cell.strip().lower() for cell in next(lines, [])]
        named = not set(header).isdisjoint(header_names) or all(_number(cell) is None for cell in header)
        skipped = reader.line_num if named else 0
        if named:
            if next(lines, None) is None:
                raise ValueError(f"{path}: the file is empty, or has no rows below its header")
        else:
            header = []
        file.seek(0)
        try:
            cells = np.loadtxt(file, comments=None, delimiter=",", quotechar='"', skiprows=skipped, ndmin=2)
        except UnicodeDecodeError:
            raise
        except ValueError as error:
            raise ValueError(f"{path}: {_first_fault(path, skipped) or error}") from error
    if not (np.abs(cells) <= _FLOAT32_MAX).all():
        raise ValueError(f"{path}: {_first_fault(path, skipped)}")
    return header, cells


def _first_fault(path: Path, skipped: int) -> str | None:
    """Say where the first cell that is no finite number, or the first line of another length, is."""
    width = 0
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        for line in reader:
            if not line or reader.line_num <= skipped:
                continue
            width = width or len(line)
            if len(line) != width:
                return f"line {reader.line_num} has {len(line)} cells, the lines before have {width}"
            for column, cell in enumerate(line, start=1):
                number = _number(cell)
                if number is None or not abs(number) <= _FLOAT32_MAX:
                    for separator in ";\t":
                        if separator in cell:
                            return f"line {reader.line_num}: separated by {separator!r}? normkit reads commas"
                    return f"line {reader.line_num}, column {column}: {cell[:30]!r} is not a finite number"
    return None


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
