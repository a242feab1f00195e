"""Measurements against other libraries: ``python -m bench``."""
