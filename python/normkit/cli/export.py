"""`normkit export`: a saved model in another library's format."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from normkit import interchange
from normkit.cli.arguments import Commands
from normkit.cli.outputs import naming, new_file
from normkit.cli.saved import Run, division
from normkit.models import Sequential

__all__ = ["add_parser", "run"]

# By the ending of the file.
WRITERS: dict[str, Callable[[Sequential, Path], None]] = {
    ".onnx": interchange.export_onnx,
    ".keras": interchange.save_keras,
    ".weights.h5": interchange.save_keras_weights,
    ".safetensors": interchange.save_safetensors,
}


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "export",
        help="a saved model as a file for ONNX, Keras or torch",
        description=(
            "Write a saved model as ONNX (.onnx), for Keras (.keras), or its weights alone for Keras (.weights.h5) or "
            "torch (.safetensors, under the names of an nn.Sequential)."
        ),
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="folder that train wrote, or the model in it"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="new file to write; its ending says what")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the file."""
    out: Path = arguments.out
    write = next((write for ending, write in WRITERS.items() if out.name.endswith(ending)), None)
    if write is None:
        raise ValueError(f"{out}: expected a name that ends in one of {', '.join(WRITERS)}")
    with new_file(out) as made:
        saved = Run(arguments.model)
        with naming(out):
            write(saved.model, made)
    divided = division(saved.divisor)
    print(f"wrote {out}" + (f": it takes {divided}" if divided else ""))
    return 0
