"""The first example of docs/interchange.md runs as it is printed; the second, with torch, does in tests/parity."""

from __future__ import annotations

from pathlib import Path

import pytest

from guides import run_interchange_example


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_interchange_example(0, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.keras", "model.safetensors"]
