"""Decide whether training may mirror pictures: whether every class is still found in mirror images."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from scalesearch.data.masks import UNLABELLED
from scalesearch.tasks.base import MirrorVerdict
from scalesearch.tasks.mirror_rule import none_lost
from scalesearch.tasks.segmentation.quality import iou_of_classes

LOST_SHARE: Final = 0.25
"""A class counts as lost in mirror images if its intersection over union falls by more than this share."""
KNOWN_IOU: Final = 0.2
"""A class is judged only if its intersection over union is at least this in pictures that are not mirrored."""


def mirror_verdict(
    plain: Iterable[Any], mirrored: Iterable[Any], targets: Tensor, class_names: Sequence[str]
) -> MirrorVerdict:
    """Compare a network's outputs for images and for their mirror images, class by class.

    A mirrored wall still is a wall, but a sign that always stands on the right may not be found on the left. The
    outputs for mirror images are mirrored back, and each class's intersection over union is compared over all images.

    Args:
        plain: Logits (batch, classes, h, w) of the images, batch by batch.
        mirrored: Logits of the same images, mirrored left to right.
        targets: Masks (N, H, W).
        class_names: Names of the classes.
    """
    classes = len(class_names)
    before, after = _iou(plain, targets, classes, flip=False), _iou(mirrored, targets, classes, flip=True)
    judged = np.flatnonzero(before >= KNOWN_IOU)
    lost = [int(place) for place in judged if after[place] < (1 - LOST_SHARE) * before[place]]
    shares = f"mIoU {100 * float(np.nanmean(before)):.1f} %, {100 * float(np.nanmean(after)):.1f} % mirrored"
    if lost:
        shown = ", ".join(f"{class_names[at]} ({100 * before[at]:.0f} to {100 * after[at]:.0f} %)" for at in lost[:4])
        return MirrorVerdict(flip=False, words=f"{shares}; lost in the mirror: {shown}")
    if not len(judged):
        return MirrorVerdict(flip=False, words=f"{shares}: no class is found well enough to tell")
    return MirrorVerdict(flip=True, words=f"{shares}; {none_lost(len(judged), classes)}")


def _iou(answers: Iterable[Any], targets: Tensor, classes: int, *, flip: bool) -> NDArray[np.float64]:
    """Return the intersection over union of each class; NaN for a class without pixels."""
    confusion, done = np.zeros((classes, classes), np.int64), 0
    for logits in answers:
        masks = targets[done : done + len(logits)]
        done += len(logits)
        near = logits.flip(3) if flip else logits
        wide = interpolate(near.float().cpu(), size=masks.shape[1:], mode="bilinear", align_corners=False)
        labelled = masks != UNLABELLED
        pairs = classes * masks[labelled].long() + wide.argmax(dim=1)[labelled]
        confusion += torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).numpy()
    there = confusion.sum(axis=1)
    return np.where(there > 0, iou_of_classes(confusion.diagonal(), there, confusion.sum(axis=0)), np.nan)
