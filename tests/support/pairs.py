"""Arrays of pairs of floats, for sums too long for decimals.

Each value is the unevaluated sum of two doubles, 106 bits, or of two long doubles, 128 bits with x87's, with which no float64
overflows or vanishes when it is squared (Dekker 1971; Hida, Li & Bailey 2001).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[Any]  # float64 or longdouble
# Whether squares of float64 stay within the range of long double.
EXTENDED = np.finfo(np.longdouble).maxexp > 2 * np.finfo(np.float64).maxexp


def _two_sum(a: Wide, b: Wide) -> tuple[Wide, Wide]:
    """a + b without error."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _fast_two_sum(a: Wide, b: Wide) -> Pair:
    """a + b without error, where |a| ≥ |b|."""
    s = a + b
    return Pair(s, b - (s - a))


def _split(a: Wide) -> tuple[Wide, Wide]:
    t = a * a.dtype.type(2 ** ((np.finfo(a.dtype).nmant + 2) // 2) + 1)
    high = t - (t - a)
    return high, a - high


def _two_product(a: Wide, b: Wide) -> tuple[Wide, Wide]:
    """a · b without error."""
    p = a * b
    (a1, a2), (b1, b2) = _split(a), _split(b)
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


class Pair:
    """An array of pairs, with the operations that the oracle needs; the other operand may be an array or a number."""

    __array_ufunc__ = None  # array ∘ pair is the pair's business

    def __init__(self, high: Wide, low: Wide | None = None) -> None:
        self.high, self.low = high, np.zeros_like(high) if low is None else low

    @classmethod
    def of(cls, value: Any, dtype: Any) -> Pair:
        return value if isinstance(value, Pair) else cls(np.asarray(value, dtype))

    def _like(self, other: Any) -> Pair:
        return Pair.of(other, self.high.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.high.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.high.astype(dtype or np.float64)

    def __neg__(self) -> Pair:
        return Pair(-self.high, -self.low)

    def __abs__(self) -> Pair:
        sign = np.where(self.high < 0, -1, 1).astype(self.high.dtype)
        return Pair(self.high * sign, self.low * sign)

    def __add__(self, other: Any) -> Pair:
        other = self._like(other)
        high, error = _two_sum(self.high, other.high)
        low, lost = _two_sum(self.low, other.low)
        part = _fast_two_sum(high, error + low)
        return _fast_two_sum(part.high, part.low + lost)

    def __sub__(self, other: Any) -> Pair:
        return self + (-self._like(other))

    def __mul__(self, other: Any) -> Pair:
        other = self._like(other)
        product, error = _two_product(self.high, other.high)
        return _fast_two_sum(product, error + (self.high * other.low + self.low * other.high))

    def __truediv__(self, other: Any) -> Pair:
        """Two quotients, the second of what the first leaves, and the third for its last bit."""
        other = self._like(other)
        first = self.high / other.high
        rest = self - other * first
        second = rest.high / other.high
        third = (rest - other * second).high / other.high
        return _fast_two_sum(first, second) + third

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Any) -> Pair:
        return self._like(other) - self

    def __rtruediv__(self, other: Any) -> Pair:
        return self._like(other) / self

    def sqrt(self) -> Pair:
        """Newton's step from the long double root; 0 stays 0."""
        root = np.sqrt(self.high)
        rest = (self - Pair(root) * root).high
        return _fast_two_sum(root, np.divide(rest, 2 * root, out=np.zeros_like(root), where=root > 0))

    def sum(self, axis: tuple[int, ...], keepdims: bool = False) -> Pair:
        """Over some axes, by halves: the error grows with the logarithm of the number of terms."""
        axes = tuple(a % self.high.ndim for a in axis)
        rest = [n for i, n in enumerate(self.shape) if i not in axes]
        kept = [1 if i in axes else n for i, n in enumerate(self.shape)]
        high, low = (
            np.moveaxis(part, axes, range(len(axes))).reshape(-1, *rest) for part in (self.high, self.low)
        )
        part = Pair(high, low)
        while len(part.high) > 1:
            half = len(part.high) // 2
            odd = part[2 * half :]
            part = part[:half] + part[half : 2 * half]
            part = Pair(np.concatenate([part.high, odd.high]), np.concatenate([part.low, odd.low]))
        return part.reshape(kept if keepdims else rest)

    def __getitem__(self, key: Any) -> Pair:
        return Pair(self.high[key], self.low[key])

    def reshape(self, shape: Any) -> Pair:
        return Pair(self.high.reshape(shape), self.low.reshape(shape))

    def distance(self, got: NDArray[Any]) -> NDArray[np.float64]:
        """Got − self, rounded once."""
        with np.errstate(invalid="ignore"):
            return np.asarray((np.asarray(got, self.high.dtype) - self.high) - self.low, np.float64)
