"""`normkit export`: a saved model in another library's format."""

from __future__ import annotations

import argparse
from pathlib import Path

from normkit._paths import OURS, ending_of
from normkit.cli.arguments import Commands, path
from normkit.cli.outputs import naming, new_file
from normkit.cli.saved import Run, division
from normkit.interchange import save_safetensors
from normkit.models import formats

__all__ = ["add_parser", "run"]


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "export",
        help="a saved model as a file for ONNX, Keras or torch",
        description=(
            "Write a saved model as ONNX (.onnx), for Keras (.keras), or its weights alone for Keras (.weights.h5) or "
            "torch (.safetensors, under the names of an nn.Sequential; not what train writes under this ending, and loaded "
            "by normkit.interchange.load_safetensors alone)."
        ),
    )
    parser.add_argument(
        "model", type=path, metavar="MODEL", help="folder that train wrote, or the model in it"
    )
    parser.add_argument("out", type=path, metavar="OUT", help="new file to write; its ending says what")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the file."""
    out: Path = arguments.out
    ending = ending_of(out)
    with new_file(out) as made:
        saved = Run(arguments.model)
        with naming(out):
            if ending == OURS:
                save_safetensors(saved.model, made)
            else:
                formats.write(saved.model, made, ending)
    divided = division(saved.divisor)
    print(f"wrote {out}" + (f": it takes {divided}" if divided else ""))
    return 0
