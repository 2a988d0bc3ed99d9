"""Find where to clip a histogram of values before quantization to 8 bits: by lost information or by squared error."""

import functools
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Numbers = NDArray[np.float64]

LEVELS: Final = 128
"""Number of levels of int8's positive half. The slides and the toolkit cited below use it for unsigned tensors too."""
_THRESHOLD_STEP: Final = 8
_STEPS: Final = 128
"""The full range is divided into this many steps to try; a coarse first search tries every eighth of them."""
_COARSE: Final = 8
_UNSIGNED_STEPS: Final = 255
_ROUNDS: Final = 2


def entropy_threshold(counts: Counts, largest: float) -> float:
    """Return the threshold whose quantized distribution is nearest to the full one by Kullback-Leibler divergence.

    Migacz, 8-bit inference with TensorRT, GTC 2017 (s7310), slides 'Entropy Calibration'. The first bin holds all the
    zeros of a ReLU; as in NVIDIA's pytorch-quantization toolkit, it gets its neighbour's count instead.

    Args:
        counts: Histogram (bins,) of absolute values over 0..largest.
        largest: Upper edge of the last bin.

    Returns:
        The absolute value to clip at. Of equally good thresholds it is the largest.
    """
    weights = counts.astype(np.float64)
    weights[0] = weights[1]
    if weights.sum() == 0:  # all values are zero
        return largest
    bins = len(weights)
    stops: list[int] = [*range(LEVELS, bins, _THRESHOLD_STEP), bins]
    divergences = [_divergence(weights, stop) for stop in stops]
    # Of equally good ranges the widest wins, since it clips least.
    best = len(divergences) - 1 - int(np.argmin(divergences[::-1]))
    return largest * stops[best] / bins


def _divergence(counts: Numbers, stop: int) -> float:
    """Return the Kullback-Leibler divergence of the counts clipped at bin `stop` from the same counts in 128 levels."""
    kept = counts[:stop]
    reference = kept.copy()
    reference[-1] += counts[stop:].sum()
    filled = kept > 0
    level = np.arange(stop) * LEVELS // stop
    per_level = np.bincount(level, weights=kept, minlength=LEVELS)
    filled_bins = np.bincount(level, weights=filled, minlength=LEVELS)
    quantized = np.where(filled, (per_level / np.maximum(filled_bins, 1))[level], 0.0)
    if quantized.sum() == 0 or (reference[~filled] > 0).any():
        return float("inf")  # the clipped values would fall into a bin that is empty after quantization
    p, q = reference[filled] / reference.sum(), quantized[filled] / quantized.sum()
    return float((p * np.log(p / q)).sum())


def least_error_reach(counts: Counts, largest: float, codes: Numbers) -> float:
    """Return the clipping threshold with the least squared error of clipping and rounding, for symmetric ranges.

    NVIDIA's pytorch-quantization and ModelOpt, and PPQ too, call this `mse` calibration: the histogram is quantized
    with one range after the other and the best range is kept (Choukroun et al., "Low-bit Quantization of Neural
    Networks for Efficient Inference", 2019, section 3.1, minimize the same error).

    Args:
        counts: Histogram (bins,) of the absolute values over 0..largest. Exact zeros are left out: no range makes an
            error on them.
        largest: Upper edge of the last bin.
        codes: The numbers (codes,) that 8 bits can hold, ascending and symmetric. The largest of them, `codes[-1]`,
            will stand for the threshold.

    Returns:
        The absolute value to clip at.
    """
    edges = np.linspace(0, largest, len(counts) + 1)
    positive = codes[codes >= 0]
    return largest * _best_fraction(
        lambda fraction: _squared_error(counts, edges, positive, fraction * largest / codes[-1])
    )


def least_error_bounds(counts: Counts, low: float, high: float) -> tuple[float, float]:
    """Return the range (low, high) with the least squared error in 256 evenly spaced codes, one of which is 0.

    This is the counterpart of `least_error_reach` for uint8. The two ends are searched in turn, with the other end
    held fixed.

    Args:
        counts: Histogram (bins,) over low..high, exact zeros left out.
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
    """Return the fraction of the full range, 0 to 1, with the least error.

    The error has nearly a single valley, so a fine search around the best of a few coarse steps is enough. Of equally
    good fractions the largest is returned.
    """

    def best(steps: Iterable[int]) -> int:
        return min(steps, key=lambda step: (error(step / _STEPS), -step))

    coarse = best(range(_COARSE, _STEPS + 1, _COARSE))
    return best(range(max(1, coarse - _COARSE + 1), min(_STEPS, coarse + _COARSE - 1) + 1)) / _STEPS


def _unsigned_error(counts: Counts, edges: Numbers, low: float, high: float) -> float:
    scale = max(high - low, 1e-12) / _UNSIGNED_STEPS
    codes = np.arange(_UNSIGNED_STEPS + 1) - np.rint(-low / scale)
    return _squared_error(counts, edges, codes, scale)


def _squared_error(counts: Counts, edges: Numbers, codes: Numbers, scale: float) -> float:
    """Return the sum of squared errors when each value is rounded to the nearest of `codes * scale`.

    The values of a bin are taken to be spread evenly over it, and the error is integrated exactly over the bin.
    Rounding only the middles of the bins would favour a scale that happens to meet them.
    """
    middles = (codes[1:] + codes[:-1]) / 2
    whole = np.concatenate(([0.0], np.cumsum(((middles - codes[:-1]) ** 3 - (middles - codes[1:]) ** 3) / 3)))
    ends = edges / scale
    nearest = np.searchsorted(middles, ends)
    integral = np.diff(whole[nearest] + (ends - codes[nearest]) ** 3 / 3)
    return float((counts * integral / np.maximum(np.diff(ends), 1e-300)).sum() * scale**2)
