"""RMS, group and instance norm and the fusions: beside torch, beside the same without fusion, and beside memory."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import normkit as nk
from bench import grid, measure
from bench.contenders import AbsentError, Call, repeated
from bench.contenders.roofline import Roofline

LARGE_MIB = 64.0
Calls = dict[str, Callable[[], object]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", metavar="REGEX", help="cases whose name matches, such as 'rms .* backward'")
    parser.add_argument(
        "--rounds", type=int, default=7, help="rounds of all contenders (default %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument(
        "--shape", action="append", help='instead of the grid: "rms 777x1023", "group 4x24x50x50x6"'
    )


def operands(*shapes: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


class Torch:
    """The same by torch, eager, with a fresh result each time; nothing where it is not installed."""

    def __init__(self, threads: int) -> None:
        try:
            import torch
        except ImportError:
            raise AbsentError("torch is not installed: pip install --group bench") from None
        torch.set_num_threads(threads)
        self.torch = torch

    def forward(self, function: str, *given: Any, **options: Any) -> Callable[[], object]:
        arguments = [self.torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in given]
        call = getattr(self.torch.nn.functional, function)

        def run() -> object:
            with self.torch.no_grad():
                return call(*arguments, **options)

        return run

    def backward(self, function: str, dy: Any, *given: Any, **options: Any) -> Callable[[], object]:
        """Autograd's, of all arrays that are given."""
        arguments = [
            self.torch.from_numpy(a).requires_grad_() if isinstance(a, np.ndarray) else a for a in given
        ]
        leaves = [a for a in arguments if isinstance(a, self.torch.Tensor)]
        y, upstream = (
            getattr(self.torch.nn.functional, function)(*arguments, **options),
            self.torch.from_numpy(dy),
        )
        return lambda: self.torch.autograd.grad(y, leaves, upstream, retain_graph=True)


def rms(shape: tuple[int, ...], torch: Torch | None) -> Iterator[tuple[str, Calls]]:
    """RMS norm must never be slower than layer norm."""
    x, dy, out, weight, bias = *operands(shape, shape, shape), *operands(shape[-1:], shape[-1:])
    _, moments = nk.rms_norm(x, weight, return_moments=True)
    _, centered = nk.layer_norm(x, weight, bias, return_moments=True)
    forward: Calls = {
        "normkit": lambda: nk.rms_norm(x, weight, out=out),
        "layer norm": lambda: nk.layer_norm(x, weight, bias, out=out),
    }
    backward: Calls = {
        "normkit": lambda: nk.rms_norm_backward(dy, x, moments, weight, out=out),
        "layer norm": lambda: nk.layer_norm_backward(dy, x, centered, weight, out=out),
    }
    if torch:
        forward["torch"] = torch.forward("rms_norm", x, list(shape[-1:]), weight, 1e-5)
        backward["torch"] = torch.backward("rms_norm", dy, x, list(shape[-1:]), weight, 1e-5)
    yield "forward", forward
    yield "backward", backward


def group(shape: tuple[int, ...], torch: Torch | None) -> Iterator[tuple[str, Calls]]:
    """The last number is that of the groups; instance norm has as many as channels."""
    *axes, groups = shape
    x, dy, out = operands(tuple(axes), tuple(axes), tuple(axes))
    weight, bias = operands((axes[1],), (axes[1],))
    for last in (False, True):
        given = [np.ascontiguousarray(np.moveaxis(a, 1, -1)) if last else a for a in (x, dy, out)]
        axis, layout = (-1, "channels last ") if last else (1, "")
        _, moments = nk.group_norm(given[0], groups, weight, bias, axis=axis, return_moments=True)

        def run_forward(given: Any = given, axis: int = axis) -> object:
            return nk.group_norm(given[0], groups, weight, bias, axis=axis, out=given[2])

        def run_backward(given: Any = given, axis: int = axis, moments: Any = moments) -> object:
            return nk.group_norm_backward(given[1], given[0], moments, weight, axis=axis, out=given[2])

        forward: Calls = {"normkit": run_forward}
        backward: Calls = {"normkit": run_backward}
        if torch:
            first = [np.moveaxis(a, -1, 1) if last else a for a in given]
            forward["torch"] = torch.forward("group_norm", first[0], groups, weight, bias, 1e-5)
            backward["torch"] = torch.backward("group_norm", first[1], first[0], groups, weight, bias, 1e-5)
        yield f"{layout}forward", forward
        yield f"{layout}backward", backward


