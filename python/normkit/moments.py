"""What the operations return: `Moments`, `BatchMoments`, `NormGradients` and `ResidualGradients`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from normkit._numerics import default_arithmetic

__all__ = ["BatchMoments", "Bits", "Count", "Moments", "NormGradients", "ResidualGradients", "as_count"]

F64 = NDArray[np.float64]
Bits = NDArray[np.uint8] | None
# A number that all channels share, or one for each.
Count = int | NDArray[np.int64]


def as_count(numbers: Any) -> Count:
    """Return one int where the number of every channel is the same, else an array that is nobody else's."""
    if isinstance(numbers, int):
        return numbers
    array = np.array(numbers, np.int64)
    return int(array.flat[0]) if array.size and (array == array.flat[0]).all() else array


@dataclass(frozen=True, eq=False, repr=False)
class Moments:
    """The statistics that a forward pass used, and all else that its backward pass has to know.

    What a forward pass returns is complete: the backward pass takes axis, mask and activation from here, and an
    argument that contradicts them is a ValueError. Moments made by hand, ``Moments(mean, rstd)``, leave the rest to
    the arguments of the backward pass.

    Mean and rstd are float64, whatever the dtype of x: a float32 mean would be wrong by 3 % of a standard
    deviation at mean/σ = 1e6, and the gradient would inherit it.

    It unpacks as ``mean, rstd = moments``. It is frozen; `dataclasses.replace` makes another one with some fields
    changed. Copies, pickles and comparisons take in every field.

    Attributes
    ----------
    mean : ndarray of float64
        Batch norm: shape (channels,). Layer norm: the shape of x without the normalized axes. Group norm:
        (batch, groups). RMS norm: zeros.
    rstd : ndarray of float64
        1 / sqrt(variance + eps), with the biased (population) variance; shaped as `mean`.
    operation : str, optional
        The function that made them, "batch_norm" for one. None: made by hand.
    training : bool, optional
        Whether they are the statistics of x (True) or constants, such as running statistics (False). None: not known.
    axis : int or tuple of int, optional
        The channel axis, or the normalized axes, counted from the first. None: not known.
    eps : float, optional
        What was added to the variance for `rstd`.
    where : ndarray of bool, optional
        The mask of the forward pass: the array itself, not a copy.
    activation : str, optional
        What the operation ended in.
    negative_slope : float, optional
        Where that was leaky_relu: its slope below 0.
    active : ndarray of uint8, optional
        Where that was relu, and the operation has a channel axis: a bit for each element of x in the order of
        memory, 1 where the gradient passes, and some bytes more.
    dropout : float
        `add_layer_norm` and `add_rms_norm`: the probability that an element became 0.
    seed : int
        The seed of that dropout.
    has_weight, has_bias, has_residual : bool
        Whether the forward pass had a weight, a bias and a residual: what the backward pass must be given as well.
    """

    mean: F64
    rstd: F64
    _: KW_ONLY
    operation: str | None = None
    training: bool | None = None
    axis: int | tuple[int, ...] | None = None
    eps: float | None = None
    where: Any = None
    activation: str | None = None
    negative_slope: float | None = None
    active: Bits = field(default=None, repr=False)
    dropout: float = 0.0
    seed: int = 0
    has_weight: bool = False
    has_bias: bool = False
    has_residual: bool = False

    __array_ufunc__ = None  # so that an array compared with moments asks them

    def __post_init__(self) -> None:
        for name in ("mean", "rstd"):
            value = getattr(self, name)
            if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
                object.__setattr__(self, name, _numbers(f"{type(self).__name__}: {name}", value))
        keeps_bits = self.operation in ("batch_norm", "group_norm", "instance_norm")
        if keeps_bits and self.activation == "relu" and self.active is None:
            raise ValueError(
                f"{type(self).__name__}: the gradient of relu needs active, the bits of the forward pass; got None"
            )

    @classmethod
    def _of(
        cls,
        operation: str,
        mean: F64,
        rstd: F64,
        training: bool,
        axis: int | tuple[int, ...],
        eps: float,
        where: Any,
        activation: str | None,
        weight: Any,
        bias: Any,
        more: dict[str, Any] | None = None,
    ) -> Self:
        """Return what a forward pass knows. A frozen dataclass would take two microseconds to set its fields."""
        moments = object.__new__(cls)
        own = moments.__dict__
        own["operation"] = operation
        own["mean"] = mean
        own["rstd"] = rstd
        own["training"] = training
        own["axis"] = axis
        own["eps"] = float(eps)
        own["where"] = where
        own["activation"] = activation
        own["has_weight"] = weight is not None
        own["has_bias"] = bias is not None
        if more is not None:
            own.update(more)
        return moments

    def _with(self, **changes: Any) -> Self:
        """Return the same with some fields changed, unchecked."""
        moments = object.__new__(type(self))
        moments.__dict__.update(self.__dict__, **changes)
        return moments

    def __repr__(self) -> str:
        told = []
        for its in fields(self):
            value = getattr(self, its.name)
            if value is None or value is its.default or not its.repr:
                continue
            large = isinstance(value, np.ndarray) and value.size > 6
            told.append(f"{its.name}={f'<{value.dtype} {value.shape}>' if large else repr(value)}")
        return f"{type(self).__name__}({', '.join(told)})"

    def __iter__(self) -> Iterator[F64]:
        return iter((self.mean, self.rstd))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> F64:
        return (self.mean, self.rstd)[index]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # type: ignore[assignment]


