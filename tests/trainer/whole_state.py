"""All that a model has and a failed change must leave alone."""

import copy

import numpy as np


def state_of(model):
    """Copies of weights, gradients' layout, layers, generator, optimizer and metrics."""
    compiled = model.compiled_state
    optimizer = None if compiled is None else compiled.optimizer
    return {
        "shapes": (model.input_shape, model.output_shape),
        "weights": model.get_weights(),
        "layers": [(layer.built, layer.name, layer.trainable, [w.name for w in layer.weights]) for layer in model.layers],
        "layer states": copy.deepcopy([layer.get_state() for layer in model.layers]),
        "generator": model.rng.bit_generator.state,
        "optimizer": None
        if optimizer is None
        else (optimizer.batches, optimizer.learning_rate, optimizer.get_config()),
        "built optimizer": None if optimizer is None else copy.deepcopy(optimizer.slots),
        "metrics": None if compiled is None else copy.deepcopy(compiled.metrics_state()),
    }  # fmt: skip


def assert_same_state(found, expected, but=()):
    """Compare two of these, to the bit."""
    for name, value in expected.items():
        if name not in but:
            np.testing.assert_equal(found[name], value, err_msg=name)
