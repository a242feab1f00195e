"""Small files that ask for the world, and a program that opens them and prints what each took and what was said.

    python hostile.py FOLDER

prints a line of JSON for each: its name, the MiB that its reader took beyond what was taken before, and the error.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import signal
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from damaged_formats import X, Y, trained
from normkit import interchange
from normkit.data import ArrowFiles, CsvFile, Hdf5File, IdxFile, MiniBatches, NpyFile
from normkit.data.files import load, load_csv
from normkit.layers import BatchNormalization, Dense
from normkit.models import Sequential, archive, load_model
from normkit.stats import RunningStats

Case = tuple[Callable[[Path], None], Callable[[Path], Any]]
CASES: dict[str, Case] = {}


def case(read: Callable[[Path], Any]) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Enter a function that writes a file whose ending is the first word of its name."""

    def enter(write: Callable[[Path], None]) -> Callable[[Path], None]:
        CASES[write.__name__] = write, read
        return write

    return enter


def epoch(source: Any) -> None:
    for batch in MiniBatches(source, batch_size=16, on_bad="skip", prefetch=0):
        del batch
    for batch in MiniBatches(source, batch_size=16, prefetch=0):
        del batch


def model_with(path: Path, change: Callable[[dict[str, Any]], Any], model: Sequential | None = None) -> None:
    (model or trained()).save(path)
    config, arrays = archive.read(path)
    change(config)
    archive.write(path, config, arrays)


for exponent in (8, 11, 30):

    @case(load_model)
    def safetensors_units(path: Path, units: int = 10**exponent) -> None:
        model_with(path, lambda config: config["layers"][0]["config"].update(units=units))

    CASES[f"safetensors_units_1e{exponent}"] = CASES.pop("safetensors_units")


@case(load_model)
def safetensors_input_shape(path: Path) -> None:
    model_with(path, lambda config: config.update(input_shape=[10**10]))


@case(load_model)
def safetensors_norm_of_large_samples(path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["layers"] = [config["layers"][2]]
        config["layers"][0]["config"].update(axis=[1, 2])
        config["input_shape"] = [10**5, 10**5]

    model_with(path, change)


@case(load_model)
def safetensors_statistics(path: Path) -> None:
    model = Sequential([BatchNormalization(stats=RunningStats.torch(3), input_shape=(3,))])
    model_with(path, lambda config: config["layers"][0]["config"]["stats"].update(num_channels=10**9), model)


@case(load_model)
def safetensors_thresholds(path: Path) -> None:
    auc = {"class_name": "AUC", "config": {"num_thresholds": 10**9}}
    model_with(path, lambda config: config["compile"].update(metrics=[auc]))


@case(lambda path: Sequential([Dense(4)]).load_weights(path))
def safetensors_for_a_model_without_a_shape(path: Path) -> None:
    model_with(path, lambda config: config.update(input_shape=[10**10]))


def keras_with(path: Path, change: Callable[[dict[str, Any], Any], None]) -> None:
    interchange.save_keras(trained(), path)
    with zipfile.ZipFile(path) as before:
        members = {name: before.read(name) for name in before.namelist()}
    config, weights = json.loads(members["config.json"]), io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "a") as file:
        change(config["config"], file)
    with zipfile.ZipFile(path, "w") as after:
        after.writestr("config.json", json.dumps(config))
        after.writestr("model.weights.h5", weights.getvalue())


def many_layers(config: dict[str, Any], units: int, width: int) -> None:
    first, dense = config["layers"][0], config["layers"][-1]
    config["layers"] = [first] + [
        {**dense, "config": {**dense["config"], "name": f"d{i}", "units": units if i % 2 == 0 else width}}
        for i in range(60)
    ]


@case(interchange.load_keras)
def keras_many_layers(path: Path) -> None:
    """Each by itself is within a thousand times the file."""

    def change(config: dict[str, Any], file: Any) -> None:
        many_layers(config, 2_000, 3_000)
        del file["layers"]
        for i in range(60):
            group = file.create_group(f"layers/dense{f'_{i}' if i else ''}/vars")
            group["0"], group["1"] = np.zeros((3, 4), "f4"), np.zeros(4, "f4")

    keras_with(path, change)


