"""Data for training: mini-batches of arrays, and labelled data from files."""

from normkit.data.files import load, load_digits
from normkit.data.minibatches import MiniBatches

__all__ = ["MiniBatches", "load", "load_digits"]
