"""A positive number that goes by powers of a candidate's multipliers: MACs, or seconds of a training."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class LogLinear:
    """Predicts the logarithm of a number linearly from features; with few observations, by the smallest slopes.

    Args:
        x: Features (n, columns) of what is known, at least one row.
        values: The numbers (n,), above 0.
    """

    def __init__(self, x: Array, values: Sequence[float]) -> None:
        logs = np.log(np.maximum(1e-9, np.array(values, dtype=np.float64)))
        self._centre, self._level = x.mean(axis=0), float(logs.mean())
        self._slopes = np.linalg.lstsq(x - self._centre, logs - self._level, rcond=1e-6)[0]

    def predict(self, x: Array) -> Array:
        """Return the predicted numbers (n,)."""
        found: Array = np.exp(self._level + (x - self._centre) @ self._slopes)
        return found
