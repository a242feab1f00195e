"""`RunningStats`: the running mean and variance of a batch norm, with explicit rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from normkit import _core
from normkit._checks import flag
from normkit._numerics import default_arithmetic
from normkit.moments import BatchMoments, Count, as_count

__all__ = ["RunningStats", "require_stats"]

Array = NDArray[Any]
# What other libraries call the mean and the variance; torch's come with num_batches_tracked.
TORCH = ("running_mean", "running_var")
KERAS = ("moving_mean", "moving_variance")


class RunningStats:
    """Running mean and variance of the channels of a batch norm.

    One step with the statistics of a mini-batch is::

        mean <- (1 - w) * mean + w * batch_mean
        var  <- (1 - w) * var  + w * batch_var

    with the weight w of the new batch by one of three rules: `momentum` (exponential average);
    ``1 / t`` at batch t with ``momentum=None`` (cumulative average: every batch weighs the same);
    ``momentum / (1 - (1 - momentum)**t)`` with ``debias=True`` (exponential average without the 0 and 1 that it
    starts from: exact from the first batch on, as Adam's moments are [1]_).

    A step happens as a whole or not at all. None is taken by a batch with no element, while `frozen`, and
    with ``skip_nonfinite=True`` by a batch whose mean or variance is not finite, which `skipped` counts; without
    it one NaN stays for good. A batch with a single value per channel has no variance to tell, so the mean
    moves and the variance stays. Where a mask leaves channels with different numbers of values, these rules
    hold channel by channel, and the counts below become arrays of shape (num_channels,).

    Parameters
    ----------
    num_channels : int
        Number of channels, C.
    momentum : float or None, default 0.1
        Weight of the **new** batch, in [0, 1] (torch's meaning; Keras, flax and ONNX give the weight
        of the old value, 1 − this). None: cumulative average.
    unbiased : bool, default True
        Store the unbiased batch variance (divided by n − 1), as torch does. False: store the
        biased one (divided by n), as Keras, flax and ONNX do.
    dtype : dtype, default float32
        float32 or float64.
    debias : bool, default False
        Take the starting values out of the exponential average.
    skip_nonfinite : bool, default False
        Leave out batches with NaN or Inf.

    Attributes
    ----------
    mean, var : ndarray, shape (num_channels,)
        The running statistics: 0 and 1 at the start. Assigning to them copies into the same memory.
    count : int
        Number of mini-batches taken in.
    samples : int
        Number of values per channel in them: the weight of these statistics in `merge`.
    skipped : int
        Number of mini-batches left out by `skip_nonfinite`.
    frozen : bool
        See `freeze`.

    Raises
    ------
    ValueError
        If `num_channels` or `momentum` is out of range.
    TypeError
        If `dtype` is neither float32 nor float64.

    See Also
    --------
    RunningStats.torch, RunningStats.keras : the two conventions by name.
    RunningStats.from_batches : exact statistics of a whole data set.

    References
    ----------
    .. [1] D. P. Kingma, J. Ba, "Adam", 2015, arXiv:1412.6980, section 3.
    """

    __slots__ = (
        "_mean",
        "_var",
        "_var_count",
        "count",
        "debias",
        "frozen",
        "momentum",
        "samples",
        "skip_nonfinite",
        "skipped",
        "unbiased",
    )

    def __init__(
        self,
        num_channels: int,
        momentum: float | None = 0.1,
        unbiased: bool = True,
        dtype: DTypeLike = np.float32,
        *,
        debias: bool = False,
        skip_nonfinite: bool = False,
    ) -> None:
        if isinstance(num_channels, bool) or not isinstance(num_channels, (int, np.integer)):
            raise TypeError(
                f"RunningStats: num_channels must be an integer, got {type(num_channels).__name__}"
            )
        if num_channels < 0:
            raise ValueError(f"RunningStats: num_channels must not be negative, got {num_channels}")
        if momentum is not None and not isinstance(momentum, (int, float, np.number)):
            raise TypeError(f"RunningStats: momentum must be a number or None, got {type(momentum).__name__}")
        if momentum is not None and not (math.isfinite(momentum) and 0.0 <= momentum <= 1.0):
            raise ValueError(
                f"RunningStats: momentum must be in [0, 1] (the weight of the new batch) or None, got {momentum}"
            )
        if debias and not momentum:
            raise ValueError(
                f"RunningStats: debias corrects an exponential average, which momentum={momentum} is not; "
                "pass a momentum above 0"
            )
        try:
            resolved = np.dtype(dtype)
        except TypeError:
            raise TypeError(f"RunningStats: dtype must be float32 or float64, got {dtype!r}") from None
        if resolved not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise TypeError(f"RunningStats: dtype must be float32 or float64, got {resolved}")
        self._mean: Array = np.zeros(num_channels, resolved)
        self._var: Array = np.ones(num_channels, resolved)
        self._var_count: Count = 0
        self.count: Count = 0
        self.samples: Count = 0
        self.skipped = 0
        self.frozen = False
        self.momentum = momentum
        self.unbiased = bool(unbiased)
        self.debias = bool(debias)
        self.skip_nonfinite = bool(skip_nonfinite)

    @classmethod
    def torch(cls, num_channels: int, momentum: float | None = 0.1, **options: Any) -> RunningStats:
        """Torch's convention: momentum weighs the new batch (0.1), the stored variance is unbiased."""
        return cls(num_channels, momentum=momentum, unbiased=True, **options)

    @classmethod
    def keras(cls, num_channels: int, momentum: float = 0.99, **options: Any) -> RunningStats:
        """Keras's convention: momentum weighs the old value (0.99), the stored variance is biased."""
        return cls(num_channels, momentum=1.0 - momentum, unbiased=False, **options)

    @classmethod
    def from_batches(
        cls,
        batches: Iterable[Array],
        *,
        axis: int = 1,
        momentum: float | None = 0.1,
        unbiased: bool = True,
        dtype: DTypeLike = np.float32,
        num_threads: int | None = None,
    ) -> RunningStats:
        """Exact statistics of a data set, read once, batch by batch.

        Parameters
        ----------
        batches : iterable of ndarray
            Mini-batches of any lengths, with one number of channels.
        axis : int, default 1
            The channel axis.
        momentum, unbiased, dtype
            Of the statistics that are returned, for the steps that they take later.
        num_threads : int, optional
            See `normkit.set_num_threads`.

        Returns
        -------
        RunningStats
            Mean and variance of all values of a channel taken together, not an average over batches.

        Raises
        ------
        ValueError
            If there is no batch, or the batches do not fit together.
        """
        if not isinstance(batches, Iterable):
            raise TypeError(
                f"RunningStats.from_batches: batches must be mini-batches, a list of arrays say, got {type(batches).__name__}"
            )
        parts = []
        for x in batches:
            mean, rstd, var, samples = _core.batch_moments(x, axis, 0.0, None, num_threads)
            parts.append(BatchMoments(mean, rstd, var, samples, eps=0.0))
        if not parts:
            raise ValueError("RunningStats.from_batches: there is no batch; pass at least one")
        merged = BatchMoments.merged(parts)
        stats = cls(merged.mean.size, momentum, unbiased, dtype)
        with default_arithmetic():
            stats._store(merged.mean, merged.var * _correction(merged.samples, unbiased))
        stats.count = stats._var_count = sum(bool(part.samples) for part in parts)
        stats.samples = merged.samples
        return stats

    @property
    def mean(self) -> Array:
        """Running mean, shape (num_channels,); writable."""
        return self._mean

    @mean.setter
    def mean(self, value: Any) -> None:
        self._assign("mean", self._mean, value)

    @property
    def var(self) -> Array:
        """Running variance, shape (num_channels,); writable."""
        return self._var

    @var.setter
    def var(self, value: Any) -> None:
        self._assign("var", self._var, value)

    def _assign(self, name: str, to: Array, value: Any) -> None:
        try:
            if value is None:  # which NumPy would take for NaN
                raise TypeError
            with default_arithmetic():
                to[...] = value
        except (TypeError, ValueError):
            raise ValueError(
                f"RunningStats: {name} must be one number, or one for each of {self.num_channels} channels, got "
                + (f"shape {value.shape}" if isinstance(value, np.ndarray) else repr(value))
            ) from None

    @property
    def num_channels(self) -> int:
        """Number of channels."""
        return int(self._mean.shape[0])

    @property
    def next_momentum(self) -> Any:
        """Weight that the next batch will get, by the rule of this average."""
        return self._weight(self.count + 1)

    def _weight(self, t: Count) -> Any:
        if self.momentum is None:
            return 1.0 / t
        if self.debias and self.momentum < 1.0:
            with default_arithmetic():
                return self.momentum / -np.expm1(t * math.log1p(-self.momentum))
        return float(self.momentum)

    @property
    def is_plain(self) -> bool:
        """Whether any batch with an element takes a step with one weight, as `normkit.batch_norm` can do itself."""
        counts_matter = self.debias or self.momentum is None
        if counts_matter and not (isinstance(self.count, int) and np.all(self._var_count == self.count)):
            return False
        return not (self.frozen or self.skip_nonfinite)

    def update(self, moments: BatchMoments) -> bool:
        """Take a step with the statistics of a mini-batch.

        What ``batch_norm(x, stats=stats)`` does by itself; apart from it the step can be left out, or taken with
        the merged moments of several micro-batches.

        Parameters
        ----------
        moments : BatchMoments
            What `normkit.batch_norm` returned with ``return_moments=True``, or `normkit.batch_moments`, or
            `BatchMoments.merged`.

        Returns
        -------
        bool
            Whether the statistics took the step.

        Raises
        ------
        TypeError
            If `moments` has no variance and count.
        ValueError
            If it is of another number of channels.
        """
        if not isinstance(moments, BatchMoments):
            raise TypeError(
                f"RunningStats.update: moments must be BatchMoments, got {type(moments).__name__}; "
                "pass what batch_norm(x, return_moments=True) or batch_moments(x) returned"
            )
        if moments.mean.shape != self._mean.shape:
            raise ValueError(
                f"RunningStats.update: moments must have {self.num_channels} channels, got {moments.mean.size}"
            )
        samples = moments.samples
        if self.frozen or not np.any(samples):
            return False
        with default_arithmetic():
            mean, var = moments.mean, moments.var * _correction(samples, self.unbiased)
            if self.skip_nonfinite and not (np.isfinite(mean).all() and np.isfinite(moments.var).all()):
                self.skipped += 1
                return False
            self._store(
                _moved(self._mean, mean, self._weight(self.count + 1), samples > 0),
                _moved(self._var, var, self._weight(self._var_count + 1), samples > 1),
            )
            self.note_step(samples)
        return True

    def note_step(self, samples: Count) -> None:
        """Count a mini-batch of `samples` values per channel whose statistics were taken in."""
        self.count = as_count(self.count + (samples > 0))
        self._var_count = as_count(self._var_count + (samples > 1))
        self.samples = as_count(self.samples + samples)

    def _store(self, mean: Array, var: Array) -> None:
        with default_arithmetic():
            self._mean[...], self._var[...] = mean, var

    def merge(self, other: RunningStats) -> None:
        """Take in the statistics of another process or of another part of the data.

        Mean and variance become those of both together, weighted by `samples` [1]_: exact for statistics
        from `from_batches`, and for running ones as exact as they are.

        Parameters
        ----------
        other : RunningStats
            For as many channels; it is left alone.

        Raises
        ------
        ValueError
            If channels or `unbiased` differ.

        References
        ----------
        .. [1] T. F. Chan, G. H. Golub, R. J. LeVeque, 1983; see `BatchMoments.merged`.
        """
        if not isinstance(other, RunningStats):
            raise TypeError(f"RunningStats.merge: other must be RunningStats, got {type(other).__name__}")
        if other.num_channels != self.num_channels:
            raise ValueError(
                f"RunningStats.merge: expected {self.num_channels} channels, got {other.num_channels}"
            )
        if other.unbiased != self.unbiased:
            raise ValueError(
                f"RunningStats.merge: unbiased is {self.unbiased} here and {other.unbiased} there; "
                "make both by one convention"
            )
        with default_arithmetic():
            parts = []
            for stats in (self, other):
                var = stats._var.astype(np.float64) / _correction(stats.samples, self.unbiased)
                parts.append(
                    BatchMoments(stats._mean.astype(np.float64), var, var, as_count(stats.samples), eps=0.0)
                )
            merged = BatchMoments.merged(parts)
            told = np.asarray(merged.samples) > 0
            var = merged.var * _correction(merged.samples, self.unbiased)
            self._store(np.where(told, merged.mean, self._mean), np.where(told, var, self._var))
        self.count = as_count(self.count + other.count)
        self._var_count = as_count(self._var_count + other._var_count)
        self.samples = as_count(self.samples + other.samples)
        self.skipped += other.skipped

    def freeze(self) -> None:
        """Let the statistics stand still.

        A batch norm in training then normalizes with them, as constants, while its weight and bias go on
        training: the moments of such a pass know that they are constants.
        """
        self.frozen = True

    def unfreeze(self) -> None:
        """Let the statistics move again."""
        self.frozen = False

    def reset(self) -> None:
        """Forget all batches: mean 0, variance 1, counts 0. The rules stay."""
        self._mean[...] = 0
        self._var[...] = 1
        self.count = self._var_count = self.samples = self.skipped = 0

    def copy(self) -> RunningStats:
        """Return an independent copy."""
        twin = RunningStats(**self.get_config())
        for name in ("count", "_var_count", "samples"):
            setattr(twin, name, as_count(getattr(self, name)))
        twin.skipped, twin.frozen = self.skipped, self.frozen
        twin._store(self._mean, self._var)
        return twin

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make statistics by the same rules."""
        return {
            "num_channels": self.num_channels,
            "momentum": self.momentum,
            "unbiased": self.unbiased,
            "dtype": self._mean.dtype.name,
            "debias": self.debias,
            "skip_nonfinite": self.skip_nonfinite,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that changes: mean, var, count, var_count, samples, skipped, frozen."""
        return {
            "mean": self._mean.copy(),
            "var": self._var.copy(),
            "count": as_count(self.count),
            "var_count": as_count(self._var_count),
            "samples": as_count(self.samples),
            "skipped": self.skipped,
            "frozen": self.frozen,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state: of `state_dict`, of a torch batch norm, or of a Keras layer.

        All is checked before anything changes. The rules (momentum, unbiased) are not part of a state: values that
        another library computed are used as they are, and the steps after them follow the rules of this object.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned; or torch's running_mean, running_var and, if there,
            num_batches_tracked; or Keras's moving_mean and moving_variance. Other entries of torch's and
            Keras's (weight, bias, gamma, beta) are left alone.

        Raises
        ------
        KeyError
            If the entries are of none of the three.
        ValueError
            If a shape is another, a count is negative, or in the values of another library a mean is not
            finite or a variance is negative or not finite.
        """
        if not isinstance(state, Mapping):
            raise TypeError(
                f"RunningStats.load_state_dict: state must be a mapping, got {type(state).__name__}"
            )
        own = tuple(self.state_dict())
        names = next((names for names in (own, TORCH, KERAS) if all(name in state for name in names)), None)
        if names is None:
            raise KeyError(
                f"RunningStats.load_state_dict: state must have {', '.join(own)}; or {' and '.join(TORCH)}; "
                f"or {' and '.join(KERAS)}; got {', '.join(map(str, state)) or 'nothing'}"
            )
        mean, var = (self._checked(name, state[name], foreign=names is not own) for name in names[:2])
        if names is own:
            counts = [self._checked_count(name, state[name]) for name in own[2:5]]
            skipped, frozen = (
                self._checked_count("skipped", state["skipped"], each=False),
                flag("RunningStats.load_state_dict: frozen", np.asarray(state["frozen"]).item()),
            )
        else:
            batches = self._checked_count("num_batches_tracked", state.get("num_batches_tracked", 0))
            counts, skipped, frozen = [batches, batches, 0], 0, self.frozen
        self._store(mean, var)
        self.count, self._var_count, self.samples = counts
        self.skipped, self.frozen = int(skipped), frozen

    def _checked(self, name: str, value: Any, *, foreign: bool) -> NDArray[np.float64]:
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"RunningStats.load_state_dict: {name} must be an array of numbers, got {value!r}"
            ) from None
        if array.shape != self._mean.shape:
            raise ValueError(
                f"RunningStats.load_state_dict: {name} must have shape {self._mean.shape}, got {array.shape}"
            )
        is_variance = "var" in name
        usable = np.isfinite(array).all() and not (is_variance and (array < 0).any())
        if foreign and not usable:
            wanted = "finite and not negative" if is_variance else "finite"
            raise ValueError(f"RunningStats.load_state_dict: {name} must be {wanted} in every channel")
        return array

    def _checked_count(self, name: str, value: Any, *, each: bool = True) -> Count:
        try:
            count = np.asarray(value)
        except ValueError:  # a ragged list
            count = np.asarray("none")
        fits = count.shape == () or (each and count.shape == self._mean.shape)
        # Comparisons with NaN are False; beyond 2**53 a float no longer counts.
        is_count = count.dtype.kind in "iuf" and np.all(
            (count >= 0) & (count <= 2**53) & (count == np.floor(count))
        )
        if not (fits and is_count):
            which = f"one number or one for each of {self.num_channels} channels" if each else "one number"
            raise ValueError(
                f"RunningStats.load_state_dict: {name} must be whole and not negative, {which}; got {value}"
            )
        return as_count(count) if count.size else 0

    def __repr__(self) -> str:
        momentum = None if self.momentum is None else f"{self.momentum:g}"
        rules = f"momentum={momentum}, unbiased={self.unbiased}"
        for name in ("debias", "skip_nonfinite", "frozen"):
            rules += f", {name}=True" if getattr(self, name) else ""
        return f"RunningStats({self.num_channels}, {rules}, count={self.count})"


def require_stats(op: str, stats: Any) -> None:
    """Raise TypeError unless `stats` are running statistics."""
    if not isinstance(stats, RunningStats):
        raise TypeError(
            f"{op}: stats must be RunningStats, got {type(stats).__name__}; "
            "for a mean and a variance of your own: stats = RunningStats(C); stats.mean, stats.var = mean, var"
        )


def _correction(count: Count, unbiased: bool) -> Any:
    """Return what a biased variance of `count` values is multiplied by to be stored."""
    return np.where(count > 1, count / np.maximum(count - 1, 1), 1.0) if unbiased else 1.0


def _moved(old: Array, new: NDArray[np.float64], weight: Any, takes: Any) -> Array:
    """Return the next running value: as it was in the channels that take no step, or one of weight 0."""
    old = old.astype(np.float64)
    return np.where(takes & (np.asarray(weight) > 0), (1.0 - weight) * old + weight * new, old)
