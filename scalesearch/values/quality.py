"""How good a network's answers are, whatever its task: one score with its interval, and the task's further numbers."""

from dataclasses import dataclass, field
from typing import Literal

from scalesearch.values.mask_quality import MaskDetail
from scalesearch.values.named_number import NamedNumber

Z_975 = 1.959964
"""97.5 % quantile of the normal distribution: so many standard deviations on both sides hold 95 %."""
_ROUNDING_ERROR = 1e-9
DEFAULT_METRIC = "top1"
"""Metric of studies that were made before there were several tasks, and of tables without a measured trial."""


_TITLES = {"top1": "top-1", "map50_95": "mAP50-95", "map50": "mAP50", "miou": "mIoU"}


def metric_title(metric: str) -> str:
    """Return the metric's name as people write it: `top1` is "top-1"; in unknown names, underscores become spaces."""
    return _TITLES.get(metric, metric.replace("_", " "))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassQuality:
    """Quality of one class against all others.

    The curve holds (recall, precision) pairs, thinned out, from high to low threshold.
    """

    name: str
    support: int
    precision: float
    recall: float
    average_precision: float
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDetail:
    """The numbers behind a classifier's score."""

    macro_precision: float
    macro_recall: float
    classes: tuple[ClassQuality, ...]
    kind: Literal["classes"] = "classes"


@dataclass(frozen=True, slots=True, kw_only=True)
class NumbersDetail:
    """Detail of tasks that add plain numbers to their score, or nothing."""

    numbers: tuple[NamedNumber, ...] = ()
    kind: Literal["numbers"] = "numbers"


Detail = ClassDetail | MaskDetail | NumbersDetail
"""The numbers behind a score. `kind` says which of them it is, in a stored record too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Quality of a network's answers on held-out images."""

    score: float
    """The task's objective, 0 (worst) to 1 (best)."""
    score_low: float
    score_high: float
    """The 95 % interval of the score."""
    images: int
    metric: str = DEFAULT_METRIC
    """The metric that the score stands for: the name that tables, figures and exports show for it."""
    detail: Detail = field(default_factory=NumbersDetail)

    def __post_init__(self) -> None:
        """Widen the interval to contain the score where it misses it only by a rounding error.

        Formulas make such errors at 0 and 100 %.
        """
        if 0 < self.score_low - self.score < _ROUNDING_ERROR:
            object.__setattr__(self, "score_low", self.score)
        if 0 < self.score - self.score_high < _ROUNDING_ERROR:
            object.__setattr__(self, "score_high", self.score)

    @property
    def title(self) -> str:
        """The metric's name as people write it."""
        return metric_title(self.metric)

    @property
    def classes(self) -> tuple[ClassQuality, ...]:
        """Quality of each class; empty for a task without classes."""
        return self.detail.classes if isinstance(self.detail, ClassDetail) else ()
