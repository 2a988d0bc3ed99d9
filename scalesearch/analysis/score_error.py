"""The error of a score that comes from the number of images alone."""

from scalesearch.values.quality import Z_975, Quality

PROPORTIONS = frozenset({"top1"})
"""Metrics that are the plain fraction of images that are answered right, so that their error is the binomial one."""


def variance(quality: Quality) -> float:
    """Return the square of the score's standard error.

    A metric that is no proportion of images (a mean precision, an overlap) brings its own error in its 95 % interval.
    """
    if quality.metric in PROPORTIONS:
        return quality.score * (1 - quality.score) / quality.images
    return ((quality.score_high - quality.score_low) / (2 * Z_975)) ** 2
