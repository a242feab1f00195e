"""What remains of a training: `history.csv`, and the picture of its curves."""

from __future__ import annotations

import csv
import logging
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from normkit.cli.progress import METRICS

__all__ = ["draw_curves", "write_history"]

Rows = Sequence[Mapping[str, float]]


def write_history(path: Path, rows: Rows) -> None:
    """Write epoch, loss, accuracy, val_loss, val_accuracy as CSV; every number reads back as the same float."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("epoch", *METRICS))
        writer.writerows(
            (epoch, *(repr(row[name]) for name in METRICS)) for epoch, row in enumerate(rows, start=1)
        )


def draw_curves(path: Path, rows: Rows, title: str) -> None:
    """Draw loss and accuracy, of training and validation, over the epochs: a PNG of 1200×450 pixels.

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is not installed.
    """
    # Where it keeps its cache, and that it builds one, is nothing to tell.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 4.5), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1))
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, 120))
    epochs = range(1, len(rows) + 1)
    marker = "o" if len(rows) <= 30 else None
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [row[metric] for row in rows], marker=marker, label="training")
        axes.plot(epochs, [row[f"val_{metric}"] for row in rows], marker=marker, label="validation")
        axes.set_xlim(0.5, len(rows) + 0.5)
        axes.set_xlabel("epoch")
        axes.set_ylabel(metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(path)
