"""Quality of a deployed artifact on held-out images: top-1, macro precision and recall, a PR curve per class.

Conventions are scikit-learn's (the tests compare with it), written in numpy because its curves need a call per class.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from scalesearch.errors import StageFailed
from scalesearch.values.record import ClassQuality, Quality

LOG = logging.getLogger(__name__)
STAGE = "quality"

CURVE_POINTS = 50
Z_95 = 1.959964
"""97.5 % quantile of the normal distribution."""
SAME_ANSWER_SHARE = 0.9
SPREAD_FLOOR = 0.01

Floats = NDArray[np.float64]


def measure_quality(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    images: NDArray[np.float32] | Iterable[NDArray[np.float32]],
    labels: Sequence[int] | NDArray[np.integer],
    class_names: Sequence[str],
    *,
    batch: int = 64,
    warn: Callable[[str], None] = LOG.warning,
) -> Quality:
    """Quality of what `run` (an engine's `run`) answers for the images.

    Args:
        run: images (N, C, H, W) to logits (N, classes).
        images: all of them, or an iterator of batches where they would not fit in memory.
        labels: the class index of every image.
        class_names: in the order of the logits.
        batch: most images per call of `run`.
        warn: is told in one sentence if the answers hardly depend on the images.

    Raises:
        StageFailed: no images, counts that do not fit together, or logits that are not finite.
    """
    truth = np.asarray(labels, dtype=np.int64)
    logits = predict(run, images, batch=batch)
    _check(logits, truth, len(class_names))
    if warning := sameness(logits, truth):
        warn(warning)
    return score(logits, truth, class_names)


def predict(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    images: NDArray[np.float32] | Iterable[NDArray[np.float32]],
    *,
    batch: int,
) -> Floats:
    """Logits (N, classes) of all images, run in batches."""
    answers = [np.asarray(run(part), dtype=np.float64) for part in _batches(images, batch)]
    if not answers:
        reason = "expected at least one image to score on, got none; check the validation split"
        raise StageFailed(STAGE, reason)
    return np.concatenate(answers)


def score(logits: Floats, labels: NDArray[np.int64], class_names: Sequence[str]) -> Quality:
    """Quality from logits (N, classes) and labels (N).

    As in scikit-learn with `zero_division=0`: a class that is never predicted has precision 0. Macro precision is over
    the classes that occur in labels or predictions, macro recall over those in the labels (it is the balanced
    accuracy). A class without labels has recall and average precision 0, no curve, and no part in macro recall.
    """
    classes = len(class_names)
    predicted = logits.argmax(axis=1)
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    support = np.bincount(labels, minlength=classes)
    answered = np.bincount(predicted, minlength=classes)
    precision = hits / np.maximum(answered, 1)
    recall = hits / np.maximum(support, 1)
    scores = _softmax(logits)
    curves = [_pr_curve(scores[:, k], labels == k) if support[k] else _NO_CURVE for k in range(classes)]
    correct, images = int(hits.sum()), len(labels)
    low, high = wilson_interval(correct, images)
    return Quality(
        top1=correct / images,
        top1_low=low,
        top1_high=high,
        macro_precision=float(precision[(support + answered) > 0].mean()),
        macro_recall=float(recall[support > 0].mean()),
        images=images,
        classes=tuple(
            ClassQuality(
                name=name,
                support=int(support[k]),
                precision=float(precision[k]),
                recall=float(recall[k]),
                average_precision=_average_precision(*curves[k]),
                curve=tuple(zip(*(axis.tolist() for axis in thin_curve(*curves[k])), strict=True)),
            )
            for k, name in enumerate(class_names)
        ),
    )


def wilson_interval(correct: int, images: int) -> tuple[float, float]:
    """95 % interval of the fraction correct / images, sensible near 0 and 1 too (Wilson, JASA 22(158), 1927).

    It always holds the fraction itself: at 0 and 1 one end is that fraction, and rounding would put it beside it.
    """
    share, z2 = correct / images, Z_95**2
    center = (share + z2 / (2 * images)) / (1 + z2 / images)
    half = Z_95 * math.sqrt(share * (1 - share) / images + z2 / (4 * images**2)) / (1 + z2 / images)
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))


def sameness(logits: Floats, labels: NDArray[np.int64]) -> str:
    """A warning if the answers hardly depend on the images, else an empty text.

    Such a network (untrained, badly quantized) agrees with every other one of its kind, so comparisons look perfect.
    """
    answers = np.bincount(logits.argmax(axis=1))
    share, usual = float(answers.max() / answers.sum()), float(np.bincount(labels).max() / len(labels))
    if share >= max(SAME_ANSWER_SHARE, (1 + usual) / 2) and usual < 1:
        return (
            f"{100 * share:.0f} % of the images got one answer (class {int(answers.argmax())}), while no class has "
            f"more than {100 * usual:.0f} % of the labels: the accuracy says little"
        )
    over_images, over_classes = float(logits.std(axis=0).mean()), float(logits.mean(axis=0).std())
    if len(logits) > 1 and over_images < SPREAD_FLOOR * over_classes:
        return (
            f"over the images the logits vary by only {100 * over_images / over_classes:.2g} % of what they vary over "
            "the classes: the answers hardly depend on the images"
        )
    return ""


def thin_curve(recall: Floats, precision: Floats, points: int = CURVE_POINTS) -> tuple[Floats, Floats]:
    """At most `points` of the curve's points, both ends included, chosen so that straight lines between them fit best.

    Always adds the point that is farthest from the line so far (Douglas and Peucker, Cartographica 10(2), 1973).
    """
    # Inside a vertical drop (only false positives come in) points carry no shape: most of a many-class curve.
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
    """Recall and precision from the highest threshold to the lowest, one point per distinct score, from (0, 1) on."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_equals = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    hits = np.cumsum(positive[order])[last_of_equals]
    return np.append(0.0, hits / hits[-1]), np.append(1.0, hits / (last_of_equals + 1))


def _average_precision(recall: Floats, precision: Floats) -> float:
    """Sum of precision times the step in recall: no interpolation, as scikit-learn's."""
    return float(np.sum(np.diff(recall) * precision[1:]))


def _farthest(x: Floats, y: Floats, first: int, last: int) -> tuple[float, int, int, int]:
    """Distance and index of the point between two that is farthest from their straight line, with the two."""
    if last - first < 2:
        return 0.0, first, first, last
    across, up = x[last] - x[first], y[last] - y[first]
    off_x, off_y = x[first + 1 : last] - x[first], y[first + 1 : last] - y[first]
    length = math.hypot(across, up)
    distances = np.abs(across * off_y - up * off_x) / length if length > 0 else np.hypot(off_x, off_y)
    middle = int(distances.argmax())
    return float(distances[middle]), first, first + 1 + middle, last


def _batches(images: NDArray[np.float32] | Iterable[NDArray[np.float32]], batch: int) -> Iterator[NDArray[np.float32]]:
    chunks = (images,) if isinstance(images, np.ndarray) else images
    for chunk in chunks:
        for start in range(0, len(chunk), batch):
            yield chunk[start : start + batch]


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _check(logits: Floats, labels: NDArray[np.int64], classes: int) -> None:
    if logits.shape != (len(labels), classes):
        reason = (
            f"expected logits of shape ({len(labels)}, {classes}) for the labels and class names, got {logits.shape}"
        )
        raise StageFailed(STAGE, reason)
    if labels.min() < 0 or labels.max() >= classes:
        reason = f"expected labels from 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        raise StageFailed(STAGE, reason)
    refuse_not_finite(logits)


def refuse_not_finite(logits: Floats) -> None:
    """Raise StageFailed where an answer holds NaN or infinity: its largest class would be the first one."""
    broken = int((~np.isfinite(logits).all(axis=1)).sum())
    if broken:
        reason = (
            f"expected finite logits, got NaN or infinity for {broken} of {len(logits)} images; "
            "fp16 overflows and a failed calibration do this"
        )
        raise StageFailed(STAGE, reason)
