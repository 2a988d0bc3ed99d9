"""Networks that no further candidate is to have: they failed for a reason that stays, or were too slow untrained."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from scalesearch.values.candidate import Candidate, Quantization, Recipe
from scalesearch.values.record import TrialRecord

_OF_THE_NETWORK: Final = frozenset({"build", "drop_blocks", "fold", "prune", "sparsity"})
"""Stages whose failure does not depend on precision or length."""
_OF_THE_PRECISION: Final = frozenset({"accept", "compile", "export", "qat", "quantize", "run"})
"""Stages whose failure does not depend on length."""
_OF_THE_TRAINING: Final = frozenset({"train", "retrain"})
"""Stages that may also fail by chance: memory that ran out, a worker that was killed."""
_TRAINING_FAILURES: Final = 2
"""So many failures of trainings, in any precision and length, are those of the network."""


class Hopeless:
    """Candidates whose network failed or was rejected after it was timed, whatever their calibration and length.

    A network that worked in any candidate is not among them, unless a precision fails. What was lost by something else
    than the network (a device that was busy, a result that was not sent) does not count.
    """

    def __init__(self, records: Iterable[TrialRecord]) -> None:
        """Take the trials of a study."""
        self._failed, self._slow = set[Candidate](), set[Candidate]()
        trained, worked = Counter[Candidate](), set[Candidate]()
        for record in records:
            network, whole = record.candidate.network, _in_precision(record.candidate)
            stage = record.reason.partition(":")[0]
            if record.state == "rejected" and record.stages:
                self._slow.add(_untrained(record.candidate))
            elif record.state == "complete":
                worked |= {network, whole}
            elif record.state != "failed" or not record.key or record.same_as is not None:
                continue
            elif stage in _OF_THE_NETWORK:
                self._failed.add(network)
            elif stage in _OF_THE_PRECISION or (stage == "retrain" and record.candidate.quantization.aware_steps):
                self._failed.add(whole)
            elif stage in _OF_THE_TRAINING:
                trained[network] += 1
        self._failed |= {network for network, failures in trained.items() if failures >= _TRAINING_FAILURES}
        self._failed -= worked

    def __contains__(self, candidate: Candidate) -> bool:
        """Tell whether there is no need to try the candidate."""
        keys = {candidate.network, _in_precision(candidate)}  # the first has 0 steps, so they differ
        return _untrained(candidate) in self._slow or not keys.isdisjoint(self._failed)


def _in_precision(candidate: Candidate) -> Candidate:
    """Return the candidate in no length, with the default calibration."""
    recipe = replace(candidate.recipe, steps=Recipe().steps)
    return replace(candidate, recipe=recipe, quantization=_quantization(candidate, candidate.quantization.qat_steps))


def _untrained(candidate: Candidate) -> Candidate:
    """Return the candidate with what the latency of its untrained network depends on."""
    return replace(candidate, recipe=Recipe(), quantization=_quantization(candidate, 0))


def _quantization(candidate: Candidate, qat_steps: int) -> Quantization:
    asked = candidate.quantization
    return Quantization(precision=asked.precision, keep_float=asked.keep_float, qat_steps=qat_steps)
