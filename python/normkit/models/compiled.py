"""`Compiled`: optimizer, loss and metrics of a model, and the steps they take together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit import losses, metrics, optimizers
from normkit.layers.base import ActivatedLayer, Shape
from normkit.layers.batch_normalization import BatchNormalization
from normkit.layers.variable import Variable
from normkit.losses import Loss
from normkit.metrics import Average, Metric
from normkit.models.flat import FlatVariables
from normkit.models.network import Network
from normkit.optimizers import Optimizer
from normkit.regularizers import Regularizer

__all__ = ["Compiled", "MetricLike"]

Array = NDArray[Any]
MetricLike = str | dict[str, Any] | Metric | Callable[..., Any]


class Compiled:
    """What `Sequential.compile` sets up.

    Parameters
    ----------
    network : Network
        What is trained.
    optimizer, loss
        By name, configuration or instance. The optimizer starts anew.
    unweighted, weighted : sequence
        Metrics by name, configuration, function or instance, the second kind with sample weights.
    merge_statistics : bool
        Let a `BatchNormalization` take one step with the statistics of all batches whose gradients are accumulated.
    """

    def __init__(
        self,
        network: Network,
        optimizer: str | dict[str, Any] | Optimizer,
        loss: str | dict[str, Any] | Loss,
        unweighted: Sequence[MetricLike],
        weighted: Sequence[MetricLike],
        merge_statistics: bool = False,
    ) -> None:
        self.network = network
        self.optimizer = optimizers.get(optimizer)
        self.loss = losses.get(loss)
        self.merge_statistics = merge_statistics
        if merge_statistics and self.optimizer.gradient_accumulation_steps is None:
            raise ValueError(
                "compile: merge_statistics merges the batches of one step, so the optimizer needs "
                "gradient_accumulation_steps of 2 or more, and has none"
            )
        self._wanted = [(_as_metric(m), False) for m in unweighted]
        self._wanted += [(_as_metric(m), True) for m in weighted]
        for identifier, _ in self._wanted:
            if not metrics.is_accuracy(identifier) and metrics.get(identifier).name == "loss":
                raise ValueError(
                    "compile: a metric cannot have the name 'loss', which the loss has in the logs"
                )
        self.claim_state()
        self._metrics: dict[str, tuple[Metric, bool]] = {}
        self._checked: tuple[tuple[int, ...], Shape] | None = None
        self._loss_mean = Average()
        self.flat: FlatVariables | None = None

    def prepare_metrics(self, y: Array, output_shape: Shape) -> None:
        """Resolve the metrics for targets like y, once, and try them on one sample.

        Raises
        ------
        ValueError
            If a metric cannot compare y with an output of this shape.
        """
        checked = y.shape[1:], output_shape
        if checked == self._checked:
            return
        metrics_by_name = self._metrics or self._resolved(y, output_shape)
        predictions = np.zeros(
            (1, *(n for n in output_shape[1:] if n is not None)), self.network.layers[-1].dtype
        )
        for metric, _ in metrics_by_name.values():
            metric.check(y[:1], predictions)
        self._metrics, self._checked = metrics_by_name, checked

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics by their names in the logs, once targets were seen."""
        return {name: metric for name, (metric, _) in self._metrics.items()}

    def metrics_state(self) -> dict[str, Any]:
        """Return what loss and metrics have counted."""
        loss = {"total": self._loss_mean.total, "count": self._loss_mean.count}
        return {"loss": loss, **{name: metric.get_state() for name, metric in self.metrics.items()}}

    def set_metrics_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `metrics_state` returned."""
        self._loss_mean.total, self._loss_mean.count = state["loss"]["total"], state["loss"]["count"]
        for name, metric in self.metrics.items():
            metric.set_state(state[name])

    def reset_metrics(self) -> None:
        """Start the means of loss and metrics anew."""
        self._loss_mean.reset()
        for metric, _ in self._metrics.values():
            metric.reset_state()

    def prepare_training(self) -> FlatVariables:
        """Lay out the trainable weights for the optimizer, once; the network must be built.

        Raises
        ------
        ValueError
            If a layer was frozen or unfrozen since, or another model has taken the optimizer or a metric.
        """
        self.claim_state()
        for layer in self._batch_norms():
            if self.merge_statistics and (layer.ghost_size is not None or layer.renorm is not None):
                raise layer.fail(
                    "its ghost_size or renorm needs the statistics of each batch; compile() without merge_statistics"
                )
        for layer in self._batch_norms():
            layer.holds_statistics = self.merge_statistics
        variables = self.network.trainable_weights
        if self.flat is None:
            return self.lay_out(variables)
        if [id(v) for v in variables] != [id(v) for v in self.flat.variables]:
            raise ValueError(
                f"{self.network.name}: `trainable` of a layer, or the layers, changed since compile(); "
                "call compile() again"
            )
        self.flat.take()
        return self.flat

    def _batch_norms(self) -> list[BatchNormalization]:
        return [layer for layer in self.network.layers if isinstance(layer, BatchNormalization)]

    def lay_out(self, variables: Sequence[Variable]) -> FlatVariables:
        """Start the optimizer on these weights."""
        self.flat = FlatVariables(variables)
        self.optimizer.build(self.flat.arrays, self.flat.sizes)
        return self.flat

    def claim_state(self) -> None:
        """Make sure that no other model works with this optimizer or these metrics; ValueError if one does."""
        owned = [self.optimizer, *(m for m, _ in self._wanted if isinstance(m, Metric))]
        if len({id(one) for one in owned}) < len(owned):
            raise ValueError("compile: the same metric instance is given twice; make two")
        for one in owned:
            one.claim(self)

    def _resolved(self, y: Array, output_shape: Shape) -> dict[str, tuple[Metric, bool]]:
        resolved: dict[str, tuple[Metric, bool]] = {}
        for identifier, weighted in self._wanted:
            if metrics.is_accuracy(identifier):
                metric = metrics.resolve_accuracy(str(identifier), y.shape, output_shape)
            else:
                metric = metrics.get(identifier)
            name = metric.name
            if name in resolved:
                name = f"weighted_{name}" if weighted else f"{name}_{len(resolved)}"
            resolved[name] = metric, weighted
        return resolved

    def _fused(self) -> bool:
        """Whether the loss takes the logits of the last layer instead of its output."""
        last = self.network.layers[-1]
        return (
            isinstance(last, ActivatedLayer)
            and last.activation.name == self.loss.fuses
            and not getattr(self.loss, "from_logits", False)
        )

    def train_step(self, x: Array, y: Array, weight: Array | None = None) -> None:
        """One step on a batch: forward, backward, update. `prepare_training` comes before the first."""
        value, predictions, gradient, from_logits = self._pass(x, y, weight, training=True)
        assert self.flat is not None
        regularized = _regularized(self.flat.variables)
        value += _penalty(regularized)
        self.network.backward(gradient, from_logits)
        for variable, regularizer in regularized:
            variable.grad += regularizer.gradient(variable.value)
        if self.optimizer.step() and self.merge_statistics:
            for layer in self._batch_norms():
                layer.release_statistics()
        self._record(value, y, predictions, weight)

    def test_step(self, x: Array, y: Array, weight: Array | None = None) -> None:
        """Loss and metrics of a batch in inference mode."""
        value, predictions, _, _ = self._pass(x, y, weight, training=False)
        self._record(value + _penalty(_regularized(self.network.trainable_weights)), y, predictions, weight)

    def _pass(
        self, x: Array, y: Array, weight: Array | None, training: bool
    ) -> tuple[float, Array, Array, bool]:
        """Return loss, predictions, the gradient, and whether that is one of the logits."""
        network = self.network
        x = np.ascontiguousarray(x, network.layers[0].dtype)
        if self._fused():
            logits = network.forward_to_logits(x, training)
            value, gradient, predictions = self.loss.from_logits_step(y, logits, weight)
            return value, predictions, gradient, True
        predictions = network.forward(x, training)
        value, gradient = self.loss.mean_and_gradient(y, predictions, weight)
        return value, predictions, gradient, False

    def _record(self, value: float, y: Array, predictions: Array, weight: Array | None) -> None:
        self._loss_mean.add(value, len(y))
        for metric, weighted in self._metrics.values():
            metric.update_state(y, predictions, weight if weighted else None)

    def logs(self) -> dict[str, float]:
        """Return loss and metrics since `reset_metrics`."""
        return {
            "loss": self._loss_mean.result(),
            **{name: metric.result() for name, (metric, _) in self._metrics.items()},
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of `Sequential.compile` that set this up again."""

        def serialized(weighted: bool) -> list[Any]:
            return [
                metric if isinstance(metric, (str, dict)) else metrics.registry.serialize(metric)
                for metric, w in self._wanted
                if w is weighted
            ]

        return {
            "optimizer": optimizers.registry.serialize(self.optimizer),
            "loss": losses.registry.serialize(self.loss),
            "metrics": serialized(False),
            "weighted_metrics": serialized(True),
            "merge_statistics": self.merge_statistics,
        }


def _regularized(variables: Iterable[Variable]) -> list[tuple[Variable, Regularizer]]:
    """Those that have a penalty."""
    return [(v, v.regularizer) for v in variables if v.regularizer is not None]


def _penalty(regularized: Sequence[tuple[Variable, Regularizer]]) -> float:
    return sum(regularizer(variable.value) for variable, regularizer in regularized)


def _as_metric(identifier: MetricLike) -> str | dict[str, Any] | Metric:
    return identifier if isinstance(identifier, (str, dict, Metric)) else metrics.get(identifier)
