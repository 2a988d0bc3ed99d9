"""Where to cut a histogram of values before they go into 8 bits: by lost information, or by squared error."""

import functools
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Numbers = NDArray[np.float64]

LEVELS: Final = 128
"""Of int8's positive half; the slides and the toolkit cited below use them for unsigned tensors too."""
_THRESHOLD_STEP: Final = 8
_STEPS: Final = 128
"""Ranges are tried in this share of the full one, first every eighth of them."""
_COARSE: Final = 8
_UNSIGNED_STEPS: Final = 255
_ROUNDS: Final = 2


def entropy_threshold(counts: Counts, largest: float) -> float:
    """The cut of absolute values whose quantized distribution is nearest to the full one by Kullback-Leibler.

    Migacz, 8-bit inference with TensorRT, GTC 2017 (s7310), slides 'Entropy Calibration'. As in NVIDIA's
    pytorch-quantization toolkit the first bin, full of a ReLU's zeros, gets its neighbour's count.

    Args:
        counts: Histogram of absolute values over 0..largest.
        largest: Upper edge of the last bin.
    """
    weights = counts.astype(np.float64)
    weights[0] = weights[1]
    if weights.sum() == 0:  # nothing but zeros
        return largest
    bins = len(weights)
    stops = range(LEVELS, bins + 1, _THRESHOLD_STEP)
    divergences = [_divergence(weights, stop) for stop in stops]
    # On equal terms the wider range wins, since it clips less.
    best = len(divergences) - 1 - int(np.argmin(divergences[::-1]))
    return largest * stops[best] / bins


def _divergence(counts: Numbers, stop: int) -> float:
    """Kullback-Leibler divergence of the counts, cut at `stop`, from the same in 128 levels."""
    kept = counts[:stop]
    reference = kept.copy()
    reference[-1] += counts[stop:].sum()
    filled = kept > 0
    level = np.arange(stop) * LEVELS // stop
    per_level = np.bincount(level, weights=kept, minlength=LEVELS)
    filled_bins = np.bincount(level, weights=filled, minlength=LEVELS)
    quantized = np.where(filled, (per_level / np.maximum(filled_bins, 1))[level], 0.0)
    if quantized.sum() == 0 or (reference[~filled] > 0).any():
        return float("inf")  # the clipped values would land in a bin that the levels say is empty
    p, q = reference[filled] / reference.sum(), quantized[filled] / quantized.sum()
    return float((p * np.log(p / q)).sum())


def least_error_reach(counts: Counts, largest: float, codes: Numbers) -> float:
    """The cut of absolute values that loses least by clipping and rounding, in squared error.

    What NVIDIA's pytorch-quantization and ModelOpt call `mse` calibration, and PPQ too: a histogram is quantized at
    one range after the other (Choukroun et al., "Low-bit Quantization of Neural Networks for Efficient Inference",
    2019, section 3.1, minimize the same error).

    Args:
        counts: Histogram of the absolute values over 0..largest, exact zeros left out: they cost nothing anywhere.
        largest: Upper edge of the last bin.
        codes: The numbers that 8 bits can hold, ascending and symmetric; `codes[-1]` will stand for the cut.
    """
    edges = np.linspace(0, largest, len(counts) + 1)
    positive = codes[codes >= 0]
    return largest * _best_fraction(
        lambda fraction: _squared_error(counts, edges, positive, fraction * largest / codes[-1])
    )


def least_error_bounds(counts: Counts, low: float, high: float) -> tuple[float, float]:
    """The (low, high) that lose least in 256 evenly spaced codes, of which one is 0; `least_error_reach` for uint8.

    The two ends are searched in turn, the other one held.

    Args:
        counts: Histogram over low..high, exact zeros left out.
        low: Lower edge of the first bin.
        high: Upper edge of the last bin.
    """
    edges = np.linspace(low, high, len(counts) + 1)
    ends = [min(low, 0.0), max(high, 0.0)]
    full = tuple(ends)

    def share_error(side: int, fraction: float) -> float:
        end = full[side] * fraction
        return _unsigned_error(counts, edges, *((ends[0], end) if side else (end, ends[1])))

    for _ in range(_ROUNDS if full[0] and full[1] else 1):
        for side in (1, 0):
            if full[side]:
                ends[side] = full[side] * _best_fraction(functools.partial(share_error, side))
    return ends[0], ends[1]


def _best_fraction(error: Callable[[float], float]) -> float:
    """In 0..1, where the error is least: nearly a valley, so around the best of few; of equal ones the widest range."""

    def best(steps: Iterable[int]) -> int:
        return min(steps, key=lambda step: (error(step / _STEPS), -step))

    coarse = best(range(_COARSE, _STEPS + 1, _COARSE))
    return best(range(max(1, coarse - _COARSE + 1), min(_STEPS, coarse + _COARSE - 1) + 1)) / _STEPS


def _unsigned_error(counts: Counts, edges: Numbers, low: float, high: float) -> float:
    scale = max(high - low, 1e-12) / _UNSIGNED_STEPS
    codes = np.arange(_UNSIGNED_STEPS + 1) - np.rint(-low / scale)
    return _squared_error(counts, edges, codes, scale)


def _squared_error(counts: Counts, edges: Numbers, codes: Numbers, scale: float) -> float:
    """Sum of squared errors of what the bins hold, spread evenly in each, rounded to the nearest of codes * scale.

    The integral is exact: rounding the middles of bins alone would favour a scale that meets them.
    """
    middles = (codes[1:] + codes[:-1]) / 2
    whole = np.concatenate(([0.0], np.cumsum(((middles - codes[:-1]) ** 3 - (middles - codes[1:]) ** 3) / 3)))
    ends = edges / scale
    nearest = np.searchsorted(middles, ends)
    integral = np.diff(whole[nearest] + (ends - codes[nearest]) ** 3 / 3)
    return float((counts * integral / np.maximum(np.diff(ends), 1e-300)).sum() * scale**2)
