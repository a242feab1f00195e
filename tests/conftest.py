from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import normkit as nk


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261123)


@pytest.fixture(params=nk.isa.available())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this machine has, in turn."""
    with nk.isa.use(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def default_threads() -> Iterator[None]:
    yield
    nk.set_num_threads(None)
