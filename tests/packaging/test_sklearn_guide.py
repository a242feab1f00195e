"""The example of docs/sklearn.md runs as it is printed."""

from __future__ import annotations

import pytest

from guides import blocks, page

GUIDE = page("docs/sklearn.md")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_example(capsys):
    (example,) = blocks("python", GUIDE)
    namespace: dict[str, object] = {}
    exec(compile(example, "docs/sklearn.md", "exec"), namespace)  # noqa: S102 - the page is ours
    printed = capsys.readouterr().out
    assert "mlpclassifier__normalization" in printed
    assert float(printed.split()[-1]) > 0.95
    assert type(namespace["network"]).__name__ == "Sequential"
