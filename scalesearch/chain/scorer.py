"""Score engines and files on the images of a study."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.data import ImageSplit, to_input
from scalesearch.data.mapped import MappedImages
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.backends.base import Engine, EngineOptions
from scalesearch.host import images_at_once
from scalesearch.measurement.metric import Metric, PostprocessedMetric
from scalesearch.measurement.quality import answer_all, measure_quality
from scalesearch.tasks.base import Task
from scalesearch.values.network import OnnxModel
from scalesearch.values.quality import Quality
from scalesearch.values.session import DataSummary

_SCORE_BATCH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """An engine's score, and the work that its answers need."""

    quality: Quality
    postprocessing: Sequence[Callable[[], object]]
    """One call for each of some images, which turns its answers into results; empty without post-processing."""


class Scorer:
    """Runs images through engines and hands the answers to the task's metric.

    Args:
        task: What the network is for: it gives the metric.
        data: Names of the classes, and constants of normalisation.
        threads: Threads of ONNX Runtime where a file is scored.
    """

    def __init__(self, task: Task, data: DataSummary, *, threads: int) -> None:
        self._task, self._data, self._threads = task, data, threads

    def quality(self, engine: Engine, split: ImageSplit, warnings: list[str]) -> Scored:
        """Score the engine's answers to a split's images; doubts about the score are added to `warnings`."""
        batches, metric = self._batches(split.images, engine.batch), self._metric()
        quality = measure_quality(engine.run, batches, split.targets, metric, warn=warnings.append)
        calls = metric.postprocessing() if isinstance(metric, PostprocessedMetric) else ()
        return Scored(quality=quality, postprocessing=calls)

    def onnx_score(self, model: OnnxModel, split: ImageSplit) -> float:
        """Return the score of a file as ONNX Runtime's CPU kernels run it."""
        threads, metric = self._threads, self._metric()
        with get_backend("onnxruntime").compile(model, EngineOptions(threads=threads)) as engine:
            answer_all(engine.run, self._batches(split.images, engine.batch), split.targets, metric)
        return metric.score()

    def _metric(self) -> Metric:
        return self._task.make_metric(self._data.class_names)

    def _batches(self, images: NDArray[np.uint8] | MappedImages, batch: int) -> Iterator[NDArray[np.float32]]:
        size = images_for_scores(*images.shape[1:3], batch=batch)
        for start in range(0, len(images), size):
            yield to_input(images[start : start + size], mean=self._data.mean, std=self._data.std)


def images_for_scores(height_px: int, width_px: int, *, batch: int) -> int:
    """Return how many images of this size are scored at once: 64, or fewer if they are large.

    Fewer are whole batches of the engine, for one that takes no other batch fills up what is less.

    Args:
        height_px: Height of each image.
        width_px: Width of each image.
        batch: The engine's batch.
    """
    size = images_at_once(height_px, width_px, most=_SCORE_BATCH)
    return size if size == _SCORE_BATCH else min(_SCORE_BATCH, max(1, size // batch) * batch)
