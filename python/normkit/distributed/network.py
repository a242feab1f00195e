"""`PartedPass`: forward and backward of a network for the parts of a batch, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit.distributed.batch_norm import PartedBatchNorm
from normkit.distributed.chunks import Chunks
from normkit.layers.base import ActivatedLayer, Layer
from normkit.layers.batch_normalization import BatchNormalization
from normkit.layers.normalization import NUM_THREADS
from normkit.models.flat import FlatVariables
from normkit.models.network import Network, as_dtype
from normkit.moments import BatchMoments

__all__ = ["PartedPass"]

Array = NDArray[Any]


class PartedPass:
    """One training pass over the parts of a batch that this rank has.

    The layers keep what backward needs of one batch, so each part has copies of them, with the same weights.

    Parameters
    ----------
    network : Network
        Built.
    chunks : Chunks
        Who has what.
    positions : sequence of int
        Which parts of this rank are not empty.
    """

    def __init__(self, network: Network, chunks: Chunks, positions: Sequence[int]) -> None:
        self._network, self._chunks, self._positions = network, chunks, positions
        self._copies = [[copy.copy(layer) for _ in positions] for layer in network.layers]
        self._norms: dict[int, tuple[PartedBatchNorm, list[Array], BatchMoments]] = {}
        for layer, copies in zip(network.layers, self._copies, strict=True):
            if layer.draws:
                self._spread_noise(layer, copies)

    def _spread_noise(self, layer: Layer, copies: Sequence[Layer]) -> None:
        """Give each part a generator by its place among all; every rank draws the one number that decides them."""
        seed = int(layer.generator.integers(2**63))
        first = self._chunks.local.start
        for position, part in zip(self._positions, copies, strict=True):
            part.generator = np.random.default_rng([seed, first + position])

    def forward(self, parts: list[Array], to_logits: bool) -> list[Array]:
        """Return the outputs, or the logits of the last layer; collective."""
        last = len(self._copies) - 1
        for index, (layer, copies) in enumerate(zip(self._network.layers, self._copies, strict=True)):
            parts = [as_dtype(x, layer.dtype) for x in parts]
            if isinstance(layer, BatchNormalization) and layer.uses_batch_moments:
                parts = self._normalized(index, layer, parts)
            elif to_logits and index == last:
                parts = [_activated(one).preactivation(x, True) for one, x in zip(copies, parts, strict=True)]
            else:
                parts = [one.forward(x, True) for one, x in zip(copies, parts, strict=True)]
        return parts

    def _normalized(self, index: int, layer: BatchNormalization, parts: list[Array]) -> list[Array]:
        channels = layer.moving_mean.shape[0]
        norm = PartedBatchNorm(self._chunks, self._positions, channels, layer.axis, NUM_THREADS)
        moments = norm.moments(parts, layer.epsilon)
        layer.take_moments(moments)
        self._norms[index] = norm, parts, moments
        return norm.normalize(parts, moments, *layer.affine())

    def backward(self, gradients: list[Array], from_logits: bool, flat: FlatVariables) -> None:
        """Write the gradients of all trainable weights, summed over the parts of all ranks; collective."""
        layers = self._network.layers
        first = next((i for i, layer in enumerate(layers) if layer.trainable_weights), len(layers))
        sums = _Contributions(flat, len(self._chunks.local), self._positions)
        for index in range(len(layers) - 1, first - 1, -1):
            gradients = [as_dtype(dy, layers[index].dtype) for dy in gradients]
            if index in self._norms:
                gradients = self._norm_backward(index, gradients, index > first, sums)
                continue
            logits = from_logits and index == len(layers) - 1
            after = []
            for position, (one, dy) in enumerate(zip(self._copies[index], gradients, strict=True)):
                if logits:
                    dx = _activated(one).preactivation_backward(dy, index > first)
                else:
                    dx = one.backward(dy, index > first)
                sums.keep(position, one)
                if dx is not None:
                    after.append(dx)
            gradients = after
        sums.combine(self._chunks)

    def _norm_backward(
        self, index: int, dys: list[Array], input_gradient: bool, sums: _Contributions
    ) -> list[Array]:
        layer = self._network.layers[index]
        assert isinstance(layer, BatchNormalization)
        norm, parts, moments = self._norms[index]
        weight = layer.affine()[0]
        gradients = norm.gradients(dys, parts, moments, weight)
        for position, gradient in enumerate(gradients):
            layer.store(gradient)
            sums.keep(position, layer)
        if not input_gradient:
            return []
        norm.finish(gradients, parts, moments, weight)
        return [gradient.dx for gradient in gradients]


class _Contributions:
    """The gradients of each part of this rank, laid out like those of the model."""

    def __init__(self, flat: FlatVariables, parts: int, positions: Sequence[int]) -> None:
        self._flat = flat
        # A single part needs no memory beside that which the layers write to.
        self._single = parts == 1
        self._tables = [
            gradient[None] if self._single else np.zeros((parts, gradient.size), gradient.dtype)
            for _, gradient in flat.arrays
        ]
        if self._single and not positions:
            for table in self._tables:
                table[...] = 0
        self._views = [
            dict(zip(map(id, flat.variables), flat.split([table[p] for table in self._tables]), strict=True))
            for p in positions
        ]

    def keep(self, position: int, layer: Layer) -> None:
        """Copy what a layer has just written for the part that is the position-th one with samples."""
        if not self._single:
            for variable in layer.trainable_weights:
                self._views[position][id(variable)][...] = variable.grad

    def combine(self, chunks: Chunks) -> None:
        """Write the sums over all parts where the optimizer looks for them."""
        for table, (_, gradient) in zip(self._tables, self._flat.arrays, strict=True):
            gradient[...] = chunks.sum(table)


def _activated(layer: Layer) -> ActivatedLayer:
    assert isinstance(layer, ActivatedLayer)
    return layer
