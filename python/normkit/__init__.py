"""Batch and layer normalization for CPUs, and a mini-batch trainer on top.

The functions here work on NumPy arrays. The trainer lives in `normkit.models`, `normkit.layers`,
`normkit.optimizers`, `normkit.losses`, `normkit.metrics` and `normkit.data`; importing `normkit`
does not import it.
"""

from normkit import isa, reference
from normkit._core import __version__
from normkit.config import empty_cache, get_num_threads, set_num_threads, show_config
from normkit.moments import BatchMoments, Moments, NormGradients
from normkit.ops import batch_moments, batch_norm, batch_norm_backward, layer_norm, layer_norm_backward
from normkit.small_batches import (
    RenormMoments,
    RenormSchedule,
    batch_renorm,
    batch_renorm_backward,
    ghost_batch_norm,
    ghost_batch_norm_backward,
)
from normkit.stats import RunningStats

__all__ = [
    "BatchMoments",
    "Moments",
    "NormGradients",
    "RenormMoments",
    "RenormSchedule",
    "RunningStats",
    "__version__",
    "batch_moments",
    "batch_norm",
    "batch_norm_backward",
    "batch_renorm",
    "batch_renorm_backward",
    "empty_cache",
    "get_num_threads",
    "ghost_batch_norm",
    "ghost_batch_norm_backward",
    "isa",
    "layer_norm",
    "layer_norm_backward",
    "reference",
    "set_num_threads",
    "show_config",
]
