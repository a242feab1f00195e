"""`Model`: a network with optimizer, loss and metrics, and what it does in inference mode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit.callbacks import Callback, CallbackList, progress
from normkit.data.minibatches import MiniBatches
from normkit.losses import Loss
from normkit.metrics import Metric
from normkit.models.compiled import Compiled, MetricLike
from normkit.models.inputs import as_features, as_samples
from normkit.models.network import Network
from normkit.optimizers import Optimizer

if TYPE_CHECKING:
    from normkit.models.sequential import Sequential

__all__ = ["Model", "flattened", "given_or_default"]

Array = NDArray[Any]
Verbose = int | str
DEFAULT_BATCH_SIZE = 32


class Model(Network):
    """A network that can be compiled, evaluated, and asked for predictions."""

    compiled_state: Compiled | None = None

    def compile(
        self,
        optimizer: str | dict[str, Any] | Optimizer = "rmsprop",
        loss: str | dict[str, Any] | Loss | None = None,
        *,
        metrics: MetricLike | Sequence[MetricLike] | None = None,
        weighted_metrics: MetricLike | Sequence[MetricLike] | None = None,
    ) -> None:
        """Set optimizer, loss and metrics. The optimizer starts anew; weights stay.

        Parameters
        ----------
        optimizer, loss : str or instance
            See `normkit.optimizers` and `normkit.losses`.
        metrics, weighted_metrics : str, Metric or sequence of these, optional
            See `normkit.metrics`; the second kind counts samples by their sample weights. 'accuracy' is
            the binary, categorical or sparse categorical one, by the shapes of targets and output.

        Raises
        ------
        ValueError
            If a name is unknown (the message lists what there is), or the optimizer or a metric is part of
            another model.
        """
        if loss is None:
            raise ValueError("compile: loss is missing; for example loss='sparse_categorical_crossentropy'")
        self.compiled_state = Compiled(self, optimizer, loss, _listed(metrics), _listed(weighted_metrics))

    @property
    def compiled(self) -> bool:
        """Whether `compile` was called."""
        return self.compiled_state is not None

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer of `compile`; its learning_rate may be assigned to."""
        return self.require_compiled("optimizer").optimizer

    @property
    def loss(self) -> Loss:
        """The loss of `compile`."""
        return self.require_compiled("loss").loss

    def require_compiled(self, what: str) -> Compiled:
        """Return what `compile` set up, or raise ValueError if it was not called before `what`."""
        if self.compiled_state is None:
            raise ValueError(f"{self.name}: call compile(optimizer, loss) before {what}")
        return self.compiled_state

    @overload
    def evaluate(
        self,
        x: ArrayLike,
        y: ArrayLike | None = ...,
        batch_size: int | None = ...,
        verbose: Verbose = ...,
        sample_weight: ArrayLike | None = ...,
        *,
        callbacks: Iterable[Callback] | None = ...,
        return_dict: Literal[False] = ...,
    ) -> float | list[float]: ...
    @overload
    def evaluate(
        self,
        x: ArrayLike,
        y: ArrayLike | None = ...,
        batch_size: int | None = ...,
        verbose: Verbose = ...,
        sample_weight: ArrayLike | None = ...,
        *,
        callbacks: Iterable[Callback] | None = ...,
        return_dict: Literal[True],
    ) -> dict[str, float]: ...
    def evaluate(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        sample_weight: ArrayLike | None = None,
        *,
        callbacks: Iterable[Callback] | None = None,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """Return loss and metrics in inference mode.

        Parameters are those of `fit`.

        Returns
        -------
        float, list of float, or dict
            The loss if there are no metrics, else [loss, metrics ...]; by name if `return_dict`.
        """
        samples = as_samples(self.require_compiled("evaluate"), x, y, sample_weight)
        batches = MiniBatches(*samples.arrays, batch_size=given_or_default(batch_size), shuffle=False)
        with self._listeners(verbose, callbacks, len(batches)) as listeners:
            return flattened(self.run_test(batches, listeners), return_dict)

    def predict(
        self,
        x: ArrayLike,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        *,
        callbacks: Iterable[Callback] | None = None,
    ) -> Array:
        """Return the outputs in inference mode, shape (samples, ...). The model need not be compiled."""
        features = as_features(x)
        shape = self.shape_for(features.shape)
        batches = MiniBatches(features, batch_size=given_or_default(batch_size), shuffle=False)
        outputs = np.empty((len(features), *(n for n in shape[1:] if n is not None)), self.layers[-1].dtype)
        start = 0
        with self._listeners(verbose, callbacks, len(batches)) as listeners:
            listeners.call("on_predict_begin")
            for index, (batch,) in enumerate(batches):
                listeners.call("on_predict_batch_begin", index)
                outputs[start : start + len(batch)] = self.predict_on_batch(batch)
                start += len(batch)
                listeners.call("on_predict_batch_end", index)
            listeners.call("on_predict_end")
        return outputs

    def _listeners(self, verbose: Verbose, callbacks: Iterable[Callback] | None, steps: int) -> CallbackList:
        params = {"verbose": verbose, "epochs": 0, "steps": steps}
        return CallbackList([*progress(verbose), *(callbacks or ())], cast("Sequential", self), params)

    @overload
    def test_on_batch(
        self,
        x: ArrayLike,
        y: ArrayLike | None = ...,
        sample_weight: ArrayLike | None = ...,
        return_dict: Literal[False] = ...,
    ) -> float | list[float]: ...
    @overload
    def test_on_batch(
        self,
        x: ArrayLike,
        y: ArrayLike | None = ...,
        sample_weight: ArrayLike | None = ...,
        *,
        return_dict: Literal[True],
    ) -> dict[str, float]: ...
    def test_on_batch(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """Return loss and metrics of this batch in inference mode, as `evaluate` does."""
        compiled = self.require_compiled("test_on_batch")
        samples = as_samples(compiled, x, y, sample_weight)
        compiled.reset_metrics()
        compiled.test_step(*samples)
        return flattened(compiled.logs(), return_dict)

    def predict_on_batch(self, x: ArrayLike) -> Array:
        """Return the outputs for this batch in inference mode, an array of its own."""
        outputs = self(x, training=False)
        return outputs.copy() if isinstance(x, np.ndarray) and np.may_share_memory(outputs, x) else outputs

    def run_test(self, batches: MiniBatches, listeners: CallbackList) -> dict[str, float]:
        """Return loss and metrics over batches of checked samples."""
        compiled = self.require_compiled("evaluate")
        compiled.reset_metrics()
        listeners.call("on_test_begin")
        for index, batch in enumerate(batches):
            listeners.call("on_test_batch_begin", index)
            compiled.test_step(*batch)
            if listeners.listens("on_test_batch_end"):
                listeners.call("on_test_batch_end", index, compiled.logs())
        logs = compiled.logs()
        listeners.call("on_test_end", logs)
        return logs


def _listed(given: MetricLike | Sequence[MetricLike] | None) -> Sequence[MetricLike]:
    return [given] if isinstance(given, (str, dict, Metric)) else list(given or ())


def given_or_default(batch_size: int | None, default: int = DEFAULT_BATCH_SIZE) -> int:
    """Return the batch size that was given, if one was."""
    return default if batch_size is None else batch_size


def flattened(logs: dict[str, float], return_dict: bool) -> float | list[float] | dict[str, float]:
    """Return the logs as `evaluate` does."""
    if return_dict:
        return logs
    return logs["loss"] if len(logs) == 1 else list(logs.values())
