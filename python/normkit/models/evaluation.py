"""`Model`: a network with optimizer, loss and metrics, and what it does in inference mode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit import losses
from normkit._checks import flag, positive_integer, shown
from normkit._names import with_keyword_hints
from normkit._numerics import default_float_mode
from normkit.callbacks import Callback, CallbackList, ProgbarLogger
from normkit.callbacks.progress import check_verbose
from normkit.data.minibatches import MiniBatches
from normkit.distributed.data_parallel import Distribution
from normkit.losses import Loss
from normkit.metrics import Metric
from normkit.models.compiled import Compiled, MetricLike
from normkit.models.inputs import Data, as_batch, as_inputs, as_samples
from normkit.models.network import Network
from normkit.optimizers import Optimizer

if TYPE_CHECKING:
    from normkit.models.sequential import Sequential

__all__ = ["Callbacks", "Model", "at_most", "flattened", "given_or_default"]

Array = NDArray[Any]
Verbose = int | str
Callbacks = Callback | Iterable[Callback] | None
DEFAULT_BATCH_SIZE = 32


class Model(Network):
    """A network that can be compiled, evaluated, and asked for predictions."""

    compiled_state: Compiled | None = None

    @with_keyword_hints
    def compile(
        self,
        optimizer: str | dict[str, Any] | Optimizer = "rmsprop",
        loss: str | dict[str, Any] | Loss | None = None,
        *,
        metrics: MetricLike | Sequence[MetricLike] | None = None,
        weighted_metrics: MetricLike | Sequence[MetricLike] | None = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        merge_statistics: bool = False,
        distribution: Distribution | None = None,
    ) -> None:
        """Set optimizer, loss and metrics. The optimizer starts anew; weights stay.

        Parameters
        ----------
        optimizer, loss : str or instance
            See `normkit.optimizers` and `normkit.losses`.
        metrics, weighted_metrics : str, Metric, callable or sequence of these, optional
            See `normkit.metrics`; the second kind counts samples by their sample weights. 'accuracy' is
            the binary, categorical or sparse categorical one, by the shapes of targets and output. A function
            ``f(y_true, y_pred)`` returns one value per sample.
        run_eagerly, steps_per_execution, jit_compile, auto_scale_loss
            Taken for Keras's sake, without effect: nothing is compiled, and callbacks are told of every batch.
        merge_statistics : bool, default False
            With the optimizer's ``gradient_accumulation_steps=k``: each `BatchNormalization` leaves its moving
            statistics alone for k batches, and then takes one step with the mean and variance of all their values
            together, which are merged exactly (`normkit.BatchMoments.merged`). That step is the one which the k
            batches would have made as a single batch. Exact are the moving statistics, given the input of the
            layer: within a batch the layer still normalizes with that batch's own statistics, so gradients, and what a
            second `BatchNormalization` behind it sees, are those of the small batches. False, as in Keras: k steps.
        distribution : DataParallel, optional
            The ranks that share every batch: see `normkit.distributed.DataParallel`. Every rank then calls `fit`,
            `evaluate`, `train_on_batch` and `test_on_batch`, with the same arguments. Default: this process alone.
            A saved model does not remember it.

        Raises
        ------
        ValueError
            If a name is unknown (the message lists what there is), the optimizer or a metric is part of
            another model, or `merge_statistics` has nothing to merge.
        """
        if loss is None:
            raise ValueError("compile: loss is missing; for example loss='sparse_categorical_crossentropy'")
        if distribution is not None and not isinstance(distribution, Distribution):
            raise TypeError(f"compile: distribution must be a DataParallel, got {shown(distribution)}")
        if isinstance(optimizer, str) and optimizer.lower() in losses.registry.names:
            raise ValueError(
                f"compile: '{optimizer}' is a loss, and the optimizer comes first: compile('adam', '{optimizer}')"
            )
        self.compiled_state = Compiled(
            self,
            optimizer,
            loss,
            _listed(metrics),
            _listed(weighted_metrics),
            merge_statistics,
            distribution,
        )

    @property
    def compiled(self) -> bool:
        """Whether `compile` was called."""
        return self.compiled_state is not None

    @property
    def distribution(self) -> Distribution:
        """The ranks that share the batches; one that is not compiled is alone."""
        return Distribution() if self.compiled_state is None else self.compiled_state.distribution

    @property
    def is_first_rank(self) -> bool:
        """Whether this process prints and writes files: the first of the ranks, or one alone."""
        return self.distribution.is_first

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer of `compile`; its learning_rate may be assigned to."""
        return self.require_compiled("optimizer").optimizer

    @property
    def loss(self) -> Loss:
        """The loss of `compile`."""
        return self.require_compiled("loss").loss

    @property
    def metrics(self) -> list[Metric]:
        """The metrics of `compile`, once targets were seen."""
        return list(self.require_compiled("metrics").metrics.values())

    @property
    def metrics_names(self) -> list[str]:
        """Names of what `evaluate` returns: 'loss', then the metrics, once targets were seen."""
        return ["loss", *self.require_compiled("metrics_names").metrics]

    def metric_direction(self, name: str) -> Literal["up", "down"] | None:
        """Return which way is better for the metric of this name in the logs; None if that is not known."""
        metric = self.require_compiled("metric_direction").metrics.get(name)
        return None if metric is None else metric.direction

    def reset_metrics(self) -> None:
        """Start the means of loss and metrics anew."""
        self.require_compiled("reset_metrics").reset_metrics()

    def get_metrics_result(self) -> dict[str, float]:
        """Return loss and metrics since the last `reset_metrics`."""
        return self.require_compiled("get_metrics_result").logs()

    def require_compiled(self, what: str) -> Compiled:
        """Return what `compile` set up, or raise ValueError if it was not called before `what`."""
        if self.compiled_state is None:
            raise ValueError(f"{self.name}: call compile(optimizer, loss) before {what}")
        return self.compiled_state

    @overload
    def evaluate(
        self,
        x: Data,
        y: Data | None = ...,
        batch_size: int | None = ...,
        verbose: Verbose = ...,
        sample_weight: Data | None = ...,
        steps: int | None = ...,
        callbacks: Callbacks = ...,
        return_dict: Literal[False] = ...,
    ) -> float | list[float]: ...
    @overload
    def evaluate(
        self,
        x: Data,
        y: Data | None = ...,
        batch_size: int | None = ...,
        verbose: Verbose = ...,
        sample_weight: Data | None = ...,
        steps: int | None = ...,
        callbacks: Callbacks = ...,
        *,
        return_dict: Literal[True],
    ) -> dict[str, float]: ...
    @default_float_mode()
    @with_keyword_hints
    def evaluate(
        self,
        x: Data,
        y: Data | None = None,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        sample_weight: Data | None = None,
        steps: int | None = None,
        callbacks: Callbacks = None,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """Return loss and metrics in inference mode.

        Parameters are those of `fit`; `steps`: at most so many batches.

        Returns
        -------
        float, list of float, or dict
            The loss if there are no metrics, else [loss, metrics ...]; by name if `return_dict`.
        """
        with self.distribution.agreement():
            return_dict = flag("evaluate: return_dict", return_dict)
            samples = as_samples(self.require_compiled("evaluate"), x, y, sample_weight)
            batches = samples.batches(given_or_default(batch_size), shuffle=False)
            count = at_most("evaluate: steps", steps, batches.length)
        with self.distribution.guard(), self._listeners(verbose, callbacks, count) as listeners:
            return flattened(self.run_test(batches, listeners, count), return_dict)

    @default_float_mode()
    @with_keyword_hints
    def predict(
        self,
        x: Data,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        steps: int | None = None,
        callbacks: Callbacks = None,
    ) -> Array:
        """Return the outputs in inference mode, shape (samples, ...). The model need not be compiled.

        Parameters are those of `evaluate`. Data that have targets too are taken without them; mini-batches must not be
        shuffled.
        """
        batches = as_inputs(x).batches(given_or_default(batch_size), shuffle=False)
        shape = self.shape_for((batches.num_samples, *batches.empty[0].shape[1:]))
        count = at_most("predict: steps", steps, batches.length)
        outputs = [np.empty((0, *(n for n in shape[1:] if n is not None)), self.layers[-1].dtype)]
        with self._listeners(verbose, callbacks, count) as listeners:
            listeners.on_predict_begin()
            for index, (batch,) in enumerate(islice(batches, count)):
                listeners.on_predict_batch_begin(index)
                outputs.append(self.predict_on_batch(batch))
                listeners.on_predict_batch_end(index, {"outputs": outputs[-1]})
            listeners.on_predict_end()
        return np.concatenate(outputs)

    def _listeners(self, verbose: Verbose, callbacks: Callbacks, steps: int | None) -> CallbackList:
        check_verbose(verbose)
        model = cast("Sequential", self)
        return CallbackList(
            callbacks,
            add_progbar=ProgbarLogger.style(verbose) is not None,
            model=model,
            verbose=verbose,
            epochs=1,
            steps=steps,
        )

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
    @default_float_mode()
    @with_keyword_hints
    def test_on_batch(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """Return loss and metrics of this batch in inference mode, as `evaluate` does."""
        compiled = self.require_compiled("test_on_batch")
        with self.distribution.agreement():
            return_dict = flag("test_on_batch: return_dict", return_dict)
            samples = as_batch(compiled, x, y, sample_weight)
        with self.distribution.guard():
            compiled.reset_metrics()
            for batch in self.distribution.together([samples.arrays]):
                compiled.test_step(*batch)
            return flattened(compiled.logs(), return_dict)

    @default_float_mode()
    @with_keyword_hints
    def predict_on_batch(self, x: ArrayLike) -> Array:
        """Return the outputs for this batch in inference mode, an array of its own."""
        outputs = self(x, training=False)
        return outputs.copy() if isinstance(x, np.ndarray) and np.may_share_memory(outputs, x) else outputs

    def run_test(
        self, batches: MiniBatches, listeners: CallbackList, steps: int | None = None
    ) -> dict[str, float]:
        """Return loss and metrics over batches of checked samples, at most `steps`."""
        compiled = self.require_compiled("evaluate")
        compiled.reset_metrics()
        listeners.on_test_begin()
        wants_logs = compiled.distribution.any(listeners.listens("on_test_batch_end"))
        for index, batch in enumerate(compiled.distribution.together(islice(batches, steps))):
            listeners.on_test_batch_begin(index)
            compiled.test_step(*batch)
            if wants_logs:
                listeners.on_test_batch_end(index, compiled.logs())
        logs = compiled.logs()
        listeners.on_test_end(logs)
        return logs


def _listed(given: MetricLike | Sequence[MetricLike] | None) -> Sequence[MetricLike]:
    if given is None:
        return []
    if isinstance(given, (str, dict, Metric)) or callable(given):
        return [given]
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"compile: metrics must be a list, such as ['accuracy'], got {shown(given)}")
    return list(given)


def given_or_default(batch_size: int | None, default: int = DEFAULT_BATCH_SIZE) -> int:
    """Return the batch size that was given, if one was."""
    return default if batch_size is None else batch_size


def at_most(what: str, steps: int | None, there_are: int | None) -> int | None:
    """Return the number of batches to take: as many as were asked for, or all, None if that is not known."""
    if steps is None:
        return there_are
    return min(positive_integer(what, steps), there_are or steps)


def flattened(logs: dict[str, float], return_dict: bool) -> float | list[float] | dict[str, float]:
    """Return the logs as `evaluate` does."""
    if return_dict:
        return logs
    return logs["loss"] if len(logs) == 1 else list(logs.values())
