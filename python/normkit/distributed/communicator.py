"""`Communicator`: what the trainer asks of MPI, and a process alone."""

from __future__ import annotations

import itertools
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit._optional import optional
from normkit.distributed.launch import launched_ranks

__all__ = ["Communicator", "MPICommunicator", "RankError", "world"]

Array = NDArray[Any]


class RankError(RuntimeError):
    """Another rank failed, which the text names with its error."""


class Communicator:
    """One process alone; `MPICommunicator` has the same methods for several.

    All but `abort` are collective: every rank calls them, in the same order.

    Attributes
    ----------
    rank, size : int
        The number of this process, from 0, and of all.
    """

    rank = 0
    size = 1

    def __deepcopy__(self, memo: dict[int, Any]) -> Communicator:
        return self

    def gather(self, rows: Array, counts: Sequence[int]) -> Array:
        """Return the rows of all ranks in rank order; rank r has ``counts[r]`` of shape ``rows.shape[1:]``."""
        return rows

    def exchange(self, columns: Array, counts: Sequence[int], edges: Sequence[int]) -> Array:
        """Return columns ``edges[rank]`` to ``edges[rank + 1]`` of the rows of all ranks, in rank order.

        columns: (counts[rank], edges[-1]), of this rank.
        """
        return columns

    def allreduce(self, values: Array) -> None:
        """Replace values by their sum over the ranks."""

    def maximum(self, values: Array) -> None:
        """Replace values by their largest over the ranks."""

    def objects(self, item: Any) -> list[Any]:
        """Return the item of each rank, in rank order."""
        return [item]

    def broadcast(self, item: Any) -> Any:
        """Return the item of rank 0."""
        return item

    def abort(self, error: BaseException) -> None:
        """End all ranks with the traceback of an error that only this one has; alone, do nothing."""


class MPICommunicator(Communicator):
    """A communicator of mpi4py.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        It is duplicated, so that messages of others on it do not meet those of the trainer.

    Raises
    ------
    TypeError
        If it is none.
    """

    def __init__(self, comm: Any) -> None:
        mpi = _mpi4py("several processes are joined by")
        if not isinstance(comm, mpi.Intracomm):
            raise TypeError(
                f"MPICommunicator: comm must be an intracommunicator of mpi4py, such as MPI.COMM_WORLD, "
                f"got {type(comm).__name__}"
            )
        self._mpi = mpi
        self._comm = comm.Dup()
        self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()
        if self.size > 1:
            self._end_all_after_an_error()

    def gather(self, rows: Array, counts: Sequence[int]) -> Array:
        """See `Communicator.gather`."""
        result = np.empty((sum(counts), *rows.shape[1:]), rows.dtype)
        width = int(np.prod(rows.shape[1:], dtype=np.int64))
        self._comm.Allgatherv(np.ascontiguousarray(rows), [result, ([n * width for n in counts], None)])
        return result

    def exchange(self, columns: Array, counts: Sequence[int], edges: Sequence[int]) -> Array:
        """See `Communicator.exchange`."""
        widths = np.diff(edges).tolist()
        mine, rows = widths[self.rank], len(columns)
        sent = [np.ascontiguousarray(columns[:, a:b]).ravel() for a, b in itertools.pairwise(edges)]
        result = np.empty((sum(counts), mine), columns.dtype)
        self._comm.Alltoallv(
            [np.concatenate(sent), ([rows * width for width in widths], None)],
            [result, ([n * mine for n in counts], None)],
        )
        return result

    def allreduce(self, values: Array) -> None:
        """See `Communicator.allreduce`."""
        self._comm.Allreduce(self._mpi.IN_PLACE, values, self._mpi.SUM)

    def maximum(self, values: Array) -> None:
        """See `Communicator.maximum`."""
        self._comm.Allreduce(self._mpi.IN_PLACE, values, self._mpi.MAX)

    def objects(self, item: Any) -> list[Any]:
        """See `Communicator.objects`."""
        return list(self._comm.allgather(item))

    def broadcast(self, item: Any) -> Any:
        """See `Communicator.broadcast`."""
        return self._comm.bcast(item)

    def abort(self, error: BaseException) -> None:
        """See `Communicator.abort`."""
        if self.size == 1:
            return
        text = "".join(traceback.format_exception(error))
        print(f"normkit: rank {self.rank} of {self.size} failed and ends the job:\n{text}", file=sys.stderr)
        sys.stderr.flush()
        self._comm.Abort(1)

    def _end_all_after_an_error(self) -> None:
        """Let an exception that nobody catches end the job, in which the others would wait for this rank for ever."""

        def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            self.abort(error)

        sys.excepthook = hook


def world(comm: Any = None) -> Communicator:
    """Return a communicator: that given, that of the launcher's ranks, or this process alone.

    Parameters
    ----------
    comm : Communicator or mpi4py.MPI.Intracomm, optional
        Default: ``MPI.COMM_WORLD`` if a launcher has started several ranks. mpi4py is not imported otherwise.

    Raises
    ------
    ModuleNotFoundError
        If there are several ranks and no mpi4py. The text says how to install it.
    """
    if isinstance(comm, Communicator):
        return comm
    if comm is not None:
        return MPICommunicator(comm)
    size = launched_ranks()
    if size == 1:
        return Communicator()
    mpi = _mpi4py(f"a job of {size} processes is joined by")
    found = mpi.COMM_WORLD.Get_size()
    if found != size:
        raise RuntimeError(
            f"the launcher started {size} processes, and mpi4py sees {found}: mpiexec and mpi4py are of different "
            "MPIs; start with the mpiexec of the one that mpi4py uses"
        )
    return MPICommunicator(mpi.COMM_WORLD)


def _mpi4py(use: str) -> Any:
    """Return mpi4py.MPI, or raise ModuleNotFoundError that says what is missing."""
    try:
        return optional("mpi4py.MPI", use, "mpi")
    except RuntimeError as error:  # mpi4py has no MPI of its own
        raise ModuleNotFoundError(
            "mpi4py is installed and finds no MPI library: install the system's MPI, or pip install mpich"
        ) from error
