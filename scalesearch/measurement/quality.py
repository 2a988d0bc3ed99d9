"""Quality of a deployed file on held-out images, for any task: its answers go into a metric, batch by batch."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalesearch.errors import StageFailed
from scalesearch.measurement.metric import Metric, Outputs
from scalesearch.values.quality import Quality

STAGE = "quality"
Run = Callable[[NDArray[np.float32]], Outputs]
"""An engine's `run`: takes images (N, C, H, W) and returns answers by the names of the outputs."""


def measure_quality(
    run: Run,
    batches: Iterable[NDArray[np.float32]],
    targets: Any,
    metric: Metric,
    *,
    warn: Callable[[str], None] = lambda _: None,
) -> Quality:
    """Measure the quality of what `run` answers for the images.

    Args:
        run: The `run` of an engine.
        batches: Normalised images (N, C, H, W), in the order of the targets.
        targets: Targets of all images; sliced like an array along the images.
        metric: The task's metric; it is reset first.
        warn: Called with a sentence for each reason why the score may say little.

    Raises:
        StageFailed: There are no images, fewer or more than targets, or answers that are not finite.
    """
    answer_all(run, batches, targets, metric)
    quality = metric.result()
    for doubt in metric.doubts():
        warn(doubt)
    return quality


def answer_all(run: Run, batches: Iterable[NDArray[np.float32]], targets: Any, metric: Metric) -> None:
    """Reset the metric, and put the answers for all images into it.

    Args:
        run: The `run` of an engine.
        batches: Normalised images (N, C, H, W), in the order of the targets.
        targets: Targets of all images; sliced like an array along the images.
        metric: The task's metric.

    Raises:
        StageFailed: Fewer or more images than targets, or answers that are not finite.
    """
    metric.reset()
    done, broken = 0, dict[str, int]()
    for images in batches:
        outputs = run(images)
        found = not_finite(outputs)
        for name, count in found.items():
            broken[name] = broken.get(name, 0) + count
        if not found:
            metric.update(outputs, targets[done : done + len(images)])
        done += len(images)
    refuse(broken, done)
    if done != len(targets):
        raise StageFailed(STAGE, f"expected as many images as targets, got {done} images and {len(targets)} targets")


def refuse(broken: Mapping[str, int], images: int) -> None:
    """Raise StageFailed where an output has answers that are not finite (`not_finite`); `images` counts all."""
    for name, count in broken.items():
        reason = (
            f"expected finite {name}, got NaN or infinity for {count} of {images} images; "
            "fp16 overflows and a failed calibration do this"
        )
        raise StageFailed(STAGE, reason)


def not_finite(outputs: Mapping[str, NDArray[np.floating]]) -> dict[str, int]:
    """Return the number of images with NaN or infinity in their answers, by output (N, ...); empty if all are finite.

    Such answers cannot be ranked: the first class would seem to have the largest score.
    """
    finite = {name: np.isfinite(each).reshape(len(each), -1).all(axis=1) for name, each in outputs.items() if len(each)}
    return {name: int((~each).sum()) for name, each in finite.items() if not each.all()}
