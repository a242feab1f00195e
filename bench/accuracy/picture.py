"""Largest error of the forward pass against mean/σ, beside torch and plain NumPy, in float32."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import normkit as nk

F32 = NDArray[np.float32]
OFFSETS = [0.0, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6]
# name: shape, channel or normalized axis, operation
CASES = {
    "batch norm (4096, 8)": ((4096, 8), 1, "batch_norm"),
    "batch norm (16, 8, 16, 16)": ((16, 8, 16, 16), 1, "batch_norm"),
    "layer norm (64, 4096)": ((64, 4096), -1, "layer_norm"),
}


def plain_numpy(x: F32, op: str, axis: int) -> F32:
    axes = tuple(i for i in range(x.ndim) if i != axis) if op == "batch_norm" else (x.ndim - 1,)
    centered = x - x.mean(axis=axes, keepdims=True)
    return centered / np.sqrt(np.square(centered).mean(axis=axes, keepdims=True) + np.float32(1e-5))


def contenders() -> dict[str, Callable[[F32, str, int], F32]]:
    found: dict[str, Callable[[F32, str, int], F32]] = {
        "normkit": lambda x, op, axis: getattr(nk, op)(x, axis=axis),
        "numpy float32": plain_numpy,
    }
    if importlib.util.find_spec("torch"):
        import torch
        from torch.nn import functional

        def by_torch(x: F32, op: str, axis: int) -> F32:
            given = torch.from_numpy(x)
            if op == "batch_norm":
                return functional.batch_norm(given, None, None, training=True).numpy()
            return functional.layer_norm(given, x.shape[-1:]).numpy()

        found[f"torch {torch.__version__.split('+')[0]}"] = by_torch
    return found


def measure() -> dict[str, dict[str, list[float]]]:
    """Case, contender: the largest absolute error at each offset."""
    errors: dict[str, dict[str, list[float]]] = {case: {name: [] for name in contenders()} for case in CASES}
    for case, (shape, axis, op) in CASES.items():
        for offset in OFFSETS:
            rng = np.random.default_rng(1)
            x = (rng.standard_normal(shape) + offset).astype(np.float32)
            exact, _ = getattr(nk.reference, op)(x, axis=axis)
            for name, contender in contenders().items():
                errors[case][name].append(float(np.abs(contender(x, op, axis) - exact).max()))
    return errors


def draw(errors: dict[str, dict[str, list[float]]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (case, lines) in zip(figure.subplots(1, len(errors), sharey=True), errors.items(), strict=True):
        for (name, values), marker in zip(lines.items(), "osD", strict=False):
            axes.plot(
                range(len(OFFSETS)),
                values,
                marker=marker,
                label=name,
                linewidth=2 if name == "normkit" else 1,
            )
        axes.set_xticks(range(len(OFFSETS)), ["0", "1", *[f"1e{k}" for k in range(1, 7)]])
        axes.set_title(case)
        axes.set_xlabel("mean / σ")
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("largest error of the normalized values")
    figure.axes[0].legend()
    figure.savefig(path, dpi=100)


def run(picture: Path) -> None:
    errors = measure()
    for case, lines in errors.items():
        print(f"\n{case}: largest |y - exact|")
        print(f"{'mean/sigma':16}" + "".join(f"{offset:>10.0e}" for offset in OFFSETS))
        for name, values in lines.items():
            print(f"{name:16}" + "".join(f"{value:>10.1e}" for value in values))
    draw(errors, picture)
    print(f"\nwrote {picture}")
