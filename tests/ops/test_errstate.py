"""NumPy's error state is the caller's business: no result and no step of running statistics depends on it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import normkit as nk

LEAST, MOST = np.float32(1e-45), np.finfo(np.float32).max
RULES: dict[str, dict[str, Any]] = {
    "exponential": {},
    "biased": {"unbiased": False},
    "cumulative": {"momentum": None},
    "debiased": {"debias": True},
    "debiased, slow": {"debias": True, "momentum": 1e-6},
    "last batch": {"momentum": 1.0},
    "no step": {"momentum": 0.0},
    "finite": {"skip_nonfinite": True},
    "double": {"dtype": np.float64},
}


def data(kind: str, rng: np.random.Generator) -> Any:
    x = rng.standard_normal((6, 4)).astype(np.float32)
    match kind:
        case "subnormal":
            x = (rng.integers(-9, 9, (6, 4)) * LEAST).astype(np.float32)
        case "large":
            x = np.where(x > 0, MOST, -MOST).astype(np.float32)
        case "constant":
            x[:] = 3.0
        case "NaN":
            x[2, 1] = np.nan
        case "infinite":
            x[3, 2] = np.inf
    return x


MASK = np.array([[True, True, False, True]] * 3 + [[True, False, False, True]] * 3)
STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "batch_norm": lambda x, s: nk.batch_norm(x, stats=s, return_moments=True),
    "batch_norm, mask": lambda x, s: nk.batch_norm(x, stats=s, where=MASK, return_moments=True),
    "ghost_batch_norm": lambda x, s: nk.ghost_batch_norm(x, ghost_size=2, stats=s)[0],
    "batch_renorm": lambda x, s: nk.batch_renorm(x, stats=s, r_max=3.0, d_max=5.0),
    "update": lambda x, s: s.update(nk.batch_moments(x)),
    "update, merged": lambda x, s: s.update(
        nk.BatchMoments.merged([nk.batch_moments(x[:2], where=MASK[:2]), nk.batch_moments(x[2:])])
    ),
    "merge": lambda x, s: s.merge(nk.RunningStats.from_batches([x[:1], x[1:]], unbiased=s.unbiased)),
    "inference": lambda x, s: nk.batch_norm(x, stats=s, training=False, eps=0.0),
    "copy": lambda x, s: s.copy().mean,
    "load_state_dict": lambda x, s: s.load_state_dict({**s.state_dict(), "mean": x[0], "var": abs(x[1])}),
}


def flat(result: Any) -> list[Any]:
    if isinstance(result, (tuple, list, nk.Moments)):
        return [piece for part in result for piece in flat(part)]
    return [np.asarray(result)]


def outcome(step: Callable[[Any, Any], Any], x: Any, rule: dict[str, Any]) -> list[Any]:
    stats = nk.RunningStats(4, **rule)
    found: list[Any] = []
    for _ in range(3):
        found += flat(step(x, stats))
    state = stats.state_dict()
    return [*found, *(np.asarray(state[name]) for name in sorted(state))]


@pytest.mark.parametrize("kind", ["ordinary", "subnormal", "large", "constant", "NaN", "infinite"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_the_same_in_every_error_state(
    step: str, rule: str, kind: str, rng: np.random.Generator
) -> None:
    x = data(kind, rng)
    results = []
    for state in ("ignore", "raise", "warn"):
        with np.errstate(all=state), warnings.catch_warnings():
            warnings.simplefilter("error")
            results.append(outcome(STEPS[step], x.copy(), RULES[rule]))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("kind", ["ordinary", "subnormal", "large", "constant", "NaN"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_gradients_are_the_same_in_every_error_state(kind: str, dtype: Any, rng: np.random.Generator) -> None:
    with np.errstate(all="ignore"):
        x = data(kind, rng).astype(dtype)
        dy = rng.standard_normal(x.shape).astype(dtype)
        weight = rng.standard_normal(4).astype(dtype)
    results = []
    for state in ("ignore", "raise"):
        with np.errstate(all=state):
            stats = nk.RunningStats(4)
            found = []
            _, moments = nk.batch_norm(x, weight, where=MASK, return_moments=True)
            found += nk.batch_norm_backward(dy, x, moments, weight)
            _, rows = nk.layer_norm(x, weight, return_moments=True)
            found += nk.layer_norm_backward(dy, x, rows, weight)
            _, ghosts = nk.ghost_batch_norm(x, weight, ghost_size=4)
            found += nk.ghost_batch_norm_backward(dy, x, ghosts, weight, ghost_size=4)
            _, renorm = nk.batch_renorm(x, weight, stats=stats, r_max=3.0, d_max=5.0)
            found += nk.batch_renorm_backward(dy, x, renorm, weight)
            results.append(found)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
