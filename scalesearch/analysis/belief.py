"""What a study's measurements let expect of candidates that were not tried: score and latency, each with its doubt.

Two Gaussian processes learn from the measured candidates: one the score, one the logarithm of the latency. Both see the
candidate's values on the axes of the space: multipliers as logarithms, other numbers as they are, names as switches.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from scalesearch.analysis.expected_growth import expected_growth
from scalesearch.analysis.front import REFERENCE, Point, reference_beyond
from scalesearch.analysis.gaussian_process import GaussianProcess, newest_and_best
from scalesearch.analysis.log_linear import LogLinear
from scalesearch.spaces.axes import Value, field_type
from scalesearch.spaces.moves import free_axes
from scalesearch.spaces.suggest import value_reader
from scalesearch.values.candidate import Candidate, Quantization
from scalesearch.values.record import TrialRecord
from scalesearch.values.space import LATENCY_LIMIT, NamedAxis, Range, SearchSpace

Array = NDArray[np.float64]

ROUNDING: Final = 1.05
"""Widths are rounded, so MACs and sizes may be expected this much too high for a candidate that is within the limit."""


_MOST_TIMED: Final = 100
_ALWAYS_TUNED: Final = 60
"""With fewer observations, the kernels are tuned to all of them."""
_TUNED_AGAIN: Final = 10
"""From then on they are tuned again whenever the number of observations has grown by one part in so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A measured candidate."""

    candidate: Candidate
    score: float
    p50_ms: float
    macs: int = 0
    """0 where it is not known."""
    size_bytes: int = 0
    """Of the deployed file; 0 where it is not known."""
    feasible: bool = True
    """Whether it keeps every limit. Others teach the model, but are not on the front."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A candidate that was timed untrained, and rejected for that: its latency is known, its score is not."""

    candidate: Candidate
    p50_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is expected of n candidates: means and standard deviations, each (n,)."""

    score: tuple[Array, Array]
    log_ms: tuple[Array, Array]


def observations_of(records: Iterable[TrialRecord]) -> tuple[Observation, ...]:
    """Return the measured trials among the records, by trial number; repeats of an earlier one are left out."""
    measured = (record.measured for record in sorted(records, key=lambda each: each.trial) if record.same_as is None)
    return tuple(
        Observation(
            candidate=each.candidate,
            score=each.quality.score,
            p50_ms=each.latency.p50_ms,
            macs=each.cost.macs,
            size_bytes=each.size_bytes,
            feasible=each.within_limits,
        )
        for each in measured
        if each is not None
    )


def timed_of(records: Iterable[TrialRecord], limit_ms: float | None) -> tuple[Timed, ...]:
    """Return the candidates among the records that were rejected for their measured latency, by trial number.

    What is rejected was timed without the work after the engine. Where latencies count that, the median of the other
    trials is added.

    Args:
        records: Trials of a study.
        limit_ms: The space's limit of latency; None without a limit.
    """
    if not limit_ms:
        return ()
    ordered = sorted(records, key=lambda each: each.trial)
    latencies = [each.latency for each in ordered if each.latency]
    after_ms = median(each.p50_ms - each.of_engine.p50_ms for each in latencies) if latencies else 0.0
    rejected = (each for each in ordered if each.state == "rejected")
    return tuple(
        Timed(candidate=each.candidate, p50_ms=limit_ms * (1 + use.excess) + after_ms)
        for each in rejected
        if each.stages and each.same_as is None
        for use in each.limits
        if use.limit == LATENCY_LIMIT and use.excess > 0
    )


def at_length(candidate: Candidate, updates: int) -> Candidate:
    """Return the candidate with a training of at least so many updates."""
    if candidate.recipe.steps >= updates:
        return candidate
    return replace(candidate, recipe=replace(candidate.recipe, steps=updates))


def without_calibration(candidate: Candidate) -> Candidate:
    """Return the candidate with the default calibration: another one changes a score by less than its noise."""
    plain = Quantization()
    return replace(
        candidate,
        quantization=replace(
            candidate.quantization,
            calibration=plain.calibration,
            calibration_images=plain.calibration_images,
            clip_percentile=plain.clip_percentile,
        ),
    )


def within_limits(space: SearchSpace, observed: Sequence[Observation], pool: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that probably have no more MACs and bytes than the space allows.

    Both go by powers of the multipliers, so they are fitted to those that are known. An observed candidate stays.
    """
    macs = {each.candidate: each.macs for each in observed if each.macs}
    sizes = {each.candidate: each.size_bytes for each in observed if each.size_bytes}
    kept, features = list(pool), Features(space)
    for limit, known in ((space.limits.max_macs, macs), (space.limits.max_size_bytes, sizes)):
        if not limit or not known or not kept:
            continue
        model = LogLinear(features.of(list(known)), list(known.values()))
        expected = model.predict(features.of(kept))
        kept = [each for each, value in zip(kept, expected, strict=True) if each in known or value <= ROUNDING * limit]
    return kept


