"""Observers: each calibration method finds the range of one activation from its values, batch by batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scalesearch.compression.clipping import LEVELS, entropy_threshold, least_error_bounds, least_error_reach
from scalesearch.values.candidate import CalibrationMethod

Values = NDArray[np.float32]

_HISTOGRAM_BINS = 2048
_LEAST_SPAN = _HISTOGRAM_BINS * 2.0**-22
"""Span of a histogram over the largest magnitude in it: its bins are then at least two steps of float32 wide. A range
of 256 codes that holds zero, too, is coarser than this whole span."""
_VALUES_A_BIN = 32


class Observer(ABC):
    """Collects the values of one activation, batch by batch, in little memory."""

    @abstractmethod
    def see(self, values: Values) -> None:
        """Take in the values of one batch, an array of any shape."""

    def see_again(self, values: Values) -> None:  # noqa: B027  (most need one pass)
        """Take in the same values a second time, after all of them were seen once."""

    @abstractmethod
    def range(self) -> tuple[float, float]:
        """Return the range (low, high) of all values seen."""


class _MinMax(Observer):
    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf

    def see(self, values: Values) -> None:
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def range(self) -> tuple[float, float]:
        return self.low, self.high


class _Percentile(Observer):
    """Exact percentiles: keeps as many extreme values on each side as the percentile cuts off."""

    def __init__(self, count: int, percentile: float, symmetric: bool) -> None:
        self._symmetric = symmetric
        cut = (100 - percentile) / 100 if symmetric else (100 - percentile) / 200
        self._high = _Largest(count, cut)
        self._low = _Largest(count, cut)

    def see(self, values: Values) -> None:
        if self._symmetric:
            self._high.see(np.abs(values))
        else:
            self._high.see(values)
            self._low.see(-values)

    def range(self) -> tuple[float, float]:
        high = self._high.quantile()
        return (-high if self._symmetric else -self._low.quantile()), high


class _Largest:
    """Finds the value below which all but a fraction `cut` of `count` values lie, interpolated linearly."""

    def __init__(self, count: int, cut: float) -> None:
        self._place = cut * (count - 1)  # counted from the largest value, which has place 0
        self._keep = min(count, int(self._place) + 2)
        self._kept = np.empty(0, dtype=np.float32)

    def see(self, values: Values) -> None:
        values = values.ravel()
        if len(self._kept) == self._keep:
            values = values[values > self._kept.min()]
        kept = np.concatenate((self._kept, values))
        self._kept = np.partition(kept, -self._keep)[-self._keep :] if len(kept) > self._keep else kept

    def quantile(self) -> float:
        descending = np.sort(self._kept)[::-1].astype(np.float64)
        return float(np.interp(self._place, np.arange(len(descending)), descending))


class _Entropy(_MinMax):
    """Finds the range in a first pass and a histogram of absolute values over this range in a second pass.

    A histogram with few values in each bin is mostly noise, and so are the divergences computed from it. Therefore
    small activations (logits, squeezed channels) get fewer bins, down to one for each level; with as few as that,
    no value is clipped.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        bins = min(_HISTOGRAM_BINS, max(LEVELS, count // _VALUES_A_BIN))
        self._counts = np.zeros(bins, dtype=np.int64)

    def see_again(self, values: Values) -> None:
        self._counts += np.histogram(np.abs(values), bins=len(self._counts), range=(0, self._largest()))[0]

    def range(self) -> tuple[float, float]:
        threshold = entropy_threshold(self._counts, self._largest())
        return max(self.low, -threshold), min(self.high, threshold)

    def _largest(self) -> float:
        return max(-self.low, self.high, 1e-9)


class _LeastError(_MinMax):
    """Finds the range in a first pass and a histogram over it in a second pass.

    The histogram is of absolute values if `codes` are given.
    """

    def __init__(self, codes: NDArray[np.float64] | None) -> None:
        super().__init__()
        self._codes = codes
        self._counts = np.zeros(_HISTOGRAM_BINS, dtype=np.int64)

    def see_again(self, values: Values) -> None:
        values = values[values != 0]
        values = values if self._codes is None else np.abs(values)
        self._counts += np.histogram(values, bins=_HISTOGRAM_BINS, range=self._span())[0]

    def range(self) -> tuple[float, float]:
        low, high = self._span()
        if self._codes is None:
            return least_error_bounds(self._counts, low, high)
        reach = least_error_reach(self._counts, high, self._codes)
        return max(self.low, -reach), min(self.high, reach)

    def _span(self) -> tuple[float, float]:
        if self._codes is None:
            least = max(1e-9, _LEAST_SPAN * max(abs(self.low), abs(self.high)))
            return self.low, max(self.high, self.low + least)
        return 0.0, max(-self.low, self.high, 1e-9)


def make_observer(
    method: CalibrationMethod, count: int, *, percentile: float, codes: NDArray[np.float64] | None
) -> Observer:
    """Make the observer of a method.

    `codes` are the numbers (codes,) of a symmetric format, or None if the range need not be symmetric.
    """
    makers: dict[CalibrationMethod, Callable[[], Observer]] = {
        "minmax": _MinMax,
        "percentile": lambda: _Percentile(count, percentile, codes is not None),
        "entropy": lambda: _Entropy(count),
        "mse": lambda: _LeastError(codes),
    }
    return makers[method]()
