"""How far a detector's outputs are from those of another one: a number that needs no targets."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.tasks.detection.decoding import sigmoid

_LEAST_CHANCE: Final = 1e-6

Floats = NDArray[np.float64]


def mean_divergence(expected: NDArray[np.float32], answers: NDArray[np.float32]) -> float:
    """Return the divergence of raw outputs (N, 4 + classes + 1, points) from the expected ones, averaged over images.

    It is a sum over points of the Kullback-Leibler divergence of the probability of an object and, weighted by its
    expected value, of the divergence of each class and the mean squared change of the distances in strides. A box thus
    matters as much as the expected outputs are sure that it contains an object.
    """
    chance, other = _chances(expected), _chances(answers)
    apart = _apart(chance, other)
    boxes = ((expected[:, :4].astype(np.float64) - answers[:, :4]) ** 2).mean(axis=1)
    weighted = chance[:, -1] * (apart[:, :-1].sum(axis=1) + boxes)
    return float((apart[:, -1] + weighted).sum(axis=1).mean())


def _chances(raw: NDArray[np.float32]) -> Floats:
    """Return the probabilities (N, classes + 1, points) of the classes and, as the last one, of an object."""
    return np.clip(sigmoid(raw[:, 4:]).astype(np.float64), _LEAST_CHANCE, 1 - _LEAST_CHANCE)


def _apart(wanted: Floats, given: Floats) -> Floats:
    """Return the Kullback-Leibler divergence of each probability from the wanted one."""
    return np.asarray(wanted * np.log(wanted / given) + (1 - wanted) * np.log((1 - wanted) / (1 - given)))
