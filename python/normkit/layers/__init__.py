"""Layers with Keras's names, arguments and defaults; each has an explicit forward and backward pass."""

from normkit.layers.base import ActivatedLayer, Layer
from normkit.layers.batch_normalization import BatchNormalization
from normkit.layers.core import Activation, Dense, Dropout, Flatten, Input
from normkit.layers.folding import fold_batch_norm
from normkit.layers.normalization import LayerNormalization
from normkit.layers.variable import Variable

__all__ = [
    "ActivatedLayer",
    "Activation",
    "BatchNormalization",
    "Dense",
    "Dropout",
    "Flatten",
    "Input",
    "Layer",
    "LayerNormalization",
    "Variable",
    "fold_batch_norm",
]
