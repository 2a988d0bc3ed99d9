"""Draw a study's images: training images with their targets, and validation images with the answers of members."""

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scalesearch.data import Dataset, to_input
from scalesearch.data.finding import load_study_data
from scalesearch.data.mapped import planes
from scalesearch.data.targets import Targets
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.backends.base import EngineOptions
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.errors import ScalesearchError, StageFailed
from scalesearch.files import replace_file
from scalesearch.measurement.metric import Metric, Outputs, ReportingMetric
from scalesearch.records.stored_files import kept_model, picture_path
from scalesearch.tasks.base import ReportingViews, Task
from scalesearch.tasks.pictures import Pixels, sheet
from scalesearch.tasks.registry import task_for
from scalesearch.values.candidate import Recipe
from scalesearch.values.quality import Quality
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session

SHEET_IMAGES: Final = 12
WORST, RANDOM = 3, 3
"""Number of validation images shown for a member: those with the worst answers, and random others."""
_JUDGED: Final = 128
_QUALITY: Final = 88
_logger = logging.getLogger(__name__)


def target_sheet(task: Task, data: Dataset, recipe: Recipe, *, seed: int) -> Pixels:
    """Return a sheet of training images with their targets, as a batch of this recipe has them.

    Args:
        task: The task that the targets belong to.
        data: The data set, at the size at which it is trained on.
        recipe: How images are augmented; its batch size is how many are shown.
        seed: Seed of the batch.
    """
    batches = task.make_batches(
        planes(data.train.images),
        data.train.targets.tensor(),
        recipe,
        mean=data.mean,
        std=data.std,
        device="cpu",
        seed=seed,
    )
    shown, targets = batches.next()
    scale, offset = (np.asarray(each, np.float32)[:, None, None] for each in (data.std, data.mean))
    pixels = 255 * (shown.numpy() * scale + offset)
    images = np.clip(pixels.round(), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    pictures = task.views().draw_targets(images, targets, data.class_names)
    widest = max(picture.shape[1] for picture in pictures)
    return sheet(pictures, columns=max(1, min(6, 1200 // widest)))


def write_sheet(pixels: Pixels, to: Path) -> None:
    """Write a sheet (height, width, 3) as PNG, whole or not at all; its folder is made if it is not there."""
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    to.parent.mkdir(parents=True, exist_ok=True)
    replace_file(to, held.getvalue())


def picture_front(session: Session, front: Sequence[MeasuredTrial]) -> tuple[str, ...]:
    """Store a picture for each of these trials: validation images with their targets and the trial's answers.

    Returns:
        A line for each trial whose picture could not be made.
    """
    task, lines = task_for(session.settings), list[str]()
    dataset = load_study_data(session, task.sources())
    for record in front:
        try:
            model = kept_model(session.folder, record)
            if model is None:
                continue
            pixels = member_sheet(task, dataset.at(record.spec.input_size), model, record.quality)
        except ScalesearchError as error:
            lines.append(f"no pictures of trial {record.trial}: {str(error).splitlines()[0]}")
            continue
        held = io.BytesIO()
        Image.fromarray(pixels).save(held, "JPEG", quality=_QUALITY)
        to = picture_path(session.folder, record.trial)
        to.parent.mkdir(parents=True, exist_ok=True)
        replace_file(to, held.getvalue())
    for line in lines:
        _logger.warning("%s", line)
    return tuple(lines)


def member_sheet(task: Task, data: Dataset, model: Path, quality: Quality) -> Pixels:
    """Return validation images with their targets and a model's answers: the worst first, then some at random.

    An answer is judged by the task's metric on its image alone; at most 128 images are judged.

    Args:
        task: The task.
        data: The data set at the model's size.
        model: The ONNX file, which ONNX Runtime runs.
        quality: The model's quality on all validation images; its threshold says which predictions count.

    Raises:
        StageFailed: The model cannot be run here, or answers NaN.
    """
    number = len(data.val)
    judged = np.unique(np.linspace(0, number - 1, min(number, _JUDGED)).astype(np.int64))
    images = data.val.images[judged]
    with get_backend("onnxruntime").compile(onnx_model(model), EngineOptions(threads=1)) as engine:
        parts = [engine.run(to_input(images[[at]], mean=data.mean, std=data.std)) for at in range(len(judged))]
    scores = _scores(task.make_metric(data.class_names), parts, data.val.targets[judged], quality)
    worst = np.argsort(scores, kind="stable")[:WORST]
    others = np.setdiff1d(np.arange(len(judged)), worst)
    chosen = [*worst, *np.random.default_rng(0).permutation(others)[:RANDOM]]
    outputs = {name: np.concatenate([parts[at][name] for at in chosen]) for name in parts[0]}
    targets = data.val.targets[judged[chosen]].tensor()
    views = task.views()
    if isinstance(views, ReportingViews):
        views = views.with_quality(quality)
    pictures = views.draw_targets(images[chosen], targets, data.class_names, outputs=outputs)
    return sheet(pictures, columns=1 if pictures[0].shape[1] > 400 else 2)


def _scores(metric: Metric, parts: Sequence[Outputs], targets: Targets, quality: Quality) -> NDArray[np.float64]:
    """Return the score of each image alone.

    Where the metric has nothing to judge, since no pixel is labelled or no object is there, the score is infinite, or 0
    if an export of this quality reports something all the same.
    """
    scores = np.full(len(parts), np.inf)
    for at, outputs in enumerate(parts):
        metric.reset()
        metric.update(outputs, targets[at : at + 1])
        try:
            scores[at] = metric.score()
        except StageFailed:
            if isinstance(metric, ReportingMetric) and metric.made_up(quality):
                scores[at] = 0.0
    return scores
