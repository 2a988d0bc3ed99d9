"""Decide once per study whether training mirrors its images (`training.flip = "auto"`)."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from scalesearch.chain.inheritance import Starter, tuning_ahead
from scalesearch.chain.planner import Planner
from scalesearch.chain.shrink import Shrinker
from scalesearch.chain.stages import StageClock
from scalesearch.chain.teacher import Mirrored
from scalesearch.data import Dataset
from scalesearch.data.mapped import MappedImages, planes
from scalesearch.data.normalisation import Images
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.spaces.suggest import cheapest
from scalesearch.study.sided_classes import sided_pairs
from scalesearch.tasks.registry import task_for
from scalesearch.training.answers import answers
from scalesearch.values.candidate import Candidate
from scalesearch.values.session import Session

MOST_IMAGES = 4096
_OTHERWISE = "training.flip = true or false decides otherwise"
_DRAWN_BY = 0
"""Seed by which validation images are drawn, if there are more."""


def with_flip(session: Session, dataset: Dataset, *, say: Callable[[str], None]) -> Session:
    """Return the session with `training.flip` decided, if its space leaves that to the program.

    The base network (all multipliers 1) is trained without mirror images, by the first recipe of the space; its task
    then compares its answers for validation images (at most `MOST_IMAGES`) and for their mirror images. A weaker
    network could not decide this, since it would fail on any changed image. If images are not to be mirrored, the
    search reuses the trained weights. A parent that is not fine-tuned yet is fine-tuned first. Nothing is trained where
    the names of two classes differ by left and right alone: images are then not mirrored.

    Args:
        session: The session of a new study.
        dataset: The study's images.
        say: Is called with what is trained, and with the decision and its reason.
    """
    if not session.space.flip_undecided:
        return session
    if pairs := sided_pairs(dataset.class_names):
        one, other = pairs[0]
        say(f"flips: off: the classes {one} and {other} differ by left and right alone; {_OTHERWISE}")
        return dataclasses.replace(session, space=session.space.with_flip(flip=False))
    task, machine = task_for(session.settings), session.machine
    recipe = cheapest(session.space.with_flip(flip=False)).recipe
    plan = Planner(session)(Candidate(recipe=recipe))
    network_text = f"{plan.spec.name} at {plan.spec.input_size}"
    lock = DeviceLock(MEASURED_DEVICE)
    with lock.busy():
        if session.parent:
            if line := tuning_ahead(session):
                say(line)
            Starter(session, lock).parent(say)
        say(f"flips: training {network_text} without them, to see whether images may be mirrored")
        data = dataset.at(plan.spec.input_size)
        network = Shrinker(session, lock)(plan, data, StageClock()).network
        chosen = judged_images(len(data.val)).numpy()
        images, targets = planes(_part(data.val.images, chosen)), data.val.targets[chosen].tensor()
        plain, mirrored = (
            answers(network, each, machine, mean=data.mean, std=data.std) for each in (images, Mirrored(images))
        )
        verdict = task.mirror_verdict(plain, mirrored, targets, data.class_names)
    say(f"flips: {'on' if verdict.flip else 'off'}: {verdict.words}; {_OTHERWISE}")
    return dataclasses.replace(session, space=session.space.with_flip(flip=verdict.flip))


def judged_images(count: int, *, most: int = MOST_IMAGES) -> torch.Tensor:
    """Return which of `count` images are looked at, in order: all, or `most` of them, the same ones every time.

    They are drawn by chance: images are often sorted by class, and every k-th one might be of few classes.
    """
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(_DRAWN_BY))[:most].sort().values


def _part(images: Images | MappedImages, chosen: NDArray[np.int64]) -> Images | MappedImages:
    return images.part(chosen) if isinstance(images, MappedImages) else images[chosen]
