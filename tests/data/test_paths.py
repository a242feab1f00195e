"""Paths as arguments: an empty one, which a variable that is not set gives, and what is no file, are errors everywhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from normkit import interchange, models
from normkit.callbacks import BackupAndRestore, CSVLogger, JSONLinesLogger, ModelCheckpoint, TensorBoard
from normkit.data import ArrowFiles, CsvFile, Hdf5File, IdxFile, NpyFile, load
from normkit.data.files import load_csv, load_csv_features, load_idx, load_npz
from normkit.data.idx import read_idx
from trainer_support import blobs, classifier


def model() -> models.Sequential:
    made = classifier()
    made.fit(*blobs(40), verbose=0)
    return made


READERS: dict[str, Callable[[Any], Any]] = {
    "load": load,
    "load_csv": load_csv,
    "load_csv_features": lambda path: load_csv_features(path, 3),
    "load_npz": load_npz,
    "read_idx": read_idx,
    "CsvFile": CsvFile,
    "NpyFile": NpyFile,
    "IdxFile": IdxFile,
    "Hdf5File": lambda path: Hdf5File(path, "x"),
    "load_model": models.load_model,
    "load_weights": lambda path: classifier().load_weights(path),
    "load_keras": interchange.load_keras,
    "load_keras_weights": lambda path: interchange.load_keras_weights(classifier(), path),
    "load_safetensors": lambda path: interchange.load_safetensors(classifier(), path),
}
WRITERS: dict[str, Callable[[Any], Any]] = {
    "save": lambda path: model().save(path),
    "save_model": lambda path: models.save_model(model(), path),
    "save_weights": lambda path: model().save_weights(path),
    "save_safetensors": lambda path: interchange.save_safetensors(model(), path),
    "export_onnx": lambda path: interchange.export_onnx(model(), path),
    "ModelCheckpoint": ModelCheckpoint,
    "BackupAndRestore": BackupAndRestore,
    "CSVLogger": CSVLogger,
    "JSONLinesLogger": JSONLinesLogger,
    "TensorBoard": TensorBoard,
}
FOLDERS: dict[str, Callable[[Any], Any]] = {"load_idx": load_idx}


@pytest.fixture(autouse=True)
def writer_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normkit.callbacks.tensorboard._find_writer", lambda: None)


@pytest.mark.parametrize("value", ["", " ", "\t\n", b"", "a\0b"])
@pytest.mark.parametrize("name", [*READERS, *WRITERS, *FOLDERS])
def test_an_empty_path(name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    got = "which has no NUL in it, got" if "\0" in str(value) else "got an empty string"
    with pytest.raises(ValueError, match=f"must be the name of a file or folder, {got}"):
        {**READERS, **WRITERS, **FOLDERS}[name](value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [None, 3, 1.5, ["x"], object()])
@pytest.mark.parametrize("name", [*READERS, *WRITERS, *FOLDERS])
def test_something_that_is_no_path(name: str, value: Any) -> None:
    with pytest.raises(
        TypeError, match=rf"must be a path \(str or os.PathLike\), got {type(value).__name__}"
    ):
        {**READERS, **WRITERS, **FOLDERS}[name](value)


@pytest.fixture(name="special")
def special_fixture(tmp_path: Path) -> Callable[[str, str], tuple[Path, str]]:
    def make(kind: str, ending: str) -> tuple[Path, str]:
        path = tmp_path / f"x{ending}"
        if kind == "pipe":
            os.mkfifo(path)
            return path, "a pipe"
        if kind == "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
            return path, "a socket"
        path.symlink_to(kind)
        return path, "a device"

    return make


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "socket", "/dev/zero", "/dev/null"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file(name: str, kind: str, special: Callable[[str, str], tuple[Path, str]]) -> None:
    path, called = special(kind, ".npz" if name == "load" else ".csv")
    with pytest.raises(
        ValueError, match=f"{path}: is {called}, and files are read more than once; write what it"
    ):
        READERS[name](path)


@pytest.mark.parametrize("given", [".", "folder", "folder.keras", "folder.csv"])
@pytest.mark.parametrize("name", READERS)
def test_a_folder_where_a_file_is_wanted(
    name: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / given).mkdir(exist_ok=True)
    if name == "load" and given != "folder.csv":
        pytest.skip("reads folders of IDX files")
    with pytest.raises(IsADirectoryError) as error:
        READERS[name](given)
    assert str(error.value) == f"{given}: is a folder; name the file in it"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "socket", "/dev/zero"])
def test_tables_of_arrow_that_are_no_file(kind: str, special: Callable[[str, str], tuple[Path, str]]) -> None:
    pytest.importorskip("pyarrow")
    path, called = special(kind, ".parquet")
    with pytest.raises(ValueError, match=f"{path}: is {called}"):
        ArrowFiles(path)


def test_a_backup_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("hello")
    with pytest.raises(ValueError, match=f"backup_dir must be a folder, and {tmp_path / 'b'} is a file"):
        BackupAndRestore(tmp_path / "b")
