"""`fold_batch_norm`: a Dense and the BatchNormalization behind it as one Dense, for inference."""

from __future__ import annotations

import numpy as np

from normkit._numerics import default_arithmetic
from normkit.layers.batch_normalization import BatchNormalization
from normkit.layers.core import Dense

__all__ = ["fold_batch_norm"]


@default_arithmetic()
def fold_batch_norm(dense: Dense, norm: BatchNormalization) -> Dense:
    """Return one Dense that computes what `norm` makes of `dense` in inference.

    With s = gamma / sqrt(moving_variance + epsilon)::

        kernel' = kernel · s,   bias' = (bias − moving_mean) · s + beta

    computed in float64 and rounded once: the new layer differs from the two by rounding alone. The two layers
    are left as they are, and share nothing with it.

    Parameters
    ----------
    dense : Dense
        Built, without an activation: what comes between the two cannot be folded.
    norm : BatchNormalization
        Built, on the last axis, with as many channels as `dense` has units.

    Returns
    -------
    Dense
        Built, with a bias, without an activation.

    Raises
    ------
    TypeError
        If a layer is of another class.
    ValueError
        If a layer is not built, or the two do not fit together.
    """
    for layer, expected in ((dense, Dense), (norm, BatchNormalization)):
        if not isinstance(layer, expected):
            raise TypeError(f"fold_batch_norm: expected a {expected.__name__}, got {type(layer).__name__}")
        if not layer.built:
            raise ValueError(
                f"fold_batch_norm: {type(layer).__name__} '{layer.name}' has no weights yet; call it on a batch first"
            )
    if dense.activation.name != "linear":
        raise ValueError(
            f"fold_batch_norm: Dense '{dense.name}' has the activation '{dense.activation.name}', which comes "
            "between the two; fold only where the normalization follows the product"
        )
    if norm.axis % norm.input_axes != norm.input_axes - 1:
        raise ValueError(
            f"fold_batch_norm: BatchNormalization '{norm.name}' normalizes axis {norm.axis} of {norm.input_axes}, "
            "and the units of a Dense are along the last"
        )
    channels = norm.moving_mean.shape[0]
    if channels != dense.units:
        raise ValueError(
            f"fold_batch_norm: expected a BatchNormalization of {dense.units} channels, got {channels}"
        )
    gamma, beta = norm.affine()
    scale = 1.0 / np.sqrt(norm.moving_variance.value.astype(np.float64) + norm.epsilon)
    if gamma is not None:
        scale = scale * gamma
    bias = -norm.moving_mean.value.astype(np.float64)
    if dense.use_bias:
        bias = bias + dense.bias.value
    bias = bias * scale
    if beta is not None:
        bias = bias + beta
    folded = Dense(dense.units, name=dense.name, dtype=dense.dtype)
    folded.ensure_built((None, dense.kernel.shape[0]))
    folded.set_weights([dense.kernel.value * scale, bias])
    return folded
