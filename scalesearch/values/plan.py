"""What a candidate becomes before any training: shape, cost and identity."""

from dataclasses import dataclass

from scalesearch.values.candidate import Candidate, Pruning
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.record import Cost, LimitUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A candidate, rounded and costed. Equal `key` means equal work: it is answered from the earlier record."""

    candidate: Candidate
    spec: NetworkSpec
    dense_cost: Cost
    cost: Cost
    """After pruning; an estimate where the shape follows the trained weights (`Pruning.shape_follows_weights`)."""
    key: str
    weights_key: str
    """Identity of the trained dense weights: spec, recipe, data, seed."""
    shape_key: str
    """Identity of the weights after pruning and its retrain."""
    pruning: Pruning
    """What of the asked pruning does anything to this network; the rest has its defaults."""
    limits: tuple[LimitUse, ...]
    """Use of the limits that are known before training (MACs, size)."""

    @property
    def rejected_because(self) -> str:
        """The first limit it breaks, in words; empty if it breaks none."""
        for use in self.limits:
            if use.excess > 0:
                return f"{use.limit} exceeded by {100 * use.excess:.0f} %"
        return ""
