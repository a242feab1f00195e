"""How weights start: Keras's initializers, drawing from the generator of the model.

An initializer is called with the shape, the dtype and a generator. One that was given a seed ignores that
generator and returns the same values at every call.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from normkit._checks import number, whole
from normkit._names import show_public_names
from normkit._registry import Configured, Registry

__all__ = [
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "get",
]

show_public_names(__name__)

Array = NDArray[Any]
Shape = tuple[int, ...]

# Standard deviation of a unit normal distribution cut off at ±2.
_TRUNCATED_STD = 0.87962566103423978


class Initializer(Configured):
    """Base: makes an array of a given shape and dtype."""

    def __call__(self, shape: Shape, dtype: DTypeLike, rng: np.random.Generator) -> Array:
        """Return a new array of `shape` and `dtype`."""
        raise NotImplementedError


class Zeros(Initializer):
    """All 0."""

    def __call__(self, shape: Shape, dtype: DTypeLike, rng: np.random.Generator) -> Array:
        """Return zeros."""
        return np.zeros(shape, dtype)


class Ones(Initializer):
    """All 1."""

    def __call__(self, shape: Shape, dtype: DTypeLike, rng: np.random.Generator) -> Array:
        """Return ones."""
        return np.ones(shape, dtype)


class Constant(Initializer):
    """All the same value.

    Parameters
    ----------
    value : float, default 0.0
        That value.
    """

    def __init__(self, value: float = 0.0) -> None:
        self.value = number("Constant: value", value)

    def __call__(self, shape: Shape, dtype: DTypeLike, rng: np.random.Generator) -> Array:
        """Return an array of `value`."""
        return np.full(shape, self.value, dtype)


class RandomInitializer(Initializer):
    """Base of the random ones: float64 draws, rounded once to the dtype.

    Parameters
    ----------
    seed : int, optional
        Draw from a generator of its own, the same at every call, and not from that of the model.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = None if seed is None else whole(f"{type(self).__name__}: seed", seed)

    def __call__(self, shape: Shape, dtype: DTypeLike, rng: np.random.Generator) -> Array:
        """Return random values."""
        source = rng if self.seed is None else np.random.default_rng(self.seed)
        return self._draw(shape, source).astype(dtype)

    def _draw(self, shape: Shape, rng: np.random.Generator) -> Array:
        raise NotImplementedError

    def _number(self, name: str, value: Any) -> float:
        checked = number(f"{type(self).__name__}: {name}", value)
        if not math.isfinite(checked):
            raise ValueError(f"{type(self).__name__}: {name} must be finite, got {checked}")
        return checked


class RandomNormal(RandomInitializer):
    """Normal distribution with the given mean and standard deviation."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean, self.stddev = self._number("mean", mean), self._number("stddev", stddev)

    def _draw(self, shape: Shape, rng: np.random.Generator) -> Array:
        return rng.normal(self.mean, self.stddev, shape)


class TruncatedNormal(RandomNormal):
    """`RandomNormal` with draws beyond two standard deviations drawn again."""

    def _draw(self, shape: Shape, rng: np.random.Generator) -> Array:
        return self.mean + self.stddev * _truncated_unit_normal(shape, rng)


class RandomUniform(RandomInitializer):
    """Uniform distribution over [minval, maxval)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.minval, self.maxval = self._number("minval", minval), self._number("maxval", maxval)

    def _draw(self, shape: Shape, rng: np.random.Generator) -> Array:
        return rng.uniform(self.minval, self.maxval, shape)


