"""The operations on NumPy arrays: batch and layer normalization and their relatives, forward and backward.

Checks, memory and arithmetic are in the compiled `_core`; these files give them names, defaults and documentation.
"""

from normkit.ops.batch import batch_moments, batch_norm, batch_norm_backward
from normkit.ops.groups import (
    group_norm,
    group_norm_backward,
    instance_norm,
    instance_norm_backward,
)
from normkit.ops.residual import (
    add_layer_norm,
    add_layer_norm_backward,
    add_rms_norm,
    add_rms_norm_backward,
)
from normkit.ops.rows import layer_norm, layer_norm_backward, rms_norm, rms_norm_backward

__all__ = [
    "add_layer_norm",
    "add_layer_norm_backward",
    "add_rms_norm",
    "add_rms_norm_backward",
    "batch_moments",
    "batch_norm",
    "batch_norm_backward",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
]
