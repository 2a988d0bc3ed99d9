"""Decide about precisions without the sampler: which siblings to evaluate, and which precisions to give up."""

import contextlib
from collections.abc import Callable, Iterable

from scalesearch.errors import CandidateRejected, StageFailed
from scalesearch.search.events import Narrowed
from scalesearch.search.ledger import GIVEN_UP, Ledger
from scalesearch.search.siblings import siblings_of
from scalesearch.values.candidate import Candidate, Precision
from scalesearch.values.plan import Plan
from scalesearch.values.record import TrialRecord
from scalesearch.values.space import SearchSpace


class Precisions:
    """The siblings that are still to be evaluated, and the precisions that are not asked for any more."""

    def __init__(
        self, ledger: Ledger, space: SearchSpace, plan: Callable[[Candidate], Plan], *, siblings: bool, adaptive: bool
    ) -> None:
        """Begin empty; `siblings` allows siblings to be evaluated, `adaptive` allows precisions to be given up."""
        self._ledger, self._space, self._plan = ledger, space, plan
        self._siblings, self._adaptive = siblings, adaptive
        self._wanted: dict[str, tuple[Candidate, int]] = {}  # by key: siblings to evaluate, and their trials
        self._given_up: dict[Precision, int] = {}
        self._useless: dict[Precision, int] = {}  # precisions that siblings do without at present
        self._told: set[Precision] = set()  # precisions of which it was said that siblings do without them

    @property
    def wanted(self) -> int:
        """Number of siblings that are still to be evaluated."""
        return len(self._wanted)

    def next_sibling(self) -> tuple[Candidate, int]:
        """Remove and return the sibling that was wanted first, and the number of the trial whose sibling it is."""
        return self._wanted.pop(next(iter(self._wanted)))

    def want_siblings(self, record: TrialRecord) -> None:
        """List the record's network for evaluation in its other precisions, where their results are not known yet."""
        if not self._siblings or (record.sibling_of is not None and not record.charged):
            return
        for candidate in siblings_of(record.candidate, self._space):
            with contextlib.suppress(CandidateRejected, StageFailed):
                plan = self._plan(candidate)
                known = self._ledger.is_known(plan.key) or plan.rejected_because
                # With quantization-aware updates, the float branch is shorter, so the weights differ.
                trained = plan.shape_key == self._plan(record.candidate).shape_key
                if trained and not known and self._may_be_sibling(candidate):
                    self._wanted.setdefault(plan.key, (candidate, record.trial))

    def narrow(self) -> tuple[Narrowed, ...]:
        """Give up the precisions that never paid, and return an event for each that was not given up before.

        Siblings do without it after `SIBLING_TRIES` networks, all other candidates, and only if that is allowed, after
        `TRIES`.
        """
        records = self._ledger.records.values()
        self._useless = useless(records) if self._siblings else {}
        new = given_up(records) if self._adaptive else {}
        new = {precision: tries for precision, tries in new.items() if precision not in self._given_up}
        self._given_up |= new
        self._wanted = {key: wanted for key, wanted in self._wanted.items() if self._may_be_sibling(wanted[0])}
        said = {precision: tries for precision, tries in self._useless.items() if precision not in self._told}
        self._told |= said.keys()
        told = [Narrowed(precision=precision, tries=tries, siblings=True) for precision, tries in said.items()]
        return (*told, *(Narrowed(precision=precision, tries=tries) for precision, tries in new.items()))

    def _may_be_sibling(self, candidate: Candidate) -> bool:
        return candidate.quantization.precision not in self._useless | self._given_up

    def refusal(self, precision: Precision) -> str:
        """Return why candidates of that precision are rejected; empty if they are not."""
        return reason(precision, self._given_up[precision]) if precision in self._given_up else ""


TRIES = 8
"""Number of networks that must have gained nothing from a precision before it is given up."""
SIBLING_TRIES = 4
"""The same before siblings do without it."""
LARGE = 0.5
"""One of them must have at least this part of the most MACs so far, since int8 often pays on large networks alone."""


def useless(records: Iterable[TrialRecord]) -> dict[Precision, int]:
    """Return the precisions that siblings do without, with the number of networks that each was tried on.

    They made no network faster beyond doubt, the largest ones among them. A score that rounding raised by chance is no
    reason to go on. A larger network may change that.
    """
    measured = [each for record in records if record.state == "complete" and (each := record.measured)]
    largest = max((each.cost.macs for each in measured), default=0)
    tried: dict[Precision, dict[Candidate, int]] = {}
    paid = set[Precision]()
    for each in measured:
        precision, network = each.candidate.quantization.precision, each.candidate.unquantized
        for gain in each.gains:
            if gain.step == "precision":
                tried.setdefault(precision, {})[network] = each.cost.macs
                if (gain.speedup if gain.coarse else gain.speedup_low) > 1:
                    paid.add(precision)
    return {
        precision: len(networks)
        for precision, networks in tried.items()
        if precision not in paid and len(networks) >= SIBLING_TRIES and max(networks.values()) >= LARGE * largest
    }


def given_up(records: Iterable[TrialRecord]) -> dict[Precision, int]:
    """Return the precisions that never paid, with the number of networks that each was tried on.

    Only precisions other than fp32 can be given up, by gains that were measured against fp32 twins. A network counts
    once: it gained from a precision if any of its calibrations did. This is decided from the records, so a run without
    --adaptive asks for all precisions again.
    """
    tried: dict[Precision, dict[Candidate, bool]] = {}
    for record in records:
        if record.state != "complete":
            continue
        for gain in record.gains:
            if gain.step == "precision":
                verdicts = tried.setdefault(record.candidate.quantization.precision, {})
                network = record.candidate.unquantized
                verdicts[network] = verdicts.get(network, True) and gain.no_gain
    return {
        precision: len(verdicts)
        for precision, verdicts in tried.items()
        if len(verdicts) >= TRIES and all(verdicts.values())
    }


def reason(precision: Precision, tries: int) -> str:
    """Return the reason why a candidate of that precision is rejected."""
    return f"{GIVEN_UP}{precision} never paid on this chip in {tries} networks; without --adaptive it is asked again"
