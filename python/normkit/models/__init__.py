"""Models: `Sequential`, and the file format they are saved in."""

from normkit.models.saving import load_model, load_weights, save_model, save_weights
from normkit.models.sequential import Sequential

__all__ = ["Sequential", "load_model", "load_weights", "save_model", "save_weights"]
