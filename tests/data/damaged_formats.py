"""Files of every format that is read; run as a program, it damages and reads them, and says what is wrong.

    python damaged_formats.py FOLDER SEED COUNT FORMAT...

A reader may refuse a file with a ValueError, or an OSError, of one line that names the file. Anything else is a line of
output; what ends the process is seen by who started it, as the case at work is in FOLDER/case.
"""

from __future__ import annotations

import gzip
import random
import resource
import struct
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from damage import BYTES, Damage, crafted, header_changed, in_gzip, in_zip
from normkit import interchange
from normkit.callbacks import BackupAndRestore, EarlyStopping, ReduceLROnPlateau
from normkit.data import ArrowFiles, CsvFile, Hdf5File, IdxFile, MiniBatches, NpyFile
from normkit.data.files import load, load_csv
from normkit.layers import BatchNormalization, Dense, Input, LayerNormalization
from normkit.models import Sequential, load_model

ROWS = 60
X = np.arange(ROWS * 3, dtype=np.float32).reshape(ROWS, 3) / 16
Y = np.arange(ROWS) % 3
MEMORY = 200 << 20  # beyond what the process has when all is imported


class Format(NamedTuple):
    """How a file is written and read; `exact` if a file that can be read must have the values that were written."""

    write: Callable[[Path], None]
    read: Callable[[Path], Any]
    damages: tuple[Damage, ...] = BYTES
    exact: bool = False


def batches(source: Any, whole: bool = True) -> None:
    """Read all, stopping at what is bad, and leaving it out."""
    refused = None
    for options in ({"on_bad": "skip", "allow_nonfinite": True}, *[{}] * whole):
        try:
            for batch in MiniBatches(source, batch_size=7, shuffle=False, prefetch=0, **options):
                assert len({len(array) for array in batch}) == 1
        except (ValueError, OSError) as error:
            refused = refused or error
    if refused:
        raise refused


def csv_text(path: Path) -> None:
    rows = ["a,b,c,label", *(f"{','.join(map(repr, x.tolist()))},{y}" for x, y in zip(X, Y, strict=True))]
    path.write_text("\n".join(rows))


