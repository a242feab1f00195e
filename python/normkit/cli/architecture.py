"""`--layers "64,bn,relu,10"`: the small language that names a model."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence

from normkit._names import choices
from normkit.layers import Activation, BatchNormalization, Dense, Dropout, Layer, LayerNormalization

__all__ = ["ACTIVATIONS", "build", "default", "describe", "parse"]

ACTIVATIONS = ("relu", "gelu", "sigmoid", "tanh")
_NORMALIZATIONS: dict[str, Callable[[], Layer]] = {"bn": BatchNormalization, "ln": LayerNormalization}


def default(num_classes: int) -> list[str]:
    """Tokens of the example in Keras's tutorials, for this number of classes."""
    return ["64", "bn", str(num_classes)]


def parse(text: str) -> list[str]:
    """Split into tokens, and check each; an argparse type."""
    tokens = [token.strip().lower() for token in text.split(",")]
    if "" in tokens:
        what = "an empty one" if text.strip() else "an empty string"
        raise argparse.ArgumentTypeError(
            f"expected layers separated by commas, as in 64,bn,relu,10, got {what}"
        )
    try:
        for token in tokens:
            _layer(token)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not _is_number(tokens[-1]):
        raise argparse.ArgumentTypeError(f"must end with the number of classes, ends with '{tokens[-1]}'")
    return tokens


def build(tokens: Sequence[str], num_classes: int) -> list[Layer]:
    """Make the layers; the last one gets softmax.

    Raises
    ------
    ValueError
        If the last token is not the number of classes.
    """
    if int(tokens[-1]) != num_classes:
        raise ValueError(
            f"--layers must end with the number of classes: the labels are 0 to {num_classes - 1}, "
            f"so {num_classes}, got {tokens[-1]}"
        )
    layers = [_layer(token) for token in tokens[:-1]]
    layers.append(Dense(num_classes, activation="softmax"))
    return layers


def describe(layers: Sequence[Layer]) -> str:
    """Name the layers in one line: Dense(64) -> BatchNormalization -> Dense(10, softmax)."""
    return " -> ".join(_describe(layer) for layer in layers)


def _layer(token: str) -> Layer:
    kind, colon, value = token.partition(":")
    if _is_number(token):
        return Dense(int(token))
    if token in _NORMALIZATIONS:
        return _NORMALIZATIONS[token]()
    if token in ACTIVATIONS:
        return Activation(token)
    if kind == "dropout" and colon:
        try:
            return Dropout(float(value if value.isascii() and "_" not in value else "none"))
        except ValueError:
            raise ValueError(
                f"dropout needs a rate from 0 to below 1, as in dropout:0.5, got '{token[:30]}'"
            ) from None
    known = ("a number of units", *_NORMALIZATIONS, *ACTIVATIONS, "dropout:RATE")
    raise ValueError(f"no layer '{token[:30]}'{choices(token, known)}")


def _is_number(token: str) -> bool:
    """Whether it is a number of units: digits of other scripts are none."""
    return re.fullmatch("[0-9]{1,18}", token) is not None


def _describe(layer: Layer) -> str:
    if isinstance(layer, Dense):
        softmax = ", softmax" if layer.activation.name == "softmax" else ""
        return f"Dense({layer.units}{softmax})"
    if isinstance(layer, Activation):
        return layer.activation.name
    if isinstance(layer, Dropout):
        return f"Dropout({layer.rate:g})"
    return type(layer).__name__
