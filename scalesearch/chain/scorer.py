"""Score engines and files on the images of a study."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalesearch.data import ImageSplit, to_input
from scalesearch.data.mapped import MappedImages
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.backends.base import Engine, EngineOptions
from scalesearch.measurement.metric import Metric, PostprocessedMetric
from scalesearch.measurement.quality import answer_all, measure_quality
from scalesearch.tasks.base import Task
from scalesearch.values.network import OnnxModel
from scalesearch.values.quality import Quality
from scalesearch.values.session import DataSummary

_SCORE_BATCH = 64


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
        batches, metric = self._batches(split.images), self._metric()
        quality = measure_quality(engine.run, batches, split.targets, metric, warn=warnings.append)
        calls = metric.postprocessing() if isinstance(metric, PostprocessedMetric) else ()
        return Scored(quality=quality, postprocessing=calls)

    def onnx_score(self, model: OnnxModel, split: ImageSplit) -> float:
        """Return the score of a file as ONNX Runtime's CPU kernels run it."""
        threads, metric = self._threads, self._metric()
        with get_backend("onnxruntime").compile(model, EngineOptions(threads=threads)) as engine:
            answer_all(engine.run, self._batches(split.images), split.targets, metric)
        return metric.score()

    def _metric(self) -> Metric:
        return self._task.make_metric(self._data.class_names)

    def _batches(self, images: NDArray[np.uint8] | MappedImages) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(images), _SCORE_BATCH):
            yield to_input(images[start : start + _SCORE_BATCH], mean=self._data.mean, std=self._data.std)