def table(kind: str, **options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        listed = pa.array([x.tolist() for x in X], pa.list_(pa.float32()))
        words = pa.array(["one", "two", "three"] * (ROWS // 3)).dictionary_encode()
        large = listed.cast(pa.large_list(pa.float32()))
        fixed = listed.cast(pa.list_(pa.float32(), 3))
        numbers = {
            name: pa.array(X[:, i].astype(f"f{8 - 4 * i}" if i < 2 else "i4")) for i, name in enumerate("abc")
        }
        flags = pa.array([None if i == 9 else i % 2 == 0 for i in range(ROWS)])
        data = pa.table(
            {"list": listed, "large": large, "fixed": fixed, **numbers, "flag": flags, "word": words, "y": Y}
        )
        if kind == "parquet":
            pq.write_table(data, path, row_group_size=25, data_page_size=200, **options)
            return
        written = pa.ipc.IpcWriteOptions(**options)
        with (
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_file(file, data.schema, options=written) as writer,
        ):
            writer.write_table(data, max_chunksize=25)

    return write


def read_table(path: Path) -> None:
    failures = []
    for x in (["a", "b", "c"], "list", "large", "fixed", "flag"):
        try:
            batches(ArrowFiles(path, x=x, y="y"), whole=x != "flag")
        except (ValueError, OSError) as error:
            failures.append(error)
    for error in failures:
        check(error, path)
    if failures:
        raise failures[-1]


def hdf5(**options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import h5py

        with h5py.File(
            path, "w", libver=options.pop("libver", "earliest") if "libver" in options else None
        ) as file:
            file.create_dataset("train/x", data=X, **options)
            file["y"] = Y
            file["x"] = h5py.SoftLink("/train/x")

    options = dict(options)
    return write


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.astype("u1").tobytes()


def read_idx_folder(path: Path) -> Any:
    """The damaged file is the images of the training, beside whole ones."""
    whole = {"train-labels-idx1": Y, "t10k-images-idx3": X.reshape(ROWS, 3, 1), "t10k-labels-idx1": Y}
    for name, array in whole.items():
        (path.parent / f"{name}-ubyte").write_bytes(idx_bytes(array))
    images = path.parent / f"train-images-idx3-ubyte{'.gz' if path.suffix == '.gz' else ''}"
    images.write_bytes(path.read_bytes())
    try:
        load(path.parent)
    except ValueError as error:
        raise ValueError(
            str(error).replace(str(images), str(path)).replace(f"{path.parent}: ", f"{path}: ")
        ) from error
    finally:
        images.unlink()


def model(seed: int = 0) -> Sequential:
    made = Sequential(
        [Input((3,)), Dense(4, "relu"), BatchNormalization(), LayerNormalization(), Dense(3, "softmax")],
        seed=seed,
    )
    made.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return made


def trained() -> Sequential:
    made = model()
    made.fit(X, Y, epochs=1, batch_size=20, verbose=0)
    return made


def use(made: Sequential) -> list[Any]:
    """Return the weights; what was taken must also be of use."""
    weights = made.get_weights()
    assert made.input_shape is not None
    if made.input_shape[1:] == (3,):
        made.predict(X, verbose=0)
        if made.compiled_state is not None and made.output_shape == (None, 3):
            try:
                made.fit(X, Y, epochs=1, batch_size=20, verbose=0)
            except ValueError as error:  # what is trainable may have changed since compile: so it says
                if "call compile() again" not in str(error):
                    raise
    return weights


def taken(load_into: Callable[[Sequential, Path], None]) -> Callable[[Path], list[Any]]:
    def read(path: Path) -> list[Any]:
        made = model(seed=1)
        before = [weight.copy() for weight in made.get_weights()]
        try:
            load_into(made, path)
        except ValueError:
            same = all(np.array_equal(a, b) for a, b in zip(before, made.get_weights(), strict=True))
            assert same, "weights have changed"
            raise
        return use(made)

    return read


def callbacks(folder: Path, **options: Any) -> list[Any]:
    return [
        EarlyStopping("loss", patience=50, restore_best_weights=True),
        ReduceLROnPlateau("loss", patience=1),
        BackupAndRestore(folder, **options),
    ]


def write_backup(path: Path) -> None:
    folder = path.parent / "backup"
    made = model()
    made.fit(
        X,
        Y,
        epochs=2,
        batch_size=20,
        verbose=0,
        callbacks=callbacks(folder, save_freq=4, delete_checkpoint=False),
    )
    (folder / "latest.safetensors").replace(path)


def read_backup(path: Path) -> None:
    latest = path.parent / "backup" / "latest.safetensors"
    latest.parent.mkdir(exist_ok=True)
    latest.write_bytes(path.read_bytes())
    made = model()
    try:
        made.fit(X, Y, epochs=3, batch_size=20, verbose=0, callbacks=callbacks(latest.parent))
    except ValueError as error:
        raise ValueError(str(error).replace(str(latest), str(path))) from error


SAFE = (*BYTES, header_changed, header_changed)
FORMATS = {
    "csv": Format(csv_text, lambda path: (batches(CsvFile(path, y="label")), load_csv(path))),
    "npy": Format(lambda path: np.save(path.open("wb"), X), lambda path: batches(NpyFile(path))),
    "npz": Format(
        lambda path: np.savez_compressed(path.open("wb"), x_train=X, y_train=Y, x_test=X, y_test=Y),
        lambda path: load(path.rename(path.with_suffix(".npz"))),
        (*BYTES, in_zip, in_zip),
    ),
    "idx": Format(lambda path: path.write_bytes(idx_bytes(X.reshape(ROWS, 3, 1))), lambda path: (batches(IdxFile(path)), read_idx_folder(path))),
    "gz": Format(lambda path: path.write_bytes(gzip.compress(idx_bytes(X.reshape(ROWS, 3, 1)))), read_idx_folder, (*BYTES, in_gzip)),
    "arrow": Format(table("ipc"), read_table),
    "feather": Format(table("ipc", compression="zstd"), read_table),
    "parquet": Format(table("parquet", compression="none"), read_table),
    "pq": Format(table("parquet", compression="zstd", data_page_version="2.0"), read_table),
    "h5": Format(hdf5(), lambda path: batches(Hdf5File(path, "x", "y"))),
    "hdf5": Format(hdf5(chunks=(16, 2), compression="gzip", shuffle=True), lambda path: batches(Hdf5File(path, "train/x", "y"))),
    "h5new": Format(hdf5(chunks=(16, 2), libver="latest"), lambda path: batches(Hdf5File(path, "x", "y"))),
    "model": Format(lambda path: trained().save(path.with_suffix(".safetensors")), lambda path: use(load_model(path)), SAFE, True),
    "crafted": Format(lambda path: trained().save(path.with_suffix(".safetensors")), lambda path: use(load_model(path)), (crafted,)),
    "weights": Format(lambda path: trained().save_weights(path.with_suffix(".safetensors")), taken(Sequential.load_weights), SAFE),
    "backup": Format(write_backup, read_backup, (*SAFE, *[crafted] * 8)),
    "keras": Format(lambda path: interchange.save_keras(trained(), path), lambda path: use(interchange.load_keras(path)), (*BYTES, *[in_zip] * 6)),
    "keras_weights": Format(
        lambda path: interchange.save_keras_weights(trained(), path.with_suffix(".weights.h5")), taken(interchange.load_keras_weights)
    ),
    "torch": Format(lambda path: interchange.save_safetensors(trained(), path), taken(interchange.load_safetensors), SAFE),
}  # fmt: skip


def check(error: BaseException, path: Path) -> None:
    text = str(error)
    if not isinstance(error, (ValueError, OSError)) or str(path) not in text or "\n" in text:
        raise AssertionError(f"{type(error).__name__}: {text}") from error


def run(folder: Path, seed: int, count: int, name: str) -> Iterator[str]:
    """Yield what is wrong."""
    kind = FORMATS[name]
    suffix = {"h5new": "h5", "keras_weights": "weights.h5"}.get(name, name)
    path = folder / f"file.{suffix}"
    kind.write(path)
    written = path if path.exists() else next(folder.glob("file.*"))
    content = written.read_bytes()
    expected = kind.read(written) if kind.exact else kind.read(written) and None
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(count):
        rng = random.Random(f"{seed} {name} {case}")
        damage = kind.damages[case % len(kind.damages)]
        what = f"{name}, seed {seed}, case {case}, {damage.__name__}"
        (folder.parent / "case").write_text(what)
        path.write_bytes(damage(content, rng))
        try:
            values = kind.read(path)
            if kind.exact and not all(np.array_equal(a, b) for a, b in zip(values, expected, strict=True)):
                yield f"{what}: other values"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            try:
                check(error, path.with_suffix(".npz") if name == "npz" else path)
            except AssertionError as wrong:
                last = traceback.extract_tb(error.__traceback__)[-1]
                yield f"{what}: {wrong} ({Path(last.filename).name}:{last.lineno})".replace("\n", " ")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if (peak - base) << 10 > MEMORY:
            yield f"{what}: took {(peak - base) >> 10} MiB"
            base = peak


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, resource.RLIM_INFINITY))
    warnings.simplefilter("ignore")
    seed, count = map(int, sys.argv[2:4])
    for format_name in sys.argv[4:]:
        here = Path(sys.argv[1]) / format_name
        here.mkdir()
        for line in run(here, seed, count, format_name):
            print(line, flush=True)
