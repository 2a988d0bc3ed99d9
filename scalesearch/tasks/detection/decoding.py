"""Makes detections of a network's answers, with numpy alone: the code that scores them, and that an export ships."""

from __future__ import annotations  # Python 3.8 and 3.9 could not evaluate some of the types below

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


STRIDES = (8, 16, 32)
"""Strides that a detector's feature maps may have, in pixels of the input."""
LEAST_SCORE = 0.001
"""Candidates below this score are never looked at."""
MOST_CANDIDATES = 300
"""So many candidates of an image are compared with one another, the best ones."""
MOST_DETECTIONS = 100
"""So many detections of an image are kept, as in COCO's rules."""
OVERLAP = 0.6
"""Of two boxes of one class that overlap by more than this IoU, the better one is kept."""


@dataclass(frozen=True)
class Detections:
    """Objects that were found in one image, the most certain first."""

    boxes: NDArray[np.float32]
    """(n, 4): left, top, right and bottom in pixels."""
    classes: NDArray[np.int64]
    """(n,)"""
    scores: NDArray[np.float32]
    """(n,): from 0 to 1."""

    def above(self, threshold: float) -> Detections:
        """Return those with at least this score."""
        kept = self.scores >= threshold
        return Detections(self.boxes[kept], self.classes[kept], self.scores[kept])


class NotFiniteError(ValueError):
    """The network's answer holds NaN or infinity, so there are no boxes in it."""


def decode_answers(
    raw: NDArray[np.float32], sides_px: tuple[int, int], *, least_score: float = LEAST_SCORE
) -> list[Detections]:
    """Return the detections in each image, after non-maximum suppression within each class.

    Args:
        raw: Answers (N, 4 + classes + 1, points): distances to left, top, right and bottom in strides of the point's
            feature map, a logit for each class, and a logit that says whether there is an object.
        sides_px: Height and width of the network's input.
        least_score: Scores below it are left out.

    Returns:
        Detections with boxes in pixels of the input, cut off at its edges.
    """
    points, strides = points_of(sides_px, strides_for(sides_px, raw.shape[2]))
    return [_decoded(each, points, strides, sides_px, least_score) for each in raw]


def _decoded(
    raw: NDArray[np.float32],
    points: NDArray[np.float32],
    strides: NDArray[np.float32],
    sides_px: tuple[int, int],
    least_score: float,
) -> Detections:
    scores = sigmoid(raw[4:-1]) * sigmoid(raw[-1:])
    # A score of the wanted size needs an object of that chance: most points are out at once.
    classes, places = np.nonzero(scores >= least_score)
    chosen = scores[classes, places]
    best = np.argsort(-chosen, kind="stable")[:MOST_CANDIDATES]
    classes, places, chosen = classes[best], places[best], chosen[best]
    reach = raw[:4, places].T * strides[places, None]
    boxes = np.concatenate([points[places] - reach[:, :2], points[places] + reach[:, 2:]], axis=1)
    height, width = sides_px
    boxes = np.clip(boxes, 0, np.asarray([width, height, width, height], np.float32))
    whole = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    boxes, classes, chosen = boxes[whole], classes[whole], chosen[whole]
    kept = suppressed(boxes, classes)[:MOST_DETECTIONS]
    return Detections(boxes[kept].astype(np.float32), classes[kept].astype(np.int64), chosen[kept].astype(np.float32))


def suppressed(boxes: NDArray[np.float32], classes: NDArray[np.int64], overlap: float = OVERLAP) -> NDArray[np.int64]:
    """Return the places of the boxes that no better box of their class covers.

    Boxes (n, 4) and classes (n,) are sorted, the best first.
    """
    if not len(boxes):
        return np.zeros(0, np.int64)
    covers = (overlaps(boxes, boxes) > overlap) & (classes[:, None] == classes[None, :])
    out = np.zeros(len(boxes), bool)
    for place in np.flatnonzero(np.triu(covers, 1).any(axis=1)):
        if not out[place]:
            out[place + 1 :] |= covers[place, place + 1 :]
    return np.flatnonzero(~out)


def overlaps(boxes: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the IoU of each pair of boxes (n, 4) and (m, 4), of shape (n, m)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inner = np.clip(high - low, 0, None).prod(axis=2)
    areas, other_areas = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, others))
    return np.asarray(inner / np.maximum(areas[:, None] + other_areas[None, :] - inner, 1e-9))


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the chances (0..1) that logits stand for, in an array of the same shape."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -80, 80))), np.float32)


def points_of(sides_px: tuple[int, int], strides: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the points at which a detector looks for objects, one in each cell of its feature maps, in its order.

    Returns:
        The x and y of each point in pixels of the input, of shape (points, 2), and its stride, of shape (points,).
    """
    points, reach = [], []
    for stride in strides:
        y, x = np.meshgrid(*(np.arange(side // stride) for side in sides_px), indexing="ij")
        points.append((np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) * stride)
        reach.append(np.full(len(points[-1]), stride))
    return np.concatenate(points).astype(np.float32), np.concatenate(reach).astype(np.float32)


def strides_for(sides_px: tuple[int, int], points: int) -> tuple[int, ...]:
    """Return the strides of the feature maps that have so many cells in all for an input of this height and width.

    Raises:
        ValueError: There are none.
    """
    height, width = sides_px
    for choice in range(1, 2 ** len(STRIDES)):
        strides = tuple(stride for place, stride in enumerate(STRIDES) if choice & 1 << place)
        whole = all(side % stride == 0 for side in sides_px for stride in strides)
        if whole and sum(height * width // stride**2 for stride in strides) == points:
            return strides
    message = f"no feature maps of an input of {height} x {width} px have {points} points in all"
    raise ValueError(message)
