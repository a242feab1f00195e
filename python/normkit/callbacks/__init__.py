"""Callbacks: what is told about training while it goes on, with Keras's hook names."""

from normkit.callbacks.base import Callback, CallbackList, History, ProgressBar, progress

__all__ = ["Callback", "CallbackList", "History", "ProgressBar", "progress"]
