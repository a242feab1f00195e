"""When a fit ends, and what scikit-learn's own callbacks hear of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

from normkit.callbacks import Callback
from normkit.callbacks.base import Logs

if TYPE_CHECKING:
    from normkit.sklearn.base import MLP

try:  # scikit-learn 1.9
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands where this scikit-learn has no callbacks."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method as it is."""
        return method


__all__ = ["CallbackSupportMixin", "Data", "Progress", "with_callbacks"]

# Samples, targets and weights as the network takes them.
Data = tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]


class Progress(Callback):
    """Ends a fit when the loss falls no more, or with held-out data their score rises no more, as in scikit-learn.

    With held-out data the network gets the weights back that had the best score. Each epoch is a task of scikit-learn's
    callbacks, which may end the fit as well.

    Attributes
    ----------
    stopped : bool
        Whether it has ended the fit, or a callback has.
    """

    def __init__(
        self,
        estimator: MLP,
        held_out: Data | None,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
    ) -> None:
        self.stopped = False
        self._estimator = estimator
        self._held_out = held_out
        self._best = -math.inf
        self._best_weights: list[NDArray[Any]] = []
        self._without_gain = 0
        self._metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
        self._data = {"X": X, "y": y}
        self._root: Any = None
        self._task: Any = None
        if hasattr(estimator, "_init_callback_context"):
            self._root = estimator._init_callback_context(max_subtasks=estimator.max_iter)
            self._root.call_on_fit_task_begin(**self._told())

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Begin a task."""
        if self._root is not None:
            self._task = self._root.subcontext(task_name="epoch")
            self._task.call_on_fit_task_begin(**self._told())

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Look whether there is still a gain, and end the task."""
        gained = self._gain()
        self._without_gain = 0 if gained else self._without_gain + 1
        if self._without_gain > self._estimator.n_iter_no_change:
            self._stop()
        if self._task is not None and self._task.call_on_fit_task_end(
            **self._told(), reconstruction_attributes=self._copy
        ):
            self._stop()

    def finish(self) -> None:
        """Put the best weights back, and tell of the end."""
        if self._best_weights:
            self._estimator.model_.set_weights(self._best_weights)
        if self._root is not None:
            self._root.call_on_fit_task_end(**self._told(), reconstruction_attributes=dict)

    def _gain(self) -> bool:
        """Whether this epoch was better than the best one by more than `tol`; keep what is best."""
        estimator = self._estimator
        if self._held_out is None:
            value = -estimator.loss_
        else:
            value = estimator._score_of(*self._held_out)
            estimator.validation_scores_.append(value)
        gained = value > self._best + estimator.tol
        if value > self._best:
            self._best = value
            if self._held_out is None:
                estimator.best_loss_ = -value
            else:
                estimator.best_validation_score_ = value
                self._best_weights = self.model.get_weights()
        return gained

    def _stop(self) -> None:
        self.stopped = self.model.stop_training = True

    def _told(self) -> dict[str, Any]:
        return {"estimator": self._estimator, "metadata": self._metadata, **self._data}

    def _copy(self) -> dict[str, Any]:
        """Return what makes a copy of the estimator one that was fitted up to here."""
        return {"model_": copy.deepcopy(self._estimator.model_)}
