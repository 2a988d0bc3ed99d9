"""Expected growth of the hypervolume by a point whose accuracy and latency are uncertain: exact, in two dimensions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]


def expected_growth(
    front: Sequence[tuple[float, float]],
    reference: tuple[float, float],
    score: tuple[Array, Array],
    log_latency: tuple[Array, Array],
) -> Array:
    """Return the expected growth of the hypervolume by each candidate.

    Score and log latency of a candidate are taken as independent and normal. The region that the front leaves free is
    cut into strips between the latencies of its members. The part of a strip that a candidate would add is a product
    of two integrals of normal distribution functions, so nothing is sampled
    (Emmerich et al., "Hypervolume-based expected improvement", CEC 2011).

    Args:
        front: (score, log latency) of points; dominated ones and those outside of the reference do no harm.
        reference: The worst (score, log latency).
        score: Means and standard deviations of the candidates (n,); more is better.
        log_latency: The same; less is better.
    """
    levels, edges = _staircase(front, reference)
    total = np.zeros(len(score[0]))
    before = np.zeros(len(score[0]))  # the first strip has no left end
    for level, right in zip(levels, edges, strict=True):
        until = _mean_excess(right - log_latency[0], log_latency[1])
        total += (until - before) * _mean_excess(score[0] - level, score[1])
        before = until
    return total


def _staircase(front: Sequence[tuple[float, float]], reference: tuple[float, float]) -> tuple[list[float], list[float]]:
    """Return the score above which each strip is free, and the log latency at which it ends; fastest strip first."""
    levels, edges = [reference[0]], list[float]()
    for score, log_ms in sorted(front, key=lambda point: (point[1], -point[0])):
        if score > levels[-1] and log_ms < reference[1]:
            edges.append(log_ms)
            levels.append(score)
    return levels, [*edges, reference[1]]


def _mean_excess(mean: Array, deviation: Array) -> Array:
    """Return E[max(0, X)] of normal X with these means and standard deviations, which may be 0."""
    safe = np.maximum(deviation, 1e-12)
    at = mean / safe
    density = np.exp(-0.5 * at**2) / np.sqrt(2 * np.pi)
    found: Array = np.maximum(0.0, safe * density + mean * ndtr(at))
    return found
