"""Data-parallel training on the ranks of MPI, with synchronized batch norm: see docs/distributed.md.

mpi4py is imported only if a launcher has started several ranks, or a communicator of it is given.
"""

from normkit._names import show_public_names
from normkit.distributed.batch_norm import sync_batch_norm, sync_batch_norm_backward
from normkit.distributed.communicator import Communicator, MPICommunicator, RankError
from normkit.distributed.data_parallel import DataParallel
from normkit.distributed.launch import launched_ranks

__all__ = [
    "Communicator",
    "DataParallel",
    "MPICommunicator",
    "RankError",
    "launched_ranks",
    "sync_batch_norm",
    "sync_batch_norm_backward",
]

show_public_names(__name__)
