"""`Epochs`: which epoch and batch an iteration is at, and the random generator of each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from normkit._checks import whole
from normkit._random import new_seed
from normkit.data.checks import BadRows

__all__ = ["Epochs"]


class Epochs:
    """Counts epochs and batches; its state is enough to go on from there.

    Parameters
    ----------
    seed : int, Generator or None
        An integer, of which the generator of each epoch is made; a generator for all epochs; or None for an integer by
        chance.

    Attributes
    ----------
    bad : BadRows or None
        Those of the latest epoch.
    batch : int
        How many batches of it were taken.
    """

    bad: BadRows | None = None

    def __init__(self, seed: int | np.random.Generator | None) -> None:
        self.given = seed
        self._shared = seed if isinstance(seed, np.random.Generator) else None
        if seed is None:
            seed = new_seed()
        self._seed = None if isinstance(seed, np.random.Generator) else whole("MiniBatches: seed", seed)
        self._epoch, self.batch = 0, 0
        self._begun = False
        self._before: dict[str, Any] = {}  # the shared generator's state when the epoch began

    def begin(self) -> tuple[np.random.Generator, int, int]:
        """Begin the next epoch, or what is left of the one that was loaded.

        Returns
        -------
        generator : Generator
            Of the epoch.
        epoch, batch : int
            Number of the epoch and of its first batch to come.
        """
        if self._begun:  # an iteration that was left before its end
            self._next()
        self._begun = True
        if self._shared is not None:
            self._before = self._generator_state()
            return self._shared, self._epoch, self.batch
        assert self._seed is not None
        return np.random.default_rng([self._seed, self._epoch]), self._epoch, self.batch

    def taken(self, epoch: int, batches: int) -> None:
        """Note how many batches of an epoch are taken; of another than the latest it does not count."""
        if epoch == self._epoch:
            self.batch = batches

    def finish(self, epoch: int) -> None:
        """Note the end of an epoch."""
        if epoch == self._epoch:
            self._next()

    def _next(self) -> None:
        self._epoch, self.batch, self._begun = self._epoch + 1, 0, False

    def state(self) -> dict[str, Any]:
        """Return the state, of which JSON can be made."""
        source = (
            {"seed": self._seed}
            if self._shared is None
            else {"generator": self._before if self._begun else self._generator_state()}
        )
        return {**source, "epoch": self._epoch, "batch": self.batch}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a state; all is checked before anything changes."""
        epoch, batch = (
            whole(f"MiniBatches.load_state_dict: {name}", state[name]) for name in ("epoch", "batch")
        )
        if self._shared is not None:
            if "generator" not in state:
                raise ValueError(
                    "MiniBatches.load_state_dict: the state is one of an integer seed, not of a generator"
                )
            self._shared.bit_generator.state = state["generator"]
        else:
            if "seed" not in state:
                raise ValueError(
                    "MiniBatches.load_state_dict: the state is one of a generator, not of an integer seed"
                )
            self._seed = self.given = whole("MiniBatches.load_state_dict: seed", state["seed"])
        self._epoch, self.batch, self._begun = epoch, batch, False

    def _generator_state(self) -> dict[str, Any]:
        assert self._shared is not None
        state: dict[str, Any] = _plain(self._shared.bit_generator.state)
        return state


def _plain(value: Any) -> Any:
    """Replace arrays, which some generators have, by lists."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
