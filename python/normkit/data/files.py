"""Labelled data from files: IDX folders (MNIST's format), `.npz` archives, `.csv` tables, and scikit-learn's digits.

Files come from anywhere, so nothing is unpickled, no size is believed before it is checked against the file,
and whatever is wrong with a file is a ValueError of one line that starts with its path.
"""

from __future__ import annotations

import errno
import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from normkit._names import with_keyword_hints
from normkit._paths import a_file, a_path
from normkit._reading import check_promise, refusing
from normkit.data.dataset import Dataset, as_labels, assemble, divided, split
from normkit.data.idx import read_idx
from normkit.data.tables import read_table

__all__ = [
    "DIGITS",
    "Dataset",
    "load",
    "load_csv",
    "load_csv_features",
    "load_digits",
    "load_idx",
    "load_npz",
]

DIGITS = "digits"
DIGITS_MAX = 16.0
_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
LABEL_NAMES = ("label", "target", "class")


@with_keyword_hints
def load(
    source: str | os.PathLike[str] = DIGITS,
    *,
    validation_split: float | None = None,
    seed: int = 0,
    divisor: float | None = None,
) -> Dataset:
    """Load labelled data, whatever its format.

    Parameters
    ----------
    source : path
        A folder of IDX files, a ``.npz``, a ``.csv``, or the word ``"digits"``; ``"./digits"`` is a folder.
    validation_split : float, optional
        Share of the rows that become the test rows, between 0 and 1; default 0.2. Only for data without
        test rows of its own: digits and ``.csv``.
    seed : int, default 0
        Which rows the split takes.
    divisor : float, optional
        What the features are divided by; default: 16 for digits, 255 for uint8 in IDX files and ``.npz``, else 1.
        Data for a model that is trained already need the `Dataset.divisor` of its training.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If the data is not what its format promises, or cannot be split.
    OSError
        If it cannot be read.
    ModuleNotFoundError
        If the digits are asked for and scikit-learn is not installed.

    See Also
    --------
    load_idx, load_npz, load_csv, load_digits : the rules of each format.
    """
    path = a_path("load: source", source)
    if str(source) == DIGITS:
        divisor = DIGITS_MAX if divisor is None else divisor
        x, y = _raw_digits()
        return split(path, DIGITS, divided(x, divisor), y, divisor, validation_split, seed)
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if not path.is_dir():
        a_file(path)
    if path.suffix.lower() == ".csv":
        divisor = 1.0 if divisor is None else divisor
        return split(path, path.stem, *load_csv(path, divisor), divisor, validation_split, seed)
    if not path.is_dir() and path.suffix.lower() != ".npz":
        raise ValueError(f"{path}: expected a folder of IDX files, a .npz or a .csv")
    if validation_split is not None:
        raise ValueError(f"{path}: has test rows of its own, so a validation split cannot be chosen")
    return load_idx(path, divisor) if path.is_dir() else load_npz(path, divisor)


