"""The first example of docs/interchange.md runs as it is printed; the second, with torch, does in tests/parity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from test_readme import blocks

GUIDE = (Path(__file__).resolve().parents[1] / "docs" / "interchange.md").read_text(encoding="utf-8")


def run_example(number: int, namespace: dict[str, Any]) -> None:
    examples = blocks("python", GUIDE)
    assert len(examples) == 2
    exec(compile(examples[number], f"docs/interchange.md, example {number}", "exec"), namespace)  # noqa: S102 - ours


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_example(0, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.keras", "model.safetensors"]