class VarianceScaling(RandomInitializer):
    """Variance scale / n, where n is the number of inputs, of outputs, or their mean.

    Parameters
    ----------
    scale : float, default 1.0
        Positive.
    mode : {"fan_in", "fan_out", "fan_avg"}
        Which n. For a kernel of shape (inputs, outputs) fan_in = inputs and fan_out = outputs.
    distribution : {"truncated_normal", "untruncated_normal", "uniform"}
        Uniform: over ±sqrt(3 · scale / n). Truncated normal: cut at two standard deviations, and
        widened so that the variance is right after the cut.
    seed : int, optional
        See `RandomInitializer`.

    Raises
    ------
    ValueError
        If scale, mode or distribution is not one of these.
    """

    MODES = ("fan_in", "fan_out", "fan_avg")
    DISTRIBUTIONS = ("truncated_normal", "untruncated_normal", "uniform")

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        if not number("VarianceScaling: scale", scale) > 0.0:
            raise ValueError(f"VarianceScaling: scale must be positive, got {scale}")
        if mode not in self.MODES:
            raise ValueError(f"VarianceScaling: mode must be one of {self.MODES}, got {mode!r}")
        if distribution not in self.DISTRIBUTIONS:
            raise ValueError(
                f"VarianceScaling: distribution must be one of {self.DISTRIBUTIONS}, got {distribution!r}"
            )
        self.scale, self.mode, self.distribution = float(scale), mode, distribution

    def _draw(self, shape: Shape, rng: np.random.Generator) -> Array:
        fan_in, fan_out = _fans(shape)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, n)
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return rng.uniform(-limit, limit, shape)
        if self.distribution == "untruncated_normal":
            return rng.normal(0.0, math.sqrt(variance), shape)
        return math.sqrt(variance) / _TRUNCATED_STD * _truncated_unit_normal(shape, rng)


class _NamedScaling(VarianceScaling):
    """A `VarianceScaling` with a name in the literature; only the seed is free."""

    _scale: float
    _mode: Literal["fan_in", "fan_avg"]
    _distribution: Literal["truncated_normal", "uniform"]

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(self._scale, self._mode, self._distribution, seed)


class GlorotUniform(_NamedScaling):
    """Uniform over ±sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""

    _scale, _mode, _distribution = 1.0, "fan_avg", "uniform"


class GlorotNormal(_NamedScaling):
    """Truncated normal of variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010)."""

    _scale, _mode, _distribution = 1.0, "fan_avg", "truncated_normal"


class HeUniform(_NamedScaling):
    """Uniform over ±sqrt(6 / fan_in) (He et al. 2015)."""

    _scale, _mode, _distribution = 2.0, "fan_in", "uniform"


class HeNormal(_NamedScaling):
    """Truncated normal of variance 2 / fan_in (He et al. 2015)."""

    _scale, _mode, _distribution = 2.0, "fan_in", "truncated_normal"


class LecunUniform(_NamedScaling):
    """Uniform over ±sqrt(3 / fan_in) (LeCun et al. 1998)."""

    _scale, _mode, _distribution = 1.0, "fan_in", "uniform"


class LecunNormal(_NamedScaling):
    """Truncated normal of variance 1 / fan_in (LeCun et al. 1998)."""

    _scale, _mode, _distribution = 1.0, "fan_in", "truncated_normal"


def _truncated_unit_normal(shape: Shape, rng: np.random.Generator) -> Array:
    values = np.asarray(rng.standard_normal(shape))
    while (outside := np.abs(values) > 2.0).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return values


def _fans(shape: Shape) -> tuple[float, float]:
    """Count inputs and outputs per unit: the last two axes, the others being a receptive field."""
    if not shape:
        return 1.0, 1.0
    if len(shape) == 1:
        return float(shape[0]), float(shape[0])
    field = math.prod(shape[:-2])
    return float(shape[-2] * field), float(shape[-1] * field)


registry: Registry[Initializer] = Registry(
    "initializer",
    Initializer,
    {
        "zeros": Zeros,
        "ones": Ones,
        "constant": Constant,
        "random_normal": RandomNormal,
        "normal": RandomNormal,
        "truncated_normal": TruncatedNormal,
        "random_uniform": RandomUniform,
        "uniform": RandomUniform,
        "variance_scaling": VarianceScaling,
        "glorot_uniform": GlorotUniform,
        "glorot_normal": GlorotNormal,
        "he_uniform": HeUniform,
        "he_normal": HeNormal,
        "lecun_uniform": LecunUniform,
        "lecun_normal": LecunNormal,
    },
)


def get(identifier: str | dict[str, Any] | Initializer) -> Initializer:
    """Return the initializer of that name, or of that saved configuration, or the instance itself."""
    return registry.get(identifier)
