"""Layers with Keras's names, arguments and defaults; each has an explicit forward and backward pass."""

from normkit._names import show_public_names
from normkit.layers.activations import ELU, Activation, LeakyReLU, ReLU, Softmax
from normkit.layers.base import ActivatedLayer, Layer
from normkit.layers.batch_normalization import BatchNormalization
from normkit.layers.core import Dense, Input
from normkit.layers.folding import fold_batch_norm
from normkit.layers.group_normalization import GroupNormalization, InstanceNormalization
from normkit.layers.normalization import LayerNormalization, RMSNormalization
from normkit.layers.regularization import Dropout, GaussianNoise
from normkit.layers.shapes import Flatten, Rescaling, Reshape
from normkit.layers.variable import Variable

__all__ = [
    "ELU",
    "ActivatedLayer",
    "Activation",
    "BatchNormalization",
    "Dense",
    "Dropout",
    "Flatten",
    "GaussianNoise",
    "GroupNormalization",
    "Input",
    "InstanceNormalization",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "RMSNormalization",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Softmax",
    "Variable",
    "fold_batch_norm",
]

show_public_names(__name__)
