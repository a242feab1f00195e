"""The compiled module. Use `normkit`'s functions: these take every argument by position."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__version__: str

_Array: TypeAlias = NDArray[Any]
_Moments: TypeAlias = NDArray[np.float64]

def layer_norm(
    x: _Array,
    weight: _Array | None,
    bias: _Array | None,
    axis: int | Sequence[int],
    eps: float,
    where: _Array | None,
    activation: str | None,
    out: _Array | None,
    return_moments: bool,
    num_threads: int | None,
) -> Any: ...
def layer_norm_backward(
    dy: _Array,
    x: _Array,
    mean: _Moments,
    rstd: _Moments,
    weight: _Array | None,
    bias: _Array | None,
    axis: int | Sequence[int] | None,
    where: _Array | None,
    activation: str | None,
    from_output: bool,
    out: _Array | None,
    num_threads: int | None,
) -> tuple[_Array, _Array, _Array]: ...
def rms_norm(
    x: _Array,
    weight: _Array | None,
    bias: _Array | None,
    axis: int | Sequence[int],
    eps: float,
    where: _Array | None,
    activation: str | None,
    out: _Array | None,
    return_moments: bool,
    num_threads: int | None,
) -> Any: ...
def rms_norm_backward(
    dy: _Array,
    x: _Array,
    mean: _Moments,
    rstd: _Moments,
    weight: _Array | None,
    bias: _Array | None,
    axis: int | Sequence[int] | None,
    where: _Array | None,
    activation: str | None,
    from_output: bool,
    out: _Array | None,
    num_threads: int | None,
) -> tuple[_Array, _Array, _Array]: ...
def batch_norm_training(
    x: _Array,
    weight: _Array | None,
    bias: _Array | None,
    running_mean: _Array | None,
    running_var: _Array | None,
    momentum: float,
    unbiased: bool,
    axis: int,
    eps: float,
    where: _Array | None,
    residual: _Array | None,
    activation: str | None,
    negative_slope: float | None,
    out: _Array | None,
    return_moments: bool,
    num_threads: int | None,
) -> Any: ...
def batch_norm_inference(
    x: _Array,
    weight: _Array | None,
    bias: _Array | None,
    running_mean: _Array,
    running_var: _Array,
    axis: int,
    eps: float,
    residual: _Array | None,
    activation: str | None,
    negative_slope: float | None,
    out: _Array | None,
    return_moments: bool,
    num_threads: int | None,
) -> Any: ...
def batch_moments(
    x: _Array, axis: int, eps: float, where: _Array | None, num_threads: int | None
) -> tuple[_Moments, _Moments, _Moments, int | NDArray[np.int64]]: ...
def batch_norm_backward(
    dy: _Array,
    x: _Array,
    mean: _Moments,
    rstd: _Moments,
    samples: int | _Array | None,
    weight: _Array | None,
    bias: _Array | None,
    active: NDArray[np.uint8] | None,
    from_output: bool,
    negative_slope: float | None,
    training: bool | None,
    axis: int | Sequence[int] | None,
    where: _Array | None,
    return_dresidual: bool,
    out: _Array | None,
    num_threads: int | None,
) -> tuple[_Array, ...]: ...
def group_norm(
    x: _Array,
    num_groups: int | None,
    weight: _Array | None,
    bias: _Array | None,
    axis: int,
    eps: float,
    where: _Array | None,
    activation: str | None,
    out: _Array | None,
    return_moments: bool,
    num_threads: int | None,
) -> Any: ...
def group_norm_backward(
    dy: _Array,
    x: _Array,
    mean: _Moments,
    rstd: _Moments,
    num_groups: int | None,
    weight: _Array | None,
    active: NDArray[np.uint8] | None,
    axis: int | Sequence[int] | None,
    where: _Array | None,
    out: _Array | None,
    num_threads: int | None,
) -> tuple[_Array, _Array, _Array]: ...
def add_layer_norm(
    x: _Array,
    residual: _Array,
    weight: _Array | None,
    bias: _Array | None,
    axis: int | Sequence[int],
    eps: float,
    activation: str | None,
    dropout: float,
    seed: int,
    out: _Array | None,
    return_moments: bool,
    num_threads: int | None,
) -> Any: ...
def add_layer_norm_backward(
    dy: _Array,
    dtotal: _Array | None,
    total: _Array,
    mean: _Moments,
    rstd: _Moments,
    weight: _Array | None,
    bias: _Array | None,
    axis: int | Sequence[int] | None,
    activation: str | None,
    dropout: float,
    seed: int,
    out: _Array | None,
    num_threads: int | None,
) -> tuple[_Array, _Array, _Array, _Array]: ...
def add_rms_norm(
    x: _Array,
    residual: _Array,
    weight: _Array | None,
    bias: _Array | None,
    axis: int | Sequence[int],
    eps: float,
    activation: str | None,
    dropout: float,
    seed: int,
    out: _Array | None,
    return_moments: bool,
    num_threads: int | None,
) -> Any: ...
def add_rms_norm_backward(
    dy: _Array,
    dtotal: _Array | None,
    total: _Array,
    mean: _Moments,
    rstd: _Moments,
    weight: _Array | None,
    bias: _Array | None,
    axis: int | Sequence[int] | None,
    activation: str | None,
    dropout: float,
    seed: int,
    out: _Array | None,
    num_threads: int | None,
) -> tuple[_Array, _Array, _Array, _Array]: ...
def softmax_cross_entropy(
    logits: _Array, labels: _Array, weights: _Array | None
) -> tuple[float, _Array, _Array]:
    """Mean loss, its gradient with respect to the logits, and the softmax."""

def adam_step(
    value: _Array,
    grad: _Array,
    momentum: _Array,
    velocity: _Array,
    largest: _Array | None,
    momentum_share: float,
    velocity_share: float,
    epsilon: float,
    rate: float,
) -> None:
    """Change value, momentum, velocity and largest in place."""

def isa_available() -> list[str]: ...
def isa_active() -> str: ...
def isa_use(name: str) -> None: ...
def check_environment() -> None:
    """Raise ValueError if a number in an environment variable is none."""

def enter_default_float_mode() -> int:
    """Set this thread's default floating-point mode; return the one before, for `set_float_mode`."""

def set_float_mode(mode: int) -> None: ...
def set_num_threads(num_threads: int | None) -> None: ...
def get_num_threads() -> int: ...
def build_config() -> dict[str, object]: ...
def empty_cache() -> None: ...
def pool_usage() -> tuple[int, int, int]:
    """Bytes of the pool in use, waiting, and at most waiting."""
