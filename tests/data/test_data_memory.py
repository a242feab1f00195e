"""The bound of memory: an epoch over a file larger than it, where the system refuses more."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from subprocesses import output_of

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="RLIMIT_DATA counts mapped memory on Linux alone"
)

ROWS, COLUMNS = 64 * 1024, 256  # float32: 64 MiB
BUFFER = 4096  # rows: 4 MiB

# What the notes of MiniBatches say, in bytes: the buffer and its order, three blocks, prefetch + 3 batches. Beside it there are
# the thread's stack (8 MiB of address space), and what the library of the format takes.
CODE = """
import resource
import numpy as np
from pathlib import Path
from normkit.data import *

def data():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmData:")[2].split()[0])

def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])

source = {source}
row = {columns} * 4 + {label}
batch, buffer, prefetch = 64, {buffer}, 2
block = max(buffer // 16, {block_rows})
bound = buffer * (row + 8) + 3 * block * row + (prefetch + 3) * batch * row
batches = MiniBatches(source, batch_size=batch, shuffle_buffer=buffer, prefetch=prefetch, seed=0, shuffle={shuffle})
next(iter(MiniBatches(np.zeros((10, 1)), prefetch=1, shuffle_buffer=2)))  # what is imported late is there now
{warm}
assert {size} > 3 * bound, bound
before, resident = data(), peak()
resource.setrlimit(resource.RLIMIT_DATA, (before + bound + (8 << 20) + {library}, resource.RLIM_INFINITY))
rows, total = 0, 0.0
for first, *_ in batches:
    rows += len(first)
    total += float(first[:, 0].sum(dtype=np.float64))
print(rows, int(total), peak() - resident - bound)
"""


def run(source, *, size, block_rows=0, label=0, library=1 << 20, shuffle=True, columns=COLUMNS, warm=""):
    code = CODE.format(
        source=source,
        columns=columns,
        label=label,
        buffer=BUFFER,
        block_rows=block_rows,
        shuffle=shuffle,
        size=size,
        library=library,
        warm=warm,
    )
    rows, total, excess = output_of(code, timeout=200).split()
    assert (int(rows), int(total)) == (ROWS, ROWS * (ROWS - 1) // 2)
    assert int(excess) < (2 << 20) + library


def parts(step=4096):
    for start in range(0, ROWS, step):
        part = np.zeros((step, COLUMNS), np.float32)
        part[:, 0] = np.arange(start, start + step)
        yield part


@pytest.fixture(scope="module")
def npy(tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "x.npy"
    array = np.lib.format.open_memmap(path, "w+", np.float32, (ROWS, COLUMNS))
    for start, part in zip(range(0, ROWS, 4096), parts(), strict=True):
        array[start : start + 4096] = part
    return path


def test_the_limit_is_one(npy):
    code = f"""
    import resource
    from pathlib import Path
    import numpy as np
    status = Path("/proc/self/status").read_text()
    before = 1024 * int(status.partition("VmData:")[2].split()[0])
    resource.setrlimit(resource.RLIMIT_DATA, (before + (32 << 20), resource.RLIM_INFINITY))
    try:
        np.load({str(npy)!r})
    except MemoryError:
        print("refused")
    """
    assert output_of(code) == "refused"


@pytest.mark.parametrize("shuffle", [True, False])
def test_npy(npy, shuffle):
    run(f"NpyFile({str(npy)!r})", size=npy.stat().st_size, shuffle=shuffle, block_rows=1024 * (not shuffle))


def test_npy_in_fortran_order(tmp_path):
    path = tmp_path / "x.npy"
    array = np.lib.format.open_memmap(path, "w+", np.float32, (ROWS, COLUMNS), fortran_order=True)
    array[:, 0] = np.arange(ROWS)
    run(f"NpyFile({str(path)!r})", size=path.stat().st_size)


def test_a_stream():
    part = "np.arange(i, i + 256, dtype=np.float32)[:, None] * (np.arange(256) == 0)"
    source = f"Stream(lambda: ({part} for i in range(0, {ROWS}, 256)))"
    run(source, size=ROWS * COLUMNS * 4)


def test_hdf5(tmp_path):
    import h5py

    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", (ROWS, COLUMNS), "f4", chunks=(256, COLUMNS), compression="lzf")
        for start, part in zip(range(0, ROWS, 4096), parts(), strict=True):
            dataset[start : start + 4096] = part
    run(f"Hdf5File({str(path)!r}, 'x')", size=ROWS * COLUMNS * 4, library=2 << 20)


def test_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    names = [f"x{i}" for i in range(COLUMNS)]
    with pq.ParquetWriter(path, pa.schema([(name, pa.float32()) for name in names])) as writer:
        for part in parts(1024):
            writer.write_table(pa.table(dict(zip(names, part.T.copy(), strict=True))))
    run(
        f"ArrowFiles({str(path)!r})",
        size=ROWS * COLUMNS * 4,
        block_rows=1024,
        library=16 << 20,
        warm="source.read(0, 10)",
    )


def test_csv(tmp_path):
    path = tmp_path / "x.csv"
    with path.open("w") as file:
        for start in range(ROWS):
            file.write(f"{start}" + ",0" * (COLUMNS - 1) + "\n")
    # A block is there as text and as float64.
    run(f"CsvFile({str(path)!r})", size=ROWS * COLUMNS * 4, library=4 << 20)
