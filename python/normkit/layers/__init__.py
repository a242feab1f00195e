"""Layers with Keras's names, arguments and defaults; each has an explicit forward and backward pass."""

from normkit.layers.base import ActivatedLayer, Layer
from normkit.layers.core import Activation, Dense, Dropout, Flatten, Input
from normkit.layers.normalization import BatchNormalization, LayerNormalization
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
]
