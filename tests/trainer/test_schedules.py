"""Learning-rate schedules: their formulas at the points where they change."""

import math

import numpy as np
import pytest

from normkit.optimizers import Adam, schedules
from normkit.optimizers.schedules import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    LearningRateSchedule,
    OneCycle,
    PiecewiseConstantDecay,
    PolynomialDecay,
)


def half_cosine(share):
    return 0.5 * (1 + math.cos(math.pi * share))


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (ExponentialDecay(0.1, 10, 0.5), {0: 0.1, 5: 0.1 * 0.5**0.5, 10: 0.05, 30: 0.0125}),
        (ExponentialDecay(0.1, 10, 0.5, staircase=True), {0: 0.1, 9: 0.1, 10: 0.05, 19: 0.05, 20: 0.025}),
        (InverseTimeDecay(0.1, 10, 0.5), {0: 0.1, 5: 0.08, 20: 0.05}),
        (InverseTimeDecay(0.1, 10, 0.5, staircase=True), {9: 0.1, 10: 0.1 / 1.5, 19: 0.1 / 1.5}),
        (PiecewiseConstantDecay([10, 20], [1.0, 0.5, 0.1]), {0: 1.0, 10: 1.0, 11: 0.5, 20: 0.5, 21: 0.1}),
        (PiecewiseConstantDecay([], [0.3]), {0: 0.3, 99: 0.3}),
        (PolynomialDecay(0.5, 10, 0.1), {0: 0.5, 5: 0.3, 10: 0.1, 11: 0.1}),
        (PolynomialDecay(0.5, 10, 0.1, power=2.0), {5: 0.2}),
        (PolynomialDecay(0.5, 10, 0.1, cycle=True), {0: 0.5, 10: 0.1, 15: 0.4 * 0.25 + 0.1, 20: 0.1}),
        (CosineDecay(0.5, 10), {0: 0.5, 5: 0.25, 10: 0.0, 99: 0.0}),
        (CosineDecay(0.5, 10, alpha=0.2), {0: 0.5, 5: 0.3, 10: 0.1}),
        (
            CosineDecay(0.1, 10, warmup_target=0.5, warmup_steps=4),
            {0: 0.1, 2: 0.3, 4: 0.5, 9: 0.25, 14: 0.0, 20: 0.0},
        ),
        (CosineDecay(0.1, 10, warmup_target=0.5), {0: 0.5, 10: 0.0}),
        (
            CosineDecayRestarts(0.5, 10),
            {
                0: 0.5,
                5: 0.25,
                9: 0.5 * half_cosine(0.9),
                10: 0.5,
                20: 0.25,
                29: 0.5 * half_cosine(0.95),
                30: 0.5,
            },
        ),
        (CosineDecayRestarts(0.5, 10, t_mul=1.0, m_mul=0.5), {0: 0.5, 10: 0.25, 15: 0.125, 20: 0.125}),
        (CosineDecayRestarts(0.5, 10, alpha=0.2), {5: 0.3, 10: 0.5}),
        (OneCycle(0.5, 20, 0.3), {0: 0.02, 5: 0.5, 12: 0.25 + 1e-6, 19: 2e-6, 50: 2e-6}),
        (OneCycle(0.5, 20, 0.05), {0: 0.5, 19: 2e-6}),
        (OneCycle(0.5, 20, 1.0), {0: 0.02, 19: 0.5, 20: 2e-6}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values(schedule, values):
    for step, expected in values.items():
        assert schedule(step) == pytest.approx(expected, rel=1e-12, abs=1e-15), step
    again = schedules.get(schedules.registry.serialize(schedule))
    assert [again(step) for step in range(40)] == [schedule(step) for step in range(40)]


@pytest.mark.parametrize("t_mul", [1.0, 1.1, 1.5, 2.0, 3.0])
def test_restarts_are_where_they_should_be(t_mul):
    """Also where the logarithm that finds them rounds the wrong way."""
    schedule = CosineDecayRestarts(1.0, 7.0, t_mul=t_mul)
    start, length = 0.0, 7.0
    for _ in range(12):
        if start == int(start):
            assert schedule(int(start)) == pytest.approx(1.0, abs=1e-9)
        start, length = start + length, length * t_mul
    assert all(0 <= schedule(step) <= 1 for step in range(2000))


def test_a_schedule_of_ones_own():
    class Warm(LearningRateSchedule):
        def __init__(self, rate):
            self.rate = rate

        def __call__(self, step):
            return self.rate * (step + 1)

    optimizer = Adam(Warm(0.5))
    optimizer.build([(np.zeros(1), np.ones(1))])
    optimizer.step()
    assert optimizer.learning_rate == 1.0
    with pytest.raises(ValueError, match=r"cannot save learning-rate schedule of class .*Warm; can: Exp"):
        optimizer.get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ExponentialDecay(-1, 10, 0.5),
            "initial_learning_rate must be finite and not negative, got -1",
        ),
        (
            lambda: ExponentialDecay(1, 0, 0.5),
            "ExponentialDecay: decay_steps must be finite and above 0, got 0",
        ),
        (lambda: InverseTimeDecay(1, 10, -1), "InverseTimeDecay: decay_rate must be finite and not negative"),
        (
            lambda: PiecewiseConstantDecay([1], [1.0]),
            "one more than boundaries, got 1 values and 1 boundaries",
        ),
        (lambda: PiecewiseConstantDecay([2, 1], [1, 1, 1]), "boundaries must increase, got 2, 1"),
        (lambda: PolynomialDecay(1, -3), "PolynomialDecay: decay_steps must be finite and above 0, got -3"),
        (lambda: CosineDecay(1, 10, warmup_target=-1), "warmup_target must be finite and not negative"),
        (lambda: OneCycle(1, 1), "OneCycle: total_steps must be at least 2, got 1"),
        (lambda: OneCycle(1, 10, 2), r"OneCycle: share_up must be in \[0, 1\], got 2"),
        (lambda: CosineDecayRestarts(1, 10, t_mul=0.5), "t_mul must be at least 1, got 0.5"),
        (
            lambda: schedules.get({"class_name": "Linear"}),
            "no learning-rate schedule 'Linear'; there are: Exp",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
