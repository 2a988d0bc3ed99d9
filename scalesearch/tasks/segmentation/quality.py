"""Quality of a segmentation network on held-out images: mean intersection over union from one confusion matrix."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.masks import UNLABELLED, Masks
from scalesearch.errors import StageFailed
from scalesearch.measurement.quality import STAGE, not_finite, refuse
from scalesearch.tasks.segmentation.infer import class_map
from scalesearch.values.quality import MaskClass, MaskDetail, Quality

OUTPUT: Final = "logits"
METRIC: Final = "miou"
_DRAWS: Final = 1000
_SAME_ANSWER_SHARE: Final = 0.95

Counts = NDArray[np.int64]


class MeanIoU:
    """Mean intersection over union of outputs that come in parts (the `Metric` of `tasks/base.py`).

    Logits are enlarged to the size of each image's own mask, at which pixels are counted. All images go into one
    confusion matrix. A class that has no pixel in any image is left out of every mean.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        """Take the names of the classes, in the order of the logits."""
        self._names = tuple(class_names)
        self.reset()

    def reset(self) -> None:
        """Forget all outputs."""
        self.confusion: Counts = np.zeros((len(self._names), len(self._names)), np.int64)
        """Number of pixels by true class (rows) and predicted class (columns)."""
        self._images: list[Counts] = []

    def update(self, outputs: Mapping[str, NDArray[np.float32]], targets: Masks) -> None:
        """Take in logits (N, classes, logit height, logit width) and N masks.

        Raises:
            StageFailed: They do not fit together, or a logit is not finite.
        """
        logits = np.asarray(outputs[OUTPUT], np.float32)
        classes = len(self._names)
        if logits.ndim != 4 or logits.shape[:2] != (len(targets), classes):
            reason = f"expected logits of {len(targets)} images and {classes} classes, got the shape {logits.shape}"
            raise StageFailed(STAGE, reason)
        refuse(not_finite({OUTPUT: logits}), len(logits))
        for place, answer in enumerate(logits):
            mask = targets.own(place)
            found = confusion_of(mask, class_map(answer, mask.shape, targets.part(place)), classes)
            self.confusion += found
            # For the interval, each image's number of correct, true and predicted pixels of every class is enough.
            self._images.append(np.stack([found.diagonal(), found.sum(axis=1), found.sum(axis=0)]))

    def score(self) -> float:
        """Return the mean intersection over union of the classes that are in the ground truth."""
        self._require()
        return float(mean_iou(*_counts(self.confusion)))

    def result(self) -> Quality:
        """Return the score with its interval over images, and the numbers of each class."""
        score, (right, there, answered) = self.score(), _counts(self.confusion)
        low, high = self._interval()
        iou = iou_of_classes(right, there, answered)
        classes = tuple(
            MaskClass(
                name=name,
                pixels=int(there[place]),
                iou=float(iou[place]) if there[place] else 0.0,
                recall=float(right[place] / max(int(there[place]), 1)),
                precision=float(right[place] / max(int(answered[place]), 1)),
            )
            for place, name in enumerate(self._names)
        )
        detail = MaskDetail(
            pixel_accuracy=float(right.sum() / there.sum()),
            mean_accuracy=float((right / np.maximum(there, 1))[there > 0].mean()),
            classes=classes,
        )
        return Quality(
            score=score, score_low=min(low, score), score_high=max(high, score), images=len(self._images),
            metric=METRIC, detail=detail,
        )  # fmt: skip

    def doubts(self) -> tuple[str, ...]:
        """Return a warning if nearly all pixels are predicted as one class although the ground truth has several."""
        self._require()
        _, there, answered = _counts(self.confusion)
        share, usual = answered.max() / answered.sum(), there.max() / there.sum()
        if share < max(_SAME_ANSWER_SHARE, (1 + usual) / 2) or usual == 1:
            return ()
        name = self._names[int(answered.argmax())]
        return (
            f"{100 * share:.0f} % of the pixels got one answer ({name}), while no class has more than "
            f"{100 * usual:.0f} % of them: the network has not learnt to tell classes apart",
        )

    def _interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the score by 1,000 draws of as many images, with replacement (bootstrap)."""
        images = np.stack(self._images)  # (images, 3, classes)
        number = len(images)
        random = np.random.default_rng(0)
        times = random.multinomial(number, np.full(number, 1 / number), size=_DRAWS)
        drawn = np.tensordot(times.astype(np.float64), images.astype(np.float64), axes=1)
        scores = [mean_iou(*counts) for counts in drawn if counts[1].any()]
        low, high = np.quantile(scores, (0.025, 0.975))
        return float(low), float(high)

    def _require(self) -> None:
        if not self.confusion.any():
            what = "image" if not self._images else "labelled pixel"
            reason = f"expected at least one {what} to score on, got none; check the validation split"
            raise StageFailed(STAGE, reason)


def confusion_of(mask: NDArray[np.uint8], answer: NDArray[np.uint8], classes: int) -> Counts:
    """Return the confusion matrix of one mask: true class in rows, predicted class in columns, (classes, classes).

    Mask and answer are (height, width); unlabelled pixels do not count.
    """
    labelled = mask != UNLABELLED
    pairs = classes * mask[labelled].astype(np.int32) + answer[labelled]
    if len(pairs) and int(pairs.max()) >= classes**2:
        raise StageFailed(
            STAGE, f"expected mask values from 0 to {classes - 1} and 255, got {int(mask[labelled].max())}"
        )
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def _counts(confusion: Counts) -> tuple[Counts, Counts, Counts]:
    """Return the number of correct, of true and of predicted pixels of each class, each (classes,)."""
    return confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)


def iou_of_classes(
    right: NDArray[np.generic], there: NDArray[np.generic], answered: NDArray[np.generic]
) -> NDArray[np.float64]:
    """Return the intersection over union of each class; 0 for a class without true or predicted pixels.

    All arrays are (classes,): numbers of correct pixels, of true ones, and of pixels predicted as the class.
    """
    ours = [np.asarray(each, np.float64) for each in (right, there, answered)]
    return np.asarray(ours[0] / np.maximum(ours[1] + ours[2] - ours[0], 1))


def mean_iou(right: NDArray[np.generic], there: NDArray[np.generic], answered: NDArray[np.generic]) -> float:
    """Return the mean intersection over union of the classes that are in the ground truth; there must be at least one.

    The counts are (classes,), as those of `iou_of_classes`.
    """
    return float(iou_of_classes(right, there, answered)[np.asarray(there) > 0].mean())


def mean_divergence(expected: NDArray[np.float32], answers: NDArray[np.float32]) -> float:
    """Return the Kullback-Leibler divergence of class probabilities in nats, averaged over pixels and images.

    Both are logits (images, classes, height, width).
    """
    p, q = _log_softmax(expected), _log_softmax(answers)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    logs: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return logs
