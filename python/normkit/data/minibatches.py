"""`MiniBatches`: shuffled, seeded mini-batches of data in memory, in files, or coming from anywhere."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from normkit._checks import flag, positive_integer, whole
from normkit._repr import Described
from normkit.data.arrays import Arrays, as_source
from normkit.data.checks import BadRows, OnBad
from normkit.data.combined import Joined
from normkit.data.cuts import Cuts, Last, cut_until_end
from normkit.data.epochs import Epochs
from normkit.data.pools import Pool, RowReader, block_order, buffer_rows, filled, pool_orders
from normkit.data.prefetch import prefetched
from normkit.data.source import Array, Function, Source, row_bytes
from normkit.data.streams import UNKNOWN_LENGTH, BatchIterable, Stream, is_iterable_of_batches

__all__ = ["Last", "MiniBatches"]

Batch = tuple[Array, ...]

BLOCK_BYTES = 1 << 20
BLOCKS_PER_BUFFER = 16
PREFETCH = 2


class MiniBatches(Described):
    """The mini-batches of arrays, files or streams of equal length, in a new order at every iteration.

    There is no work per sample in Python. Batch size 1 gives stochastic gradient descent, the number of samples
    (or more) batch gradient descent.

    Parameters
    ----------
    *arrays : array_like, Source or Stream; or one iterable of batches
        Samples along the first axis. Arrays and sources (`NpyFile`, `IdxFile`, `CsvFile`, `Hdf5File`, `ArrowFiles`, a dataset
        of h5py or zarr) go together, row by row; a `Stream` is alone. Batches of another iterable (such as a
        generator of (x, y), or another `MiniBatches`) are passed on as they come: their size and order are its own.
    batch_size : int, default 32
        Samples per batch.
    shuffle : bool, default True
        A new order for every iteration. False: the order of the data. See Notes.
    seed : int or Generator, optional
        With an integer the order is a function of seed, epoch and parameters alone. A generator is used as it is,
        and advances. None: an integer by chance.
    last : {"keep", "drop", "merge", "spread"}
        What to do with n mod batch_size samples that are left over:

        - "keep": they are a short last batch. Batch norm then sees a batch of another size, in the
          worst case of one sample, whose variance is 0.
        - "drop": they are left out of this iteration; with shuffling the next leaves out others. A set
          smaller than one batch is kept, so that something is always there.
        - "merge": they are added to the batch before.
        - "spread": as many batches as with "keep", their sizes differing by at most one. For data whose number is
          known before.
    shuffle_buffer : int, optional
        Rows that are in memory to be shuffled. Default: what fits into 64 MiB; all, if all arrays are in memory.
    prefetch : int, optional
        Batches that a thread makes ahead. Default: 2; 0, which is no thread, for arrays in memory and batches of an
        iterable.
    on_bad : {"error", "skip"}
        What to do with a bad file or row: raise a ValueError that says where it is; or leave it out, count
        it in `skipped`, and warn once at the end of the epoch.
    allow_nonfinite : bool, default False
        Whether NaN and infinities in files and streams are good. Arrays in memory are not searched for them.

    Attributes
    ----------
    num_samples : int or None
        Rows, bad ones included; None if not known.
    batch_size : int
    shuffle : bool
        Whether it puts them in a new order; of batches of another iterable it does not.
    skipped : int
        Rows that were left out in the latest iteration.

    Yields
    ------
    tuple of ndarray
        One part of each array, in the order given. Without shuffling, those of arrays in memory are views.

    Raises
    ------
    ValueError
        If there is no array, lengths differ, or a parameter is not possible.

    Notes
    -----
    **Order.** Arrays in memory without a `shuffle_buffer`, and sources that fit into it, are put in a random order, all
    orders being equally likely: for the same seed the same one (but with ``on_bad="skip"``). Other data are cut into
    blocks of neighbouring rows: 1 MiB, or a sixteenth of the buffer if that is less, or what the file can be read by (a
    Parquet row group, an HDF5 chunk) if that is more. The blocks are put in a random order, all orders being equally
    likely; their rows, in that order, are divided into pools of `shuffle_buffer` rows; each pool is put in a random
    order. So each sample comes once per epoch; a block can be anywhere in the epoch; and rows of a block no larger
    than the buffer are less than 2·shuffle_buffer places apart. The rows of a `Stream` fill the pools as they come, so
    that none is moved by `shuffle_buffer` places or more.

    **Memory**, for other than arrays in memory: the rows of the buffer and 8 bytes for each, three blocks, and prefetch + 3
    batches; and what the library of the format takes to read a block.

    Examples
    --------
    >>> x, y = np.arange(10.0), np.arange(10)
    >>> [len(xb) for xb, yb in MiniBatches(x, y, batch_size=4)]
    [4, 4, 2]
    >>> [len(xb) for xb, yb in MiniBatches(x, y, batch_size=4, last="spread")]
    [3, 3, 4]
    """

    def __init__(
        self,
        *arrays: ArrayLike | Source | Stream | Iterable[Any],
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | np.random.Generator | None = None,
        last: Last = "keep",
        shuffle_buffer: int | None = None,
        prefetch: int | None = None,
        on_bad: OnBad = "error",
        allow_nonfinite: bool = False,
    ) -> None:
        self._data = _data(arrays)
        self.num_samples = _num_samples(self._data)
        self.batch_size = positive_integer("MiniBatches: batch_size", batch_size)
        self.shuffle = flag("MiniBatches: shuffle", shuffle) and not isinstance(self._data, BatchIterable)
        self.last: Last = _one_of("last", last, get_args(Last))
        if shuffle_buffer is not None:
            positive_integer("MiniBatches: shuffle_buffer", shuffle_buffer)
        self.shuffle_buffer = shuffle_buffer
        self.on_bad: OnBad = _one_of("on_bad", on_bad, get_args(OnBad))
        if last == "spread" and (isinstance(self._data, Stream) or on_bad == "skip"):
            raise ValueError(
                "MiniBatches: last='spread' needs the number of rows before the first batch; a Stream and "
                "on_bad='skip' tell it at the end"
            )
        self.prefetch = (
            self._default_prefetch if prefetch is None else whole("MiniBatches: prefetch", prefetch)
        )
        self.allow_nonfinite = flag("MiniBatches: allow_nonfinite", allow_nonfinite)
        self._finite = not allow_nonfinite and not isinstance(self._data, Arrays)
        self._epochs = Epochs(seed)

    def _arguments(self) -> dict[str, Any]:
        data = self._data
        given = {"arrays": data.arrays if isinstance(data, Arrays) else (data,), **super()._arguments()}
        given |= {"seed": self._epochs.given}
        if self.prefetch == self._default_prefetch:
            given["prefetch"] = None
        return given

    @property
    def _default_prefetch(self) -> int:
        at_hand = self._whole_pool or isinstance(self._data, BatchIterable)
        return 0 if at_hand else PREFETCH

    @property
    def data(self) -> Source | Stream | BatchIterable:
        """What the batches are cut from."""
        return self._data

    @property
    def _whole_pool(self) -> bool:
        """Whether all the data are one pool as they are."""
        return isinstance(self._data, Arrays) and self.shuffle_buffer is None

    @property
    def skipped(self) -> int:
        """Rows that were left out in the latest iteration; files that cannot be opened have none to count."""
        return 0 if self._epochs.bad is None else self._epochs.bad.rows

    @property
    def empty(self) -> Batch:
        """A batch with no rows; of a `Stream` or an iterable the first item is fetched for it, and not lost."""
        return self._data.empty

    @property
    def sizes(self) -> list[int]:
        """Number of samples in each batch, if no bad ones are skipped."""
        return list(self._cuts().sizes())

    def __len__(self) -> int:
        """Return the number of batches, if no bad rows are skipped; TypeError if it is not known."""
        if isinstance(self._data, BatchIterable):
            return len(self._data)
        return len(self._cuts())

    def _cuts(self) -> Cuts:
        if self.num_samples is None:
            raise TypeError(f"MiniBatches: {UNKNOWN_LENGTH}")
        return Cuts(self.num_samples, self.batch_size, self.last)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over all batches once, in a new order if shuffling, which is drawn at once."""
        rng, epoch, first = self._epochs.begin()
        self._epochs.bad = bad = BadRows(self.on_bad, self._finite)
        return self._counted(self._batches(rng, first, bad), epoch, first, bad)

    def _counted(
        self, batches: Generator[Batch, None, None], epoch: int, first: int, bad: BadRows
    ) -> Iterator[Batch]:
        with closing(prefetched(batches, self.prefetch) if self.prefetch else batches) as ready:
            for taken, batch in enumerate(ready, first + 1):
                self._epochs.taken(epoch, taken)
                yield batch
        self._epochs.finish(epoch)
        bad.warn()

    def _batches(self, rng: np.random.Generator, first: int, bad: BadRows) -> Generator[Batch, None, None]:
        """Return the batches of an epoch from `first` on. All that is drawn from `rng` is drawn here, at once."""
        data = self._data
        if isinstance(data, BatchIterable):
            return _from(iter(data), first)
        if isinstance(data, Stream):
            return _from(cut_until_end(self._stream_rows(data, rng, bad), self.batch_size, self.last), first)
        if self.on_bad == "skip":  # where a batch starts is not known before all rows are read
            return _from(cut_until_end(self._rows(data, rng, bad, 0), self.batch_size, self.last), first)
        cuts = self._cuts()
        rows = self._rows(data, rng, bad, cuts.edge(min(first, len(cuts))))
        return _sized(rows, cuts.sizes(first))

    def _rows(self, data: Source, rng: np.random.Generator, bad: BadRows, start: int) -> RowReader:
        """Return the rows of an epoch from `start` on."""
        bad.take(data.faults)
        drawn = rng if self.shuffle else None
        if isinstance(data, Arrays) and self._whole_pool:
            order = None if drawn is None else drawn.permutation(len(data))
            return RowReader([Pool(data.arrays, order)], start)
        block = max(1, BLOCK_BYTES // row_bytes(data.empty))
        if drawn is None:
            return RowReader(map(Pool, _read(data, block_order(data, block, None, start), bad)))
        buffer = self.shuffle_buffer or buffer_rows(data.empty)
        if buffer >= len(data) and self.on_bad == "error":  # then it is as in memory
            order = drawn.permutation(len(data))
            blocks = _read(data, block_order(data, block, None, 0), bad)
            return RowReader(filled(blocks, max(1, len(data)), lambda *_: order), start)
        orders = pool_orders(int(drawn.integers(2**63)))
        pool, within = divmod(start, buffer)
        block = max(1, min(block, buffer // BLOCKS_PER_BUFFER))
        blocks = _read(data, block_order(data, block, drawn, start - within), bad)
        return RowReader(filled(blocks, min(buffer, len(data)), orders, pool), within)

    def _stream_rows(self, data: Stream, rng: np.random.Generator, bad: BadRows) -> RowReader:
        blocks = (bad.good(data, block) for block in data.blocks())
        if not self.shuffle:
            return RowReader(map(Pool, blocks))
        return RowReader(filled(blocks, self.shuffle_buffer, pool_orders(int(rng.integers(2**63)))))

    def map(self, function: Function, array: int | None = None) -> MiniBatches:
        """Return the same batches after a function, as `Source.map` applies it; they share epoch and position."""
        mapped = copy.copy(self)
        if isinstance(self._data, Arrays) and self.on_bad == "skip":
            # block by block, so that rows can be skipped
            mapped._data = Source.map(self._data, function, array)
        else:
            mapped._data = self._data.map(function, array)
        return mapped

    @property
    def length(self) -> int | None:
        """Number of batches, if that is known."""
        try:
            return len(self)
        except TypeError:
            return None

    @property
    def position(self) -> int:
        """Batches that were taken of the epoch at work, or of one that was loaded."""
        return self._epochs.batch

    def state_dict(self) -> dict[str, Any]:
        """Return where the latest iteration is: what it takes to go on from there. JSON can be made of it.

        Returns
        -------
        dict
            'seed' or 'generator' (its state when the epoch began), 'epoch', 'batch' (how many of its batches were
            taken), and 'data': the parameters that decide the batches.
        """
        return {**self._epochs.state(), "data": self._settings()}

    def _settings(self) -> dict[str, Any]:
        names = (
            "num_samples",
            "batch_size",
            "shuffle",
            "last",
            "shuffle_buffer",
            "on_bad",
            "allow_nonfinite",
        )
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: the next iteration has the rest of its epoch, as if there had been no interruption.

        Only what is needed is read, unless `on_bad` is "skip" or the data are a `Stream`: then the epoch is read from its start.

        Raises
        ------
        KeyError
            If something is missing.
        ValueError
            If the state is of other data or parameters.
        """
        for name, value in self._settings().items():
            if state["data"][name] != value:
                raise ValueError(
                    f"MiniBatches.load_state_dict: the state is of {name}={state['data'][name]}, this has {value}"
                )
        self._epochs.load(state)


def _data(given: tuple[Any, ...]) -> Source | Stream | BatchIterable:
    if len(given) == 1:
        if isinstance(given[0], Stream):
            return given[0]
        if is_iterable_of_batches(given[0]):
            return BatchIterable(given[0])
    for one in given:
        if isinstance(one, Stream) or is_iterable_of_batches(one):
            raise ValueError(
                f"MiniBatches: {type(one).__name__} must be alone; let its items be tuples, such as (x, y)"
            )
    try:
        sources = as_source(given)
        if not sources:
            raise ValueError("expected one or more arrays with at least one axis")
        arrays = [array for source in sources if isinstance(source, Arrays) for array in source.arrays]
        joined = Joined(*sources)
        if len(arrays) == len(joined.empty):
            return Arrays(*arrays)
        return sources[0] if len(sources) == 1 else joined
    except ValueError as error:
        raise ValueError(f"MiniBatches: {error}") from error


def _num_samples(data: Source | Stream | BatchIterable) -> int | None:
    if isinstance(data, Source):
        return len(data)
    return data.length if isinstance(data, Stream) else None


def _one_of(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    if value not in choices:
        raise ValueError(f"MiniBatches: {name} must be one of {', '.join(choices)}, got {value!r}")
    return value


def _read(data: Source, ranges: Iterator[tuple[int, int]], bad: BadRows) -> Iterator[Batch]:
    return (bad.good(data, data.read(start, stop), stop - start) for start, stop in ranges)


def _from(batches: Iterator[Batch], first: int) -> Generator[Batch, None, None]:
    yield from islice(batches, first, None)


def _sized(rows: RowReader, sizes: Iterator[int]) -> Generator[Batch, None, None]:
    for size in sizes:
        batch = rows.take(size)
        assert batch is not None
        yield batch
