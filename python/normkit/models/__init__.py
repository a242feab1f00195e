"""Models: `Sequential`, the file format they are saved in, and which learning rate to train them with."""

from normkit._names import show_public_names
from normkit.models.finder import LearningRateNotFound, LearningRates, find_learning_rate
from normkit.models.saving import load_model, load_weights, save_model, save_weights
from normkit.models.sequential import Sequential

__all__ = [
    "LearningRateNotFound",
    "LearningRates",
    "Sequential",
    "find_learning_rate",
    "load_model",
    "load_weights",
    "save_model",
    "save_weights",
]

show_public_names(__name__)
