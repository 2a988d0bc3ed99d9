"""Precision-recall curves of classes, exact or from counts in bins, and the area under them."""

import numpy as np
from numpy.typing import NDArray

_BINS = 4096
_LEAST_CHANCE = 1e-12

Floats = NDArray[np.float64]


class Binned:
    """Scores of each class, counted by log-odds in equal bins, separately for images of that class and all others."""

    def __init__(self, classes: int) -> None:
        self._counts = np.zeros((2, classes, _BINS), np.int64)

    def add(self, logits: Floats, labels: NDArray[np.int64]) -> None:
        """Count the scores from logits (N, classes) of each class, separately for images of the class and for others.

        `labels` is (N,).
        """
        classes = logits.shape[1]
        chances = np.clip(_softmax(logits), _LEAST_CHANCE, 1 - _LEAST_CHANCE)
        odds = np.log(chances / (1 - chances)) / np.log((1 - _LEAST_CHANCE) / _LEAST_CHANCE)  # -1 to 1
        bins = np.minimum(((odds + 1) / 2 * _BINS).astype(np.int64), _BINS - 1)
        positive = (labels[:, None] == np.arange(classes)).astype(np.int64)
        place = (positive * classes + np.arange(classes)) * _BINS + bins
        found = np.bincount(place.ravel(), minlength=self._counts.size)
        self._counts += found.reshape(self._counts.shape)

    def curves(self) -> list[tuple[Floats, Floats]]:
        """Return recall and precision of each class, from the highest bin to the lowest, starting with (0, 1)."""
        return [self._curve(place) for place in range(self._counts.shape[1])]

    def _curve(self, place: int) -> tuple[Floats, Floats]:
        wrong, right = self._counts[:, place, ::-1]
        if not right.sum():
            return _NO_CURVE
        filled = np.flatnonzero(right + wrong)
        hits, taken = np.cumsum(right)[filled], np.cumsum(right + wrong)[filled]
        return np.append(0.0, hits / hits[-1]), np.append(1.0, hits / taken)


def exact_curves(logits: Floats, labels: NDArray[np.int64], support: NDArray[np.int64]) -> list[tuple[Floats, Floats]]:
    """Return recall and precision of each class from logits (N, classes) and labels (N,).

    `support` (classes,) is the number of images of each class; a class without any has no curve.
    """
    scores = _softmax(logits)
    return [
        _pr_curve(scores[:, place], labels == place) if support else _NO_CURVE for place, support in enumerate(support)
    ]


_NO_CURVE: tuple[Floats, Floats] = (np.empty(0), np.empty(0))


def _pr_curve(scores: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return recall and precision from the highest threshold to the lowest, starting with (0, 1).

    There is one point for each distinct score. `scores` and `positive` are (N,).
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_equals = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    hits = np.cumsum(positive[order])[last_of_equals]
    return np.append(0.0, hits / hits[-1]), np.append(1.0, hits / (last_of_equals + 1))


def average_precision(recall: Floats, precision: Floats) -> float:
    """Return the sum of precision times the step in recall, not interpolated, as in scikit-learn.

    Both arrays are (thresholds,).
    """
    return min(1.0, float(np.sum(np.diff(recall) * precision[1:])))  # a sum of steps may be 1 + 2e-16


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
