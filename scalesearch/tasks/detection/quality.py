"""Quality of a detector on held-out images: the score, by default mAP50-95, its interval, and its details."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.boxes import Boxes
from scalesearch.errors import StageFailed
from scalesearch.measurement.quality import STAGE, not_finite, refuse
from scalesearch.measurement.thin_curve import thin_curve
from scalesearch.tasks.detection.average_precision import (
    SIZES,
    BoxesByClass,
    Matches,
    Truth,
    average_precisions,
    curve,
)
from scalesearch.tasks.detection.decoding import Detections, decode_answers, overlaps
from scalesearch.tasks.detection.infer import to_original
from scalesearch.tasks.detection.objectives import DEFAULT_THRESHOLD, ScoreObjective, mean_of, recall_at_precision
from scalesearch.values.quality import ClassQuality, DetectionDetail, Quality

OUTPUT: Final = "raw"
_SEED: Final = 0
_RIGHT_FROM: Final = 0.5
FEW_OBJECTS: Final = 100
MOST_TIMED: Final = 64
"""Number of images, drawn at random, whose raw outputs are kept to time their decoding."""

_DEFAULT: Final = ScoreObjective()

Floats = NDArray[np.float64]


class MeanAveragePrecision:
    """The score of a detector, by default mAP50-95, of outputs that come in parts (the `Metric` of `tasks/base.py`).

    For each image only the decoded detections are kept, at most 100, so memory grows by 2.8 kB per image. The raw
    outputs of `MOST_TIMED` images are kept as well.
    """

    def __init__(self, class_names: Sequence[str], objective: ScoreObjective = _DEFAULT) -> None:
        """Take the names of the classes, in the order of the class logits, and what the score is."""
        self._names, self._objective = tuple(class_names), objective
        self.reset()

    def reset(self) -> None:
        """Forget all outputs."""
        self._truths: list[Truth] = []
        self._found: list[Detections] = []
        self._kept: list[_Raw] = []
        self._random = np.random.default_rng(_SEED)
        self._threshold = DEFAULT_THRESHOLD

    def update(self, outputs: Mapping[str, NDArray[np.float32]], targets: Boxes) -> None:
        """Take in raw outputs (N, 4 + classes + 1, points) and the boxes of the same N images.

        Raises:
            StageFailed: They do not fit together, or an output is not finite.
        """
        raw = outputs[OUTPUT]
        if raw.ndim != 3 or raw.shape[:2] != (len(targets), len(self._names) + 5):
            reason = (
                f"expected answers of shape ({len(targets)}, {len(self._names) + 5}, points) for the images and class "
                f"names, got {raw.shape}"
            )
            raise StageFailed(STAGE, reason)
        refuse(not_finite({OUTPUT: raw}), len(raw))
        for place, found in enumerate(decode_answers(raw, targets.size.sides)):
            size, at = tuple(targets.originals[place].tolist()), tuple(targets.placements[place].tolist())
            self._keep(_Raw(raw[place : place + 1], targets.size.sides, size, at))
            boxes = to_original(found.boxes, size, at)
            self._found.append(Detections(boxes, found.classes, found.scores))
            held = targets.original(place)
            self._truths.append(Truth(boxes=held.boxes, classes=held.classes, ignored=held.ignored))

    def _keep(self, raw: "_Raw") -> None:
        """Keep a random sample of the raw outputs, in which each has the same chance to be (Vitter's algorithm R)."""
        seen = len(self._found)
        place = seen if seen < MOST_TIMED else int(self._random.integers(0, seen + 1))
        if place < MOST_TIMED:
            self._kept[place : place + 1] = [raw._replace(answers=raw.answers.copy())]

    def postprocessing(self) -> tuple[Callable[[], object], ...]:
        """Return a call for each of up to `MOST_TIMED` images: decoding, suppression, boxes in pixels of the image.

        The calls use the threshold that `result` found; found on validation images, that is the exported one.
        """
        return tuple(functools.partial(_results, raw, self._threshold) for raw in self._kept)

    def score(self) -> float:
        """Return the score: by default the mean of average precisions over classes that occur and ten overlaps."""
        boxes = self._boxes_by_class()
        return self._score([boxes.match(label, "all")[0] for label in range(len(self._names))])

    def result(self) -> Quality:
        """Return the score with its interval, and the numbers of each class, each size and the best threshold."""
        boxes = self._boxes_by_class()
        matches, by_size = list[Matches](), {size: list[Floats]() for size in SIZES}
        for label in range(len(self._names)):
            matched = dict(zip(SIZES, boxes.match(label, *SIZES), strict=True))
            matches.append(matched["all"])
            for size, each in matched.items():
                by_size[size].append(average_precisions(each))
        precisions = {size: np.stack(each) for size, each in by_size.items()}
        score = self._score(matches)
        low, high = self._objective.interval(matches, len(self._truths))
        return Quality(
            score=score,
            score_low=min(low, score),
            score_high=max(high, score),
            images=len(self._truths),
            metric=self._objective.metric,
            detail=self._detail(matches, precisions),
        )

    def doubts(self) -> tuple[str, ...]:
        """Return warnings if there are few objects, or if none was found."""
        objects = sum(int((~truth.ignored).sum()) for truth in self._truths)
        doubts = []
        if objects < FEW_OBJECTS:
            doubts.append(f"there are only {objects} objects in {len(self._truths)} images: the score says little")
        if not any(len(found.scores) and found.scores[0] >= DEFAULT_THRESHOLD for found in self._found):
            doubts.append(f"no image has a detection with a score of {DEFAULT_THRESHOLD} or more: it has hardly learnt")
        return tuple(doubts)

    def made_up(self, quality: Quality) -> int:
        """Return the number of detections without an object, of those that an export of this quality reports."""
        threshold = quality.detail.threshold if isinstance(quality.detail, DetectionDetail) else DEFAULT_THRESHOLD
        return sum(confusion(self._truths, self._found, len(self._names), threshold)[-1])

    def _boxes_by_class(self) -> BoxesByClass:
        if not self._truths:
            reason = "expected at least one image to score on, got none; check the validation split"
            raise StageFailed(STAGE, reason)
        return BoxesByClass(self._truths, self._found)

    def _score(self, matches: Sequence[Matches]) -> float:
        score = self._objective.score(matches)
        if np.isnan(score):
            raise StageFailed(STAGE, "expected at least one object to be found in the images, came none")
        return score

    def _detail(self, matches: Sequence[Matches], by_size: Mapping[str, Floats]) -> DetectionDetail:
        """Return the details; `by_size` has average precisions (classes, overlaps), NaN for classes without objects."""
        precisions = by_size["all"]
        threshold = self._threshold = self._objective.threshold(matches)
        right, reported, wanted = counts_at(matches, threshold)
        classes = tuple(
            _class_quality(name, matches[place], precisions[place], counts=(right[place], reported[place]))
            for place, name in enumerate(self._names)
        )
        precision, recall = (float(right.sum() / max(int(total.sum()), 1)) for total in (reported, wanted))
        return DetectionDetail(
            threshold=threshold,
            precision=precision,
            recall=recall,
            f1=2 * precision * recall / max(precision + recall, 1e-9),
            map50_95=mean_of(precisions),
            map50=mean_of(precisions[:, 0]),
            map75=mean_of(precisions[:, 5]),
            recall_at_precision=recall_at_precision(matches, self._objective.precision)[0],
            at_precision=self._objective.precision,
            small=_mean_if_any(by_size["small"]),
            medium=_mean_if_any(by_size["medium"]),
            large=_mean_if_any(by_size["large"]),
            classes=classes,
            confusion=confusion(self._truths, self._found, len(self._names), threshold),
        )


def _mean_if_any(precisions: Floats) -> float | None:
    """Return the mean of average precisions (classes, overlaps); None if there is no object."""
    return None if np.isnan(precisions).all() else mean_of(precisions)


class _Raw(NamedTuple):
    """The raw outputs for one image, and the sizes that are needed to turn them into boxes in pixels of the image."""

    answers: NDArray[np.float32]
    """(1, 4 + classes + 1, points)"""
    sides_px: tuple[int, int]
    size: tuple[int, int]
    placement: tuple[float, float, float, float]


def _results(raw: _Raw, threshold: float) -> Detections:
    """Return the detections with at least this score, with boxes in pixels of the image, as infer.py makes them."""
    found = decode_answers(raw.answers, raw.sides_px, least_score=threshold)[0]
    return Detections(to_original(found.boxes, raw.size, raw.placement), found.classes, found.scores)


def counts_at(
    matches: Sequence[Matches], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of correct and all detections at a threshold, and of objects to be found, each (classes,)."""
    shown = [(each.scores >= threshold) & ~each.left_out[0] for each in matches]
    right = [int((each.right[0] & kept).sum()) for each, kept in zip(matches, shown, strict=True)]
    wanted = [int(each.wanted.sum()) for each in matches]
    return np.asarray(right), np.asarray([int(kept.sum()) for kept in shown]), np.asarray(wanted)


def _class_quality(name: str, matches: Matches, precisions: Floats, *, counts: tuple[int, int]) -> ClassQuality:
    recall, precision, _ = curve(matches)
    right, reported = (int(count) for count in counts)
    wanted = int(matches.wanted.sum())
    points: tuple[tuple[float, float], ...] = ()
    if wanted and len(recall):
        thin = thin_curve(np.append(0.0, recall), np.append(1.0, precision))
        points = tuple(zip(*(axis.tolist() for axis in thin), strict=True))
    return ClassQuality(
        name=name,
        support=wanted,
        precision=right / max(reported, 1),
        recall=right / max(wanted, 1),
        average_precision=0.0 if np.isnan(precisions).all() else float(precisions.mean()),
        curve=points,
    )


def confusion(
    truths: Sequence[Truth], found: Sequence[Detections], classes: int, threshold: float
) -> tuple[tuple[int, ...], ...]:
    """Return how often an object of each class (rows) was reported as each class (columns), at an IoU of 0.5.

    The last row counts detections without an object, the last column objects that were missed. Detections and objects
    are paired regardless of class, those that overlap most first; detections in ignored regions do not count.
    """
    table = np.zeros((classes + 1, classes + 1), np.int64)
    for truth, answer in zip(truths, found, strict=True):
        shown = answer.above(threshold)
        asked = ~truth.ignored
        regions = truth.boxes[truth.ignored]
        pairs = overlaps(shown.boxes, truth.boxes[asked])
        free_found, free_asked = np.ones(len(shown.boxes), bool), np.ones(int(asked.sum()), bool)
        labels = truth.classes[asked]
        for place in np.argsort(-pairs, axis=None, kind="stable"):
            mine, theirs = np.unravel_index(place, pairs.shape)
            if pairs[mine, theirs] < _RIGHT_FROM:
                break
            if free_found[mine] and free_asked[theirs]:
                table[labels[theirs], shown.classes[mine]] += 1
                free_found[mine] = free_asked[theirs] = False
        np.add.at(table[:, classes], labels[free_asked], 1)
        for mine in np.flatnonzero(free_found):
            if not _mostly_inside(shown.boxes[mine], regions):
                table[classes, shown.classes[mine]] += 1
    return tuple(tuple(int(count) for count in row) for row in table)


def _mostly_inside(box: NDArray[np.float32], regions: NDArray[np.float32]) -> bool:
    if not len(regions):
        return False
    low, high = np.maximum(box[:2], regions[:, :2]), np.minimum(box[2:], regions[:, 2:])
    inner = np.clip(high - low, 0, None).prod(axis=1)
    return bool((inner >= _RIGHT_FROM * (box[2:] - box[:2]).prod()).any())
