"""Batch and layer normalization for CPUs, and a mini-batch trainer on top.

The functions here work on NumPy arrays. The trainer lives in `normkit.models`, `normkit.layers`,
`normkit.optimizers`, `normkit.losses`, `normkit.metrics`, `normkit.callbacks` and `normkit.data`; importing `normkit`
does not import it, using ``normkit.layers`` does, and so does ``from normkit import *``.
"""

import typing as _typing

from normkit import isa, reference
from normkit._core import __version__
from normkit._names import show_public_names as _show_public_names
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

if _typing.TYPE_CHECKING:  # otherwise when they are used: see `_LAZY`
    from normkit import (
        activations,
        callbacks,
        data,
        distributed,
        initializers,
        interchange,
        layers,
        losses,
        metrics,
        models,
        optimizers,
        regularizers,
        utils,
    )
    from normkit.layers import Input
    from normkit.models import Sequential

__all__ = [
    "BatchMoments",
    "Input",
    "Moments",
    "NormGradients",
    "RenormMoments",
    "RenormSchedule",
    "ResidualGradients",
    "RunningStats",
    "Sequential",
    "__version__",
    "activations",
    "add_layer_norm",
    "add_layer_norm_backward",
    "add_rms_norm",
    "add_rms_norm_backward",
    "batch_moments",
    "batch_norm",
    "batch_norm_backward",
    "batch_renorm",
    "batch_renorm_backward",
    "callbacks",
    "data",
    "distributed",
    "empty_cache",
    "get_num_threads",
    "ghost_batch_norm",
    "ghost_batch_norm_backward",
    "group_norm",
    "group_norm_backward",
    "initializers",
    "instance_norm",
    "instance_norm_backward",
    "interchange",
    "isa",
    "layer_norm",
    "layer_norm_backward",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "reference",
    "regularizers",
    "rms_norm",
    "rms_norm_backward",
    "set_num_threads",
    "show_config",
    "utils",
]

# What `import normkit` leaves out, to be imported when it is used: the trainer, under the names that `keras` has it by.
_LAZY = {name: f"normkit.{name}" for name in __all__ if name not in globals()}
_LAZY |= {"Input": "normkit.layers", "Sequential": "normkit.models"}

_show_public_names(__name__, _LAZY)
for _module in ("config", "isa", "moments", "ops", "reference", "small_batches", "stats"):
    _show_public_names(f"{__name__}.{_module}")