def _numbers(what: str, value: Any) -> F64:
    try:
        if value is None:  # which NumPy would take for NaN
            raise TypeError
        return np.array(value, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be an array of numbers, got {type(value).__name__}") from None


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        one, other = np.asarray(one), np.asarray(other)
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return bool(one == other)


@dataclass(frozen=True, eq=False, repr=False)
class BatchMoments(Moments):
    """Moments of the channels of a mini-batch, with what it takes to merge them and to keep running statistics.

    It is a `Moments`, and unpacks as one: ``mean, rstd = moments``.

    Attributes
    ----------
    mean, rstd : ndarray of float64, shape (channels,)
        See `Moments`, also for the fields that are not named here.
    var : ndarray of float64, shape (channels,)
        Biased variance: divided by `samples`.
    samples : int, or ndarray of int64, shape (channels,)
        Values per channel; an array where a mask makes them differ.
    eps : float
        What was added to the variance for `rstd`.

    See Also
    --------
    normkit.batch_moments : computes them without normalizing.
    """

    var: F64
    samples: Count
    eps: float = field(kw_only=True)

    @staticmethod
    def merged(parts: Iterable[BatchMoments]) -> BatchMoments:
        """Moments of the union of some batches, as if they had been one [1]_.

        Parameters
        ----------
        parts : iterable of BatchMoments
            At least one, for as many channels each and with one eps; empty batches count for nothing.

        Returns
        -------
        BatchMoments
            Exact to rounding of float64, also at large mean/σ. The order matters to the last bit.

        Raises
        ------
        TypeError
            If one is no BatchMoments.
        ValueError
            If there is none, or channels or eps differ.

        References
        ----------
        .. [1] T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance",
           The American Statistician 37, 1983, eq. 2.1.
        """
        given: Any = parts
        given = list(given) if np.iterable(given) else [given]
        if not given:
            raise ValueError("BatchMoments.merged: there is nothing to merge; pass at least one BatchMoments")
        for part in given:
            if not isinstance(part, BatchMoments):
                raise TypeError(
                    f"BatchMoments.merged: all must be BatchMoments, got {type(part).__name__}; "
                    "pass what batch_moments(x) or batch_norm(x, return_moments=True) returned"
                )
        first = given[0]
        for part in given[1:]:
            if part.mean.shape != first.mean.shape:
                raise ValueError(
                    f"BatchMoments.merged: all must have as many channels, got {first.mean.shape[0]} and {part.mean.shape[0]}"
                )
            if part.eps != first.eps:
                raise ValueError(
                    f"BatchMoments.merged: all must have one eps, got {first.eps} and {part.eps}"
                )
        filled = [part for part in given if np.any(part.samples)] or [first]
        if len(filled) == 1:
            only = filled[0]
            return BatchMoments(
                only.mean, only.rstd, only.var, only.samples, operation="batch_moments", eps=only.eps
            )
        return BatchMoments.of_rows(
            np.stack([part.mean for part in filled]),
            np.stack([part.var for part in filled]),
            np.stack([np.broadcast_to(part.samples, first.mean.shape) for part in filled]),
            first.eps,
        )

    @staticmethod
    def of_rows(mean: F64, var: F64, samples: NDArray[Any], eps: float) -> BatchMoments:
        """Moments of the union of batches, each of which is a row; see `merged`.

        Parameters
        ----------
        mean, var : ndarray of float64, shape (batches, channels)
            At least one row.
        samples : ndarray of whole numbers, shape (batches, channels)
            Values per channel; 0 counts for nothing.
        eps : float
            Added to the variance for rstd.
        """
        # Means relative to the first one, so that nothing is lost where the mean is much larger than σ.
        with default_arithmetic():
            first = (samples > 0).argmax(axis=0)
            pivot = np.take_along_axis(mean, first[None], axis=0)[0]
            total = samples.sum(axis=0)
            share = samples / np.maximum(total, 1)
            shift = np.add.reduce(share * (mean - pivot), axis=0)
            merged = np.add.reduce(share * (var + np.square(mean - pivot - shift)), axis=0)
            rstd = np.where(total > 0, 1.0 / np.sqrt(merged + eps), 0.0)
            mean = pivot + shift
        return BatchMoments(mean, rstd, merged, as_count(total), operation="batch_moments", eps=eps)


class NormGradients(NamedTuple):
    """Gradients of a normalization with respect to its input and its parameters.

    Attributes
    ----------
    dx : ndarray
        Gradient with respect to x; shape and dtype of x.
    dweight, dbias : ndarray
        Gradients with respect to weight and bias, in the dtype of weight, or of x without one. They are
        computed whether or not the operation had a weight and a bias (without a weight: the gradient at
        weight = 1).
    """

    dx: NDArray[Any]
    dweight: NDArray[Any]
    dbias: NDArray[Any]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_equal(one, two) for one, two in zip(self, other, strict=True))

    def __ne__(self, other: object) -> bool:
        return not self == other


@dataclass(frozen=True, eq=False)
class ResidualGradients:
    """The same where a residual was added; it unpacks as ``dx, dweight, dbias``.

    Attributes
    ----------
    dx, dweight, dbias : ndarray
        See `NormGradients`.
    dresidual : ndarray
        Gradient with respect to the residual; shape and dtype of x.
    """

    dx: NDArray[Any]
    dweight: NDArray[Any]
    dbias: NDArray[Any]
    dresidual: NDArray[Any]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter((self.dx, self.dweight, self.dbias))

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> NDArray[Any]:
        return (self.dx, self.dweight, self.dbias)[index]

    __array_ufunc__ = None
    __eq__ = Moments.__eq__
    __hash__ = None  # type: ignore[assignment]
