"""Central differences, the independent opinion on every gradient of the trainer."""

import numpy as np


def numeric_gradient(function, array, step=1e-5):
    """d function() / d array, changing `array` in place element by element and back."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = function()
        array[index] = kept - step
        below = function()
        array[index] = kept
        gradient[index] = (above - below) / (2 * step)
    return gradient


def assert_close(computed, expected, tolerance=1e-7):
    """Equal up to `tolerance` of the largest expected value."""
    assert computed.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(computed, expected, rtol=0, atol=tolerance * scale)
