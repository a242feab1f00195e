"""The examples that the README and the guides print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_interchange_example(number: int, namespace: dict[str, Any]) -> None:
    """Run an example of docs/interchange.md; the second one needs torch."""
    examples = blocks("python", page("docs/interchange.md"))
    assert len(examples) == 2
    exec(compile(examples[number], f"docs/interchange.md, example {number}", "exec"), namespace)  # noqa: S102 - ours
