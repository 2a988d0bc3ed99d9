"""Curves with fewer points, for records and pictures."""

import math

import numpy as np
from numpy.typing import NDArray

CURVE_POINTS = 50

Floats = NDArray[np.float64]


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


def _farthest(x: Floats, y: Floats, first: int, last: int) -> tuple[float, int, int, int]:
    """Return the point between two others that is farthest from the straight line through them.

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
