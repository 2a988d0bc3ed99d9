"""What a candidate becomes before any training: its shape, cost and identity."""

from dataclasses import dataclass

from scalesearch.values.candidate import Candidate, Pruning
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.record import Cost, LimitUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A candidate after rounding, with its cost.

    Two candidates with the same `key` need the same work: the second one takes its results from the record of the
    first.
    """

    candidate: Candidate
    spec: NetworkSpec
    dense_cost: Cost
    cost: Cost
    """Cost after pruning. It is an estimate where the shape depends on the trained weights
    (`Pruning.shape_follows_weights`)."""
    key: str
    weights_key: str
    """Identity of the trained dense weights: spec, recipe, data and seed."""
    trunk_key: str = ""
    """Identity of the trunk that the candidate branches off; empty with the schedule `cosine`, which has none."""
    branch_updates: int = 0
    """Updates of the branch that are made in float; those of quantization-aware training follow them."""
    shape_key: str
    """Identity of the weights after pruning and the retraining that follows it."""
    pruning: Pruning
    """The part of the requested pruning that has an effect on this network; all other fields have their defaults."""
    cut_from: NetworkSpec | None = None
    """The larger network whose trunk is cut to `spec` where the branch begins; None if the trunk has `spec` itself."""
    trunk_cost: Cost | None = None
    """Cost of `cut_from`."""
    full_updates: int = 0
    """Updates of a member of the front, where candidates are trained by unlike lengths; else 0."""
    limits: tuple[LimitUse, ...]
    """How much of each limit is used, for the limits that are known before training (MACs, size)."""

    @property
    def short(self) -> bool:
        """Whether the training is shorter than that of a member of the front."""
        return self.candidate.recipe.steps < self.full_updates

    @property
    def begun(self) -> tuple[NetworkSpec, Cost]:
        """Spec and cost of the network that the training begins with, which is that of the trunk."""
        return self.cut_from or self.spec, self.trunk_cost or self.dense_cost

    @property
    def rejected_because(self) -> str:
        """The first limit that the plan breaks, in words; empty if it breaks none."""
        for use in self.limits:
            if use.excess > 0:
                return f"{use.limit} exceeded by {100 * use.excess:.0f} %"
        return ""
