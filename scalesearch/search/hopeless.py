"""Networks that no further candidate is to have: they failed, or were too slow before any training."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from scalesearch.values.candidate import Candidate, Quantization, Recipe
from scalesearch.values.record import TrialRecord

_OF_EVERY_PRECISION: Final = frozenset({"start", "train", "prune", "retrain"})
"""Stages that do not depend on the precision: what failed there fails in every other precision, too."""


class Hopeless:
    """Candidates whose network failed or was rejected after it was timed, whatever their calibration and length."""

    def __init__(self, records: Iterable[TrialRecord]) -> None:
        """Take the trials of a study."""
        self._failed, self._slow = set[tuple[Candidate, str]](), set[Candidate]()
        for record in records:
            if record.state == "failed" and record.key:
                every = record.reason.partition(":")[0] in _OF_EVERY_PRECISION
                precision = "" if every else record.candidate.quantization.precision
                self._failed.add((_trained(record.candidate), precision))
            elif record.state == "rejected" and record.stages:
                self._slow.add(_untrained(record.candidate))

    def __contains__(self, candidate: Candidate) -> bool:
        """Tell whether there is no need to try the candidate."""
        if _untrained(candidate) in self._slow:
            return True
        network = _trained(candidate)
        return any((network, each) in self._failed for each in ("", candidate.quantization.precision))


def _trained(candidate: Candidate) -> Candidate:
    """Return the candidate without its precision, in the default length."""
    recipe = replace(candidate.recipe, steps=Recipe().steps, warmup_steps=0)
    return replace(candidate, recipe=recipe, quantization=Quantization())


def _untrained(candidate: Candidate) -> Candidate:
    """Return the candidate with what the latency of its untrained network depends on."""
    quantization = Quantization(precision=candidate.quantization.precision)
    return replace(candidate, recipe=Recipe(), quantization=quantization)
