"""Estimate from a study's own long trainings which networks brief training scored too low, and correct their scores.

The gain from longer training (long minus brief score, in points) is modelled by a Bayesian linear regression
(`bayesian_regression`); the prior of every slope has a standard deviation of 5 points. The error of a gain consists of
the error of the long score (from the images and the seeds) and of a residual that is estimated.

The brief score is one of the columns, since a network with a low score has more room to gain, whatever its shape. The
effects of side, MACs and cutting are therefore those at equal brief scores. Without that column, side, MACs and cutting
predicted nothing on the one data set where this was tried (docs/measurements.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scalesearch.analysis.bayesian_regression import fit
from scalesearch.values.quality import Z_975
from scalesearch.values.record import MeasuredTrial

LEAST_NETWORKS = 4
Aspect = Literal["brief_score", "side", "macs", "cut"]
ASPECTS: tuple[Aspect, ...] = ("brief_score", "side", "macs", "cut")

_Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """Properties of a network that its gain from longer training may depend on."""

    brief_score: float
    """Score after brief training, as a fraction."""
    side_px: float
    """Side of the input; of a rectangle, the side of the square with as many pixels."""
    macs: float
    """MACs of the deployed network, that is, after cutting."""
    cut: bool
    """Whether anything was removed where the branch begins: pruned, or cut from the trunk of a larger network."""

    @property
    def columns(self) -> tuple[float, ...]:
        """The numbers that the regression takes, in the order of `ASPECTS`.

        The brief score in tens of points; log2 of the side; log2 of the MACs per pixel, so that networks are compared
        at equal side; 1 if anything was cut, else 0.
        """
        per_pixel = max(self.macs, 1.0) / self.side_px**2
        return (10 * self.brief_score, math.log2(self.side_px), math.log2(per_pixel), float(self.cut))


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """How many more points longer training brings for one unit of an aspect, with the other aspects equal.

    The unit is 10 points of brief score, a doubling of the side, a doubling of the MACs, or being cut.
    """

    aspect: Aspect
    points: float
    low: float
    high: float
    """The 95 % interval."""
    varies: bool
    """Whether the confirmed networks differ in this aspect at all; if not, the numbers are those of the prior."""

    @property
    def told(self) -> bool:
        """Whether the interval excludes 0."""
        return self.varies and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Root mean square errors, in points, when each confirmed network's long score is predicted from all others."""

    corrected: float
    mean_gain: float
    """Error of predicting the brief score plus the mean gain of the others."""
    brief_score_alone: float
    """Error of the same regression with the brief score as its only column."""

    @property
    def helps(self) -> bool:
        """Whether the correction predicted better than both simpler ways."""
        return self.corrected < min(self.mean_gain, self.brief_score_alone)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """A predicted long score, as a fraction."""

    score: float
    sd: float
    """Standard deviation of the score that a long training would measure: regression weights, residual, own error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BriefBias:
    """What the confirmed networks show about brief training. Numbers are in points unless a field says otherwise."""

    networks: int
    mean_gain: float
    effects: tuple[Effect, ...]
    """One for each of `ASPECTS`, in that order."""
    residual_sd: float
    left_out: LeftOut
    centre: tuple[float, ...]
    """Mean of the columns over the confirmed networks."""
    weights: tuple[float, ...]
    """Posterior mean: the gain at the centre, then the slopes."""
    covariance: tuple[tuple[float, ...], ...]
    noise_variance: float
    """Variance of a new measurement around the regression, in squared points."""

    def effect(self, aspect: Aspect) -> Effect:
        """Return the effect of that aspect."""
        return self.effects[ASPECTS.index(aspect)]

    def predict(self, traits: Traits) -> Corrected:
        """Predict the long score of a network with these traits."""
        row = np.array([1.0, *np.subtract(traits.columns, self.centre)])
        gain = float(row @ np.array(self.weights))
        variance = float(row @ np.array(self.covariance) @ row) + self.noise_variance
        score = traits.brief_score + gain / 100
        return Corrected(score=min(1.0, max(0.0, score)), sd=math.sqrt(variance) / 100)


def traits_of(record: MeasuredTrial) -> Traits:
    """Return the traits of a measured trial."""
    return Traits(
        brief_score=record.quality.score,
        side_px=math.sqrt(record.spec.input_size.pixels),
        macs=record.cost.macs,
        cut=record.candidate.pruning.any or record.cut_from is not None,
    )


def fit_brief_bias(traits: Sequence[Traits], long: Sequence[float], variances: Sequence[float]) -> BriefBias | None:
    """Fit the regression of the gains from longer training to N networks.

    Args:
        traits: Traits of each network.
        long: Long score of each as a fraction, in the same order.
        variances: Square of the standard error of each long score, as a fraction.

    Returns:
        None with fewer than `LEAST_NETWORKS` networks, or where side, MACs and cutting never vary.
    """
    columns = np.array([each.columns for each in traits], dtype=np.float64).reshape(len(traits), len(ASPECTS))
    if len(traits) < LEAST_NETWORKS or not np.ptp(columns[:, 1:], axis=0).any():
        return None
    gains = 100 * (np.asarray(long, dtype=np.float64) - [each.brief_score for each in traits])
    noise = 1e4 * np.asarray(variances, dtype=np.float64)
    fitted = fit(columns, gains, noise)
    sds = np.sqrt(np.diag(fitted.covariance))[1:]
    effects = tuple(
        Effect(aspect=name, points=point, low=point - Z_975 * sd, high=point + Z_975 * sd, varies=bool(spread > 0))
        for name, point, sd, spread in zip(
            ASPECTS, fitted.weights[1:].tolist(), sds.tolist(), np.ptp(columns, axis=0), strict=True
        )
    )
    return BriefBias(
        networks=len(traits),
        mean_gain=float(gains.mean()),
        effects=effects,
        residual_sd=math.sqrt(fitted.residual_variance),
        left_out=_left_out(columns, gains, noise),
        centre=tuple(fitted.centre.tolist()),
        weights=tuple(fitted.weights.tolist()),
        covariance=tuple(tuple(row) for row in fitted.covariance.tolist()),
        noise_variance=fitted.residual_variance + float(noise.mean()),
    )


def _left_out(columns: _Array, gains: _Array, noise: _Array) -> LeftOut:
    def error(width: int) -> float:
        squares = []
        for place in range(len(gains)):
            others = np.arange(len(gains)) != place
            fitted = fit(columns[others, :width], gains[others], noise[others])
            squares.append((gains[place] - fitted.value(columns[place, :width])) ** 2)
        return math.sqrt(np.mean(squares))

    shifts = [gains[place] - np.delete(gains, place).mean() for place in range(len(gains))]
    return LeftOut(
        corrected=error(len(ASPECTS)), mean_gain=math.sqrt(np.mean(np.square(shifts))), brief_score_alone=error(1)
    )
