"""Batch and layer normalization for CPUs, and a mini-batch trainer on top.

The functions here work on NumPy arrays. The trainer lives in `normkit.models`, `normkit.layers`,
`normkit.optimizers`, `normkit.losses`, `normkit.metrics`, `normkit.callbacks` and `normkit.data`; importing `normkit`
does not import it, using ``normkit.layers`` does.
"""

import importlib
from typing import TYPE_CHECKING

from normkit import isa, reference
from normkit._core import __version__
from normkit.config import empty_cache, get_num_threads, set_num_threads, show_config
from normkit.moments import BatchMoments, Moments, NormGradients, ResidualGradients
from normkit.ops import (
    add_layer_norm,
    add_layer_norm_backward,
    add_rms_norm,
    add_rms_norm_backward,
    batch_moments,
    batch_norm,
    batch_norm_backward,
    group_norm,
    group_norm_backward,
    instance_norm,
    instance_norm_backward,
    layer_norm,
    layer_norm_backward,
    rms_norm,
    rms_norm_backward,
)
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
    "ResidualGradients",
    "RunningStats",
    "__version__",
    "add_layer_norm",
    "add_layer_norm_backward",
    "add_rms_norm",
    "add_rms_norm_backward",
    "batch_moments",
    "batch_norm",
    "batch_norm_backward",
    "batch_renorm",
    "batch_renorm_backward",
    "empty_cache",
    "get_num_threads",
    "ghost_batch_norm",
    "ghost_batch_norm_backward",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "isa",
    "layer_norm",
    "layer_norm_backward",
    "reference",
    "rms_norm",
    "rms_norm_backward",
    "set_num_threads",
    "show_config",
]

# The trainer under the names that `keras` has it by, so that `import normkit as keras` will do; imported when used.
_TRAINER = {
    **{
        name: (f"normkit.{name}", None)
        for name in (
            "activations",
            "callbacks",
            "data",
            "initializers",
            "interchange",
            "layers",
            "losses",
            "metrics",
            "models",
            "optimizers",
            "regularizers",
            "utils",
        )
    },
    "Sequential": ("normkit.models", "Sequential"),
    "Input": ("normkit.layers", "Input"),
}

if not TYPE_CHECKING:  # a checker would take every misspelt name for one of these

    def __getattr__(name):
        """Import what belongs to the trainer when it is first used."""
        if name not in _TRAINER:
            raise AttributeError(f"module 'normkit' has no attribute '{name}'")
        module, attribute = _TRAINER[name]
        found = importlib.import_module(module)
        return found if attribute is None else getattr(found, attribute)
