"""Gradients by central differences, for penalties that are restated in numpy."""

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture
def numeric_gradient() -> Callable[..., np.ndarray]:
    """(function of a float64 array -> float, the array) -> gradient by central differences; its error is about 1e-9."""

    def gradient(function: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
        found = np.zeros_like(x)
        for index in np.ndindex(x.shape):
            shifted = []
            for sign in (1, -1):
                moved = x.copy()
                moved[index] += sign * step
                shifted.append(function(moved))
            found[index] = (shifted[0] - shifted[1]) / (2 * step)
        return found

    return gradient