@case(interchange.load_keras)
def keras_weights_that_were_never_written(path: Path) -> None:
    def change(config: dict[str, Any], file: Any) -> None:
        many_layers(config, 10_000, 10_000)
        del file["layers"]
        for i in range(60):
            group = file.create_group(f"layers/dense{f'_{i}' if i else ''}/vars")
            group.create_dataset("0", (10_000 if i else 3, 10_000), "f4")
            group.create_dataset("1", (10_000,), "f4")

    keras_with(path, change)


@case(interchange.load_keras)
def keras_one_array_many_times(path: Path) -> None:
    def change(config: dict[str, Any], file: Any) -> None:
        many_layers(config, 2_000, 2_000)
        del file["layers"]
        kernel = np.zeros((2_000, 2_000), "f4")
        for i in range(60):
            group = file.create_group(f"layers/dense{f'_{i}' if i else ''}/vars")
            if i < 2:
                group.create_dataset(
                    "0", data=kernel[: 2_000 if i else 3], compression="gzip", compression_opts=9
                )
                group.create_dataset("1", data=kernel[0])
            else:
                group["0"], group["1"] = file["layers/dense_1/vars/0"], file["layers/dense_1/vars/1"]

    keras_with(path, change)


def read_table(path: Path) -> None:
    name = pq.read_schema(path).names[0] if path.suffix == ".parquet" else "x"
    epoch(ArrowFiles(path, x=name))


@case(read_table)
def parquet_rows_of_one_value(path: Path) -> None:
    with pq.ParquetWriter(path, pa.schema([("x", pa.float64())])) as writer:
        rows = np.zeros(1 << 25)
        writer.write_table(pa.table({"x": rows}), row_group_size=len(rows))


@case(read_table)
def parquet_pages_of_zeros(path: Path) -> None:
    table = pa.table({"x": np.zeros(1 << 25)})
    options: Any = {"use_dictionary": False, "compression": "zstd", "data_page_size": 1 << 30}
    pq.write_table(table, path, row_group_size=1 << 25, **options)


@case(read_table)
def parquet_one_long_list(path: Path) -> None:
    values = pa.array(np.zeros(1 << 25))
    lists = pa.ListArray.from_arrays(pa.array([0, 1 << 25], pa.int32()), values)
    pq.write_table(pa.table({"x": lists}), path)


@case(read_table)
def parquet_page_that_says_more_than_the_footer(path: Path) -> None:
    """The header of the page has two gigabytes."""
    pq.write_table(pa.table({"x": np.zeros(20)}), path, use_dictionary=False, compression="zstd")
    content = bytearray(path.read_bytes())
    where = content.index(b"\x15", 4) + 2  # behind the type of the page: its size unpacked, a varint
    end = where + 1
    while content[end] & 0x80:
        end += 1
    size = len(content[where + 1 : end + 1])
    content[where + 1 : end + 1] = (
        b"\xfe\xff\xff\xff\x0f"[-max(1, size) :] if size >= 5 else b"\xfe\xff\xff\xff\x0f"
    )
    moved = len(content) - path.stat().st_size
    path.write_bytes(content)
    assert moved >= 0


def arrow(path: Path, table: Any, **options: Any) -> None:
    written = pa.ipc.IpcWriteOptions(**options)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema, options=written) as writer:
        writer.write_table(table)


@case(read_table)
def arrow_batch_of_zeros(path: Path) -> None:
    arrow(path, pa.table({"x": np.zeros(1 << 25)}), compression="zstd")


@case(read_table)
def arrow_dictionary_of_zeros(path: Path) -> None:
    words = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array(["a" * (1 << 28)]))
    arrow(path, pa.table({"x": [1.0], "word": words}), compression="zstd")


@case(read_table)
def arrow_more_rows_than_values(path: Path) -> None:
    arrow(path, pa.table({"x": np.zeros(1003)}))
    path.write_bytes(path.read_bytes().replace(struct.pack("<q", 1003), struct.pack("<q", 1 << 40)))


def read_hdf5(path: Path) -> None:
    epoch(Hdf5File(path, "x"))


def hdf5(name: str, shape: tuple[int, ...], chunks: tuple[int, ...] | None, **options: Any) -> None:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset("x", shape, "f8", chunks=chunks, **options)

    CASES[f"h5_{name}"] = write, read_hdf5