class Features:
    """Turns candidates into numbers, one column for each numeric axis and for each name of the others but the first.

    What lies on an axis lies in 0..1. An axis without effect on a candidate has its default, which may lie outside.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._columns = tuple(columns for named in free_axes(space) for columns in _columns_of(named))

    @property
    def count(self) -> int:
        """Number of columns."""
        return len(self._columns)

    def of(self, candidates: Sequence[Candidate]) -> Array:
        """Return the features (n, columns) of n candidates."""
        rows = [[column(each) for column in self._columns] for each in candidates]
        return np.array(rows, dtype=np.float64).reshape(len(candidates), self.count)


_Column = Callable[[Candidate], float]


def _columns_of(named: NamedAxis) -> list[_Column]:
    """Return what tells the numbers of a candidate on an axis: made once, since models ask by the ten thousand."""
    value_of, axis = value_reader(named.name), named.axis
    if field_type(named.name) not in (int, float):
        return [_is(value_of, name) for name in (axis.values if not isinstance(axis, Range) else ())[1:]]
    low, high = (axis.low, axis.high) if isinstance(axis, Range) else (min(axis.values), max(axis.values))
    return [_along(value_of, float(low), float(high))]


def _is(value_of: Callable[[Candidate], Value], name: Value) -> _Column:
    return lambda candidate: float(value_of(candidate) == name)


def _along(value_of: Callable[[Candidate], Value], low: float, high: float) -> _Column:
    if low <= 0:
        return lambda candidate: (float(value_of(candidate)) - low) / (high - low)
    log_low, log_span = math.log(low), math.log(high) - math.log(low)

    def by_ratio(candidate: Candidate) -> float:
        at = float(value_of(candidate))
        return (math.log(at) - log_low) / log_span if at > 0 else (at - low) / (high - low)

    return by_ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """How far the model was off for networks that it had not seen."""

    networks: int
    score_rms: float
    """Root mean square of the errors of the score, as a fraction. The noise of brief trainings is part of it."""
    latency_median: float
    """Median error of the latency, as a fraction of it."""


class Belief:
    """Two models, fitted to observations.

    Tuning the kernels to hundreds of observations takes seconds, and a fit with tuned kernels hundredths of a second;
    and the more observations there are, the less does another one change the kernels. So they are tuned to all of
    fewer than 60 observations, and later only when their number has grown by a tenth (`tuned_by`). In between the
    kernels are those of the oldest observations up to that number, not those that somebody happened to use before:
    equal observations give equal expectations, also in a new process, which tunes once more.

    Args:
        space: The search space.
        observations: At least two, oldest first.
        full_updates: Updates of a member of the front, where candidates are trained by unlike lengths; else 0.
        timed: Further candidates of which the latency alone is known.
    """

    def __init__(
        self,
        space: SearchSpace,
        observations: Sequence[Observation],
        *,
        full_updates: int = 0,
        timed: Sequence[Timed] = (),
    ) -> None:
        self.full_updates = full_updates
        self._features = Features(space)
        self._limit_ms = space.limits.max_latency_ms
        count = self._features.count
        self._score, self._log_ms = GaussianProcess(count), GaussianProcess(count)
        self._timed = self._of_timed(timed)
        self._read(observations)
        self._tune(timed)
        self._fit()

    def _of_timed(self, timed: Sequence[Timed]) -> tuple[Array, Array]:
        """Return features (n, columns) and log latencies (n,) of the newest of these candidates."""
        newest = timed[-_MOST_TIMED:]
        return self._features.of([each.candidate for each in newest]), np.log([each.p50_ms for each in newest])

    def _read(self, observations: Sequence[Observation]) -> None:
        self.observations = tuple(observations)
        self._x = self._features.of([each.candidate for each in observations])
        self.scores = np.array([each.score for each in observations])
        self.log_ms = np.log([each.p50_ms for each in observations])

    def _tune(self, timed: Sequence[Timed]) -> None:
        """Tune the kernels to the oldest observations, as many as `tuned_by` tells."""
        count, step = tuned_by(len(self._x))
        x, scores, log_ms = self._x[:count], self.scores[:count], self.log_ms[:count]
        kept = newest_and_best(x, depth_below_front(scores, log_ms))
        self._score.tune(x[kept], scores[kept])
        older = self._of_timed(timed[: len(timed) // step * step])
        self._log_ms.tune(*_joined(older, (x[kept], log_ms[kept])))

    def _fit(self) -> None:
        kept = newest_and_best(self._x, depth_below_front(self.scores, self.log_ms))
        self._score.fit(self._x[kept], self.scores[kept], tune=False)
        self._log_ms.fit(*_joined(self._timed, (self._x[kept], self.log_ms[kept])), tune=False)
        self._believed: dict[Candidate, Point] | None = None

    def supposing(self, candidates: Sequence[Candidate]) -> "Belief":
        """Return the belief that remains if the candidates turn out as expected: nothing changes but the doubt.

        Args:
            candidates: Candidates that are being measured. The kernels stay those of this belief.
        """
        if not candidates:
            return self
        expected = self.expect(candidates)
        supposed = [
            Observation(candidate=candidate, score=float(score), p50_ms=float(np.exp(log_ms)))
            for candidate, score, log_ms in zip(candidates, expected.score[0], expected.log_ms[0], strict=True)
        ]
        other = copy.copy(self)
        other._score, other._log_ms = copy.copy(self._score), copy.copy(self._log_ms)
        other._read((*self.observations, *supposed))
        other._fit()
        return other

    def expect(self, candidates: Sequence[Candidate]) -> Expected:
        """Return what is expected of the candidates, without the noise of a measurement."""
        x = self._features.of(candidates)
        return Expected(score=self._score.predict(x), log_ms=self._log_ms.predict(x))

    def correlation(self, candidates: Sequence[Candidate], others: Sequence[Candidate]) -> Array:
        """Return how far the score that each candidate would show goes with that of the other at its place (n,)."""
        return self._score.correlation(self._features.of(candidates), self._features.of(others))

    def reference(self, candidates: Sequence[Candidate]) -> Point:
        """Return the worst (score, p50 in ms) of a hypervolume that all these candidates can enlarge.

        It is the usual one where no candidate and no observation is slow, and twice the slowest of them elsewhere.
        """
        x = self._features.of(self._in_full(candidates))
        expected = self._log_ms.means(x).tolist() if candidates else []
        slowest_ms = math.exp(max([*expected, *self.log_ms.tolist()]))
        return reference_beyond(slowest_ms)

    def growth(self, candidates: Sequence[Candidate], reference: Point = REFERENCE) -> Array:
        """Return by how much each candidate is expected to enlarge the front's hypervolume (n,).

        The front is the model's: observed latencies with the scores that are believed, so a lucky score does not
        stand in the way. It counts as far as the candidate probably keeps the space's limit of latency. Where
        candidates are trained by unlike lengths, all this is about full length.

        Args:
            candidates: The candidates.
            reference: The worst (score, p50 in ms) of the hypervolume.
        """
        full = self._in_full(candidates)
        expected = self.expect(full)
        front = [(score, math.log(p50_ms)) for score, p50_ms in self.believed().values()]
        worst = (reference[0], math.log(reference[1]))
        found: Array = expected_growth(front, worst, expected.score, expected.log_ms) * self.probably_fast(expected)
        return found

    def promise(self, candidates: Sequence[Candidate], reference: Point = REFERENCE) -> Array:
        """Return how much growth of the front each training promises (n,): the numbers compare with one another.

        Where candidates are trained by unlike lengths, it is the growth in full length, times the correlation of what
        the training will show with the score in full length (Huang et al. 2006, "Sequential kriging optimization using
        multiple-fidelity evaluations"). Else it is the growth.

        Args:
            candidates: The candidates, in the lengths in which they would be trained.
            reference: The worst (score, p50 in ms) of the hypervolume.
        """
        growth = self.growth(candidates, reference)
        return growth * self.correlation(candidates, self._in_full(candidates)) if self.full_updates else growth

    def believed(self) -> Mapping[Candidate, Point]:
        """Return the score in full length that is believed, and the latency observed, of each feasible candidate.

        A candidate that was trained by several lengths is there once, in full length, with its newest latency.
        """
        if self._believed is None:
            shown = [each for each in self.observations if each.feasible]
            full = self._in_full([each.candidate for each in shown])
            scores = self._score.means(self._features.of(full)).tolist() if full else []
            points = ((score, each.p50_ms) for score, each in zip(scores, shown, strict=True))
            self._believed = dict(zip(full, points, strict=True))
        return self._believed

    def _in_full(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        return [at_length(each, self.full_updates) for each in candidates]

    def probably_fast(self, expected: Expected) -> Array:
        """Return the probability that each candidate keeps the space's limit of latency (n,); 1 without a limit."""
        if not self._limit_ms:
            return np.ones(len(expected.log_ms[0]))
        mean, deviation = expected.log_ms
        found: Array = ndtr((math.log(self._limit_ms) - mean) / np.maximum(deviation, 1e-9))
        return found

    def errors(self, most: int = 30) -> Errors | None:
        """Return how far the model is off for networks left out of the fit one by one; None with fewer than 3 networks.

        A network is left out in all its precisions and lengths at once. The kernels stay those of the whole fit.

        Args:
            most: Largest number of networks that are left out, the newest.
        """
        networks: dict[Candidate, list[int]] = {}
        for place, each in enumerate(self.observations):
            whole = at_length(each.candidate, self.full_updates)
            networks.setdefault(whole.unquantized, []).append(place)
        if len(networks) < 3:
            return None
        off = [self._error_without(np.array(places)) for places in list(networks.values())[-most:]]
        score, log_ms = (np.concatenate(part) for part in zip(*off, strict=True))
        return Errors(
            networks=len(off),
            score_rms=float(np.sqrt(np.mean(score**2))),
            latency_median=float(np.expm1(np.median(np.abs(log_ms)))),
        )

    def _error_without(self, left_out: NDArray[np.int64]) -> tuple[Array, Array]:
        others = np.setdiff1d(np.arange(len(self._x)), left_out)
        below = depth_below_front(self.scores[others], self.log_ms[others])
        kept = others[newest_and_best(self._x[others], below)]
        score, log_ms = copy.copy(self._score), copy.copy(self._log_ms)
        score.fit(self._x[kept], self.scores[kept], tune=False)
        log_ms.fit(*_joined(self._timed, (self._x[kept], self.log_ms[kept])), tune=False)
        x = self._x[left_out]
        return score.predict(x)[0] - self.scores[left_out], log_ms.predict(x)[0] - self.log_ms[left_out]


def _joined(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return features and values of both."""
    return np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])


def tuned_by(count: int) -> tuple[int, int]:
    """Return to how many of so many observations the kernels are tuned, and by how many more they are tuned again.

    These are the numbers up to 60, then 66, 72, 79, and so on, each a tenth above the one before.
    """
    last, step = count, 1
    if count >= _ALWAYS_TUNED:
        last, step = _ALWAYS_TUNED, _ALWAYS_TUNED // _TUNED_AGAIN
        while last + step <= count:
            last += step
            step = last // _TUNED_AGAIN
    return last, step


def depth_below_front(scores: Array, log_ms: Array) -> Array:
    """Return by how much score each observation lies below the best of those that are as fast; 0 on the front."""
    order = np.argsort(log_ms, kind="stable")
    depth = np.empty(len(scores))
    depth[order] = np.maximum.accumulate(scores[order]) - scores[order]
    return depth
