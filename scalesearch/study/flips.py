"""Decide once per study whether training mirrors its images (`training.flip = "auto"`)."""

import dataclasses
from collections.abc import Callable

import torch

from scalesearch.chain.examples import tensors
from scalesearch.chain.planner import Planner
from scalesearch.chain.shrink import Shrinker
from scalesearch.chain.stages import StageClock
from scalesearch.data import Dataset
from scalesearch.data.mapped import ImageSource
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.spaces.suggest import cheapest
from scalesearch.tasks.registry import task_for
from scalesearch.training.answers import answers
from scalesearch.values.candidate import Candidate
from scalesearch.values.session import Session

MOST_IMAGES = 4096


def with_flip(session: Session, dataset: Dataset, *, say: Callable[[str], None]) -> Session:
    """Return the session with `training.flip` decided, if its space leaves that to the program.

    The base network (all multipliers 1) is trained without mirror images, by the first recipe of the space; its task
    then compares its answers for validation images and for their mirror images. A weaker network could not decide this,
    since it would fail on any changed image. If images are not to be mirrored, the search reuses the trained weights.

    Args:
        session: The session of a new study.
        dataset: The study's images.
        say: Is called with the decision and its reason.
    """
    if not session.space.flip_undecided:
        return session
    task, machine = task_for(session.settings), session.machine
    recipe = cheapest(session.space.with_flip(flip=False)).recipe
    plan = Planner(session)(Candidate(recipe=recipe))
    network_text = f"{plan.spec.name} at {plan.spec.input_size}"
    say(f"flips: training {network_text} without them, to see whether images may be mirrored")
    lock = DeviceLock(MEASURED_DEVICE)
    with lock.busy():
        data = dataset.at(plan.spec.input_size)
        network = Shrinker(session, lock)(plan, data, StageClock()).network
        images, targets = tensors(data.val)
        images, targets = _in_memory(images)[:MOST_IMAGES], targets[:MOST_IMAGES]
        plain, mirrored = (
            list(answers(network, each, machine, mean=data.mean, std=data.std)) for each in (images, images.flip(3))
        )
    verdict = task.mirror_verdict(plain, mirrored, targets, data.class_names)
    say(f"flips: {'on' if verdict.flip else 'off'}: {verdict.words}; training.flip = true or false decides otherwise")
    return dataclasses.replace(session, space=session.space.with_flip(flip=verdict.flip))


def _in_memory(images: torch.Tensor | ImageSource) -> torch.Tensor:
    if isinstance(images, torch.Tensor):
        return images
    return images.take(torch.arange(min(MOST_IMAGES, len(images))))