def batch(shape: tuple[int, ...], torch: Torch | None) -> Iterator[tuple[str, Calls]]:
    """BN + add + ReLU, and its gradients; channels at axis 1."""
    x, dy, residual, out, other = operands(*[shape] * 5)
    weight, bias = operands(shape[1:2], shape[1:2])
    options: dict[str, Any] = {"residual": residual, "activation": "relu"}
    _, moments = nk.batch_norm(x, weight, bias, return_moments=True, **options)
    y, plain = nk.batch_norm(x, weight, bias, return_moments=True)
    active = y + residual > 0

    # What normkit leaves to others is done by torch's threads, or by NumPy's one.
    if torch:
        t_out, t_residual, t_dy, t_other, t_active = map(
            torch.torch.from_numpy, (out, residual, dy, other, active)
        )

    def unfused() -> object:
        nk.batch_norm(x, weight, bias, out=out)
        if torch:
            return t_out.add_(t_residual).relu_()
        np.add(out, residual, out=out)
        return np.maximum(out, 0, out=out)

    def unfused_backward() -> object:
        if torch:
            torch.torch.mul(t_dy, t_active, out=t_other)
        else:
            np.multiply(dy, active, out=other)
        return nk.batch_norm_backward(other, x, plain, weight, out=out)

    yield (
        "add relu forward",
        {
            "normkit": lambda: nk.batch_norm(x, weight, bias, out=out, **options),
            "bits kept": lambda: nk.batch_norm(x, weight, bias, out=out, return_moments=True, **options),
            "unfused": unfused,
        },
    )
    yield (
        "add relu backward",
        {
            "normkit": lambda: nk.batch_norm_backward(dy, x, moments, weight, out=out),
            "unfused": unfused_backward,
        },
    )


def residual(shape: tuple[int, ...], torch: Torch | None) -> Iterator[tuple[str, Calls]]:
    """Dropout + add + layer norm."""
    x, other, out, total = operands(*[shape] * 4)
    weight, bias = operands(shape[-1:], shape[-1:])

    if torch:
        t_x, t_other, t_total = map(torch.torch.from_numpy, (x, other, total))

    def unfused() -> object:
        if torch:
            torch.torch.add(t_x, t_other, out=t_total)
        else:
            np.add(x, other, out=total)
        return nk.layer_norm(total, weight, bias, out=out)

    yield (
        "add and layer norm",
        {
            "normkit": lambda: nk.add_layer_norm(x, other, weight, bias, out=out),
            "with dropout": lambda: nk.add_layer_norm(x, other, weight, bias, out=out, dropout=0.1),
            "unfused": unfused,
        },
    )
    for name in ("gelu", "silu"):
        activated: Calls = {
            "normkit": lambda name=name: nk.layer_norm(x, weight, bias, activation=name, out=out),  # type: ignore[misc]
            "layer norm": lambda: nk.layer_norm(x, weight, bias, out=out),
        }
        if torch:
            norm, function = torch.forward("layer_norm", x, list(shape[-1:]), weight, bias), name

            def apart(norm: Any = norm, function: str = function) -> object:
                return getattr(torch.torch.nn.functional, function)(norm())

            activated["torch"] = apart
        yield f"layer norm {name}", activated


KINDS = {"rms": rms, "group": group, "batch": batch, "residual": residual}


def cases(shapes: list[str] | None) -> list[tuple[str, tuple[int, ...]]]:
    if shapes:
        found = [re.fullmatch(rf"({'|'.join(KINDS)}) (\d+(?:x\d+)+)", text) for text in shapes]
        if not all(found):
            raise SystemExit(
                f'a shape is written as "rms 777x1023"; kinds are {", ".join(KINDS)}; got {shapes}'
            )
        return [(match[1], tuple(map(int, match[2].split("x")))) for match in found if match]
    known = json.loads(grid.SHAPES.read_text())
    rows = [(math.prod(shape[:-1]), shape[-1]) for shape in known["layer_norm"] if len(shape) < 4]
    planes = [tuple(shape) for shape in known["batch_norm"] if len(shape) == 4]
    return [
        *(("rms", shape) for shape in rows),
        *(("group", tuple(shape)) for shape in known["group_norm"]),
        # Instance norm: a group for each channel.
        *(("group", (*shape, shape[1])) for shape in planes[:4]),
        *(("batch", shape) for shape in planes[:4]),
        *(("residual", shape) for shape in rows if math.prod(shape) * 4 >= 2**20),
    ]


def run(arguments: argparse.Namespace) -> None:
    """Print for each case the time, how many times as long the others take, and the share of the speed of memory."""
    nk.set_num_threads(arguments.threads)
    torch: Torch | None = None
    try:
        torch = Torch(arguments.threads)
    except AbsentError as reason:
        print(f"without torch: {reason}")
    print(f"{'case':52}{'ms':>9}  how many times as long the others take")
    for kind, shape in cases(arguments.shape):
        name = f"{kind} {'x'.join(map(str, shape))}"
        if arguments.only and not re.search(arguments.only, name):
            continue
        for what, calls in KINDS[kind](shape, torch):
            timed = {who: repeated(call, lambda result: ()) for who, call in calls.items()}
            memory = memory_of(kind, shape, what, arguments.threads)
            seconds = measure.interleaved(timed | ({"memory": memory} if memory else {}), arguments.rounds)
            ours = seconds.pop("normkit")
            ratios = "  ".join(f"{who} {measure.ratio(s, ours):.2f}" for who, s in seconds.items())
            print(f"{name + ' ' + what:52}{measure.median(ours) * 1e3:9.3f}  {ratios}", flush=True)


def memory_of(kind: str, shape: tuple[int, ...], what: str, threads: int) -> Call | None:
    """Reads and a streaming write of as many arrays, where they lie beyond the caches."""
    size = math.prod(shape[:-1] if kind == "group" else shape)
    if size * 4 / 2**20 < LARGE_MIB or kind == "residual":
        return None
    reads = 2 if "backward" in what or "add" in what else 1
    try:
        return Roofline("memory", reads, threads).of_bytes(4 * size)
    except AbsentError:
        return None
