"""The benchmark: its grid, its arithmetic, its page. Never a time."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench import grid, inputs, measure, report, targets
from bench.__main__ import main, parser
from bench.contenders import Call
from bench.contenders.ours import Ours
from bench.speed import chosen, run_case


def test_the_grid_has_every_operation_in_every_layout() -> None:
    cases = grid.standard()
    assert len({case.name for case in cases}) == len(cases)
    assert {(c.op, c.layout, c.direction) for c in cases} == {("ln", "", d) for d in ("fwd", "bwd")} | {
        ("bn", layout, d) for layout in ("nc", "nchw", "nhwc") for d in ("fwd", "bwd", "inf")
    }
    shared = ROOT.parent / "shared" / "shapes.json"
    if shared.exists():
        wanted = json.loads(shared.read_text())
        names = {case.name.split()[1] for case in cases if case.op == "bn"}
        assert names == {"x".join(map(str, s)) for s in wanted["bnorm"] + wanted["channels_last_extra"]}
        sizes = {case.size for case in cases if case.op == "ln"}
        assert sizes == {int(np.prod(shape)) for shape in wanted["lnorm"]}


def test_shapes_beside_the_grid() -> None:
    assert [c.name for c in grid.parse("ln 7x9")] == ["ln 7x9 fwd", "ln 7x9 bwd"]
    assert {c.layout for c in grid.parse("bn 2x3x4x5")} == {"nchw", "nhwc"}
    with pytest.raises(ValueError, match='a shape is written as "ln 777x1023"'):
        grid.parse("ln 7")
    arguments = parser().parse_args(["speed", "--shape", "ln 7x9", "--shape", "bn 5x6", "--only", "bwd"])
    assert [c.name for c in chosen(arguments)] == ["ln 7x9 bwd", "bn 5x6 nc bwd"]


@pytest.mark.parametrize("text", ["ln 33x70", "ln 1x40", "bn 20x6", "bn 4x3x5x5", "bn 1x7x40", "bn 8x40x6x6"])
def test_results_are_checked(text) -> None:
    for case in grid.parse(text):
        data = inputs.make(case)
        right = Ours("normkit", fresh=True).prepare(data).results()
        assert inputs.error_of(data, right) < 1e-5
        for k in range(len(right)):
            wrong = [np.array(part) for part in right]
            wrong[k].flat[wrong[k].size // 2] += 0.01 * np.abs(wrong[k]).max()
            assert inputs.error_of(data, tuple(wrong)) > inputs.TOLERANCE


def test_contenders_take_turns(monkeypatch) -> None:
    monkeypatch.setattr(measure, "WARM", 0.0)
    monkeypatch.setattr(measure, "SAMPLE", 0.0)
    monkeypatch.setattr(measure, "quiet", lambda: None)
    order: list[str] = []
    calls = {name: Call(lambda _, name=name: order.append(name), tuple) for name in "abc"}
    seconds = measure.interleaved(calls, 4)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 4, "b": 4, "c": 4}
    turns = [name for name, before in zip(order, [None, *order[:-1]], strict=True) if name != before]
    assert "".join(turns) in "abc" * 2 + "abcbcacababc" or "".join(turns).startswith("abcabc")
    assert measure.interleaved({}, 3) == {}


def test_figures() -> None:
    assert measure.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == 2.0
    assert measure.spread([1.0, 1.0, 1.0, 1.0]) == 0.0
    assert measure.geometric_mean([2.0, 8.0]) == pytest.approx(4.0)


def record(name: str, mib: float, **seconds: float) -> dict[str, Any]:
    labels = {"out": "normkit out=", "fresh": "normkit", "torch": "torch", "omp": "oneDNN OpenMP", "one": "normkit 1 thread"}  # fmt: skip
    return {
        "case": name,
        "group": grid.Case(name.split()[0], (1, 1), "", name.split()[-1]).group,
        "mib": mib,
        "errors": {},
        "notes": {"oneDNN OpenMP": "jit"},
        "wrong": {},
        "seconds": {labels.get(k, k): [v] * 5 for k, v in seconds.items()},
    }


def document() -> dict[str, Any]:
    cases = [
        record("ln 32x64 fwd", 0.01, out=1.0, fresh=1.0, torch=4.0, omp=2.0),
        record("ln 1024x768 fwd", 3.0, out=1.0, fresh=2.0, torch=4.0, omp=0.5, one=1.5),
        record("ln 2048x8192 fwd", 64.0, out=1.0, fresh=1.0, torch=9.0, memory=0.8),
        record("bn 32x64x112x112 nhwc bwd", 98.0, out=2.0, fresh=2.0, torch=9.0, memory=0.6),
    ]
    return {
        "machine": {
            "processor": "P",
            "cores": 2,
            "isa": "avx2",
            "cache_bytes": [1 << 20, 1 << 25],
            "python": "3",
            "system": "S",
        },
        "threads": 2,
        "rounds": 5,
        "date": "2026-01-01",
        "minutes": 1.0,
        "versions": {"normkit": "0", "torch": "2"},
        "absent": {"jax": "jax is not installed"},
        "bandwidth": [{"bytes": 1 << 20, "copy": 1e10, "streaming copy": 2e10}],
        "cases": cases,
    }


def test_targets() -> None:
    rows = {(row.number, row.what): row for row in targets.rows(document()["cases"])}
    each = rows["1", "out=, the better of torch and oneDNN, each case"]
    assert each.reached == 0.5
    assert each.misses == ["ln 1024x768 fwd"]
    assert rows["2", "the same, results of 32 MiB and more"].reached == pytest.approx((9.0 * 4.5) ** 0.5)
    assert rows["3", "share of memory: forward and inference"].values == {"ln 2048x8192 fwd": 0.8}
    columns = rows["3", "share of memory: batch norm NHWC and NC"]
    assert columns.values == {"bn 32x64x112x112 nhwc bwd": pytest.approx(20 / 12 * 0.3)}
    assert rows["5", "32×64: layer norm forward, torch"].reached == 4.0
    assert rows["6", "2 threads against 1, 1 to 8 MiB"].reached == 1.5


def test_the_page(tmp_path, capsys) -> None:
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    report.to_page(document(), page)
    text = page.read_text()
    assert "| ln 1024x768 fwd | 3.00 | 1000000.0 ±0% |" in text
    assert "jax was absent: jax is not installed." in text
    for name in ("bench-ratios.png", "bench-bandwidth.png", "bench-threads.png"):
        assert f"images/{name}" in text
        assert (page.parent / "images" / name).read_bytes().startswith(b"\x89PNG")
    report.to_terminal(document())
    assert "aim    1  reached   0.50  missed by 1 of 4  ln 1024x768 fwd 0.50" in capsys.readouterr().out


def test_a_case_is_measured_and_a_wrong_contender_is_not(monkeypatch) -> None:
    monkeypatch.setattr(measure, "WARM", 0.0)
    monkeypatch.setattr(measure, "SAMPLE", 0.0)
    monkeypatch.setattr(measure, "quiet", lambda: None)

    class Wrong(Ours):
        def prepare(self, data: inputs.Inputs) -> Call:
            call = super().prepare(data)
            return Call(call.run, lambda: tuple(2 * part for part in call.results()))

    case = grid.parse("bn 9x5")[0]
    found = run_case(case, [Ours("normkit out="), Ours("normkit", fresh=True), Wrong("liar", fresh=True)], 2)
    assert set(found["seconds"]) == {"normkit out=", "normkit"}
    assert found["wrong"]["liar"].startswith("WRONG by")
    assert found["errors"]["normkit"] < 1e-6


def test_trainer_in_a_process_of_its_own(capsys):
    main(["trainer", "--rounds", "1", "--workload", "large-batch", "--peers", ""])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("large-batch: 784-64-BN-10, Adam, batches of 1024, 8 steps an epoch")
    assert lines[4].split()[0] == "normkit"
    assert lines[4].split()[-3] == "1.00"
