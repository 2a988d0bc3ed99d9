"""The interface of the metrics of all tasks, and the confidence interval of a proportion."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from scalesearch.values.quality import Z_975, Quality

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Outputs = Mapping[str, "NDArray[np.float32]"]
"""An engine's answers: arrays by the names of the file's outputs, images along the first axis."""


class Metric(Protocol):
    """Scores answers that come in parts, so that those of all images never need to be in memory together."""

    def reset(self) -> None:
        """Forget all answers."""

    def update(self, outputs: Outputs, targets: Any) -> None:
        """Add the answers to some images, with their targets.

        Args:
            outputs: Arrays by the names of the outputs, images along the first axis.
            targets: One for each image, of the task's own kind.

        Raises:
            StageFailed: Answers and targets do not fit together, or an answer is not finite.
        """

    def score(self) -> float:
        """Return the score (0..1) of all answers since the last reset.

        Raises:
            StageFailed: There were no answers.
        """
        ...

    def result(self) -> Quality:
        """Return the score with its interval and the details behind it.

        Raises:
            StageFailed: There were no answers.
        """
        ...

    def doubts(self) -> tuple[str, ...]:
        """Return a sentence for each reason why the score may not mean much; empty if there is none."""
        ...


@runtime_checkable
class PostprocessedMetric(Metric, Protocol):
    """The metric of a task whose answers need work that is worth timing before they are results, such as decoding."""

    def postprocessing(self) -> Sequence[Callable[[], object]]:
        """Return one call for each of some random images, which turns its answers into results as an export does.

        Use this after `result`, which finds the threshold. A call may be made several times.
        """
        ...


@runtime_checkable
class ReportingMetric(Metric, Protocol):
    """The metric of a task whose exports report what is certain enough, such as boxes with at least some score."""

    def made_up(self, quality: Quality) -> int:
        """Return how many reports, of all answers since the last reset, stand for nothing that is there.

        Args:
            quality: Quality of the network whose answers they are; it says from which score on its export reports.
        """
        ...


def wilson_interval(correct: int, images: int, *, z: float = Z_975) -> tuple[float, float]:
    """Return the interval of the fraction correct / images, which is sensible near 0 and 1 too.

    This is Wilson's interval (JASA 22(158), 1927).

    It always contains the fraction itself: at 0 and 1 one end equals the fraction, and rounding errors are corrected.

    Args:
        correct: Number of correct images.
        images: Number of all images, at least 1.
        z: Half of the interval's width in standard errors; the default gives the 95 % interval.
    """
    share, z2 = correct / images, z**2
    center = (share + z2 / (2 * images)) / (1 + z2 / images)
    half = z * math.sqrt(share * (1 - share) / images + z2 / (4 * images**2)) / (1 + z2 / images)
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))
