"""Other cuts of a network near the front: its trunk is stored, so each of them costs a branch, a part of a training."""

import contextlib
from collections.abc import Callable

from scalesearch.analysis.front import near_front
from scalesearch.errors import CandidateRejected, StageFailed
from scalesearch.search.ledger import Ledger
from scalesearch.search.siblings import next_cuts
from scalesearch.values.candidate import Candidate
from scalesearch.values.plan import Plan
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.space import SearchSpace


class Branches:
    """The further branches of stored trunks that are still to be trained, in the order in which they were wanted."""

    def __init__(self, ledger: Ledger, space: SearchSpace, plan: Callable[[Candidate], Plan], *, allowed: bool) -> None:
        """Begin empty; without `allowed` it stays so."""
        self._ledger, self._space, self._plan, self.allowed = ledger, space, plan, allowed
        self._wanted: dict[str, tuple[Candidate, int]] = {}  # by key: the candidates, and the trials of their trunks

    @property
    def wanted(self) -> int:
        """Number of branches that are still to be trained."""
        return len(self._wanted)

    def take(self) -> tuple[Candidate, int]:
        """Remove and return the branch that was wanted first, and the number of the trial that has its trunk."""
        return self._wanted.pop(next(iter(self._wanted)))

    def keep_near(self, front: tuple[MeasuredTrial, ...]) -> None:
        """Strike the branches of networks that are no longer near the front; those of its members come first."""
        members = {member.trial for member in front}
        near = {origin for _, origin in self._wanted.values() if near_front(self._ledger.records[origin], front)}
        kept = [(key, wanted) for key, wanted in self._wanted.items() if wanted[1] in near]
        self._wanted = dict(sorted(kept, key=lambda item: item[1][1] not in members))

    def want(self, record: TrialRecord) -> None:
        """List the next larger and the next smaller cut of the record's network, if its trunk is shared with them.

        Cuts that are known, running, or over a limit are left out, and those that round to the network itself.
        """
        if not self.allowed or not record.charged:
            return
        own = self._plan(record.candidate)
        for candidate in next_cuts(record.candidate, self._space) if own.trunk_key else ():
            with contextlib.suppress(CandidateRejected, StageFailed):
                plan = self._plan(candidate)
                known = self._ledger.is_known(plan.key) or plan.rejected_because
                if plan.trunk_key == own.trunk_key and plan.shape_key != own.shape_key and not known:
                    self._wanted.setdefault(plan.key, (candidate, record.trial))
