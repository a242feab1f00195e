"""What every layer has: a name, weights, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from normkit import activations
from normkit._checks import as_array, as_numbers, flag, float_dtype, sample_shape, shown
from normkit._random import new_generator
from normkit._registry import snake_case
from normkit._repr import Described
from normkit.initializers import Initializer
from normkit.layers.variable import Variable
from normkit.regularizers import Regularizer

__all__ = ["ActivatedLayer", "Layer", "LayerArguments", "Shape"]

Array = NDArray[Any]
# As in Keras, the first axis is the batch, and its length is None where it is not known.
Shape = tuple[int | None, ...]


class LayerArguments(TypedDict, total=False):
    """The arguments that every layer takes; see `Layer`."""

    name: str | None
    trainable: bool
    dtype: DTypeLike | None
    input_shape: Sequence[int] | None
    input_dim: int | None


class Layer(Described):
    """A differentiable function with weights.

    A subclass writes `build` if it has weights, `forward`, `backward`, and `compute_output_shape` if
    that is not the input's. `forward` with training=True keeps what `backward` needs, so a backward pass
    belongs to the last such forward pass. A layer never writes to an array it was given or has returned.

    Parameters
    ----------
    name : str, optional
        Default: the class name in lower case; a model numbers these so that they differ.
    trainable : bool, default True
        False: the optimizer leaves the weights alone.
    dtype : dtype, optional
        float32 or float64. Default: that of the model, else float32.
    input_shape : tuple of int, optional
        Shape of one sample, without the batch axis; for the first layer of a model.
    input_dim : int, optional
        Short for ``input_shape=(input_dim,)``.

    Attributes
    ----------
    admit : callable or None
        Takes name and shape of a weight before memory is taken for it, and raises ValueError if it is not to be made.
    draws : bool
        Whether a forward pass in training draws random numbers, from `generator`. Of the class.
    """

    draws: bool = False

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: DTypeLike | None = None,
        input_shape: Sequence[int] | None = None,
        input_dim: int | None = None,
    ) -> None:
        if input_dim is not None:
            if input_shape is not None:
                raise ValueError(
                    f"{type(self).__name__}: give input_shape or input_dim, not both; "
                    f"got {input_shape} and {input_dim}"
                )
            input_shape = (input_dim,)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"{type(self).__name__}: name must be a string, got {shown(name)}")
        self.named = name is not None
        self.name = name if name is not None else snake_case(type(self).__name__)
        self.trainable = flag(f"{type(self).__name__}: trainable", trainable)
        self._dtype = None if dtype is None else float_dtype(dtype)
        self.given_input_shape = None if input_shape is None else sample_shape(input_shape)
        self.built = False
        self.joined = False
        self.weights: list[Variable] = []
        self.admit: Callable[[str, tuple[int, ...]], None] | None = None
        self.rng = new_generator()

    @property
    def generator(self) -> np.random.Generator:
        """What a layer that `draws` draws from: the generator of the model, unless it has its own."""
        return self.rng

    @generator.setter
    def generator(self, value: np.random.Generator) -> None:
        self.rng = value

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the weights, of the input and of the output."""
        return np.dtype(np.float32) if self._dtype is None else self._dtype

    def join(self, name: str, dtype: np.dtype[Any], rng: np.random.Generator) -> None:
        """Become part of a model: take its name for this layer, its dtype if none was given, its generator."""
        self.joined = True
        self.name = name
        if self._dtype is None:
            self._dtype = dtype
        self.rng = rng

    def ensure_built(self, input_shape: Shape) -> None:
        """Make the weights for this input shape, once; later shapes need only fit."""
        if not self.built:
            self._dtype = self.dtype
            self.build(input_shape)
            self.built = True

    def build(self, input_shape: Shape) -> None:
        """Make the weights. Called once, before the first forward pass."""

    def check_input(self, input_shape: Shape) -> None:
        """Raise ValueError if a built layer cannot take an input of this shape, batch axis included."""

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for this shape of the input, batch axis included."""
        return input_shape

    def forward(self, x: Array, training: bool) -> Array:
        """Return the output for x, shape (batch, ...), in the layer's dtype."""
        raise NotImplementedError

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """Write the gradients of the weights, and return that of the input (None if not asked for).

        Gradients of weights are overwritten, not added to; with trainable=False they are not computed.
        """
        raise NotImplementedError

    def __call__(self, x: ArrayLike, training: bool = False) -> Array:
        """Apply the layer to one batch, building it first if need be."""
        batch = np.ascontiguousarray(as_numbers("x", x), self.dtype)
        self.ensure_built((None, *batch.shape[1:]))
        self.check_input(batch.shape)
        return self.forward(batch, training)

    def add_weight(
        self,
        name: str,
        shape: tuple[int, ...],
        initializer: Initializer,
        trainable: bool = True,
        regularizer: Regularizer | None = None,
    ) -> Variable:
        """Make a weight and return it."""
        self.announce(name, shape)
        value = initializer(shape, self.dtype, self.rng)
        return self.track(Variable(name, value, trainable, regularizer))

    def announce(self, name: str, shape: tuple[int, ...]) -> None:
        """Say that a weight is to be made. Where a file asks for it, ValueError if the file does not have it."""
        if self.admit is not None:
            self.admit(name, shape)

    def track(self, variable: Variable) -> Variable:
        """Count `variable` among the weights."""
        self.weights.append(variable)
        return variable

    @property
    def trainable_weights(self) -> list[Variable]:
        """What an optimizer may change: nothing if the layer is frozen."""
        return [w for w in self.weights if w.trainable] if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """All other weights."""
        return [w for w in self.weights if not (w.trainable and self.trainable)]

    def count_params(self) -> int:
        """Return the number of scalars in the weights."""
        return sum(w.value.size for w in self.weights)

    def get_weights(self) -> list[Array]:
        """Return copies of the weights, trainable ones first, in Keras's order."""
        return [w.value.copy() for w in self.weights]

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Set the weights from a list as `get_weights` returns it.

        Raises
        ------
        ValueError
            If their number or a shape differs. Then no weight has changed.
        """
        set_variables(f"{type(self).__name__} '{self.name}'", self.weights, weights)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a layer like the one whose `get_config` this is."""
        return cls(**config)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {"name": self.name, "trainable": self.trainable, "dtype": self.dtype.name}

    def get_state(self) -> dict[str, Any]:
        """Return what a file keeps of the layer besides its weights: numbers that change in training."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `get_state` returned, or nothing from an empty mapping."""

    def fail(self, message: str) -> ValueError:
        """Return an error that names this layer, to be raised."""
        return ValueError(f"{type(self).__name__} '{self.name}': {message}")

    def _arguments(self) -> dict[str, Any]:
        return super()._arguments() | {
            "name": self.name if self.named else None,
            "dtype": None if self.dtype == np.float32 else self.dtype.name,
            "input_shape": self.given_input_shape,
        }


