"""The numerics contract as code: how large an error of each result may be, and an oracle that is exact.

The oracle for float32 is float64; for float64 it is decimal arithmetic with 100 digits and more, into which every float
converts exactly, or pairs of floats (`pairs.py`) where arrays are large. The bounds are those of docs/design.md, with the exact
values in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

import normkit as nk
from normkit import reference
from pairs import Pair

F64 = NDArray[np.float64]


# The contract: the largest error of each result in its unit, which `forward_units` and `gradient_units` define.
LIMITS = {"y": 4.0, "dx": 4.0, "dweight": 2.0, "dbias": 2.0}
MISROUNDED = (
    1e-3  # the share of 16-bit elements, of the size of their terms, that are not the exact value rounded
)


@dataclass
class Errors:
    """Largest error of each result as a share of its bound: 1 is the limit."""

    y: float
    dx: float
    dweight: float
    dbias: float

    def worst(self) -> float:
        return max(self.y, self.dx, self.dweight, self.dbias)


@dataclass
class Exact:
    """One operation at float64 or better: results, and the terms that the bounds are made of."""

    y: Any
    dx: Any
    dweight: Any
    dbias: Any
    x_hat: Any
    dx_scale: Any
    dweight_scale: Any
    dbias_scale: Any


def forward_units(y: NDArray[Any], exact: Exact, weight: Any, bias: Any) -> F64:
    """|y − exact| of every element in ulp of max(|x̂·weight|, |bias|, |weight|/256)."""
    ulp = np.spacing(_forward_size(exact, weight, bias).astype(y.dtype)).astype(np.float64)
    return _in_units(_difference(y, exact.y), ulp)


def gradient_units(gradients: nk.NormGradients, exact: Exact) -> tuple[F64, F64, F64]:
    """Errors of every element: dx in ε·rstd·(|g| + |mean g| + |x̂·mean(g·x̂)|), dweight and dbias in ε·Σ|terms|.

    To the bound that these make comes the smallest number of the dtype.
    """
    info = ml_dtypes.finfo(gradients.dx.dtype)
    eps, least = float(info.eps), float(info.smallest_subnormal)

    def units(name: str) -> F64:
        scale = np.asarray(getattr(exact, f"{name}_scale"), np.float64)
        error = _difference(getattr(gradients, name), getattr(exact, name))
        return LIMITS[name] * _in_units(error, LIMITS[name] * eps * scale + least)

    return units("dx"), units("dweight"), units("dbias")


def forward_share(y: NDArray[Any], exact: Exact, weight: Any, bias: Any) -> float:
    """Error of y as a share of its bound."""
    return _largest(forward_units(y, exact, weight, bias), "y")


def gradient_shares(gradients: nk.NormGradients, exact: Exact) -> tuple[float, float, float]:
    """Errors of dx, dweight and dbias as shares of their bounds."""
    dx, dweight, dbias = gradient_units(gradients, exact)
    return _largest(dx, "dx"), _largest(dweight, "dweight"), _largest(dbias, "dbias")


def assert_contract(
    y: NDArray[Any],
    gradients: nk.NormGradients,
    exact: Exact,
    weight: Any,
    bias: Any,
    what: str = "",
    *,
    cancels: bool = False,
) -> None:
    """Hold all results, of any dtype, to their bounds; weight and bias broadcast against x.

    cancels: whether results may be much smaller than their terms, as those of rows of two are.
    """
    if y.dtype.itemsize > 2:
        errors = Errors(forward_share(y, exact, weight, bias), *gradient_shares(gradients, exact))
        assert errors.worst() <= 1.0, f"{what}: {errors}"
        return
    eps = float(np.finfo(np.float32).eps)
    bound = LIMITS["y"] * eps * _forward_size(exact, weight, bias)
    assert_rounded_once(y, exact.y, bound, f"{what} y", cancels=cancels)
    for name, got in gradients._asdict().items():
        bound = LIMITS[name] * eps * getattr(exact, f"{name}_scale")
        assert_rounded_once(got, getattr(exact, name), bound, f"{what} {name}", cancels=cancels)


def assert_rounded_once(
    got: NDArray[Any], exact: F64, float32_bound: Any, what: str, *, cancels: bool = False
) -> None:
    """Every element is what some value within float32's bound of the exact one is rounded to.

    Unless its terms cancel, that is nearly always the exact value rounded.
    """
    if got.dtype.itemsize > 2:
        error, bound = np.abs(got - exact), 1.001 * half_unit(got.dtype, exact) + float32_bound
        assert (error <= bound).all(), f"{what}: {np.max(error / bound):.2f} of the bound"
        return
    # The cast of ml_dtypes rounds to float32 on its way.
    bound = 1.001 * float32_bound + np.abs(exact) * 2.0**-24
    with np.errstate(over="ignore"):
        least, expected, most = (value.astype(got.dtype) for value in (exact - bound, exact, exact + bound))
    inside = (got >= least) & (got <= most)
    assert inside.all(), (
        f"{what}: {np.count_nonzero(~inside)} of {got.size} elements are not such a value rounded"
    )
    if not cancels and got.size >= 5000:
        share = np.count_nonzero(got != expected) / got.size
        assert share <= MISROUNDED, f"{what}: {share:.3%} of the elements misrounded"


def half_unit(dtype: Any, value: Any) -> F64:
    """Half the distance between neighbours of the dtype where value is: the most that one rounding changes it by."""
    digits, least = {
        "float16": (11, -25),
        "bfloat16": (8, -134),
        "float32": (24, -150),
        "float64": (53, -1075),
    }[np.dtype(dtype).name]
    return np.maximum(np.abs(value) * 2.0**-digits, 2.0**least)


def _forward_size(exact: Exact, weight: Any, bias: Any) -> F64:
    size = np.maximum(np.abs(exact.x_hat * weight), np.maximum(np.abs(bias), np.abs(weight) / 256.0))
    return np.asarray(size, np.float64)


def _difference(got: NDArray[Any], exact: Any) -> F64:
    """got − exact; 0 where the exact value is beyond the dtype and got is that infinity."""
    if isinstance(exact, Pair):
        difference, exact = exact.distance(got), np.asarray(exact)
    elif np.asarray(exact).dtype == object:
        flat = [float(Decimal(float(a)) - b) for a, b in zip(np.ravel(got), np.ravel(exact), strict=True)]
        return np.array(flat).reshape(np.shape(exact))
    else:
        with np.errstate(invalid="ignore"):
            difference = np.asarray(got, np.float64) - exact
    overflows = (
        np.isinf(got)
        & (np.abs(exact) > float(ml_dtypes.finfo(got.dtype).max))
        & (np.signbit(got) == np.signbit(exact))
    )
    return np.where(overflows, 0.0, difference)


def _in_units(error: F64, unit: F64) -> F64:
    """Infinite only where the error is."""
    with np.errstate(over="ignore"):
        units = np.abs(error) / unit
    return np.where(np.isinf(units) & np.isfinite(error), np.finfo(np.float64).max, units)


def _largest(units: F64, result: str) -> float:
    assert np.isfinite(units).all(), f"{result} is not finite"
    return float(np.max(units, initial=0.0)) / LIMITS[result]


def by_reference(
    dy: Any,
    x: Any,
    weight: Any,
    axes: tuple[int, ...],
    eps: float,
    where: Any = True,
    *,
    centered: bool = True,
) -> Exact:
    """In float64 by normkit.reference; enough for float32 data. axes: those that the statistics reduce.

    weight, bias and where broadcast against x. RMS norm is not centered.
    """
    stats = reference.statistics(x, axes, where, centered=centered)
    rstd = stats.rstd(eps)
    x_hat = stats.centered * rstd
    g = np.asarray(dy, np.float64) * weight
    sums = (g.sum(axis=axes, keepdims=True) * centered, (g * x_hat).sum(axis=axes, keepdims=True))
    shares = np.where(where, 1.0, 0.0) / np.maximum(stats.samples, 1)
    return _assemble(
        np.asarray(dy, np.float64), x_hat, rstd, g, *(sum * shares for sum in sums), weight, axes
    )


def by_decimal(
    dy: Any,
    x: Any,
    weight: Any,
    axes: tuple[int, ...],
    eps: float,
    where: Any = True,
    *,
    centered: bool = True,
) -> Exact:
    """The same in decimals (object arrays); for small arrays of either dtype."""
    with localcontext() as context:
        context.prec = digits(x)
        to_decimal = np.vectorize(lambda v: Decimal(float(v)), otypes=[object])
        dy, x = to_decimal(dy), to_decimal(x)
        weight = to_decimal(np.broadcast_to(weight, x.shape))
        counts = to_decimal(np.broadcast_to(where, x.shape))
        count = counts.sum(axis=axes, keepdims=True)
        empty = count == 0
        count = count + empty
        difference = x - (x * counts).sum(axis=axes, keepdims=True) / count * centered
        var = (difference * difference * counts).sum(axis=axes, keepdims=True) / count
        rstd = np.vectorize(lambda v: 1 / (v + Decimal(eps)).sqrt(), otypes=[object])(var + empty)
        rstd = rstd * to_decimal(~empty.astype(bool))
        x_hat = difference * rstd
        g = dy * weight
        mean_g, mean_gx = (
            g.sum(axis=axes, keepdims=True) / count * counts * centered,
            (g * x_hat).sum(axis=axes, keepdims=True) / count * counts,
        )
        return _assemble(dy, x_hat, rstd, g, mean_g, mean_gx, weight, axes)


def by_pairs(dy: Any, x: Any, weight: Any, axes: tuple[int, ...], eps: float) -> Exact:
    """The same in pairs, of doubles for float32 and of long doubles for float64: for arrays that are too large for decimals."""
    wide = np.float64 if np.asarray(x).dtype.itemsize < 8 else np.longdouble
    dy, x, weight = (Pair.of(a, wide) for a in (dy, x, weight))
    count = int(np.prod([x.shape[i] for i in axes]))
    centered = x - x.sum(axes, keepdims=True) / count
    var = (centered * centered).sum(axes, keepdims=True) / count
    rstd = 1 / (var + eps).sqrt()
    x_hat = centered * rstd
    g = dy * weight
    mean_g, mean_gx = g.sum(axes, keepdims=True) / count, (g * x_hat).sum(axes, keepdims=True) / count
    return _assemble(dy, x_hat, rstd, g, mean_g, mean_gx, weight, axes)


def by_constants(dy: Any, x: Any, weight: Any, mean: Any, var: Any, eps: float) -> Exact:
    """Of inference, whose statistics are given; in float64 for narrower data, in long doubles for float64.

    All but x broadcast against it.
    """
    wide = np.float64 if np.asarray(x).dtype.itemsize < 8 else np.longdouble
    dy, x, weight, mean, var = (np.asarray(a).astype(wide) for a in (dy, x, weight, mean, var))
    rstd = 1.0 / np.sqrt(var + eps)
    x_hat = (x - mean) * rstd
    nothing = np.zeros_like(rstd)
    return _assemble(dy, x_hat, rstd, dy * weight, nothing, nothing, weight, ())


def _assemble(
    dy: Any, x_hat: Any, rstd: Any, g: Any, mean_g: Any, mean_gx: Any, weight: Any, axes: tuple[int, ...]
) -> Exact:
    return Exact(
        y=x_hat * weight,
        dx=rstd * (g - mean_g - x_hat * mean_gx),
        dweight=dy * x_hat,
        dbias=dy,
        x_hat=np.asarray(x_hat, np.float64),
        dx_scale=rstd * (abs(g) + abs(mean_g) + abs(x_hat * mean_gx)),
        dweight_scale=abs(dy * x_hat),
        dbias_scale=abs(dy),
    )


def digits(x: Any) -> int:
    """So many that every x is held exactly, and eps is not lost beside the largest square."""
    sizes = np.abs(np.asarray(x, np.float64))
    largest, smallest = sizes.max(initial=1.0), sizes.min(initial=1.0, where=sizes > 0)
    return 100 + int(2 * np.log10(largest) - np.log10(smallest))


def summed(exact: Exact, bias: Any, axes: tuple[int, ...], shape: tuple[int, ...]) -> Exact:
    """Add the bias to y, and sum the parameter gradients over `axes` into `shape`."""
    with localcontext() as context:
        context.prec = 1000
        if isinstance(exact.y, np.ndarray) and exact.y.dtype == object:
            bias = np.vectorize(lambda v: Decimal(float(v)), otypes=[object])(bias)
        exact.y = exact.y + bias
        for name in ("dweight", "dbias", "dweight_scale", "dbias_scale"):
            value = getattr(exact, name)
            total = value.sum(axis=axes) if axes else value
            setattr(exact, name, (total if isinstance(total, Pair) else np.asarray(total)).reshape(shape))
    return exact


def layer_norm_errors(
    x: NDArray[Any],
    dy: NDArray[Any],
    weight: Any,
    bias: Any,
    axis: Any,
    eps: float,
    num_threads: int | None = None,
    where: Any = None,
    *,
    centered: bool = True,
) -> Errors:
    """Run layer_norm, or rms_norm, forward and backward and measure every result."""
    axes = tuple(sorted(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))))
    spread = [length if i in axes else 1 for i, length in enumerate(x.shape)]
    others = tuple(i for i in range(x.ndim) if i not in axes)
    forward, backward = (
        (nk.layer_norm, nk.layer_norm_backward) if centered else (nk.rms_norm, nk.rms_norm_backward)
    )
    y, moments = forward(
        x, weight, bias, axis=axis, eps=eps, where=where, return_moments=True, num_threads=num_threads
    )
    gradients = backward(dy, x, moments, weight, axis=axis, where=where, num_threads=num_threads)
    return _measure(x, dy, weight, bias, axes, others, spread, eps, y, gradients, where, centered=centered)


def group_norm_errors(
    x: NDArray[Any],
    dy: NDArray[Any],
    num_groups: int,
    weight: Any,
    bias: Any,
    axis: int,
    eps: float,
    num_threads: int | None = None,
    where: Any = None,
) -> Errors:
    """Run group_norm forward and backward and measure every result: the axes of a group are those of a layer norm."""
    y, moments = nk.group_norm(
        x,
        num_groups,
        weight,
        bias,
        axis=axis,
        eps=eps,
        where=where,
        return_moments=True,
        num_threads=num_threads,
    )
    gradients = nk.group_norm_backward(
        dy, x, moments, weight, axis=axis, where=where, num_threads=num_threads
    )

    def grouped(a: Any) -> Any:
        first = np.moveaxis(np.broadcast_to(a, x.shape), axis, 1)
        return first.reshape(len(x), num_groups, -1, *first.shape[2:])

    def per_channel(a: Any) -> Any:
        return None if a is None else a.reshape(num_groups, -1)

    spread = [1, num_groups, x.shape[axis] // num_groups, *[1] * (x.ndim - 2)]
    dx, dweight, dbias = gradients
    return _measure(
        grouped(x),
        grouped(dy),
        weight,
        bias,
        tuple(range(2, x.ndim + 1)),
        (0, *range(3, x.ndim + 1)),
        spread,
        eps,
        grouped(y),
        nk.NormGradients(grouped(dx), per_channel(dweight), per_channel(dbias)),
        None if where is None else grouped(where),
    )


def batch_norm_errors(
    x: NDArray[Any],
    dy: NDArray[Any],
    weight: Any,
    bias: Any,
    axis: int,
    eps: float,
    num_threads: int | None = None,
    where: Any = None,
) -> Errors:
    """Run batch_norm in training, forward and backward, and measure every result."""
    channel = axis % x.ndim
    axes = tuple(i for i in range(x.ndim) if i != channel)
    spread = [length if i == channel else 1 for i, length in enumerate(x.shape)]
    y, moments = nk.batch_norm(
        x, weight, bias, axis=axis, eps=eps, where=where, return_moments=True, num_threads=num_threads
    )
    gradients = nk.batch_norm_backward(
        dy, x, moments, weight, axis=axis, where=where, num_threads=num_threads
    )
    return _measure(x, dy, weight, bias, axes, axes, spread, eps, y, gradients, where)


def _measure(
    x: NDArray[Any],
    dy: NDArray[Any],
    weight: Any,
    bias: Any,
    axes: tuple[int, ...],
    summed_axes: tuple[int, ...],
    spread: list[int],
    eps: float,
    y: NDArray[Any],
    gradients: nk.NormGradients,
    where: Any,
    *,
    centered: bool = True,
) -> Errors:
    w = np.ones(spread) if weight is None else np.asarray(weight, np.float64).reshape(spread)
    b = np.zeros(spread) if bias is None else np.asarray(bias, np.float64).reshape(spread)
    oracle = by_reference if x.dtype == np.float32 else by_decimal
    exact = summed(
        oracle(dy, x, w, axes, eps, True if where is None else where, centered=centered),
        b,
        summed_axes,
        gradients.dweight.shape,
    )
    return Errors(forward_share(y, exact, w, b), *gradient_shares(gradients, exact))
