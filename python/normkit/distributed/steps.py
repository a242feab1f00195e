"""`PartedSteps`: the training and test steps of a compiled model, for the parts of a batch; loss and metrics over ranks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normkit.distributed.chunks import Chunks
from normkit.distributed.network import PartedPass
from normkit.metrics import Average, Metric

if TYPE_CHECKING:
    from normkit.models.compiled import Compiled

__all__ = ["PartedSteps"]

Array = NDArray[Any]


class _Part(NamedTuple):
    """Rows of a batch, and their place among the parts of this rank."""

    position: int
    x: Array
    y: Array
    weight: Array | None


class _Tally:
    """What loss and metrics have counted in one place of the batches."""

    def __init__(self, metrics: Mapping[str, tuple[Metric, bool]]) -> None:
        self.loss = Average()
        self.metrics = {
            name: (copy.deepcopy(metric), weighted) for name, (metric, weighted) in metrics.items()
        }
        for metric, _ in self.metrics.values():
            metric.reset_state()

    def record(self, value: float, part: _Part, predictions: Array) -> None:
        self.loss.add(value, len(part.y))
        for metric, weighted in self.metrics.values():
            metric.update_state(part.y, predictions, part.weight if weighted else None)

    def get_state(self) -> dict[str, Any]:
        state = {name: metric.get_state() for name, (metric, _) in self.metrics.items()}
        return {"loss": {"total": self.loss.total, "count": self.loss.count}, **state}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.loss.total, self.loss.count = state["loss"]["total"], state["loss"]["count"]
        for name, (metric, _) in self.metrics.items():
            metric.set_state(state[name])


class PartedSteps:
    """The steps.

    Loss and metrics are counted apart for each part of a batch, and merged when somebody asks for them: in the order of
    the parts, so that every rank finds the same.

    Parameters
    ----------
    compiled : Compiled
        Whose steps they are.
    chunks : Chunks
        Who has what.
    """

    def __init__(self, compiled: Compiled, chunks: Chunks) -> None:
        self._compiled, self._chunks = compiled, chunks
        self._tallies: list[_Tally] = []

    def reset(self, metrics: Mapping[str, tuple[Metric, bool]]) -> None:
        """Start loss and metrics anew."""
        self._tallies = [_Tally(metrics) for _ in self._chunks.local]

    def train(self, x: Array, y: Array, weight: Array | None, penalty: float) -> None:
        """Write the gradients of the whole batch's mean loss, and count; collective."""
        compiled, parts = self._compiled, self._cut(x, y, weight)
        assert compiled.flat is not None
        fused = compiled.fused
        passing = PartedPass(compiled.network, self._chunks, [part.position for part in parts])
        outputs = passing.forward([part.x for part in parts], fused)
        gradients = []
        for part, output in zip(parts, outputs, strict=True):
            value, predictions, gradient = compiled.loss_step(part.y, output, part.weight, fused)
            gradient *= len(part.y) / len(y)  # of a share in the mean of all
            gradients.append(gradient)
            self._tallies[part.position].record(value + penalty, part, predictions)
        passing.backward(gradients, fused, compiled.flat)

    def test(self, x: Array, y: Array, weight: Array | None, penalty: float) -> None:
        """Count loss and metrics in inference mode."""
        compiled = self._compiled
        for part in self._cut(x, y, weight):
            value, predictions = compiled.inference(part.x, part.y, part.weight)
            self._tallies[part.position].record(value + penalty, part, predictions)

    def _cut(self, x: Array, y: Array, weight: Array | None) -> list[_Part]:
        """Return the parts of this rank that have rows."""
        dtype = self._compiled.network.layers[0].dtype
        return [
            _Part(
                position,
                np.ascontiguousarray(x[rows], dtype),
                y[rows],
                None if weight is None else weight[rows],
            )
            for position, rows in enumerate(self._chunks.slices(len(y)))
            if rows.stop > rows.start
        ]

    def merge(self, loss: Average, metrics: Mapping[str, Metric]) -> None:
        """Write what all parts have counted to the loss's mean and to the metrics; collective."""
        states = self._chunks.gather_objects([tally.get_state() for tally in self._tallies])
        if not states:  # before the first `reset`
            return
        loss.reset()
        for state in states:
            loss.total += state["loss"]["total"]
            loss.count += state["loss"]["count"]
        for name, metric in metrics.items():
            metric.merge_state([state[name] for state in states])

    def set_state(self, state: Mapping[str, Any], metrics: Mapping[str, tuple[Metric, bool]]) -> None:
        """Go on from merged states: they are the first part's."""
        self.reset(metrics)
        if 0 in self._chunks.local:
            self._tallies[0].set_state(state)
