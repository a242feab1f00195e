"""The pictures of a run: ratios, bandwidth against size, and what the second thread brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import targets
from bench.measure import median, ratio

OURS, COLOURS = (
    "normkit out=",
    {"normkit": "#1b6ca8", "torch": "#e4572e", "oneDNN": "#8a8d91", "memory": "#3b3b3b"},
)


def draw(document: dict[str, Any], folder: Path) -> list[tuple[str, str]]:
    """Write the PNG files; their names and titles."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110}
    )
    drawn = []
    for name, title, function in (
        (
            "bench-ratios.png",
            "Time of the better of torch and oneDNN, in units of normkit's, every case",
            _ratios,
        ),
        ("bench-bandwidth.png", "Layer norm: bandwidth against the size of x", _bandwidth),
        ("bench-threads.png", "Two threads against one", _threads),
    ):
        figure = function(document, plt)
        if figure is None:
            continue
        figure.savefig(folder / name, bbox_inches="tight")
        plt.close(figure)
        drawn.append((name, title))
    return drawn


def _ratios(document: dict[str, Any], plt: Any) -> Any:
    groups: dict[str, list[tuple[float, float]]] = {}
    for record in document["cases"]:
        value = targets.against(record, OURS, ("torch", *targets.ONEDNN))
        if value is not None:
            groups.setdefault(record["group"], []).append((record["mib"], value))
    if not groups:
        return None
    figure, axes = plt.subplots(figsize=(8.5, 0.5 + 0.42 * len(groups)))
    names = list(groups)[::-1]
    for row, name in enumerate(names):
        sizes, values = zip(*groups[name], strict=True)
        shades = [0.25 if mib < 0.25 else 0.5 if mib <= 8 else 0.75 if mib < 32 else 1.0 for mib in sizes]
        axes.scatter(values, [row] * len(values), c=shades, cmap="Blues", vmin=0, vmax=1.1, s=34, edgecolors="#1b3a57", linewidths=0.5, zorder=3)  # fmt: skip
    axes.axvline(1.0, color="#b22222", linewidth=1)
    axes.set_xscale("log")
    ticks = [0.5, 1, 2, 4, 8, 16, 32]
    axes.set_xticks(ticks, [f"{t:g}×" for t in ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="x", color="#dddddd", zorder=0)
    axes.set_xlabel("time of the better of torch and oneDNN / normkit's (right of the line: normkit is faster)\n"
                    "light to dark: below 0.25 MiB, to 8 MiB, to 32 MiB, 32 MiB and more")  # fmt: skip
    return figure


def _bandwidth(document: dict[str, Any], plt: Any) -> Any:
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True)
    some = False
    for axes, direction, arrays in zip(panels, ("fwd", "bwd"), (2, 3), strict=True):
        records = [
            r for r in document["cases"] if targets.of(r).op == "ln" and targets.of(r).direction == direction
        ]
        records = sorted((r for r in records if r["mib"] > 0.01), key=lambda r: r["mib"])
        for label, names in (("normkit", (OURS,)), ("torch", ("torch",)), ("oneDNN", targets.ONEDNN)):
            points = [
                (r["mib"], arrays * r["mib"] * 2**20 / median(s) / 1e9)
                for r in records
                if (s := targets.best(r, names))
            ]
            if points:
                some = True
                axes.plot(
                    *zip(*points, strict=True),
                    marker="o",
                    markersize=4,
                    linewidth=1.2,
                    color=COLOURS[label],
                    label=label,
                )
        memory = document["bandwidth"]
        if memory:
            sizes = [m["bytes"] / 2**20 for m in memory]
            for kind, style in (("streaming copy", "--"), ("copy", ":")):
                axes.plot(
                    sizes,
                    [m[kind] / 1e9 for m in memory],
                    style,
                    color=COLOURS["memory"],
                    linewidth=1,
                    label=kind,
                )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_title("forward" if direction == "fwd" else "backward")
        axes.set_xlabel("MiB of x")
        axes.grid(color="#eeeeee")
    panels[0].set_ylabel("GB/s (each array counted once)")
    panels[0].legend(frameon=False)
    return figure if some else None


def _threads(document: dict[str, Any], plt: Any) -> Any:
    found = [
        (r["case"], ratio(r["seconds"]["normkit 1 thread"], r["seconds"][OURS]))
        for r in document["cases"]
        if "normkit 1 thread" in r["seconds"]
    ]
    if not found:
        return None
    found.sort(key=lambda pair: pair[1])
    figure, axes = plt.subplots(figsize=(8.5, 0.6 + 0.19 * len(found)))
    axes.barh(
        [name for name, _ in found], [value for _, value in found], color=COLOURS["normkit"], height=0.65
    )
    axes.axvline(document["threads"], color="#b22222", linewidth=1)
    axes.set_xlabel(
        f"time on 1 thread / time on {document['threads']}, arrays of 1 to 8 MiB (line: as many times as there are threads)"
    )
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.01)
    return figure
