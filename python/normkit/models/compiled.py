"""`Compiled`: optimizer, loss and metrics of a model, and the steps they take together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from normkit import losses, metrics, optimizers
from normkit._checks import flag
from normkit.distributed.data_parallel import Distribution
from normkit.layers.base import ActivatedLayer, Shape
from normkit.layers.batch_normalization import BatchNormalization
from normkit.layers.variable import Variable
from normkit.losses import Loss
from normkit.losses.regression import RegressionLoss
from normkit.metrics import Average, BinaryAccuracy, CategoricalAccuracy, Metric
from normkit.models.flat import FlatVariables
from normkit.models.network import Network
from normkit.models.nonfinite import Watch
from normkit.optimizers import Optimizer
from normkit.regularizers import Regularizer

if TYPE_CHECKING:
    from normkit.distributed.steps import PartedSteps

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
    distribution : Distribution, optional
        The ranks that share the batches; default: this process alone.
    """

    def __init__(
        self,
        network: Network,
        optimizer: str | dict[str, Any] | Optimizer,
        loss: str | dict[str, Any] | Loss,
        unweighted: Sequence[MetricLike],
        weighted: Sequence[MetricLike],
        merge_statistics: bool = False,
        distribution: Distribution | None = None,
    ) -> None:
        self.network = network
        self.optimizer = optimizers.get(optimizer)
        self.loss = losses.get(loss)
        self.merge_statistics = flag("compile: merge_statistics", merge_statistics)
        if self.merge_statistics and self.optimizer.gradient_accumulation_steps is None:
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
        self.watch = Watch()
        self.distribution = Distribution() if distribution is None else distribution
        self._parted: PartedSteps | None = None
        if self.distribution.chunks is not None:
            from normkit.distributed.steps import PartedSteps

            self._parted = PartedSteps(self, self.distribution.chunks)

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
        last = self.network.layers[-1]
        if output_shape[-1] == 1 and isinstance(last, ActivatedLayer) and "softmax" in last.activation.name:
            warnings.warn(
                f"{type(last).__name__} '{last.name}': softmax of a single unit is always 1; use 'sigmoid', or a unit "
                "for each class",
                stacklevel=2,
            )
        metrics_by_name = self._metrics or self._resolved(y, output_shape)
        predictions = np.zeros(
            (1, *(n for n in output_shape[1:] if n is not None)), self.network.layers[-1].dtype
        )
        for metric, _ in metrics_by_name.values():
            metric.check(y[:1], predictions)
            if self._parted is not None:
                metric.check_merging()
        self._metrics, self._checked = metrics_by_name, checked

    def check_classes(self, y: Array, output_shape: Shape) -> None:
        """See that an accuracy can be told of these targets, as the loss uses them.

        Raises
        ------
        ValueError
            If they are the numbers of a regression, for which an accuracy means nothing. With a loss of probabilities
            it is a warning.
        """
        counted = [
            m for m, _ in self._metrics.values() if isinstance(m, BinaryAccuracy | CategoricalAccuracy)
        ]
        if not counted or y.dtype.kind != "f":
            return
        if output_shape[-1] == 1:
            wrong = (y != 0) & (y != 1)
        elif isinstance(self.loss, RegressionLoss):
            wrong = y != np.rint(y)
        else:
            return
        if not wrong.any():
            return
        text = (
            f"{counted[0].name}: y must be classes, {'0 or 1' if output_shape[-1] == 1 else 'as one-hot rows'}, got "
            f"{float(y[wrong][0]):g}; for targets that are numbers use metrics=['mae'] or ['mse']"
        )
        if isinstance(self.loss, RegressionLoss):
            raise ValueError(text)  # noqa: TRY004  # the values are wrong, not their type
        warnings.warn(text, stacklevel=2)

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics by their names in the logs, once targets were seen."""
        return {name: metric for name, (metric, _) in self._metrics.items()}

    def metrics_state(self) -> dict[str, Any]:
        """Return what loss and metrics have counted; collective."""
        self._merge()
        loss = {"total": self._loss_mean.total, "count": self._loss_mean.count}
        return {"loss": loss, **{name: metric.get_state() for name, metric in self.metrics.items()}}

    def set_metrics_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `metrics_state` returned."""
        if self._parted is not None:
            self._parted.set_state(state, self._metrics)
        self._loss_mean.total, self._loss_mean.count = state["loss"]["total"], state["loss"]["count"]
        for name, metric in self.metrics.items():
            metric.set_state(state[name])

    def reset_metrics(self) -> None:
        """Start the means of loss and metrics anew."""
        self._loss_mean.reset()
        for metric, _ in self._metrics.values():
            metric.reset_state()
        if self._parted is not None:
            self._parted.reset(self._metrics)

    def prepare_training(self) -> FlatVariables:
        """Lay out the trainable weights for the optimizer, once; the network must be built.

        Raises
        ------
        ValueError
            If a layer was frozen or unfrozen since, or another model has taken the optimizer or a metric.
        """
        self.claim_state()
        for layer in self._batch_norms():
            if layer.ghost_size is None and layer.renorm is None:
                continue
            needs = "its ghost_size or renorm needs the statistics of each batch; compile() without"
            if self.merge_statistics:
                raise layer.fail(f"{needs} merge_statistics")
            if self._parted is not None:
                raise layer.fail(f"{needs} distribution")
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

    @property
    def fused(self) -> bool:
        """Whether the loss takes the logits of the last layer instead of its output."""
        last = self.network.layers[-1]
        return (
            isinstance(last, ActivatedLayer)
            and last.activation.name == self.loss.fuses
            and not getattr(self.loss, "from_logits", False)
        )

    def train_step(self, x: Array, y: Array, weight: Array | None = None) -> None:
        """One step on a batch: forward, backward, update. `prepare_training` comes before the first."""
        assert self.flat is not None
        regularized = _regularized(self.flat.variables)
        penalty = _penalty(regularized)
        self.watch.before(x, self.network.layers[0].dtype)
        with self.watch.arithmetic():
            if self._parted is not None:
                self._parted.train(x, y, weight, penalty)
            else:
                output = self._output(x, training=True)
                value, predictions, gradient = self.loss_step(y, output, weight, self.fused)
                self.watch.after(x, value)
                self.network.backward(gradient, self.fused)
                self._record(value + penalty, y, predictions, weight)
        for variable, regularizer in regularized:
            variable.grad += regularizer.gradient(variable.value)
        if self.optimizer.step() and self.merge_statistics:
            for layer in self._batch_norms():
                layer.release_statistics()

    def test_step(self, x: Array, y: Array, weight: Array | None = None) -> None:
        """Loss and metrics of a batch in inference mode."""
        penalty = _penalty(_regularized(self.network.trainable_weights))
        if self._parted is not None:
            self._parted.test(x, y, weight, penalty)
            return
        value, predictions = self.inference(x, y, weight)
        self._record(value + penalty, y, predictions, weight)

    def _output(self, x: Array, training: bool) -> Array:
        """Return what the loss takes: the output, or if `fused` the logits."""
        network = self.network
        x = np.ascontiguousarray(x, network.layers[0].dtype)
        return network.forward_to_logits(x, training) if self.fused else network.forward(x, training)

    def loss_step(
        self, y: Array, output: Array, weight: Array | None, fused: bool
    ) -> tuple[float, Array, Array]:
        """Return the mean loss, predictions, and the gradient with respect to the output, or logits if `fused`."""
        if fused:
            value, gradient, predictions = self.loss.from_logits_step(y, output, weight)
            return value, predictions, gradient
        value, gradient = self.loss.mean_and_gradient(y, output, weight)
        return value, output, gradient

    def inference(self, x: Array, y: Array, weight: Array | None) -> tuple[float, Array]:
        """Return the mean loss and predictions in inference mode."""
        return self.loss_step(y, self._output(x, training=False), weight, self.fused)[:2]

    def _record(self, value: float, y: Array, predictions: Array, weight: Array | None) -> None:
        self._loss_mean.add(value, len(y))
        for metric, weighted in self._metrics.values():
            metric.update_state(y, predictions, weight if weighted else None)

    def _merge(self) -> None:
        """Bring together what the ranks have counted."""
        if self._parted is not None:
            self._parted.merge(self._loss_mean, self.metrics)

    def logs(self) -> dict[str, float]:
        """Return loss and metrics since `reset_metrics`; collective."""
        self._merge()
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
