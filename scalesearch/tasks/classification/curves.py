"""Precision-recall curves of classes: exact or out of counts in bins, thinned, and their area."""

import math

import numpy as np
from numpy.typing import NDArray

CURVE_POINTS = 50
_BINS = 4096
_LEAST_CHANCE = 1e-12

Floats = NDArray[np.float64]


class Binned:
    """Scores of each class, counted by log-odds in equal bins, separately for images of that class and all others."""

    def __init__(self, classes: int) -> None:
        self._counts = np.zeros((2, classes, _BINS), np.int64)

    def add(self, logits: Floats, labels: NDArray[np.int64]) -> None:
        """Count the scores of logits (N, classes) by class, apart for images of the class and for others."""
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


def thin_curve(recall: Floats, precision: Floats, points: int = CURVE_POINTS) -> tuple[Floats, Floats]:
    """Return at most `points` of a curve's points, chosen so that straight lines between them fit the curve best.

    Both ends are included. Each step adds the point that is farthest from the lines so far (Douglas and Peucker,
    Cartographica 10(2), 1973).

    Args:
        recall: (n,), ascending.
        precision: (n,).
        points: Largest number of points.

    Returns:
        Recall and precision of the chosen points.
    """
    # Points inside a vertical drop (where only false positives are added) do not change the curve's shape. With many
    # classes these are most of the points.
    turns = np.r_[True, (recall[1:-1] != recall[:-2]) | (recall[1:-1] != recall[2:]), True][: len(recall)]
    recall, precision = recall[turns], precision[turns]
    if len(recall) <= points:
        return recall, precision
    kept = {0, len(recall) - 1}
    open_spans = [_farthest(recall, precision, 0, len(recall) - 1)]
    while len(kept) < points:
        worst = max(range(len(open_spans)), key=lambda k: open_spans[k][0])
        distance, first, middle, last = open_spans.pop(worst)
        if distance <= 0:
            break
        kept.add(middle)
        open_spans += [_farthest(recall, precision, first, middle), _farthest(recall, precision, middle, last)]
    chosen = np.array(sorted(kept))
    return recall[chosen], precision[chosen]


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
    """Return the sum of precision times the step in recall, without interpolation, as in scikit-learn."""
    return float(np.sum(np.diff(recall) * precision[1:]))


def _farthest(x: Floats, y: Floats, first: int, last: int) -> tuple[float, int, int, int]:
    """Return, of the points between two, the one farthest from their straight line.

    Returns:
        Its distance, then the indices of the first point, of that point, and of the last point.
    """
    if last - first < 2:
        return 0.0, first, first, last
    across, up = x[last] - x[first], y[last] - y[first]
    off_x, off_y = x[first + 1 : last] - x[first], y[first + 1 : last] - y[first]
    length = math.hypot(across, up)
    distances = np.abs(across * off_y - up * off_x) / length if length > 0 else np.hypot(off_x, off_y)
    middle = int(distances.argmax())
    return float(distances[middle]), first, first + 1 + middle, last


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
