"""The error table: a part of it within the contract, its oracle, and the page that it writes."""

from __future__ import annotations

import re
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench import accuracy
from bench.__main__ import parser
from bench.accuracy import errors, page, problems, reproducers
from bench.contenders.passes import Ours, everyone

from bounds import LIMITS
from pairs import EXTENDED, Pair

PAGE = ROOT / "docs" / "accuracy.md"


def outside(problem: problems.Problem) -> bool:
    """Data whose dweight has a bound of its own, for what rounding loses lies below the smallest number."""
    return problem.format == "float64" and problem.data == "subnormal"


def broken(problem: problems.Problem) -> list[str]:
    contenders, _ = everyone(peers=False)
    found = errors.measure(problem, contenders, decimals=not EXTENDED)
    texts = errors.broken([found], [contender.name for contender in contenders])
    return [text for text in texts if not (outside(problem) and " dweight " in text)]


@pytest.mark.parametrize("op", problems.OPS)
@pytest.mark.parametrize("form", problems.FORMATS)
@pytest.mark.parametrize("length", [2, 100, 1000])
def test_normkit_is_within_the_contract(op: str, form: str, length: int) -> None:
    for shape, axis in problems.shapes(op, length):
        for data in problems.FORMATS[form].data():
            assert broken(problems.make(op, form, data, shape, axis)) == []


@pytest.mark.parametrize(
    "report", [r for r in reproducers.REPORTS if np.prod(r.shape) <= 1 << 17], ids=lambda r: r.what
)
def test_normkit_is_right_where_other_libraries_failed(report: reproducers.Report) -> None:
    assert broken(report.problem()) == []


@pytest.mark.parametrize("op", problems.OPS)
@pytest.mark.parametrize("length", [2, 10, 1000])
def test_dweight_of_subnormal_doubles(op: str, length: int) -> None:
    """Each term may lose half of the smallest number to its product, and |dy| halves to the mean, times rstd."""
    for shape, axis in problems.shapes(op, length):
        p = problems.make(op, "float64", "subnormal", shape, axis)
        exact, _, _ = errors.exact_results(p, decimals=True)
        got = Ours()(p)["dweight"]
        least, rstd = Fraction(5e-324), Fraction(p.eps**-0.5)
        for value, right, scale, weight in zip(
            got.flat,
            exact.dweight.flat,
            exact.dweight_scale.flat,
            (np.abs(p.dy) + 1).sum(axis=p.summed_axes).flat,
            strict=True,
        ):
            bound = (
                2 * Fraction(np.finfo(float).eps) * Fraction(scale)
                + least
                + rstd * Fraction(weight) / 2 * least
            )
            assert abs(Fraction(value) - Fraction(right)) <= bound


@pytest.mark.parametrize(
    ("dtype", "bits"), [(np.float64, 106), (np.longdouble, 2 * (np.finfo(np.longdouble).nmant + 1))]
)
def test_pairs_have_twice_the_bits(dtype: Any, bits: int, rng: np.random.Generator) -> None:
    def fractions(pair: Pair) -> list[Fraction]:
        halves = zip(pair.high.ravel(), pair.low.ravel(), strict=True)
        return [Fraction(*map(int, h.as_integer_ratio())) + Fraction(*map(int, v.as_integer_ratio())) for h, v in halves]  # fmt: skip

    def worst(got: Pair, right: list[Fraction]) -> Fraction:
        return max(abs(g - r) / abs(r) for g, r in zip(fractions(got), right, strict=True))

    size = (50, 3)
    a = Pair.of(rng.standard_normal(size), dtype) * rng.standard_normal(size)
    b = Pair.of(10.0 ** rng.uniform(-5, 5, size), dtype) / 3
    exact_a, exact_b = fractions(a), fractions(b)
    both = list(zip(exact_a, exact_b, strict=True))
    few = Fraction(4, 2**bits)
    assert worst(a + b, [x + y for x, y in both]) <= few
    assert worst(1 - a, [1 - x for x in exact_a]) <= few
    assert worst(a * b, [x * y for x, y in both]) <= few
    assert worst(a / b, [x / y for x, y in both]) <= few
    assert worst(b.sqrt() * b.sqrt(), exact_b) <= few
    assert worst(abs(a).sum((0, 1)), [sum(map(abs, exact_a), Fraction(0))]) <= 2 * few
    assert a.sum((-2,), keepdims=True).shape == (1, 3)


