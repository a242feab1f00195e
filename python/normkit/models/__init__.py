"""Models: `Sequential`, and the file format they are saved in."""

from normkit.models.saving import load_model, save_model
from normkit.models.sequential import Sequential

__all__ = ["Sequential", "load_model", "save_model"]
