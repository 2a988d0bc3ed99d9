"""Quality of a network's outputs in any task: one score with its interval, and the task's further numbers."""

from dataclasses import dataclass, field
from typing import Literal

Z_975 = 1.959964
"""97.5 % quantile of the normal distribution: 95 % lie within this many standard deviations of the mean."""
_ROUNDING_ERROR = 1e-9
DEFAULT_METRIC = "top1"
"""Metric of studies that were made before there were several tasks, and of tables without a measured trial."""


_RECALL = "recall_at_precision_"
_TITLES = {"top1": "top-1", "map50_95": "mAP50-95", "map50": "mAP50", "miou": "mIoU"}


PROPORTIONS = frozenset({DEFAULT_METRIC})
"""Metrics that are the fraction of images predicted correctly: accuracies, whose error is binomial."""


def score_noun(metric: str, *, plural: bool = False) -> str:
    """Return what a score of this metric is called in a sentence: an accuracy, or simply a score."""
    if metric in PROPORTIONS:
        return "accuracies" if plural else "accuracy"
    return "scores" if plural else "score"


def best_words(metric: str) -> str:
    """Return the words for the trial that is best in this metric: most accurate, or best-scoring."""
    return "most accurate" if metric in PROPORTIONS else "best-scoring"


def metric_title(metric: str) -> str:
    """Return the metric's name as people write it: `top1` is "top-1"; in unknown names, underscores become spaces."""
    if metric.startswith(_RECALL):
        return f"recall at {metric.removeprefix(_RECALL).replace('_', '.')} % precision"
    return _TITLES.get(metric, metric.replace("_", " "))


def recall_metric(precision: float) -> str:
    """Return the name of the metric that is recall at a precision: `recall_at_precision_90` for 0.9."""
    return f"{_RECALL}{100 * precision:.6g}".replace(".", "_")


def is_recall(metric: str) -> bool:
    """Tell whether a metric is recall at a precision."""
    return metric.startswith(_RECALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedNumber:
    """One further number of a task, with the name that tables show."""

    name: str
    value: float


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionDetail:
    """The numbers behind a detector's score."""

    threshold: float
    """The lowest score of a detection that an exported network reports: the threshold with the best F1 on these images,
    or, if the objective is recall at a precision, the threshold that has that precision."""
    precision: float
    """Share of the detections at or above that threshold that are correct at an IoU of 0.5."""
    recall: float
    """Share of the objects that these detections find."""
    f1: float
    map50: float
    map75: float
    small: float | None
    """mAP50-95 of objects of less than 32 x 32 pixels of the original images; None if there are none."""
    medium: float | None
    large: float | None
    """As `small`, for objects of more than 96 x 96 pixels."""
    classes: tuple[ClassQuality, ...]
    """Precision and recall are at the threshold, the average precision is the mean over overlaps of 0.5 to 0.95, and
    the curve is that at an IoU of 0.5."""
    confusion: tuple[tuple[int, ...], ...]
    """Number of objects by true class (rows) and reported class (columns), at the threshold. The last row counts
    detections where there is no object, the last column objects that were missed."""
    map50_95: float | None = None
    """None in records of earlier versions, in which it is the score itself."""
    recall_at_precision: float | None = None
    """Largest recall with at least `at_precision`, at an IoU of 0.5; None in records of earlier versions."""
    at_precision: float = 0.9
    decode_ms: float = 0.0
    """Only in records of earlier versions: median time to turn the outputs for one image into boxes with a score of at
    least 0.25. Later versions measure it at the exported threshold, as `Latency.postprocessing`."""
    kind: Literal["boxes"] = "boxes"

    @property
    def numbers(self) -> tuple[NamedNumber, ...]:
        """The numbers that tables show next to the score; a size without any objects is left out."""
        parts = ("map50_95", "map50", "map75", "small", "medium", "large")
        names = (*parts, "precision", "recall", "f1", "threshold")
        found = [(name, getattr(self, name)) for name in names]
        found.append((recall_metric(self.at_precision), self.recall_at_precision))
        return tuple(NamedNumber(name=name, value=value) for name, value in found if value is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskClass:
    """How well the pixels of one class are found, over all images together."""

    name: str
    pixels: int
    """Number of pixels of this class in the ground truth; with 0, the class is left out of every mean."""
    iou: float
    """Intersection over union; 0 for a class without pixels."""
    recall: float
    """Share of the class's pixels that are predicted as this class: its pixel accuracy."""
    precision: float
    """Share of the pixels predicted as this class that belong to it; 0 if there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskDetail:
    """The numbers behind a mean intersection over union."""

    pixel_accuracy: float
    """Share of the labelled pixels whose class is predicted correctly."""
    mean_accuracy: float
    """Mean of the pixel accuracies of the classes in the ground truth."""
    classes: tuple[MaskClass, ...]
    kind: Literal["masks"] = "masks"

    @property
    def numbers(self) -> tuple[NamedNumber, ...]:
        """The numbers that tables show next to the score."""
        return tuple(NamedNumber(name=name, value=getattr(self, name)) for name in ("pixel_accuracy", "mean_accuracy"))

    @property
    def weakest_first(self) -> tuple[MaskClass, ...]:
        """The classes that are in the ground truth, lowest intersection over union first."""
        return tuple(sorted((each for each in self.classes if each.pixels), key=lambda each: (each.iou, each.name)))


Detail = ClassDetail | DetectionDetail | MaskDetail | NumbersDetail
"""The numbers behind a score. `kind` says which of them it is, in a stored record too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Quality of a network's outputs on held-out images."""

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
        """Widen the interval to contain the score if the score lies outside by no more than a rounding error.

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
        return self.detail.classes if isinstance(self.detail, ClassDetail | DetectionDetail) else ()
