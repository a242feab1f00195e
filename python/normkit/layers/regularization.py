"""Noise in training against overfitting: `Dropout`, `GaussianNoise`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from normkit._checks import finite, share
from normkit._random import new_generator
from normkit.layers.base import Layer, LayerArguments

__all__ = ["Dropout", "GaussianNoise"]

Array = NDArray[Any]


class Dropout(Layer):
    """In training, sets each value to 0 with probability `rate` and divides the others by 1 − rate.

    The draws come from the generator of the model, or one of its own (Srivastava et al. 2014).

    Parameters
    ----------
    rate : float
        In [0, 1).
    seed : int, optional
        Of a generator of its own.
    **kwargs
        See `Layer`.
    """

    draws = True

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Unpack[LayerArguments]) -> None:
        super().__init__(**kwargs)
        self.rate = share("Dropout: rate", rate, below_one=True)
        self.seed = seed
        self._own_rng = None if seed is None else new_generator(seed)
        self._scale: Array | None = None

    @property
    def generator(self) -> np.random.Generator:
        """See `Layer.generator`."""
        return self.rng if self._own_rng is None else self._own_rng

    @generator.setter
    def generator(self, value: np.random.Generator) -> None:
        self.rng, self._own_rng = value, None

    def forward(self, x: Array, training: bool) -> Array:
        """Return x · scale, where scale is 0 or 1 / (1 − rate); x itself in inference."""
        if not training:
            return x
        self._scale = (self.generator.random(x.shape, np.float32) >= self.rate).astype(x.dtype)
        self._scale *= 1.0 / (1.0 - self.rate)
        return x * self._scale

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """Return dy · scale."""
        if self._scale is None:
            raise self.fail("backward needs a forward pass with training=True before it")
        return dy * self._scale if input_gradient else None

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {"rate": self.rate, "seed": self.seed, **super().get_config()}

    def get_state(self) -> dict[str, Any]:
        """Return the state of a generator of its own; see `Layer.get_state`."""
        return {} if self._own_rng is None else {"random_state": self._own_rng.bit_generator.state}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See `Layer.set_state`."""
        if state and self._own_rng is not None:
            self._own_rng.bit_generator.state = state["random_state"]


class GaussianNoise(Layer):
    """In training, adds normal noise with mean 0, from the generator of the model.

    Parameters
    ----------
    stddev : float
        Its standard deviation, finite and not negative.
    **kwargs
        See `Layer`.
    """

    draws = True

    def __init__(self, stddev: float, **kwargs: Unpack[LayerArguments]) -> None:
        super().__init__(**kwargs)
        self.stddev = finite("GaussianNoise: stddev", stddev)

    def forward(self, x: Array, training: bool) -> Array:
        """Return x + noise; x itself in inference."""
        if not training:
            return x
        noise: Array = self.generator.standard_normal(x.shape, x.dtype)
        noise *= self.stddev
        noise += x
        return noise

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """Return dy."""
        return dy if input_gradient else None

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {"stddev": self.stddev, **super().get_config()}
