"""How many processes a launcher has started, as its environment variables say; nothing is imported for it."""

from __future__ import annotations

import os

__all__ = ["launched_ranks"]

# MPICH, Intel MPI and `srun --mpi=pmi2`; Open MPI; MVAPICH.
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def launched_ranks() -> int:
    """Return the number of ranks of this job: 1 without a launcher, or with one that does not tell."""
    for name in SIZES:
        size = os.environ.get(name, "")
        if size.isdecimal():
            return max(1, int(size))
    return 1
