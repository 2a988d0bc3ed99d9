"""Turn a candidate into a plan: rounding, cost, limits and identity, before anything is trained."""

import dataclasses
from typing import Final

from scalesearch.chain.cutter import cut_on_paper
from scalesearch.compression.sparsity import zeros_any
from scalesearch.measurement.cost import count_cost, formula_cost
from scalesearch.networks.build import build, outline
from scalesearch.networks.scaling import scale
from scalesearch.spaces.trunks import trunk_scaling
from scalesearch.tasks.registry import DEFAULT, get_task
from scalesearch.training.weights import trunk_key, weights_key
from scalesearch.values.candidate import Candidate, Precision, Pruning, Scaling
from scalesearch.values.identity import content_hash
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.plan import Plan
from scalesearch.values.record import Cost, LimitUse
from scalesearch.values.session import Session
from scalesearch.values.space import Limits, SearchSpace
from scalesearch.values.target import Target
from scalesearch.values.training_length import aware_updates, branch_steps, trunk_steps

# Bytes of a weight by precision: the weights alone are a lower bound of the file's size before it exists.
_WEIGHT_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
MOST_PLANS: Final = 1000
MOST_SHAPES: Final = 100
"""So many cut shapes are remembered: each holds the names of all tensors of a network."""
BRANCH: Final = "updates of the branch"
"""The limit on updates with simulated rounding, of which a branch must have room for one more."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlanBasis:
    """Everything besides the candidate that a plan depends on."""

    base: NetworkSpec
    space: SearchSpace
    target: Target
    num_classes: int
    seed: int
    data_fingerprint: str = ""
    """Empty if no data set is loaded: costs and limits are then right, but the keys mean nothing."""
    task: str = DEFAULT
    parent: str = ""
    """Key of the fine-tuned parent that weights are inherited from; empty if they begin at random."""
    full_updates: int = 0
    """Updates of a member of the front, where candidates are trained by unlike lengths; else 0."""

    @classmethod
    def of(cls, session: Session) -> "PlanBasis":
        """Return the basis of the plans of this session's candidates."""
        return cls(
            base=session.base,
            space=session.space,
            target=session.target,
            num_classes=len(session.data.class_names),
            seed=session.settings.seed,
            data_fingerprint=session.data.fingerprint,
            task=session.settings.task,
            parent=session.parent.key if session.parent else "",
            full_updates=session.full_updates,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """What becomes of a network by its pruning, whatever its training and precision."""

    pruning: Pruning
    """The part that has an effect."""
    layers: tuple[tuple[str, tuple[int, ...]], ...]
    dense_cost: Cost
    cost: Cost


class Planner:
    """Turns candidates into plans: rounding, cost, limits and identity, without any training.

    Runs and previews both plan with it, so that a preview gives the same numbers and refusals as the run.
    """

    def __init__(self, source: Session | PlanBasis) -> None:
        self._basis = source if isinstance(source, PlanBasis) else PlanBasis.of(source)
        self._make_module = get_task(self._basis.task).make_module
        self._costs: dict[str, Cost] = {}
        self._plans: dict[Candidate, Plan] = {}
        self._cuts: dict[tuple[NetworkSpec, Pruning], _Cut] = {}

    def __call__(self, candidate: Candidate) -> Plan:
        """Return the plan of a candidate.

        This takes a fraction of a second, most of it for the pruned shape. The last `MOST_PLANS` are remembered, since
        a search asks about the same candidates again and again.
        """
        if known := self._plans.get(candidate):
            return dataclasses.replace(known, candidate=candidate)  # equal, but 1 may be given as 1.0
        whole = trunk_scaling(self._basis.space, candidate.scaling)
        cut_from = None if whole == candidate.scaling else self._scaled(whole)
        plan = self.plan_spec(self.spec(candidate), candidate, cut_from=cut_from)
        if len(self._plans) >= MOST_PLANS:
            del self._plans[next(iter(self._plans))]
        self._plans[candidate] = plan
        return plan

    def spec(self, candidate: Candidate) -> NetworkSpec:
        """Return the candidate's network in whole numbers, before pruning."""
        return self._scaled(candidate.scaling)

    def _scaled(self, scaling: Scaling) -> NetworkSpec:
        basis = self._basis
        return scale(
            basis.base,
            scaling,
            resolution_px=basis.space.input_size,
            num_classes=basis.num_classes,
            channel_multiple=basis.target.channel_multiple,
            resolution_multiple=basis.space.resolution_multiple,
        )

    def cut(self, candidate: Candidate) -> Network:
        """Return the candidate's network, untrained, in the shape after its pruning (an estimate, see `Plan.cost`)."""
        return self._effective(build(self.spec(candidate), self._make_module), candidate.pruning)[1]

    def plan_spec(self, spec: NetworkSpec, candidate: Candidate, *, cut_from: NetworkSpec | None) -> Plan:
        """Return the plan of a spec that is already scaled; the candidate's multipliers are ignored.

        Args:
            spec: The network before pruning.
            candidate: Its pruning, precision and recipe.
            cut_from: The larger network whose trunk is cut to the spec; None if no trunk is cut. It is ignored if it
                equals the spec, or if the recipe has no trunk.
        """
        basis = self._basis
        if cut_from == spec or not trunk_steps(candidate.recipe):
            cut_from = None
        cut = self._cut(spec, candidate.pruning)
        pruning, cost = cut.pruning, cut.cost
        recipe, quantization = candidate.recipe, candidate.quantization
        held = (recipe, basis.data_fingerprint, basis.seed)
        dense_key = weights_key(spec, *held, task=basis.task, parent=basis.parent)
        trunk = trunk_key(cut_from or spec, *held, task=basis.task, parent=basis.parent)
        if cut_from:
            dense_key = content_hash(dense_key, "cut from", dataclasses.replace(cut_from, name=""))
        updates, aware = branch_steps(recipe), aware_updates(recipe, quantization)
        if aware:  # the last updates are made with rounding, so the float branch is shorter
            dense_key, updates = content_hash(dense_key, "float updates", updates - aware), updates - aware
        # The kind of pruning and the retrain steps are part of the identity only if something is pruned.
        how: tuple[object, ...] = (_identity(pruning),) if pruning.any else ()
        if pruning.any and not trunk:
            how = (*how, recipe.retrain_steps)
        shape_key = content_hash(dense_key, how, cut.layers)
        return Plan(
            candidate=candidate,
            spec=spec,
            dense_cost=cut.dense_cost,
            cost=cost,
            weights_key=dense_key,
            trunk_key=trunk,
            branch_updates=updates if trunk else 0,
            shape_key=shape_key,
            key=content_hash(shape_key, candidate.quantization, basis.target.name),
            pruning=pruning,
            cut_from=cut_from,
            trunk_cost=self._cost(outline(cut_from, self._make_module)) if cut_from else None,
            full_updates=basis.full_updates,
            limits=(
                *limits_before_training(basis.space.limits, cost, quantization.precision),
                *(_branch_use(aware, branch_steps(recipe)) if aware else ()),
            ),
        )

    def _cut(self, spec: NetworkSpec, asked: Pruning) -> _Cut:
        """Return what becomes of the spec's network by its pruning; what was cut before is remembered."""
        if known := self._cuts.get((spec, asked)):
            return known
        dense = (build if asked.any else outline)(spec, self._make_module)  # weights only if something is pruned
        pruning, shape = self._effective(dense, asked)
        found = _Cut(pruning=pruning, layers=layer_shapes(shape), dense_cost=self._cost(dense), cost=self._cost(shape))
        if len(self._cuts) >= MOST_SHAPES:
            del self._cuts[next(iter(self._cuts))]
        self._cuts[spec, asked] = found
        return found

    def _cost(self, network: Network) -> Cost:
        """Return the cost of a network.

        The user's own modules are counted by fvcore, once for each shape: they may have layers that the formula does
        not know, or that do not run without weights.
        """
        if not network.spec.origin:
            return formula_cost(network)
        shape = content_hash(network.spec, layer_shapes(network))
        if shape not in self._costs:
            self._costs[shape] = count_cost(network)
        return self._costs[shape]

    def _effective(self, dense: Network, asked: Pruning) -> tuple[Pruning, Network]:
        """Return the part of the requested pruning that changes this network, and the network after it.

        Without the part that changes nothing, two plans that do the same work are equal.
        """
        effective = Pruning()
        shorter, network = cut_on_paper(dense, asked, channel_multiple=self._basis.target.channel_multiple)
        # Where the shape follows the weights, a layer may stay wider than in the estimate, but not than before the cut.
        estimated = asked.shape_follows_weights
        if zeros_any(dense if estimated else network, asked, aligned=not estimated):
            effective = dataclasses.replace(effective, sparsity=asked.sparsity)
        if effective.sparsity == "unstructured":
            effective = dataclasses.replace(effective, sparse_fraction=asked.sparse_fraction)
        before = layer_shapes(shorter)
        if before != layer_shapes(dense):
            effective = dataclasses.replace(effective, block_fraction=asked.block_fraction)
        if layer_shapes(network) != before or (asked.scope != "uniform" and asked.channel_fraction > 0):
            effective = dataclasses.replace(
                effective,
                channel_fraction=asked.channel_fraction,
                criterion=asked.criterion,
                scope=asked.scope,
                rounds=asked.rounds,
            )
        return effective, network


def _branch_use(aware: int, branch: int) -> tuple[LimitUse, ...]:
    """Return how much of the branch is used by updates with simulated rounding; its first update is always in float."""
    return (LimitUse(limit=BRANCH, excess=(aware - (branch - 1)) / branch),)


def _identity(pruning: Pruning) -> Pruning:
    """Return the pruning without its channel fraction, if its scope is uniform and it has a single round.

    The shapes after pruning identify the work better than the fraction, since several fractions round to the same
    shapes. With several rounds the fraction stays, since it also decides the shapes between the rounds.
    """
    if pruning.scope != "uniform" or pruning.rounds > 1:
        return pruning
    return dataclasses.replace(pruning, channel_fraction=0.0)


def layer_shapes(network: Network) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return the name and shape of every tensor.

    They show what pruning has left, and whether a rebuilt network has the same shape.
    """
    return tuple((name, tuple(tensor.shape)) for name, tensor in network.module.state_dict().items())


def limits_before_training(limits: Limits, cost: Cost, precision: Precision) -> tuple[LimitUse, ...]:
    """Return how far MACs and weights use up their limits; the weights alone are a lower bound of the file's size."""
    return (
        *limit_use("max_macs", cost.macs, limits.max_macs),
        *limit_use("max_size_bytes", least_size_bytes(cost, precision), limits.max_size_bytes),
    )


def least_size_bytes(cost: Cost, precision: Precision) -> int:
    """Return how many bytes the weights alone take in the file."""
    return cost.params * _WEIGHT_BYTES[precision]


def limit_use(name: str, value: float, limit: float | None) -> tuple[LimitUse, ...]:
    """Return how far a value uses up its limit; empty if there is no limit."""
    return () if limit is None else (LimitUse(limit=name, excess=value / limit - 1),)
