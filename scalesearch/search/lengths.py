"""Candidates that are trained by unlike lengths: how such a study begins, and whether a run has room to finish more."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from scalesearch.search.ledger import Ledger
from scalesearch.spaces.asking import index_name
from scalesearch.spaces.axes import OptunaChoice
from scalesearch.spaces.suggest import cheapest, trial_parameters
from scalesearch.values.candidate import Candidate
from scalesearch.values.space import STEPS, SearchSpace

if TYPE_CHECKING:
    from scalesearch.search.growth import Costs  # loads scikit-learn, which no other sampler needs


class Lengths:
    """The lengths of the trainings of one study; there are none where all are trained alike.

    Args:
        space: The search space.
        ledger: The trials of the study.
        full_updates: Updates of a member of the front; 0 where all candidates are trained alike.
        workers: Number of workers.
        left_s: Returns the seconds that are left of the run.
    """

    def __init__(
        self,
        space: SearchSpace,
        ledger: Ledger,
        *,
        full_updates: int,
        workers: int,
        left_s: Callable[[], float],
    ) -> None:
        self._space, self._ledger = space, ledger
        self._workers, self._left_s = workers, left_s
        self.all: tuple[int, ...] = space.lengths if full_updates else ()
        """In updates, ascending."""

    @property
    def full_updates(self) -> int:
        """The greatest length; 0 if there are none."""
        return self.all[-1] if self.all else 0

    @property
    def given(self) -> int:
        """Number of trials that a study begins with besides its first: the cheapest candidate in its other lengths."""
        return max(0, len(self.all) - 1)

    def beginning(self, place: int) -> dict[str, OptunaChoice]:
        """Return the parameters of the trial that is asked for at this place; empty if it is none of the beginning.

        The cheapest candidate is trained in every length. So the model sees what a longer training brings, and the
        front has a member.
        """
        if not 0 < place <= self.given:
            return {}
        first = cheapest(self._space)
        return trial_parameters(replace(first, recipe=replace(first.recipe, steps=self.all[place])), self._space)

    @property
    def shortest(self) -> dict[str, OptunaChoice]:
        """The parameter with which a trial is as short as can be; empty if there are no lengths."""
        asked = trial_parameters(cheapest(self._space), self._space) if self.all else {}
        return {name: asked[name] for name in (STEPS, index_name(STEPS)) if name in asked}

    def trials(self, budget: float) -> float:
        """Return how many of the shortest trainings the budget of full trainings has room for."""
        return budget * self.all[-1] / self.all[0] if self.all else budget

    def fits(self, candidates: Sequence[Candidate], trainings: "Costs", seconds: "Costs | None") -> bool:
        """Tell whether the run has room for these candidates, one after the other.

        Args:
            candidates: The candidates.
            trainings: What candidates cost in full trainings.
            seconds: What they cost in seconds; None where that is not known, or time is not limited.
        """
        if trainings.of_all(candidates) > self._ledger.left:
            return False
        if seconds is None:
            return True
        running = [asked.plan.candidate for asked in self._ledger.running.values()]
        return seconds.of_all([*running, *candidates]) <= self._workers * self._left_s()
