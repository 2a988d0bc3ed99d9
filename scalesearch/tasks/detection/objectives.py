"""The scores of a detector: mAP50-95, mAP50, or recall at a precision, each with its interval and its threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.tasks.detection.average_precision import Matches, average_precisions
from scalesearch.values.quality import recall_metric
from scalesearch.values.settings import DetectionObjective

DEFAULT_THRESHOLD: Final = 0.25
RESAMPLES: Final = 200
"""Number of bootstrap samples of the images for the interval of the score."""
_TAIL: Final = 0.025
_SEED: Final = 0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreObjective:
    """The score of a detector, computed from the matches of its detections."""

    kind: DetectionObjective = "map50_95"
    precision: float = 0.9
    """The precision at which recall is measured."""

    @property
    def metric(self) -> str:
        """Name of the score, as columns, figures and exports show it."""
        return recall_metric(self.precision) if self.kind == "recall_at_precision" else self.kind

    def score(self, matches: Sequence[Matches], weights: NDArray[np.int64] | None = None) -> float:
        """Return the score from 0 to 1; NaN if there is no object.

        Args:
            matches: The matches of each class.
            weights: How often each image counts, of shape (images,); by default once.
        """
        if self.kind == "recall_at_precision":
            return recall_at_precision(matches, self.precision, weights)[0]
        found = np.stack([average_precisions(each, weights) for each in matches])
        return mean_of(found if self.kind == "map50_95" else found[:, :1])

    def threshold(self, matches: Sequence[Matches]) -> float:
        """Return the lowest score of a detection that an export reports.

        It is the threshold with the best F1 over all classes, at an IoU of 0.5. If recall at a precision is the
        objective, it is the threshold that gives that recall, if any has the precision.
        """
        if self.kind == "recall_at_precision":
            recall, threshold = recall_at_precision(matches, self.precision)
            if recall > 0:
                return threshold
        return best_threshold(matches)

    def interval(self, matches: Sequence[Matches], images: int) -> tuple[float, float]:
        """Return the 95 % interval of the score by drawing the images anew, with replacement.

        That is the bootstrap (Efron 1979) with fixed random numbers, so that equal outputs have equal intervals.
        """
        random, scores = np.random.default_rng(_SEED), []
        # Detections after a class's last right one change no average precision, but the precision over all classes.
        shorter = matches if self.kind == "recall_at_precision" else [_until_last_hit(each) for each in matches]
        for _ in range(RESAMPLES):
            weights = np.bincount(random.integers(0, images, images), minlength=images)
            score = self.score(shorter, weights)
            if not np.isnan(score):
                scores.append(score)
        low, high = np.quantile(scores, [_TAIL, 1 - _TAIL])
        return float(low), float(high)


def mean_of(precisions: Floats) -> float:
    """Return the mean of average precisions (classes, overlaps) over the overlaps and the classes that occur.

    It is NaN if no class occurs.
    """
    return float("nan") if np.isnan(precisions).all() else float(np.nanmean(precisions))


def recall_at_precision(
    matches: Sequence[Matches], precision: float, weights: NDArray[np.int64] | None = None
) -> tuple[float, float]:
    """Return the largest recall that any one threshold for all classes gives with at least this precision.

    Recall and precision are over all objects and detections, at an IoU of 0.5. Thresholds have three decimals, like
    those that an export states, so that both report the same detections.

    Returns:
        The recall (0 if no threshold has the precision, NaN if there is no object), and the threshold that gives it.
    """
    wanted = sum(int((each.wanted if weights is None else weights * each.wanted).sum()) for each in matches)
    if not wanted:
        return float("nan"), DEFAULT_THRESHOLD
    counted = [~each.left_out[0] for each in matches]
    scores = np.concatenate([each.scores[kept] for each, kept in zip(matches, counted, strict=True)])
    right = np.concatenate([each.right[0][kept] for each, kept in zip(matches, counted, strict=True)])
    counts = np.ones(len(scores))
    if weights is not None:
        images = np.concatenate([each.images[kept] for each, kept in zip(matches, counted, strict=True)])
        counts = weights[images].astype(np.float64)
    thresholds = np.floor(1000 * scores) / 1000
    order = np.argsort(-thresholds, kind="stable")
    thresholds, counts, right = thresholds[order], counts[order], right[order]
    last = np.flatnonzero(np.append(thresholds[1:] != thresholds[:-1], True)) if len(thresholds) else order
    found, reported = np.cumsum(right * counts)[last], np.cumsum(counts)[last]
    fine = found >= precision * reported - 1e-9
    if not (fine & (found > 0)).any():
        return 0.0, DEFAULT_THRESHOLD
    best = int(np.where(fine, found, -1.0).argmax())
    return float(found[best] / wanted), float(thresholds[last][best])


def _until_last_hit(matches: Matches) -> Matches:
    """Return the matches without the detections after the last right one, which change no average precision."""
    hits = np.flatnonzero(matches.right.any(axis=0))
    end = int(hits[-1]) + 1 if len(hits) else 0
    return Matches(
        scores=matches.scores[:end],
        images=matches.images[:end],
        right=matches.right[:, :end],
        left_out=matches.left_out[:, :end],
        wanted=matches.wanted,
    )


def best_threshold(matches: Sequence[Matches]) -> float:
    """Return the threshold of the score that gives the best F1 over all classes, at an IoU of 0.5."""
    scores = np.concatenate([each.scores[~each.left_out[0]] for each in matches])
    right = np.concatenate([each.right[0][~each.left_out[0]] for each in matches])
    wanted = sum(int(each.wanted.sum()) for each in matches)
    if not right.any():
        return DEFAULT_THRESHOLD
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(right[order])
    f1 = 2 * found / (np.arange(1, len(order) + 1) + wanted)
    # Rounded down to the decimals that an export states, so that both report the same detections.
    return float(np.floor(1000 * scores[order][int(f1.argmax())]) / 1000)
