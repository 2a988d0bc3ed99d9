"""Average precision of detections by COCO's rules, from matches that are kept for each image.

It is written in numpy for two reasons: the bootstrap over images needs the same sums with other weights of the images,
which no evaluator gives; and detection then needs no further package. Tests compare it with pycocotools and
faster-coco-eval.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.tasks.detection.decoding import Detections

OVERLAPS: Final = np.linspace(0.5, 0.95, 10)
"""Least IoU of a correct detection: mAP50-95 is the mean over all of these values, mAP50 is for the first one."""
RECALLS: Final = np.linspace(0.0, 1.0, 101)
"""Recalls at which the precision is read off the curve."""
SIZES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
)
"""Range of areas of each size of objects, in square pixels of the original image."""
_EPS: Final = float(np.spacing(1))

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """The ground-truth objects of one image."""

    boxes: NDArray[np.float32]
    """(n, 4): left, top, right and bottom in pixels of the original image."""
    classes: NDArray[np.int64]
    ignored: NDArray[np.bool_]
    """(n,): True for regions in which a detection is neither right nor wrong."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """The detections of one class in several images and whether they are correct, the most certain first."""

    scores: Floats
    """(detections,): score of each detection."""
    images: NDArray[np.int64]
    """(detections,): index of its image."""
    right: NDArray[np.bool_]
    """(overlaps, detections): whether it is correct at each of `OVERLAPS`."""
    left_out: NDArray[np.bool_]
    """(overlaps, detections): whether it is in an ignored region or of another size, so that it does not count."""
    wanted: NDArray[np.int64]
    """(images,): number of objects to be found in each image."""


class BoxesByClass:
    """The objects and detections of several images, sorted by class, to be matched one class at a time.

    Matching a class looks only at images that hold it: with 80 classes in 5,000 images, few do.
    """

    def __init__(self, truths: Sequence[Truth], found: Sequence[Detections]) -> None:
        """Take the objects of each image, and the detections in each image, the most certain first."""
        self._images = len(truths)
        self._objects = _sorted_by_class([(each.boxes, each.classes, each.ignored) for each in truths])
        self._found = _sorted_by_class([(each.boxes, each.classes, each.scores) for each in found])

    def match(self, label: int, *sizes: str) -> tuple[Matches, ...]:
        """Match the detections of one class with the objects of that class, image by image (COCO's `evaluateImg`).

        Args:
            label: The class.
            sizes: Which objects count, keys of `SIZES`: there are matches for each of them, in this order.
        """
        found, objects = self._found.of(label), self._objects.of(label)
        boxes, asked = found.boxes.astype(np.float64), objects.boxes.astype(np.float64)
        ignored, other = objects.values.astype(np.bool_), _of_other_size(boxes, sizes)
        out = ignored | _of_other_size(asked, sizes)
        hit, passed = (np.zeros((len(sizes), len(OVERLAPS), len(boxes)), np.bool_) for _ in range(2))
        for mine, theirs in _of_same_image(found.images, objects.images):
            overlaps = _overlaps(boxes[mine], asked[theirs], ignored[theirs])
            hit[..., mine], passed[..., mine] = _matched(overlaps, out[:, theirs], ignored[theirs])
        passed |= ~hit & other[:, None]
        scores = found.values.astype(np.float64)
        order = np.argsort(-scores, kind="mergesort")
        return tuple(
            Matches(
                scores=scores[order],
                images=found.images[order],
                right=(hit[place] & ~passed[place])[:, order],
                left_out=passed[place][:, order],
                wanted=np.bincount(objects.images[~out[place]], minlength=self._images),
            )
            for place in range(len(sizes))
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Labelled:
    """Boxes of several images, sorted by class, within a class by image, and within an image as they came."""

    boxes: NDArray[np.float32]
    """(n, 4)"""
    classes: NDArray[np.int64]
    images: NDArray[np.int64]
    """(n,): index of the image of each box."""
    values: NDArray[np.generic]
    """(n,): the score of each detection, or whether the object is an ignored region."""

    def of(self, label: int) -> "_Labelled":
        """Return those of one class."""
        low, high = (int(np.searchsorted(self.classes, label, side=side)) for side in ("left", "right"))
        return _Labelled(
            boxes=self.boxes[low:high],
            classes=self.classes[low:high],
            images=self.images[low:high],
            values=self.values[low:high],
        )


def _sorted_by_class(
    parts: Sequence[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.generic]]],
) -> _Labelled:
    """Return the boxes, classes and values of all images, which are given image by image; there is at least one."""
    boxes, classes, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    images = np.repeat(np.arange(len(parts)), [len(labels) for _, labels, _ in parts])
    order = np.argsort(classes, kind="stable")
    return _Labelled(boxes=boxes[order], classes=classes[order], images=images[order], values=values[order])


def _of_same_image(ours: NDArray[np.int64], others: NDArray[np.int64]) -> Iterator[tuple[slice, slice]]:
    """Yield where an image stands in two sorted arrays of images, for each image that is in both."""
    shared = np.intersect1d(ours, others)
    ends = [np.searchsorted(each, shared, side=side) for each in (ours, others) for side in ("left", "right")]
    for first, end, first_other, end_other in zip(*(each.tolist() for each in ends), strict=True):
        yield slice(first, end), slice(first_other, end_other)


def _of_other_size(boxes: Floats, sizes: Sequence[str]) -> NDArray[np.bool_]:
    """Tell which boxes (n, 4) are of another size than each of the sizes, of shape (sizes, n)."""
    areas, ranges = _areas(boxes), [SIZES[size] for size in sizes]
    return np.stack([(areas < low) | (areas > high) for low, high in ranges])


def _matched(
    overlaps: Floats, out: NDArray[np.bool_], ignored: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Match the detections of one image in their order, each with the object that it overlaps most.

    Objects that count are tried first. An ignored region takes any number of detections, an object only one.

    Args:
        overlaps: IoU of each detection with each object, (detections, objects).
        out: Which objects do not count for each size, (sizes, objects).
        ignored: Which of these are ignored regions, (objects,).

    Returns:
        Which detections have a match, and which of them match an object that does not count, both (sizes, overlaps,
        detections).
    """
    number, objects = overlaps.shape
    hit, passed = (np.zeros((len(out), len(OVERLAPS), number), np.bool_) for _ in range(2))
    free = np.ones((len(out), len(OVERLAPS), objects), np.bool_)
    least = np.minimum(OVERLAPS, 1 - 1e-10)[:, None]
    for place in np.flatnonzero(overlaps.max(axis=1) >= least[0]):
        fits = (free | ignored) & (overlaps[place] >= least)
        asked = fits & ~out[:, None]
        chosen = np.where(asked.any(axis=2, keepdims=True), asked, fits)
        # Of several objects with the same overlap the last one, as in COCO's loop.
        best = objects - 1 - np.where(chosen, overlaps[place], -1.0)[..., ::-1].argmax(axis=2)
        some = chosen.any(axis=2)
        hit[..., place] = some
        passed[..., place] = some & np.take_along_axis(out, best, axis=1)
        free[(*np.nonzero(some), best[some])] = False
    return hit, passed


def average_precisions(matches: Matches, weights: NDArray[np.int64] | None = None) -> Floats:
    """Return the average precision at each overlap, of shape (overlaps,); NaN if there is no object to be found.

    It is the mean of the precision at 101 recalls, where the precision at a recall is the best one at that recall or a
    higher one (COCO's `accumulate`).

    Args:
        matches: The matched detections of a class.
        weights: How often each image counts, of shape (images,); by default once.
    """
    wanted = int(matches.wanted.sum() if weights is None else (weights * matches.wanted).sum())
    if not wanted:
        return np.full(len(OVERLAPS), np.nan)
    counts = np.ones(len(matches.scores)) if weights is None else weights[matches.images].astype(np.float64)
    found = np.cumsum(matches.right * counts, axis=1)
    wrong = np.cumsum((~matches.right & ~matches.left_out) * counts, axis=1)
    recalls, precisions = found / wanted, found / np.maximum(found + wrong, _EPS)
    best = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]
    read = np.zeros((len(OVERLAPS), len(RECALLS)))
    for place, (recall, precision) in enumerate(zip(recalls, best, strict=True)):
        at = np.searchsorted(recall, RECALLS, side="left")
        read[place, at < len(recall)] = precision[at[at < len(recall)]]
    return np.asarray(read.mean(axis=1))


def curve(matches: Matches) -> tuple[Floats, Floats, Floats]:
    """Return recall, precision and score from the highest threshold to the lowest, at an IoU of 0.5.

    There is one point for each distinct score of detections that count.
    """
    counted = ~matches.left_out[0]
    right, scores = matches.right[0][counted], matches.scores[counted]
    if not len(scores):
        return np.zeros(0), np.zeros(0), np.zeros(0)
    last = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
    found = np.cumsum(right)[last]
    return found / max(int(matches.wanted.sum()), 1), found / (last + 1), scores[last]


def _overlaps(boxes: Floats, objects: Floats, ignored: NDArray[np.bool_]) -> Floats:
    """Return the IoU of each detection and object; for an ignored region, the share of the detection inside it."""
    low = np.maximum(boxes[:, None, :2], objects[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], objects[None, :, 2:])
    inner = np.clip(high - low, 0, None).prod(axis=2)
    alone = _areas(boxes)[:, None]
    union = np.where(ignored[None, :], alone, alone + _areas(objects)[None, :] - inner)
    return np.asarray(inner / np.maximum(union, 1e-12))


def _areas(boxes: Floats) -> Floats:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