def load_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Load the 1797 handwritten digits of 8×8 pixels that come with scikit-learn.

    Returns
    -------
    x : ndarray of float32, shape (1797, 64)
        Pixels, scaled from 0..16 to [0, 1].
    y : ndarray of int64, shape (1797,)
        The digit, 0 to 9.

    Raises
    ------
    ModuleNotFoundError
        If scikit-learn is not installed.
    """
    x, y = _raw_digits()
    return divided(x, DIGITS_MAX), y


def _raw_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits as bundled_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the digits come with scikit-learn, which is not installed: pip install 'normkit[train]'"
        ) from error
    x, y = bundled_digits(return_X_y=True)
    return x.astype(np.float32), y.astype(np.int64)


def load_idx(folder: str | os.PathLike[str], divisor: float | None = None) -> Dataset:
    """Load a folder of four IDX files, the format of MNIST.

    They are ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte``, each plain or gzipped (with ``.gz``); a dot before ``idx`` is taken too. Pixels are divided
    by `divisor`; without one by 255 if they are uint8.

    Raises
    ------
    ValueError
        If a file is missing or damaged, or if images and labels do not belong together.
    """
    folder = a_path("load_idx: folder", folder)
    arrays = []
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            arrays.append(read_idx(_idx_file(folder, f"{part}-{kind}-ubyte")))
    return assemble(folder, folder.resolve().name, divisor, *arrays)


def _idx_file(folder: Path, name: str) -> Path:
    stems = (name, name.replace("-idx", ".idx"))
    for candidate in (folder / (stem + suffix) for stem in stems for suffix in ("", ".gz")):
        if candidate.is_file():
            return candidate
    raise ValueError(f"{folder}: has no {name} (plain or .gz), so it is not a folder of IDX files")


def load_npz(path: str | os.PathLike[str], divisor: float | None = None) -> Dataset:
    """Load an ``.npz`` in the layout of Keras's ``mnist.npz``: x_train, y_train, x_test, y_test.

    x has shape (rows, ...), and is divided by `divisor`; without one by 255 if it is uint8. y has shape (rows,)
    or (rows, 1). Arrays are stored or compressed by deflate, as NumPy writes them. Pickled objects are refused.

    Raises
    ------
    ValueError
        If the archive is damaged, lacks an array, or if its arrays do not belong together.
    """
    path = a_file(a_path("load_npz: path", path))
    with refusing(path, "not a usable .npz archive"), path.open("rb") as file:
        arrays = _read_npz(file)
    return assemble(path, path.stem, divisor, *arrays)


def _read_npz(file: IO[bytes]) -> list[NDArray[Any]]:
    if not zipfile.is_zipfile(file):
        raise ValueError("no zip archive")
    held = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        wanted = Dataset._fields[:4]
        missing = [name for name in wanted if name not in members]
        if missing:
            raise ValueError(f"it has no {', '.join(missing)}, but {', '.join(members) or 'nothing'}")
        for name in wanted:
            # Others have no limit to what a few bytes become.
            if members[name].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(
                    f"its {name} is compressed; of compressed ones only those by deflate are read"
                )
        raw = [name for name in wanted if not _is_npy(archive, members[name])]
        if raw:
            raise ValueError(f"its {', '.join(raw)} must be NumPy arrays, not other files")
        check_promise("it", sum(members[name].file_size for name in wanted), held)
        return [_read_member(archive, members[name]) for name in wanted]


def _is_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    with archive.open(member) as stream:
        return member.filename.endswith(".npy") and stream.read(6) == np.lib.format.MAGIC_PREFIX


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Read an array whose own header promises what the table of the archive says that it takes, and no more."""
    name = member.filename
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _NPY_HEADERS:
            raise ValueError(
                f"{name} has version {version} of the format, which is not for arrays of numbers"
            )
        shape, fortran, dtype = _NPY_HEADERS[version](stream)
        if dtype.hasobject:
            raise ValueError(f"{name} has Python objects, which are never unpickled")
        promised, held = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
        if promised != held:
            raise ValueError(f"{name} promises {promised} bytes of shape {shape}, and holds {held}")
        array = np.frombuffer(stream.read(), dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def load_csv(
    path: str | os.PathLike[str], divisor: float | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Load a ``.csv``: one row per line, cells separated by commas, all of them numbers.

    The first line may be a header: it is one if it names a label column or if none of its cells is a number.
    The label column is the one with the header ``label``, else ``target``, else ``class`` (in upper or
    lower case), else the last. The other columns are divided by `divisor` if there is one.

    Returns
    -------
    x : ndarray of float32, shape (rows, columns − 1)
    y : ndarray of int64, shape (rows,)

    Raises
    ------
    ValueError
        If a cell is not a finite number (with its line and column), if lines differ in length, if there are
        no rows, or if a label is not a whole number from 0.
    """
    path = a_path("load_csv: path", path)
    header, cells = read_table(path, LABEL_NAMES)
    if cells.shape[1] < 2:
        raise ValueError(f"{path}: needs a feature and a label column separated by a comma, has one column")
    column = _label_column(header)
    y = as_labels(f"{path}: column {column % cells.shape[1] + 1}", cells[:, column], len(cells))
    return _features(np.delete(cells, column, axis=1), divisor), y


def load_csv_features(
    path: str | os.PathLike[str], num_features: int, divisor: float | None = None
) -> NDArray[np.float32]:
    """Load the features of a ``.csv`` with or without a label column, by the rules of `load_csv`.

    Parameters
    ----------
    path : path
        The file.
    num_features : int
        How many features there should be. A table with one column more has a label column, which is left out.
    divisor : float, optional
        What the features are divided by; default: 1.

    Returns
    -------
    ndarray of float32, shape (rows, num_features)

    Raises
    ------
    ValueError
        As `load_csv`, or if the table has another number of columns.
    """
    path = a_path("load_csv_features: path", path)
    header, cells = read_table(path, LABEL_NAMES)
    columns = cells.shape[1]
    if columns == num_features:
        return _features(cells, divisor)
    if columns == num_features + 1:
        return _features(np.delete(cells, _label_column(header), axis=1), divisor)
    raise ValueError(
        f"{path}: expected {num_features} features, with or without a label column, has {columns} columns"
    )


def _features(cells: NDArray[np.float64], divisor: float | None) -> NDArray[np.float32]:
    return divided(cells.astype(np.float32), divisor or 1.0)


def _label_column(header: list[str]) -> int:
    return next((header.index(name) for name in LABEL_NAMES if name in header), -1)
