"""Quality of a classifier on held-out images: top-1, macro precision and recall, a precision-recall curve per class.

The conventions are those of scikit-learn (the tests compare with it). It is written in numpy because scikit-learn's
curves need a call for each class.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scalesearch.errors import StageFailed
from scalesearch.measurement.metric import wilson_interval
from scalesearch.measurement.quality import STAGE, not_finite, refuse
from scalesearch.measurement.thin_curve import thin_curve
from scalesearch.tasks.classification.curves import Binned, Floats, average_precision, exact_curves
from scalesearch.values.quality import ClassDetail, ClassQuality, Quality

OUTPUT = "logits"

MOST_SCORES = 8_000_000
"""64 MB of scores, for example 8,000 images of 1,000 classes."""
SAME_ANSWER_SHARE = 0.9
SPREAD_FLOOR = 0.01


class Top1:
    """Top-1 accuracy of outputs that come in parts (the `Metric` of `tasks/base.py`).

    Up to `MOST_SCORES` scores (images times classes) are kept as they are, so that curves are exact. More scores are
    counted in 4096 bins for each class, so that memory does not grow with the number of images; curves and average
    precision are then those at the edges of the bins.
    """

    def __init__(self, class_names: Sequence[str], *, most_scores: int = MOST_SCORES) -> None:
        """Take the names of the classes, in the order of the logits."""
        self._names, self._most_scores = tuple(class_names), most_scores
        self.reset()

    def reset(self) -> None:
        """Forget all outputs."""
        self._logits: list[Floats] = []
        self._labels: list[NDArray[np.int64]] = []
        self._counts = _Counts(len(self._names))
        self._binned: Binned | None = None

    def update(self, outputs: Mapping[str, NDArray[np.float32]], targets: NDArray[np.integer]) -> None:
        """Take in logits (N, classes) and labels (N,).

        Raises:
            StageFailed: Their shapes do not fit together, or a logit is not finite.
        """
        logits = np.asarray(outputs[OUTPUT], dtype=np.float64)
        labels = np.asarray(targets, dtype=np.int64)
        _check(logits, labels, len(self._names))
        self._counts.add(logits, labels)
        if self._binned is None and self._counts.images * len(self._names) > self._most_scores:
            self._binned = Binned(len(self._names))
            for earlier in zip(self._logits, self._labels, strict=True):
                self._binned.add(*earlier)
            self._logits, self._labels = [], []
        if self._binned is not None:
            self._binned.add(logits, labels)
        else:
            self._logits.append(logits)
            self._labels.append(labels)

    def score(self) -> float:
        """Return the share of images whose largest logit is that of their label."""
        self._require()
        return int(self._counts.hits.sum()) / self._counts.images

    def result(self) -> Quality:
        """Return top-1 with its Wilson interval, macro precision and recall, and each class's numbers and curve."""
        self._require()
        if self._binned is not None:
            return _quality(self._counts, self._binned.curves(), self._names)
        curves = exact_curves(np.concatenate(self._logits), np.concatenate(self._labels), self._counts.support)
        return _quality(self._counts, curves, self._names)

    def doubts(self) -> tuple[str, ...]:
        """Return a warning if the outputs hardly depend on the images."""
        self._require()
        warning = _sameness(self._counts)
        return (warning,) if warning else ()

    def _require(self) -> None:
        if not self._counts.images:
            reason = "expected at least one image to score on, got none; check the validation split"
            raise StageFailed(STAGE, reason)


