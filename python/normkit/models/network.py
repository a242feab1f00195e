"""`Network`: a stack of layers with its weights, forward and backward; it knows nothing of training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from normkit._checks import as_numbers, batch_shape, flag, float_dtype, integer, positive_integer, shown
from normkit._names import choices
from normkit._numerics import default_float_mode
from normkit._random import new_generator
from normkit._repr import Described
from normkit.layers.base import ActivatedLayer, Layer, Shape, set_variables
from normkit.layers.core import Input
from normkit.layers.normalization import Normalization
from normkit.layers.variable import Variable

__all__ = ["Network", "as_dtype"]

Array = NDArray[Any]

# Of `repr`: the layers of a long network that are shown, and the length up to which they are on one line.
SHOWN_LAYERS, LINE = 20, 100


class Network(Described):
    """Layers in a row.

    Parameters
    ----------
    layers : iterable of Layer, Input or Network
        An `Input` can only be the first.
    name : str, optional
        Default: 'sequential'.
    seed : int, optional
        Of the one generator for initial weights, shuffling and dropout.
    dtype : dtype, default float32
        For layers that do not have their own: float32 or float64.
    """

    def __init__(
        self,
        layers: Iterable[Layer | Input | Network] | None = None,
        name: str | None = None,
        seed: int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if layers is not None and not isinstance(layers, Iterable):
            raise TypeError(
                f"{type(self).__name__}: layers must be a list, such as [Dense(10)], got {shown(layers)}"
            )
        if name is not None and not isinstance(name, str):
            raise TypeError(f"{type(self).__name__}: name must be a string, got {shown(name)}")
        self.name = name if name is not None else "sequential"
        self.rng = new_generator(seed)
        self.dtype = float_dtype(dtype)
        self.layers: list[Layer] = []
        self.input_shape: Shape | None = None
        self.output_shape: Shape = ()
        items = [] if layers is None else list(layers)
        with self._all_or_nothing([item for item in items if isinstance(item, Layer)]):
            for item in items:
                self.add(item)

    def __repr__(self) -> str:
        layers = [repr(layer) for layer in getattr(self, "layers", ())]
        if len(layers) > SHOWN_LAYERS:
            layers[SHOWN_LAYERS - 2 : -2] = [f"... {len(layers) - SHOWN_LAYERS} more"]
        facts = f"name={getattr(self, 'name', None)!r}"
        if layers:
            facts += f", parameters={self.count_params()}" if self.built else ", built=False"
        text = f"{type(self).__name__}([{', '.join(layers)}], {facts})"
        if len(text) > LINE:
            listed = "".join(f"    {layer},\n" for layer in layers)
            text = f"{type(self).__name__}([\n{listed}], {facts})"
        return text

    def add(self, layer: Layer | Input | Network) -> None:
        """Append a layer, and build it if the shape of its input is known.

        Of another network all layers are appended; the two then share these, and their weights.

        Raises
        ------
        TypeError
            If it is not a layer.
        ValueError
            If its name is taken, it is part of a model already, it cannot take the output of the layer
            before, or an `Input` is not the first. Then model and layer are as before.
        """
        if isinstance(layer, Input):
            if self.layers or self.input_shape is not None:
                raise ValueError(f"{self.name}: Input must come first")
            self.build((None, *layer.shape))
            return
        if isinstance(layer, Network):
            self._extend(layer)
            return
        if not isinstance(layer, Layer):
            raise TypeError(f"{self.name}: expected a layer, got {shown(layer)}")
        if layer.joined:
            raise ValueError(f"{self.name}: layer '{layer.name}' is already part of a model; make a new one")
        name = self._free_name(layer, {other.name for other in self.layers})
        input_shape, shape = self.input_shape, self.output_shape
        if input_shape is None and not self.layers and layer.given_input_shape is not None:
            input_shape = shape = (None, *layer.given_input_shape)
        with self._all_or_nothing([layer]):
            layer.join(name, self.dtype, self.rng)
            if input_shape is not None:
                shape = _built_output_shape([layer], shape)
        self.layers.append(layer)
        self.input_shape, self.output_shape = input_shape, shape

    def _extend(self, other: Network) -> None:
        """Append the layers of a network; those whose name is taken, and was not given, get another."""
        if not other.layers or any(layer in self.layers for layer in other.layers):
            raise ValueError(f"{self.name}: the model '{other.name}' has no layers, or has been added before")
        input_shape, shape = self.input_shape, self.output_shape
        with self._all_or_nothing(other.layers):
            taken = {layer.name for layer in self.layers}
            for layer in other.layers:
                layer.name = self._free_name(layer, taken)
                taken.add(layer.name)
            if input_shape is not None:
                shape = other.shape_for(shape)
            elif not self.layers:
                input_shape, shape = other.input_shape, other.output_shape
        self.layers += other.layers
        self.input_shape, self.output_shape = input_shape, shape

    def pop(self) -> Layer:
        """Take the last layer off, and return it; `compile` again before training goes on.

        Raises
        ------
        ValueError
            If there is none.
        """
        if not self.layers:
            raise ValueError(f"{self.name}: has no layers to take off")
        layer = self.layers.pop()
        layer.joined = False
        if self.input_shape is not None:
            self.output_shape = _built_output_shape(self.layers, self.input_shape)
        return layer

    def _free_name(self, layer: Layer, taken: set[str]) -> str:
        if layer.name not in taken:
            return layer.name
        if layer.named:
            raise ValueError(f"{self.name}: two layers have the name '{layer.name}'; names must differ")
        return next(name for i in range(1, len(taken) + 1) if (name := f"{layer.name}_{i}") not in taken)

    @property
    def built(self) -> bool:
        """Whether the weights exist."""
        return self.input_shape is not None

    def build(self, input_shape: Shape) -> None:
        """Make the weights of all layers for inputs of this shape, batch axis first and None."""
        if self.built:
            raise ValueError(f"{self.name}: is already built, for input of shape {self.input_shape}")
        if not isinstance(input_shape, (tuple, list)):
            raise TypeError(
                f"{self.name}: build takes the shape of a batch, such as (None, 784), got {shown(input_shape)}"
            )
        for length in input_shape[1:]:
            if length is not None:
                positive_integer(f"{self.name}: each length of input_shape", length)
        shape: Shape = (None, *input_shape[1:])
        with self._all_or_nothing(self.layers):
            self.output_shape = _built_output_shape(self.layers, shape)
        self.input_shape = shape

    @contextmanager
    def _all_or_nothing(self, layers: Sequence[Layer]) -> Iterator[None]:
        """If an error comes out of the body, these layers and the random generator are as before."""
        attributes = [{**vars(layer), "weights": list(layer.weights)} for layer in layers]
        random_state = self.rng.bit_generator.state
        try:
            yield
        except BaseException:
            for layer, before in zip(layers, attributes, strict=True):
                layer.__dict__ = before
            self.rng.bit_generator.state = random_state
            raise

    def shape_for(self, input_shape: Shape) -> Shape:
        """Return the shape of the output, and raise ValueError if an input of this shape does not fit.

        A network that is not built yet is built for it.
        """
        if not self.layers:
            raise ValueError(f"{self.name}: has no layers; add some first")
        shape: Shape = (None, *input_shape[1:])
        if not self.built:
            self.build(shape)
        if shape == self.input_shape:
            return self.output_shape
        assert self.input_shape is not None
        if len(shape) < len(self.input_shape):
            one = tuple(input_shape) == self.input_shape[1:]
            raise ValueError(
                f"{self.name}: expected input of shape {batch_shape(self.input_shape)}, got {tuple(input_shape)}; "
                + (
                    "a single sample x is given as x[None]"
                    if one
                    else "the first axis is that of the samples"
                )
            )
        try:
            for layer in self.layers:
                layer.check_input(shape)
                shape = layer.compute_output_shape(shape)
        except ValueError as error:
            if len(input_shape) <= len(self.input_shape) or "Flatten()" in str(error):
                raise
            raise ValueError(
                f"{error}; the model takes samples of shape {self.input_shape[1:]}, and x has samples of shape "
                f"{tuple(input_shape[1:])}: Flatten() as the first layer makes one axis of theirs"
            ) from None
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        """Return the output for a batch."""
        return _forward(self.layers, x, training)

    def forward_to_logits(self, x: Array, training: bool) -> Array:
        """As `forward`, without the activation of the last layer, which must be an `ActivatedLayer`."""
        *front, last = self.layers
        assert isinstance(last, ActivatedLayer)
        x = _forward(front, x, training)
        return last.preactivation(as_dtype(x, last.dtype), training)

    def backward(self, dy: Array, from_logits: bool = False) -> None:
        """Write the gradients of all trainable weights, from dL/dy, or from dL/dlogits if `from_logits`.

        Layers before the first trainable one are not visited.
        """
        layers = self.layers[:-1] if from_logits else self.layers
        steps = [layer for layer, _ in _fused(layers)] + self.layers[len(layers) :]
        first = next((i for i, layer in enumerate(steps) if layer.trainable_weights), len(steps))
        gradient: Array | None = dy
        for index in range(len(steps) - 1, first - 1, -1):
            layer = steps[index]
            assert gradient is not None
            gradient = as_dtype(gradient, layer.dtype)
            if from_logits and index == len(steps) - 1:
                assert isinstance(layer, ActivatedLayer)
                gradient = layer.preactivation_backward(gradient, index > first)
            else:
                gradient = layer.backward(gradient, index > first)

    @default_float_mode()
    def __call__(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the output for one batch."""
        batch, training = as_numbers("x", x), flag(f"{self.name}: training", training)
        self.shape_for(batch.shape)
        return self.forward(np.ascontiguousarray(batch, self.layers[0].dtype), training)

    @property
    def trainable(self) -> bool:
        """Whether every layer is trainable; assigning sets it for all. `compile` again before training goes on."""
        return all(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        value = flag(f"{self.name}: trainable", value)
        for layer in self.layers:
            layer.trainable = value

    @property
    def weights(self) -> list[Variable]:
        """All weights, layer by layer; within a layer the trainable ones first, as in Keras."""
        return [w for layer in self.layers for w in layer.weights]

    @property
    def trainable_weights(self) -> list[Variable]:
        """What training changes by gradients."""
        return [w for layer in self.layers for w in layer.trainable_weights]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """Moving statistics, and the weights of frozen layers."""
        return [w for layer in self.layers for w in layer.non_trainable_weights]

    def count_params(self) -> int:
        """Return the number of scalars in the weights."""
        return sum(layer.count_params() for layer in self.layers)

    def get_weights(self) -> list[Array]:
        """Return copies of all weights, in Keras's order."""
        return [w.value.copy() for w in self.weights]

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Set all weights from a list as `get_weights` returns it, here or in Keras.

        Raises
        ------
        ValueError
            If their number or a shape differs. Then no weight has changed.
        """
        if not self.built:
            raise ValueError(
                f"{self.name}: has no weights yet; give input_shape, or call it on a batch first"
            )
        set_variables(self.name, self.weights, weights)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """Return a layer by its name or by its index."""
        if index is not None:
            if not -len(self.layers) <= integer("get_layer: index", index) < len(self.layers):
                raise ValueError(
                    f"{self.name}: no layer {index}; there are {len(self.layers)}, counted from 0"
                )
            return self.layers[index]
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ValueError(
            f"{self.name}: no layer '{name}'{choices(name, [layer.name for layer in self.layers])}"
        )


def _fused(layers: Sequence[Layer]) -> list[tuple[Layer, str | None]]:
    """Return the layers; an activation that the normalization before it can take along is named beside that one."""
    steps: list[tuple[Layer, str | None]] = []
    for layer in layers:
        before, taken = steps[-1] if steps else (None, None)
        if isinstance(before, Normalization) and taken is None and (name := before.fused_with(layer)):
            steps[-1] = before, name
        else:
            steps.append((layer, None))
    return steps


def _forward(layers: Sequence[Layer], x: Array, training: bool) -> Array:
    for layer, activation in _fused(layers):
        x = as_dtype(x, layer.dtype)
        if activation is None:
            x = layer.forward(x, training)
        else:
            assert isinstance(layer, Normalization)
            x = layer.forward(x, training, activation)
    return x


def _built_output_shape(layers: Sequence[Layer], shape: Shape) -> Shape:
    """Build layers in a row for an input of this shape and return the shape of the output."""
    for layer in layers:
        layer.ensure_built(shape)
        layer.check_input(shape)
        shape = layer.compute_output_shape(shape)
    return shape


def as_dtype(x: Array, dtype: np.dtype[Any]) -> Array:
    """Return x in this dtype: itself, if it is."""
    return x if x.dtype == dtype else x.astype(dtype)
