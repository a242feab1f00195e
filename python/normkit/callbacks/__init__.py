"""Callbacks: what is told about training while it goes on, with Keras's names and hooks."""

from normkit._names import show_public_names
from normkit.callbacks.base import Callback, CallbackList
from normkit.callbacks.checkpoint import BackupAndRestore, ModelCheckpoint
from normkit.callbacks.history import History
from normkit.callbacks.lambda_callback import LambdaCallback
from normkit.callbacks.learning_rate import LearningRateScheduler, ReduceLROnPlateau
from normkit.callbacks.loggers import CSVLogger, JSONLinesLogger
from normkit.callbacks.monitor import MonitorCallback
from normkit.callbacks.progress import ProgbarLogger
from normkit.callbacks.stopping import EarlyStopping, TerminateOnNaN
from normkit.callbacks.tensorboard import TensorBoard

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "JSONLinesLogger",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "MonitorCallback",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
]

show_public_names(__name__)
