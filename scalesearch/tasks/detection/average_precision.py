"""Average precision of detections by COCO's rules, from matches that are kept for each image.

It is written in numpy for two reasons: the bootstrap over images needs the same sums with other weights of the images,
which no evaluator gives; and detection then needs no further package. Tests compare it with pycocotools and
faster-coco-eval.
"""

from collections.abc import Mapping, Sequence
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


def match_images(truths: Sequence[Truth], found: Sequence[Detections], label: int, size: str = "all") -> Matches:
    """Match the detections of one class with the objects of that class, image by image (COCO's `evaluateImg`).

    Args:
        truths: The objects of each image.
        found: The detections in each image, the most certain first.
        label: The class.
        size: Which objects count, a key of `SIZES`.
    """
    low, high = SIZES[size]
    scores, images, right, left_out, wanted = [], [], [], [], np.zeros(len(truths), np.int64)
    for place, (truth, answer) in enumerate(zip(truths, found, strict=True)):
        mine, theirs = answer.classes == label, truth.classes == label
        boxes, objects = answer.boxes[mine].astype(np.float64), truth.boxes[theirs].astype(np.float64)
        areas, object_areas = _areas(boxes), _areas(objects)
        ignored = truth.ignored[theirs]
        out = ignored | (object_areas < low) | (object_areas > high)
        wanted[place] = int((~out).sum())
        if not len(boxes):
            continue
        hit, passed = _matched(_overlaps(boxes, objects, ignored), out, ignored)
        passed |= ~hit & ((areas < low) | (areas > high))
        scores.append(answer.scores[mine].astype(np.float64))
        images.append(np.full(len(boxes), place))
        right.append(hit & ~passed)
        left_out.append(passed)
    if not scores:
        empty = np.zeros((len(OVERLAPS), 0), np.bool_)
        return Matches(scores=np.zeros(0), images=np.zeros(0, np.int64), right=empty, left_out=empty, wanted=wanted)
    every = np.concatenate(scores)
    order = np.argsort(-every, kind="mergesort")
    return Matches(
        scores=every[order],
        images=np.concatenate(images)[order],
        right=np.concatenate(right, axis=1)[:, order],
        left_out=np.concatenate(left_out, axis=1)[:, order],
        wanted=wanted,
    )


def _matched(
    overlaps: Floats, out: NDArray[np.bool_], ignored: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Match the detections of one image in their order, each with the object that it overlaps most.

    Objects that count are tried first. An ignored region takes any number of detections, an object only one.

    Args:
        overlaps: IoU of each detection with each object, (detections, objects).
        out: Which objects do not count, (objects,).
        ignored: Which of these are ignored regions, (objects,).

    Returns:
        Which detections have a match, and which of them match an object that does not count, both (overlaps,
        detections).
    """
    number, objects = overlaps.shape
    hit, passed = (np.zeros((len(OVERLAPS), number), np.bool_) for _ in range(2))
    if not objects:
        return hit, passed
    free = np.ones((len(OVERLAPS), objects), np.bool_)
    least = np.minimum(OVERLAPS, 1 - 1e-10)[:, None]
    thresholds = np.arange(len(OVERLAPS))
    for place in np.flatnonzero(overlaps.max(axis=1) >= least[0]):
        fits = (free | ignored) & (overlaps[place] >= least)
        asked = fits & ~out
        chosen = np.where(asked.any(axis=1)[:, None], asked, fits)
        # Of several objects with the same overlap the last one, as in COCO's loop.
        best = objects - 1 - np.where(chosen, overlaps[place], -1.0)[:, ::-1].argmax(axis=1)
        some = chosen.any(axis=1)
        hit[:, place] = some
        passed[:, place] = some & out[best]
        free[thresholds[some], best[some]] = False
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
