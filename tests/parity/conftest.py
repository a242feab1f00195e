"""The libraries that are compared with. Keras runs on torch (KERAS_BACKEND=torch)."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def torch():
    return pytest.importorskip("torch", reason="needs torch (the 'parity' dependency group)")


@pytest.fixture(scope="session")
def keras(torch):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras", reason="needs Keras (the 'parity' dependency group)")
