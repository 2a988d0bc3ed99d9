from dataclasses import replace
from typing import Any

import pytest
import torch

from scalesearch.chain import planner as module
from scalesearch.chain.planner import PlanBasis, Planner
from scalesearch.deployment.targets import get_target
from scalesearch.networks import base_spec, find_spec
from scalesearch.networks.build import build
from scalesearch.values.candidate import Candidate, Pruning, Quantization, Scaling
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.plan import Plan
from scalesearch.values.session import Session
from scalesearch.values.space import SearchSpace


@pytest.fixture
def planner(session: Session) -> Planner:
    base = base_spec("resnet_small")
    return Planner(replace(session, base=base, space=replace(session.space, network="resnet_small")))


def plan(planner: Planner, *, depth: float = 1.0, width: float = 1.0, **pruning: Any) -> Any:
    return planner(Candidate(scaling=Scaling(resolution=0.5, depth=depth, width=width), pruning=Pruning(**pruning)))


def test_fractions_that_leave_the_same_channels_are_the_same_work(planner: Planner) -> None:
    assert plan(planner, channel_fraction=0.5).key == plan(planner, channel_fraction=0.45).key
    assert plan(planner, channel_fraction=0.5).key != plan(planner, channel_fraction=0.25).key


@pytest.mark.parametrize(
    "nothing",
    [
        {"channel_fraction": 0.01},
        {"criterion": "taylor"},
        {"rounds": 3},
        {"scope": "global"},
        {"block_fraction": 0.5},  # at depth 1 every block is the only one of its stage
        {"sparse_fraction": 0.9},
        {"sparsity": "2:4"},  # no layer has 256 channels
        {"sparsity": "unstructured", "sparse_fraction": 1e-9},
    ],
    ids=str,
)
def test_pruning_that_does_nothing_is_no_part_of_the_identity(planner: Planner, nothing: dict[str, Any]) -> None:
    found = plan(planner, **nothing)
    assert found.key == plan(planner).key
    assert not found.pruning.any
    assert found.cost == found.dense_cost


@pytest.mark.parametrize(
    "how",
    [
        {"criterion": "taylor"},
        {"criterion": "random"},
        {"scope": "global"},
        {"scope": "sensitivity"},
        {"rounds": 2},
        {"sparsity": "unstructured"},
    ],
    ids=str,
)
def test_how_it_is_cut_is_part_of_the_identity(planner: Planner, how: dict[str, Any]) -> None:
    plain, other = plan(planner, channel_fraction=0.5), plan(planner, channel_fraction=0.5, **how)
    assert other.key != plain.key
    assert other.weights_key == plain.weights_key  # the dense network is trained once for both
    assert other.cost == plain.cost  # exact or, where the shape follows the weights, the uniform twin's


def test_two_zeros_of_four_are_part_of_the_identity_where_a_layer_can_gain_by_them(planner: Planner) -> None:
    """At width 4 the last stage has 256 channels, the fewest that a sparse kernel pays on; half of them are too few."""
    whole, half = {"width": 4.0}, {"width": 4.0, "channel_fraction": 0.5}
    sparse = plan(planner, **whole, sparsity="2:4")
    assert sparse.pruning == Pruning(sparsity="2:4") and sparse.key != plan(planner, **whole).key
    cut = plan(planner, **half, sparsity="2:4")
    assert cut.pruning == Pruning(channel_fraction=0.5) and cut.key == plan(planner, **half).key
    # Which layers a global cut leaves wide is known only after training.
    follows = plan(planner, **half, scope="global", sparsity="2:4")
    assert follows.pruning.sparsity == "2:4" and follows.key != plan(planner, **half, scope="global").key


def test_dropped_blocks_cost_less_before_training_and_the_spec_stays_what_they_are_cut_from(planner: Planner) -> None:
    found = plan(planner, depth=2.0, block_fraction=0.5)
    assert found.cost.macs < found.dense_cost.macs
    assert found.spec == plan(planner, depth=2.0).spec
    # A rebuilt trial starts from its record's spec and pruning: the same plan again.
    assert planner.plan_spec(found.spec, found.candidate, cut_from=None) == found


def test_precision_changes_the_work_and_not_the_weights(planner: Planner) -> None:
    plain = Candidate(scaling=Scaling(resolution=0.5))
    int8 = replace(plain, quantization=Quantization(precision="int8"))
    assert planner(plain).key != planner(int8).key
    assert planner(plain).shape_key == planner(int8).shape_key


def test_a_remembered_plan_has_the_candidate_as_it_was_asked_for(
    planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_PLANS", 2)
    worked = list[Candidate]()

    def plan_spec(self: Planner, spec: NetworkSpec, candidate: Candidate, **more: Any) -> Plan:
        worked.append(candidate)
        return _plan_spec(self, spec, candidate, **more)

    monkeypatch.setattr(Planner, "plan_spec", plan_spec)
    whole, given = (Candidate(scaling=Scaling(width=width)) for width in (1, 1.0))
    first, again = planner(whole), planner(given)
    assert worked == [whole] and again == first
    assert isinstance(again.candidate.scaling.width, float)
    for width in (0.5, 0.75):
        planner(Candidate(scaling=Scaling(width=width)))
    assert planner(whole) == first
    assert len(worked) == 4, "the oldest was forgotten"


def test_a_network_is_cut_once_for_all_its_precisions_and_lengths(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = list[NetworkSpec]()

    def counted(spec: NetworkSpec, make_module: Any) -> Network:
        built.append(spec)
        return build(spec, make_module)

    monkeypatch.setattr(module, "build", counted)
    base = base_spec("resnet_small")
    basis = replace(session, base=base, space=replace(session.space, network="resnet_small"))
    cut = Candidate(scaling=Scaling(resolution=0.5), pruning=Pruning(channel_fraction=0.5))
    others = (
        replace(cut, quantization=Quantization(precision="int8")),
        replace(cut, recipe=replace(cut.recipe, steps=2 * cut.recipe.steps)),
    )
    planner = Planner(basis)
    found = [planner(candidate) for candidate in (cut, *others)]
    assert len(built) == 1
    assert found == [Planner(basis)(candidate) for candidate in (cut, *others)]


_plan_spec = Planner.plan_spec


def test_a_module_is_counted_by_fvcore_and_cut_by_its_graph() -> None:
    space = replace(SPACE_OF_A_MODULE, resolution_multiple=16)
    basis = PlanBasis(base=find_spec(space.network), space=space, target=get_target("cpu"), num_classes=4, seed=0)
    planner = Planner(basis)
    dense, cut = planner(Candidate()), planner(Candidate(pruning=Pruning(channel_fraction=0.5)))
    # stem 16x16 of 32 px, two 3x3 layers of 16 and 32 channels, depthwise at 8x8, pointwise, head of 4 classes
    macs = 16 * 16 * (27 * 16 + 2 * 9 * 16 * 32) + 8 * 8 * (9 * 16 + 16 * 32) + 32 * 4
    assert dense.dense_cost.macs == dense.cost.macs == macs
    assert cut.dense_cost.macs == macs and cut.cost.macs < 0.35 * macs
    assert (cut.weights_key, cut.trunk_key) == (dense.weights_key, dense.trunk_key)
    assert cut.shape_key != dense.shape_key
    network = planner.cut(Candidate(pruning=Pruning(channel_fraction=0.5)))
    assert network.module.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


SPACE_OF_A_MODULE = SearchSpace(name="module", network="own_modules:residual", resolution_px=32, axes=())
