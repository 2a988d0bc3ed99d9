"""Find trials that are off the front after brief training but likely to be on it after long training."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from scalesearch.analysis.brief_bias import BriefBias, Corrected, Traits, fit_brief_bias, traits_of
from scalesearch.analysis.confirmation import Confirmation, Move
from scalesearch.analysis.front import point
from scalesearch.values.candidate import Pruning, Recipe
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.quality import Z_975
from scalesearch.values.record import MeasuredTrial, TrialRecord

MOST_NAMED = 5
_LIKELY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LikelyMember:
    """A trial off the front of the search, and its probability of being on the front after long training."""

    record: MeasuredTrial
    probability: float
    """Probability that no rival at least as fast has at least the score that this trial would get by long training."""
    corrected: Corrected


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What the confirmed trials show about the front of the search."""

    bias: BriefBias | None
    """None where the confirmed networks are too few or too much alike."""
    likely: tuple[LikelyMember, ...] = ()
    """Trials that are worth a long training, most probable first."""


def correct(confirmation: Confirmation, front: Sequence[MeasuredTrial], records: Iterable[TrialRecord]) -> Correction:
    """Fit the bias of brief training to the confirmed trials, and find the trials that it scored too low.

    Args:
        confirmation: The confirmed trials.
        front: The front of the search.
        records: All trials of the study.
    """
    networks = confirmed_networks(confirmation.moves)
    bias = fit_brief_bias(
        [network.traits for network in networks],
        [network.long_score for network in networks],
        [network.variance for network in networks],
    )
    return Correction(bias=bias, likely=likely_members(bias, confirmation.moves, front, records) if bias else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmedNetwork:
    """One confirmed network. All its confirmed precisions share a training, so together they are one observation.

    Networks of one shape that were trained apart, from scratch or by a cut, or by unlike recipes, are several.
    """

    traits: Traits
    """Its brief score is the mean over the precisions."""
    long_score: float
    variance: float
    """Square of the standard error of the long score: of the images, and of the seeds."""


def confirmed_networks(moves: Iterable[Move]) -> tuple[ConfirmedNetwork, ...]:
    """Return the networks that were confirmed, each once."""
    return tuple(_by_network(moves).values())


def likely_members(
    bias: BriefBias, moves: Sequence[Move], front: Sequence[MeasuredTrial], records: Iterable[TrialRecord]
) -> tuple[LikelyMember, ...]:
    """Return trials that are more likely than not on the front after long training: at most `MOST_NAMED`.

    All feasible, measured trials are considered that are neither on the front nor a repeat of another trial, and whose
    network was not confirmed in any precision (precisions share a training, so longer training moves them together).
    Their rivals are the confirmed trials, with their measured long scores, and the front members that were not
    confirmed, with their corrected scores. A trial is on the front if its long score is above that of every rival that
    is at least as fast. Its long score is taken as normally distributed around the corrected score. All latencies are
    those of the search.
    """
    confirmed, networks = {move.record.trial for move in moves}, _by_network(moves)
    rivals = [(move.validation.score, move.record.latency.p50_ms) for move in moves]
    rivals += [
        (bias.predict(traits_of(record)).score, point(record)[1]) for record in front if record.trial not in confirmed
    ]
    members = {record.trial for record in front}
    asked = (each.measured for each in records if each.feasible and each.same_as is None and each.trial not in members)
    found = [
        _chance(record, bias.predict(traits_of(record)), rivals)
        for record in asked
        if record and _network(record) not in networks
    ]
    likely = [one for one in found if one.probability > _LIKELY]
    return tuple(sorted(likely, key=lambda one: (-one.probability, one.record.trial))[:MOST_NAMED])


def _chance(record: MeasuredTrial, corrected: Corrected, rivals: Sequence[tuple[float, float]]) -> LikelyMember:
    best = max((score for score, p50_ms in rivals if p50_ms <= record.latency.p50_ms), default=-math.inf)
    probability = 0.5 * math.erfc((best - corrected.score) / (corrected.sd * math.sqrt(2)))
    return LikelyMember(record=record, probability=probability, corrected=corrected)


class _Training(NamedTuple):
    """What all precisions of one training have in common: shape, larger network to begin with, pruning and recipe."""

    spec: NetworkSpec
    cut_from: NetworkSpec | None
    pruning: Pruning
    recipe: Recipe
    """With no length: long trainings are of one length, whatever that of the search was."""


def _network(record: MeasuredTrial) -> _Training:
    candidate = record.candidate
    recipe = replace(candidate.recipe, steps=0, retrain_steps=0)
    return _Training(record.spec, record.cut_from, candidate.pruning, recipe)


def _by_network(moves: Iterable[Move]) -> dict[_Training, ConfirmedNetwork]:
    groups: dict[_Training, list[Move]] = {}
    for move in moves:
        groups.setdefault(_network(move.record), []).append(move)
    return {
        network: ConfirmedNetwork(
            traits=replace(
                traits_of(own[0].record), brief_score=statistics.fmean(move.record.quality.score for move in own)
            ),
            long_score=statistics.fmean(move.validation.score for move in own),
            variance=statistics.fmean(_variance(move) for move in own),  # same images and seeds: no smaller error
        )
        for network, own in groups.items()
    }


def _variance(move: Move) -> float:
    return ((move.validation.high - move.validation.low) / (2 * Z_975)) ** 2
