"""`DataParallel`: how a model trains on several ranks, and `Distribution`, a process alone."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit._checks import positive_integer
from normkit.distributed.chunks import Chunks
from normkit.distributed.communicator import Communicator, RankError, world

__all__ = ["DataParallel", "Distribution"]

Array = NDArray[Any]
Batch = tuple[Array, ...]

CHUNKS = 8


class Distribution:
    """A process alone, which takes each batch as a whole: nothing to agree on, nothing to combine.

    Attributes
    ----------
    chunks : Chunks or None
        The parts of a batch; None for the batch as a whole.
    """

    chunks: Chunks | None = None
    comm = Communicator()

    @property
    def is_first(self) -> bool:
        """Whether this rank prints, and writes files."""
        return self.comm.rank == 0

    @contextmanager
    def agreement(self) -> Iterator[None]:
        """Let every rank fail if one does, in a block without collectives: with its own error, or `RankError`."""
        yield

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Let an error of this rank alone end the job: the others may be waiting for it."""
        yield

    def is_shared(self, error: BaseException) -> bool:
        """Whether every rank raises an error for the same reason."""
        return getattr(error, "ranks_agreed", False)

    def together(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        """Return batches, each as soon as every rank has the same."""
        return batches

    def any(self, flag: bool) -> bool:
        """Return whether it is true on any rank."""
        return flag

    def require_same(self, what: str, item: Any) -> None:
        """Raise ValueError on every rank if `item` is not the same on all."""


class DataParallel(Distribution):
    """Training on several ranks, each of which computes a part of every batch: ``compile(..., distribution=DataParallel())``.

    The ranks have the same data and run the same program. Batches are those of one process, and `batch_size` counts the
    rows of all ranks. Batch norm takes the moments of the whole batch.

    Parameters
    ----------
    comm : Communicator or mpi4py.MPI.Intracomm, optional
        Default: all ranks of the job; a process alone without mpi4py.
    deterministic : bool, default False
        Give the same bits at any number of ranks, also at one: each batch is cut into `chunks` parts whatever the number
        of ranks, and what comes of these is added up in their order. docs/distributed.md says what it costs.
    chunks : int, optional
        Parts of a batch, for `deterministic`; 8 by default. No more ranks than that have work.

    Raises
    ------
    ModuleNotFoundError
        If the launcher started several ranks and mpi4py is not installed.
    ValueError
        If `chunks` is given without `deterministic`, or is less than the number of ranks.
    """

    def __init__(self, comm: Any = None, *, deterministic: bool = False, chunks: int | None = None) -> None:
        if chunks is not None and not deterministic:
            raise ValueError(
                "DataParallel: chunks is for deterministic=True; without it each rank has one part of a batch"
            )
        self.comm = world(comm)
        self.deterministic = deterministic
        size = self.comm.size
        count = positive_integer("DataParallel: chunks", CHUNKS if chunks is None else chunks)
        if deterministic and count < size:
            raise ValueError(
                f"DataParallel: {count} chunks leave some of the {size} ranks without work; pass chunks={size} or more, "
                "the same for every number of ranks whose bits are to agree"
            )
        if deterministic or size > 1:
            self.chunks = Chunks(self.comm, count if deterministic else size, ordered=deterministic)

    def __deepcopy__(self, memo: dict[int, Any]) -> DataParallel:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("DataParallel: a communicator cannot be pickled; save the model with its `save`")

    @contextmanager
    def agreement(self) -> Iterator[None]:
        """See `Distribution.agreement`."""
        try:
            yield
        except Exception as error:
            self._agree(error)
            raise
        self._agree(None)

    def _agree(self, error: Exception | None) -> None:
        """Tell the others of an error of this rank, and raise if only they have one."""
        if error is not None and self.is_shared(error):
            return
        texts = self.comm.objects(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            error.ranks_agreed = True  # type: ignore[attr-defined]
            return
        for rank, text in enumerate(texts):
            if text is not None:
                raise _agreed(RankError(f"rank {rank} failed: {text}"))

    @contextmanager
    def guard(self) -> Iterator[None]:
        """See `Distribution.guard`."""
        try:
            yield
        except BaseException as error:
            if not self.is_shared(error):
                self.comm.abort(error)
            raise

    def together(self, batches: Iterable[Batch]) -> Generator[Batch, None, None]:
        """See `Distribution.together`; a rank that cannot read its batch lets all fail."""
        iterator = iter(batches)
        while True:
            batch, error = None, None
            try:
                batch = next(iterator, None)
            except Exception as caught:  # noqa: BLE001 - it is raised once the others know
                error = caught
            self._check_batch(batch, error)
            if batch is None:
                return
            yield batch

    def _check_batch(self, batch: Batch | None, error: Exception | None) -> None:
        if self.comm.size == 1:
            if error is not None:
                raise error
            return
        rows = -1 if batch is None else len(batch[0])
        checksum = 0 if batch is None else zlib.crc32(np.ascontiguousarray(batch[-1]).data)
        status = np.array([error is not None, rows, -rows, checksum, -checksum], np.int64)
        self.comm.maximum(status)
        if status[0]:
            self._agree(error)
            assert error is not None
            raise error
        if status[1] != -status[2]:
            sizes = ", ".join("none" if n < 0 else str(n) for n in self.comm.objects(rows))
            raise _agreed(
                ValueError(
                    f"the ranks have batches of different length ({sizes} rows); give every rank the same data, batch_size "
                    "and seed"
                )
            )
        if status[3] != -status[4]:
            raise _agreed(
                ValueError(
                    "the ranks have different samples in the same batch; give every rank the same data, in the same order"
                )
            )

    def any(self, flag: bool) -> bool:
        """See `Distribution.any`."""
        value = np.array([flag], np.int64)
        self.comm.maximum(value)
        return bool(value[0])

    def require_same(self, what: str, item: Any) -> None:
        """See `Distribution.require_same`."""
        items = self.comm.objects(item)
        for rank, other in enumerate(items):
            if other != items[0]:
                raise _agreed(
                    ValueError(
                        f"{what} must be the same on every rank, got {items[0]} on rank 0 and {other} on rank {rank}"
                    )
                )


def _agreed(error: Exception) -> Exception:
    """Mark an error that every rank raises."""
    error.ranks_agreed = True  # type: ignore[attr-defined]
    return error