hdf5("never_written", (10**6, 10**3), (10, 10**3))
hdf5("never_written_one_row", (1, 1 << 28), (1, 1 << 27))
hdf5("never_written_without_chunks", (1 << 28,), None)
hdf5("never_written_with_a_value", (1 << 28,), (1 << 20,), fillvalue=1.0)
hdf5("more_rows_than_numbers_for_blocks", (1 << 60,), (1,))
hdf5("large_chunks_of_few_rows", (3,), (1 << 28,), maxshape=(None,))


@case(read_hdf5)
def h5_one_chunk_is_there(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (1 << 28,), "f8", chunks=(1 << 10,))[:10] = 1.0


def npy_header(shape: tuple[int, ...]) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return content.getvalue()


@case(lambda path: epoch(NpyFile(path)))
def npy_huge_shape(path: Path) -> None:
    path.write_bytes(npy_header((1 << 28,)) + bytes(100))


def npz(path: Path, content: bytes, **options: Any) -> None:
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, part in (
            ("x_train", content),
            ("y_train", npy_header((2,)) + bytes(16)),
            ("x_test", content),
        ):
            file.writestr(f"{name}.npy", part)
        file.writestr("y_test.npy", npy_header((2,)) + bytes(16))


@case(load)
def npz_huge_shape(path: Path) -> None:
    npz(path, npy_header((1 << 20, 1 << 8)) + bytes(100))


for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):

    @case(load)
    def npz_bomb(path: Path, method: int = method) -> None:
        npz(path, npy_header((2, 1 << 24)) + bytes(1 << 28), compression=method)

    CASES[f"npz_bomb_{method}"] = CASES.pop("npz_bomb")


@case(load)
def npz_bomb_that_looks_small(path: Path) -> None:
    """Whatever the table of the archive says, a bomb of bzip2 would be unpacked whole."""
    npz(path, npy_header((2, 1 << 24)) + bytes(1 << 28), compression=zipfile.ZIP_BZIP2)
    size = len(npy_header((2, 1 << 24))) + (1 << 28)
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", 5000)))


@case(lambda path: epoch(IdxFile(path)))
def idx_huge_shape(path: Path) -> None:
    path.write_bytes(struct.pack(">BBBB3I", 0, 0, 14, 3, 1 << 31, 1 << 31, 1 << 31) + bytes(100))


def read_folder(path: Path) -> None:
    folder = path.with_suffix("")
    folder.mkdir()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(path.read_bytes())
    for name in ("train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (folder / name).write_bytes(b"")
    try:
        load(folder)
    except ValueError as error:
        raise ValueError(str(error).replace(str(folder), str(path))) from error


@case(read_folder)
def gz_huge_shape(path: Path) -> None:
    path.write_bytes(
        gzip.compress(struct.pack(">BBBB3I", 0, 0, 8, 3, 1 << 15, 1 << 8, 1 << 8) + bytes(1 << 20))
    )


@case(lambda path: load_csv(path))
def csv_wide_header_and_short_lines(path: Path) -> None:
    path.write_text(",".join(["0"] * 20_000) + "\n1" * 20_000)


@case(lambda path: epoch(CsvFile(path)))
def csv_wide_and_short_in_blocks(path: Path) -> None:
    path.write_text(",".join(["0"] * 20_000) + "\n1" * 20_000)


def memory(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0])


def attempt(name: str, path: Path) -> dict[str, Any]:
    """Open a file, in a process of its own."""
    before, error = memory("VmRSS"), ""
    try:
        CASES[name][1](path)
    except Exception as raised:  # noqa: BLE001 - whatever it is, it is told
        error = f"{type(raised).__name__}: {raised}"
    return {
        "name": name,
        "size": path.stat().st_size,
        "took": (memory("VmHWM") - before) >> 10,
        "error": error,
    }


def in_child(work: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    """Do it in a child, that its memory be its own."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        os.write(write_end, json.dumps(work()).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(answer) if answer else {"error": f"ended with {os.waitstatus_to_exitcode(status)}"}


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, resource.RLIM_INFINITY))
    # What is imported late is there now.
    pq.write_table(pa.table({"x": X[:, 0], "y": Y}), folder / "warm.parquet")
    epoch(ArrowFiles(folder / "warm.parquet", x="x", y="y"))
    for name, (write, _) in CASES.items():
        path = folder / f"{name}.{name.partition('_')[0]}"
        in_child(lambda write=write, path=path: write(path))
        print(
            json.dumps({"name": name} | in_child(lambda name=name, path=path: attempt(name, path))),
            flush=True,
        )
        path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
