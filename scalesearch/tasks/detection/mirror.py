"""Decide whether training may mirror pictures: whether objects of every class are still found in mirror images."""

from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scalesearch.data.boxes import NO_CLASS
from scalesearch.measurement.metric import wilson_interval
from scalesearch.tasks.base import MirrorVerdict
from scalesearch.tasks.detection.decoding import Detections, decode_answers, overlaps
from scalesearch.tasks.mirror_rule import KNOWN_IMAGES, LOST_SHARE, none_lost, too_few

_SURE_FROM: Final = 0.1
_OVERLAP: Final = 0.5
_SHOWN: Final = 4


def mirror_verdict(
    plain: Iterable[Any], mirrored: Iterable[Any], targets: Tensor, class_names: Sequence[str]
) -> MirrorVerdict:
    """Compare a network's outputs for images and for their mirror images, object by object.

    The network was trained without mirror images. As in classification, a class counts as lost if certainly more than a
    quarter of its objects that are found in the images are not found in the mirror images, or are found as another
    class (lower end of Wilson's interval, with Bonferroni's correction for the number of classes).

    Args:
        plain: Raw outputs (batch, 4 + classes + 1, points) for the images, batch by batch.
        mirrored: Raw outputs for the same images, mirrored left to right.
        targets: (N, 1 + most, 6), as `Boxes.tensor` has them.
        class_names: Names of the classes.
    """
    rows = targets.numpy()
    width, height = (int(side) for side in rows[0, 0, 2:4].round())
    before, after = (_answers(each, (height, width)) for each in (plain, mirrored))
    known, gone, objects = (np.zeros(len(class_names), np.int64) for _ in range(3))
    for row, here, there in zip(rows, before, after, strict=True):
        held = (row[1:, 4] != NO_CLASS) & (row[1:, 5] == 0)
        boxes, labels = row[1:][held, :4], row[1:][held, 4].astype(np.int64)
        turned = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
        found, found_turned = _found(here, boxes, labels), _found(there, turned.astype(np.float32), labels)
        np.add.at(objects, labels, 1)
        np.add.at(known, labels[found], 1)
        np.add.at(gone, labels[found & ~found_turned], 1)
    share = 100 * known.sum() / max(int(objects.sum()), 1)
    words = f"{share:.1f} % of {objects.sum()} objects found, {gone.sum()} of these not in the mirror"
    judged = known >= np.maximum(KNOWN_IMAGES, objects / 4)
    z = NormalDist().inv_cdf(1 - 0.025 / len(class_names))
    lost = [
        f"{class_names[place]} ({gone[place]} of {known[place]})"
        for place in np.flatnonzero(judged).tolist()
        if wilson_interval(int(gone[place]), int(known[place]), z=z)[0] > LOST_SHARE
    ]
    if lost:
        more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        return MirrorVerdict(flip=False, words=f"{words}; lost in the mirror: {', '.join(lost[:_SHOWN])}{more}")
    if 2 * int(judged.sum()) < len(class_names):
        return MirrorVerdict(flip=False, words=f"{words}: {too_few(int(judged.sum()), len(class_names))}")
    return MirrorVerdict(flip=True, words=f"{words}; {none_lost(int(judged.sum()), len(class_names))}")


def _answers(batches: Iterable[Any], sides_px: tuple[int, int]) -> list[Detections]:
    return [each for raw in batches for each in decode_answers(raw.float().cpu().numpy(), sides_px)]


def _found(answer: Detections, boxes: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of the boxes were found with their own class, of shape (boxes,)."""
    sure = answer.above(_SURE_FROM)
    fits = (overlaps(boxes, sure.boxes) >= _OVERLAP) & (labels[:, None] == sure.classes[None, :])
    return np.asarray(fits.any(axis=1))
