"""A step of data-parallel training on paper: an α-β model of the collectives, for ``docs/distributed.md``.

A message of m bytes takes α + m·β. Of the known algorithms for each collective the cheapest is taken, as MPI
libraries do (R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of Collective Communication Operations in MPICH",
Int. J. of High Performance Computing Applications 19, 2005).
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

ALPHA = 2e-6  # s a message: a fabric of a cluster, with what MPI and mpi4py add
BETA = 1 / 12.5e9  # s a byte: 100 Gbit/s
GAMMA = 1 / 10e9  # s a byte that is added up
MERGE = 8e-9  # s for each rank and channel: BatchMoments.of_rows, measured here; beyond the cache twice that
FLOPS = 3.5e12  # of a node: 32 cores of 184e9 each, as measured here, at 60 %
OVERHEAD = 1.3e-3  # s a step and chunk: Python, independent of rows, measured here
ADAM = 28 / 200e9  # s a parameter: 28 bytes at the memory bandwidth of a node
WEIGHT = 4  # bytes


class Network(NamedTuple):
    """What a step depends on."""

    name: str
    parameters: int
    norms: tuple[int, ...]  # channels of each batch norm

    @staticmethod
    def of(*units: int) -> Network:
        """A perceptron with a batch norm behind each hidden layer."""
        kernels = sum(a * b + b for a, b in itertools.pairwise(units))
        name = "-".join(map(str, units))
        return Network(name, kernels + 2 * sum(units[1:-1]), units[1:-1])


def allreduce(size: float, ranks: int) -> float:
    """Recursive doubling, reduce-scatter and allgather by halving (Rabenseifner), or a ring."""
    if ranks == 1:
        return 0.0
    rounds, share = math.ceil(math.log2(ranks)), (ranks - 1) / ranks
    doubling = rounds * (ALPHA + size * (BETA + GAMMA))
    halving = 2 * rounds * ALPHA + share * size * (2 * BETA + GAMMA)
    ring = 2 * (ranks - 1) * ALPHA + share * size * (2 * BETA + GAMMA)
    return min(doubling, halving, ring)


def allgather(size: float, ranks: int) -> float:
    """Recursive doubling; size: bytes of each rank."""
    return math.ceil(math.log2(ranks)) * ALPHA + (ranks - 1) * size * BETA


def ordered_sum(size: float, ranks: int, chunks: int) -> float:
    """`Chunks.sum` with ``deterministic=True``: a pairwise exchange of the chunks' columns, sums, an allgather."""
    if ranks == 1:
        return chunks * size * GAMMA
    share = (ranks - 1) / ranks
    exchange = (ranks - 1) * ALPHA + share * size * BETA * chunks / ranks
    return exchange + chunks / ranks * size * GAMMA + allgather(size / ranks, ranks)


def _moments(channels: int, ranks: int, chunks: int) -> float:
    """Gather mean, variance and count of every chunk, and merge them; each rank does all of it."""
    gathering = allgather(8 * (2 * channels + 1) * chunks / ranks, ranks)
    return gathering + chunks * channels * MERGE if chunks > 1 else 0.0


def in_two_levels(network: Network, ranks: int) -> float:
    """Seconds of the forward gathers if groups of √ranks merged first and their results then; this is not built."""
    group = math.ceil(math.sqrt(ranks))
    return sum(2 * _moments(c, group, group) for c in network.norms)


class Step(NamedTuple):
    """Seconds of a step, part by part."""

    compute: float
    gradients: float
    forward: float
    backward: float
    check: float

    @property
    def total(self) -> float:
        return sum(self)


def step(network: Network, rows: float, ranks: int, deterministic: bool = False) -> Step:
    """rows: of each rank. With `deterministic` there is a chunk for each rank, and 8 at least."""
    chunks = max(8, ranks) if deterministic else ranks
    per_rank = chunks / ranks
    size = WEIGHT * network.parameters
    compute = OVERHEAD * per_rank + 6 * network.parameters * rows / FLOPS + network.parameters * ADAM
    gradients = ordered_sum(size, ranks, chunks) if deterministic else allreduce(size, ranks)
    forward = sum(_moments(c, ranks, chunks) for c in network.norms)
    if deterministic:
        backward = sum(allgather(16 * c * per_rank, ranks) for c in network.norms)
    else:
        backward = sum(allreduce(16 * c, ranks) for c in network.norms)
    return Step(compute, gradients, forward, backward, allreduce(40, ranks))


NETWORKS = (Network.of(784, 512, 512, 10), Network.of(4096, 4096, 4096, 4096, 1000))
RANKS = (1, 4, 16, 64, 256, 1000)


def table() -> None:
    """Print a table in Markdown for each network: weak scaling, 256 rows a node."""
    for network in NETWORKS:
        print(
            f"\n{network.name}: {network.parameters / 1e6:.2f} million parameters, 256 rows a node, ms a step\n"
        )
        print(
            "| nodes | compute | gradients | batch norm forward | backward | check | step | efficiency | deterministic | two levels |"
        )
        print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
        alone = step(network, 256, 1).total
        for ranks in RANKS:
            found = step(network, 256, ranks)
            fixed = step(network, 256, ranks, deterministic=True).total
            two = found.total - found.forward + in_two_levels(network, ranks)
            cells = " | ".join(f"{seconds * 1e3:.2f}" for seconds in (*found, found.total))
            print(f"| {ranks} | {cells} | {alone / found.total:.0%} | {fixed * 1e3:.2f} | {two * 1e3:.2f} |")
