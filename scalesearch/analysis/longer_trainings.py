"""What the search's own longer trainings show: networks that were trained briefly, and then on to full length."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from scalesearch.analysis.brief_bias import BriefBias, Traits, fit_brief_bias, traits_of
from scalesearch.analysis.ranks import RankAgreement, rank_agreement
from scalesearch.analysis.score_error import variance
from scalesearch.values.candidate import Candidate
from scalesearch.values.record import MeasuredTrial, TrialRecord

LEAST_NETWORKS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class LongerTrainings:
    """How the scores of networks moved from a short training to full length, within one search."""

    networks: int
    shortest: int
    full: int
    """Updates of the two trainings."""
    ranks: RankAgreement | None
    """Of the short scores with those of full length; None where there is none."""
    bias: BriefBias | None
    """Its brief scores are those of the short trainings; None where the networks are alike in side, MACs and cutting.
    """


def longer_trainings(records: Iterable[TrialRecord]) -> LongerTrainings | None:
    """Return what the networks show that were trained in part and in full; None with fewer than `LEAST_NETWORKS`.

    Scores are those of the float networks, so each network counts once, whatever its precisions. The networks are those
    that the search went on with: the promising ones.
    """
    trained: dict[Candidate, dict[int, MeasuredTrial]] = {}
    own = [each for record in records if record.full_updates and record.same_as is None if (each := record.measured)]
    for each in own:
        if not each.candidate.quantization.aware_steps:
            trained.setdefault(each.candidate.network, {}).setdefault(each.candidate.recipe.steps, each)
    full = max((each.full_updates for each in own), default=0)
    both = [of for of in trained.values() if full in of and min(of) < full]
    # Scores of unlike short trainings do not compare: those that most networks have.
    counts = Counter(steps for of in both for steps in of if steps < full)
    shortest = max(counts, key=lambda steps: (counts[steps], -steps), default=0)
    pairs = [(of[shortest], of[full]) for of in both if shortest in of]
    if len(pairs) < LEAST_NETWORKS:
        return None
    brief = [_traits(short) for short, _ in pairs]
    long = [record.training.float_score for _, record in pairs]
    return LongerTrainings(
        networks=len(pairs),
        shortest=shortest,
        full=full,
        ranks=rank_agreement([each.brief_score for each in brief], long),
        bias=fit_brief_bias(brief, long, [variance(record.quality) for _, record in pairs]),
    )


def _traits(record: MeasuredTrial) -> Traits:
    return replace(traits_of(record), brief_score=record.training.float_score)