@pytest.mark.skipif(not EXTENDED, reason="pairs have the range of double here")
@pytest.mark.parametrize("form", problems.FORMATS)
def test_both_oracles_agree(form: str) -> None:
    for data in problems.FORMATS[form].data():
        p = problems.make("batch norm NHWC", form, data, (3, 4, 2, 5), 3)
        decimals, pairs = (
            errors.measure(p, [Ours()], decimals=d)["errors"]["normkit"] for d in (True, False)
        )
        for result in errors.RESULTS:
            assert pairs[result] == pytest.approx(decimals[result], rel=1e-6, abs=1e-6), data


class Wrong:
    """A library that divides by zero and has no gradients."""

    name, version = "wrong", "1"

    def __call__(self, problem: problems.Problem) -> dict[str, Any]:
        y = np.zeros_like(problem.x)
        y.flat[0] = np.nan
        return {"y": y}


def test_wrong_results_show_as_such(tmp_path: Path) -> None:
    problem = problems.make("layer norm", "float32", "mean/σ 1", (2000, 3), -1)
    found = errors.measure(problem, [Ours(), Wrong()])
    assert set(found["errors"]["wrong"]) == {"y"}
    assert re.fullmatch(r"NaN / \de\d+", page.cell([found], "wrong", "y"))
    assert page.cell([found], "wrong", "dx") == "–"
    assert errors.broken([found], ["normkit"]) == []
    assert len(errors.broken([found], ["wrong"])) == 1
    document = {"cases": [found]}
    text = accuracy.json.dumps(accuracy._plain(document), allow_nan=False)
    (tmp_path / "run.json").write_text(text)
    again = accuracy.load(tmp_path / "run.json")["cases"][0]["errors"]["wrong"]["y"]
    assert np.isnan(again[0])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (0.001, "< 0.01"), (1.234, "1.23"), (123.4, "123"), (9999.0, "9999"), (9999.9, "1e4"), (4e45, "4e45"), (1.7e308, "≥ 1e308"), (np.nan, "NaN"), (np.inf, "Inf")],
)  # fmt: skip
def test_figures(value: float, text: str) -> None:
    assert page.figure(value) == text


def headers(text: str) -> list[str]:
    """Headings, and the first line of every table."""
    lines = text.splitlines()
    tables = [line for line, below in pairwise(lines) if re.match(r"\| ?-", below)]
    return [line for line in lines if line.startswith("#")] + tables


def test_the_page_is_what_the_code_writes() -> None:
    """Its headings and columns; the figures are those of the run that it names."""
    published = PAGE.read_text(encoding="utf-8")
    names = re.findall(r"(normkit baseline|normkit|torch|keras|jax|onnxruntime) \d", published[:1500])
    assert names[0] == "normkit"
    cases = [
        errors.measure(problems.make(op, form, data, *problems.shapes(op, 2)[0]), [Ours()], decimals=False)
        for form in problems.FORMATS
        for op in problems.OPS
        for data in ("mean/σ 0",)
    ]
    cases.append(errors.measure(reproducers.REPORTS[0].problem(), [Ours()]))
    document = {
        "date": "2026-01-01",
        "minutes": 1.0,
        "quick": False,
        "isa": "avx2",
        "versions": dict.fromkeys(names, "1"),
        "absent": {},
        "cases": cases,
    }
    assert headers(page.markdown_page(document)) == headers(published)
    for data in problems.FORMATS["float64"].data():
        assert f"| {data} |" in published
    for report in reproducers.REPORTS:
        assert f"[{report.source}](https://github.com/" in published
    assert f"bound {LIMITS['y']:g}" in page.terminal(document)


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["accuracy", "--no-peers", "--only", "float64 layer norm 2048x2 mean/σ 1e4", "--json"]
    accuracy.run(
        parser().parse_args([*words, str(tmp_path / "run.json"), "--page", str(tmp_path / "page.md")])
    )
    assert "over its bound" not in capsys.readouterr().out
    assert "| float64 | layer norm | y | mean/σ 1e4, 2048×2 | yes | 4 |" in (tmp_path / "page.md").read_text(
        encoding="utf-8"
    )
    with pytest.raises(SystemExit, match="no case matches"):
        accuracy.run(parser().parse_args(["accuracy", "--no-peers", "--only", "nothing"]))
