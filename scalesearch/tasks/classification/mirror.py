"""Decide whether training may mirror pictures: whether a mirror image is still a picture of its class."""

from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scalesearch.measurement.metric import wilson_interval
from scalesearch.tasks.base import MirrorVerdict
from scalesearch.tasks.mirror_rule import KNOWN_IMAGES, LOST_SHARE, none_lost, too_few

_SHOWN: Final = 4


def mirror_verdict(
    plain: Iterable[Any], mirrored: Iterable[Any], targets: Tensor, class_names: Sequence[str]
) -> MirrorVerdict:
    """Compare a network's outputs for images and for their mirror images, class by class.

    The network was trained without mirror images. If a mirrored picture of a class is a picture of another class, or of
    none, the network fails on most mirror images of pictures that it recognises. A class counts as lost if it certainly
    fails on more than a quarter of them (the lower end of Wilson's interval is above that). The interval is so wide
    that a class is called lost by chance in at most one of 20 data sets, however many classes there are (Bonferroni's
    correction).

    Args:
        plain: Logits (batch, classes) of the images, batch by batch.
        mirrored: Logits of the same images, mirrored left to right.
        targets: Labels (N,).
        class_names: Names of the classes.
    """
    labels = targets.numpy()
    before, after = (_right(answers, labels) for answers in (plain, mirrored))
    now = f"{100 * after.mean():.1f} % of them mirrored"
    shares = f"{100 * before.mean():.1f} % of {len(labels)} images recognised, {now}"
    lost, judged, z = [], 0, NormalDist().inv_cdf(1 - 0.025 / len(class_names))
    for number, name in enumerate(class_names):
        members = labels == number
        known = before & members
        recognised, gone = int(known.sum()), int((known & ~after).sum())
        if recognised < max(KNOWN_IMAGES, members.sum() / 2):
            continue
        judged += 1
        if wilson_interval(gone, recognised, z=z)[0] > LOST_SHARE:
            lost.append(f"{name} ({gone} of {recognised})")
    if lost:
        more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        return MirrorVerdict(flip=False, words=f"{shares}; lost in the mirror: {', '.join(lost[:_SHOWN])}{more}")
    if 2 * judged < len(class_names):
        return MirrorVerdict(flip=False, words=f"{shares}: {too_few(judged, len(class_names))}")
    return MirrorVerdict(flip=True, words=f"{shares}; {none_lost(judged, len(class_names))}")


def _right(answers: Iterable[Any], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = torch.cat([logits.argmax(dim=1).cpu() for logits in answers]).numpy() == labels
    return right