class _Counts:
    """Running counts of labels and predictions, and sums of the logits, each of shape (classes,)."""

    def __init__(self, classes: int) -> None:
        self.images = 0
        self.hits, self.support, self.answered = (np.zeros(classes, np.int64) for _ in range(3))
        self._sum, self._square = np.zeros(classes), np.zeros(classes)
        self._shift: Floats | None = None

    def add(self, logits: Floats, labels: NDArray[np.int64]) -> None:
        classes, predicted = len(self.hits), logits.argmax(axis=1)
        self.images += len(labels)
        self.hits += np.bincount(labels[predicted == labels], minlength=classes)
        self.support += np.bincount(labels, minlength=classes)
        self.answered += np.bincount(predicted, minlength=classes)
        if self._shift is None and len(logits):
            self._shift = logits[0].copy()  # sums of squares lose fewer digits if a typical value is subtracted first
        if self._shift is not None:
            moved = logits - self._shift
            self._sum += moved.sum(axis=0)
            self._square += (moved**2).sum(axis=0)

    def means(self) -> Floats:
        """Return the mean logit of each class (classes,)."""
        assert self._shift is not None
        return self._shift + self._sum / self.images

    def deviations(self) -> Floats:
        """Return the standard deviation of each class's logit over the images (classes,)."""
        variance = self._square / self.images - (self._sum / self.images) ** 2
        return np.asarray(np.sqrt(np.maximum(variance, 0.0)))


def score(logits: Floats, labels: NDArray[np.int64], class_names: Sequence[str]) -> Quality:
    """Return the quality of logits (N, classes) against labels (N,), with exact curves.

    As in scikit-learn with `zero_division=0`, a class that is never predicted has precision 0. Macro precision is the
    mean over the classes that occur in labels or predictions, macro recall over those in the labels (so it equals the
    balanced accuracy). A class without labels has recall and average precision 0, no curve, and does not count in macro
    recall.
    """
    counts = _Counts(len(class_names))
    counts.add(logits, labels)
    return _quality(counts, exact_curves(logits, labels, counts.support), class_names)


def _quality(counts: _Counts, curves: Sequence[tuple[Floats, Floats]], class_names: Sequence[str]) -> Quality:
    hits, support, answered = counts.hits, counts.support, counts.answered
    precision = hits / np.maximum(answered, 1)
    recall = hits / np.maximum(support, 1)
    correct, images = int(hits.sum()), counts.images
    low, high = wilson_interval(correct, images)
    classes = tuple(
        ClassQuality(
            name=name,
            support=int(support[place]),
            precision=float(precision[place]),
            recall=float(recall[place]),
            average_precision=average_precision(*curves[place]),
            curve=tuple(zip(*(axis.tolist() for axis in thin_curve(*curves[place])), strict=True)),
        )
        for place, name in enumerate(class_names)
    )
    detail = ClassDetail(
        macro_precision=float(precision[(support + answered) > 0].mean()),
        macro_recall=float(recall[support > 0].mean()),
        classes=classes,
    )
    return Quality(score=correct / images, score_low=low, score_high=high, images=images, metric="top1", detail=detail)


def _sameness(counts: _Counts) -> str:
    share, usual = float(counts.answered.max() / counts.images), float(counts.support.max() / counts.images)
    if share >= max(SAME_ANSWER_SHARE, (1 + usual) / 2) and usual < 1:
        return (
            f"{100 * share:.0f} % of the images got one answer (class {int(counts.answered.argmax())}), while no class "
            f"has more than {100 * usual:.0f} % of the labels: the accuracy says little"
        )
    over_images, over_classes = float(counts.deviations().mean()), float(counts.means().std())
    if counts.images > 1 and over_images < SPREAD_FLOOR * over_classes:
        return (
            f"over the images the logits vary by only {100 * over_images / over_classes:.2g} % of what they vary over "
            "the classes: the answers hardly depend on the images"
        )
    return ""


def _check(logits: Floats, labels: NDArray[np.int64], classes: int) -> None:
    if logits.shape != (len(labels), classes):
        reason = (
            f"expected logits of shape ({len(labels)}, {classes}) for the labels and class names, got {logits.shape}"
        )
        raise StageFailed(STAGE, reason)
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        reason = f"expected labels from 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        raise StageFailed(STAGE, reason)
    refuse(not_finite({OUTPUT: logits}), len(logits))


def mean_divergence(expected: NDArray[np.float32], answers: NDArray[np.float32]) -> float:
    """Return the Kullback-Leibler divergence of the softmax of `answers` from that of `expected`, in nats.

    Both are logits (N, classes); the result is averaged over the images.
    """
    p, q = _log_softmax(expected), _log_softmax(answers)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    logs: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return logs
