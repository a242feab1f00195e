"""Where chance comes from if nobody gives a seed: from the system, or from `normkit.utils.set_random_seed`."""

from __future__ import annotations

import threading

import numpy as np

__all__ = ["new_generator", "new_seed", "seed_all"]

_lock = threading.Lock()
_seeds: np.random.Generator | None = None


def seed_all(seed: int) -> None:
    """Let `new_seed` and `new_generator` return the same from now on whenever this is called with the same seed."""
    global _seeds
    with _lock:
        _seeds = np.random.default_rng(seed)


def new_seed() -> int:
    """Return a seed that has not been used."""
    with _lock:
        if _seeds is not None:
            return int(_seeds.integers(2**63))
    entropy = np.random.SeedSequence().entropy
    assert isinstance(entropy, int)
    return entropy


def new_generator(seed: int | None = None) -> np.random.Generator:
    """Return a generator with this seed, or with one that has not been used; ValueError if it is no seed."""
    try:
        return np.random.default_rng(new_seed() if seed is None else seed)
    except (TypeError, ValueError):
        raise ValueError(f"seed must be an integer, 0 or more, or None, got {seed!r}") from None