class ActivatedLayer(Layer):
    """A layer that ends with an activation function: y = activation(z).

    Split in two so that a loss can take z instead of y (softmax and cross-entropy in one step). A subclass
    writes `preactivation` and `preactivation_backward`; the z it returns must be an array of its own.
    """

    def __init__(
        self, activation: str | activations.ActivationFunction | None, **kwargs: Unpack[LayerArguments]
    ) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation)
        self._saved: Array | None = None

    def _arguments(self) -> dict[str, Any]:
        found = super()._arguments()
        if "activation" in found:
            name = activations.name_of(self.activation)
            found["activation"] = None if name == "linear" else name or self.activation
        return found

    def preactivation(self, x: Array, training: bool) -> Array:
        """Return z for the input x."""
        raise NotImplementedError

    def preactivation_backward(self, dz: Array, input_gradient: bool = True) -> Array | None:
        """As `backward`, from dL/dz."""
        raise NotImplementedError

    def forward(self, x: Array, training: bool) -> Array:
        """Return activation(z)."""
        z = self.preactivation(x, training)
        y = self.activation(z, None if self.activation.needs_input or z is x else z)
        if training:
            self._saved = z if self.activation.needs_input else y
        return y

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`."""
        if self._saved is None:
            raise self.fail("backward needs a forward pass with training=True before it")
        return self.preactivation_backward(self.activation.gradient(dy, self._saved), input_gradient)


def set_variables(owner: str, variables: Sequence[Variable], values: Sequence[ArrayLike]) -> None:
    """Assign all values to all variables, or none of them if one does not fit."""
    if not isinstance(values, (Sequence, np.ndarray)):
        raise TypeError(f"{owner}: weights must be a list of arrays, got {shown(values)}")
    arrays = [as_array(f"{owner}: weight {index}", value) for index, value in enumerate(values)]
    if len(arrays) != len(variables):
        raise ValueError(
            f"{owner}: expected {len(variables)} weights "
            f"({', '.join(f'{v.name} {v.shape}' for v in variables) or 'none'}), got {len(arrays)}"
        )
    for index, (variable, value) in enumerate(zip(variables, arrays, strict=True)):
        if variable.shape != value.shape:
            raise ValueError(
                f"{owner}: weight {index} '{variable.name}' must have shape {variable.shape}, "
                f"got {value.shape}"
            )
        as_numbers(f"{owner}: weight {index}", value)
    # Copies, made before the first is assigned: a value may be the memory of another of the variables.
    made = [np.array(value, variable.value.dtype) for variable, value in zip(variables, arrays, strict=True)]
    for variable, value in zip(variables, made, strict=True):
        variable.assign(value)
