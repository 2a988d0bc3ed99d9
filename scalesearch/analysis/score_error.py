"""Which metric scored the trials of a study, and the error of a score that comes from the number of images alone."""

from collections.abc import Iterable

from scalesearch.values.quality import DEFAULT_METRIC, PROPORTIONS, Z_975, Quality
from scalesearch.values.record import TrialRecord


def metric_of(records: Iterable[TrialRecord]) -> str:
    """Return the name of the metric that scored the records; the default one if none of them has a score."""
    return next((record.quality.metric for record in records if record.quality), DEFAULT_METRIC)


def variance(quality: Quality) -> float:
    """Return the square of the score's standard error.

    For a metric that is not a proportion of images (a mean precision, an overlap), it follows from the score's 95 %
    interval.
    """
    if quality.metric in PROPORTIONS:
        return quality.score * (1 - quality.score) / quality.images
    return ((quality.score_high - quality.score_low) / (2 * Z_975)) ** 2
