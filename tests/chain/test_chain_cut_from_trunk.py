"""Sizes that are reached by a cut: one trunk for several, what is kept of its momentum, and one name for equal work."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from parent_studies import colours, opened

from scalesearch.chain.planner import Planner
from scalesearch.chain.shrink import Shrinker, Shrunk
from scalesearch.chain.stages import StageClock
from scalesearch.data import LABEL_SOURCES, Dataset
from scalesearch.data.finding import load_study_data
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.training import train as training
from scalesearch.training.fit import Course
from scalesearch.values.candidate import Candidate, Pruning, Quantization, Recipe, Scaling, StageScaling
from scalesearch.values.plan import Plan
from scalesearch.values.record import TrialRecord
from scalesearch.values.session import Session

SPACE: dict[str, Any] = {
    "network": "resnet_small",
    "resolution_px": 16,
    "scaling": {
        "width": {"low": 0.5, "high": 1.6, "step": 0.5},  # ends at 1.5
        "depth": [1.0, 2.0],
        "kernel": [1.0, 1.67],
        "stages": {"3": {"width": [0.5, 1.0]}},
    },
}
RECIPE = Recipe(optimizer="adamw", learning_rate=0.01, steps=12, branch_fraction=0.5, warmup_steps=2, batch_size=16)
NARROW = Candidate(scaling=Scaling(width=0.5), recipe=RECIPE)


def cut(candidate: Candidate, *names: str, **scaling: Any) -> Candidate:
    """The candidate with other multipliers, reached by cutting these ones."""
    by: dict[str, Any] = {f"{name}_by": "cut" for name in names or ("width",)}
    return replace(candidate, scaling=replace(candidate.scaling, **by, **scaling))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, stand_in_reference: None) -> Session:
    folder = tmp_path_factory.mktemp("cut")
    colours(folder / "colours.npz", 3, seed=0)
    return opened(folder / "study", folder / "colours.npz", space=SPACE)


@dataclass
class Bench:
    """A shrinker with a folder of weights of its own, and every training that it really makes."""

    session: Session
    calls: list[dict[str, Any]]

    def plan(self, candidate: Candidate) -> Plan:
        return Planner(self.session)(candidate)

    def __call__(self, candidate: Candidate) -> Shrunk:
        shrinker = Shrinker(self.session, DeviceLock("cpu", folder=self.session.folder))
        return shrinker(self.plan(candidate), self.data, StageClock())

    @property
    def data(self) -> Dataset:
        return load_study_data(self.session, LABEL_SOURCES).at(16)

    def made(self) -> list[int]:
        """Return the lengths of the trainings since the last call."""
        lengths = [call["steps"] for call in self.calls]
        self.calls.clear()
        return lengths


@pytest.fixture
def bench(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    calls: list[dict[str, Any]] = []

    def watched(network: Any, examples: Any, recipe: Any, machine: Any, course: Course, **more: Any) -> Any:
        before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
        result = training.train(network, examples, recipe, machine, course, **more)
        calls.append({"steps": result.steps, "weights": before, "start": course.start, "state": result.state})
        return result

    monkeypatch.setattr("scalesearch.chain.trainer.train", watched)
    yield Bench(session=replace(session, folder=tmp_path), calls=calls)


# ---- identity: no training ----------------------------------------------------------------------------------------


def test_the_trunk_is_that_of_the_largest_network_of_the_other_settings(bench: Bench) -> None:
    plan = bench.plan(cut(NARROW, stages=(StageScaling(), StageScaling(), StageScaling(width=0.5))))

    assert (
        plan.spec
        == bench.plan(
            replace(NARROW, scaling=replace(NARROW.scaling, stages=(StageScaling(),) * 2 + (StageScaling(width=0.5),)))
        ).spec
    )
    assert plan.cut_from == bench.plan(replace(NARROW, scaling=Scaling(width=1.5))).spec  # of stage 3 too
    assert plan.trunk_key == bench.plan(replace(NARROW, scaling=Scaling(width=1.5))).trunk_key
    assert plan.begun == (plan.cut_from, bench.plan(replace(NARROW, scaling=Scaling(width=1.5))).dense_cost)


@pytest.mark.parametrize(
    ("names", "largest"),
    [
        (("depth",), Scaling(width=0.5, depth=2.0)),
        (("kernel",), Scaling(width=0.5, kernel=1.67)),
        (("width", "depth", "kernel"), Scaling(width=1.5, depth=2.0, kernel=1.67)),
    ],
    ids=["depth", "kernel", "all"],
)
def test_depth_and_kernels_are_cut_in_the_same_way(bench: Bench, names: tuple[str, ...], largest: Scaling) -> None:
    plan = bench.plan(cut(NARROW, *names))
    assert plan.cut_from == bench.plan(replace(NARROW, scaling=largest)).spec
    assert plan.spec == bench.plan(NARROW).spec


def test_a_cut_network_is_other_work_than_one_from_scratch_and_as_large(bench: Bench) -> None:
    scratch, short = bench.plan(NARROW), bench.plan(cut(NARROW))
    assert short.cost == scratch.cost and short.dense_cost == scratch.dense_cost
    for name in ("key", "weights_key", "shape_key", "trunk_key"):
        assert getattr(short, name) != getattr(scratch, name)
    int8 = replace(cut(NARROW), quantization=Quantization(precision="int8"))
    assert bench.plan(int8).shape_key == short.shape_key
    deeper = bench.plan(cut(NARROW, "width", "depth"))
    assert deeper.weights_key != short.weights_key  # another trunk


@pytest.mark.parametrize(
    ("scaling", "recipe"),
    [
        ({"width": 1.5}, {}),
        ({"width": 1.49}, {}),  # rounds to the widest
        ({"width": 2.0}, {}),  # beyond the space
        ({}, {"schedule": "cosine"}),
        ({}, {"branch_fraction": 1.0}),
        ({}, {"steps": 1}),
    ],
    ids=["widest", "rounds to it", "wider", "cosine", "all branch", "one update"],
)
def test_where_nothing_is_cut_the_work_is_that_from_scratch(
    bench: Bench, scaling: dict[str, Any], recipe: dict[str, Any]
) -> None:
    plain = replace(NARROW, scaling=replace(NARROW.scaling, **scaling), recipe=replace(RECIPE, **recipe))
    asked = replace(plain, scaling=replace(plain.scaling, width_by="cut"))
    assert bench.plan(asked) == replace(bench.plan(plain), candidate=asked)


def test_how_the_largest_width_is_reached_does_not_tell_two_cuts_of_depth_apart(bench: Bench) -> None:
    widest = replace(NARROW, scaling=Scaling(width=1.5))
    assert bench.plan(cut(widest, "depth")).key == bench.plan(cut(widest, "depth", "width")).key


def test_a_record_names_its_trunk_and_a_plan_is_made_again_from_it(bench: Bench) -> None:
    plan = bench.plan(cut(NARROW))
    again = Planner(replace(bench.session, space=replace(bench.session.space, axes=())))
    assert again.plan_spec(plan.spec, plan.candidate, cut_from=plan.cut_from) == plan
    assert again(plan.candidate).key != plan.key  # without the spec there is no knowing what it was cut from


# ---- training ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_several_widths_share_one_trunk_and_make_equal_updates(bench: Bench) -> None:
    found = [bench(cut(NARROW)), bench(cut(NARROW, width=1.0)), bench(replace(NARROW, scaling=Scaling(width=1.5)))]
    assert bench.made() == [6, 6, 6, 6]  # one trunk, three branches
    assert [shrunk.training.new_steps for shrunk in found] == [12, 6, 6]
    assert [shrunk.training.steps for shrunk in found] == [12, 12, 12]
    records = [
        TrialRecord(trial=0, key="", state="complete", candidate=NARROW, charged=True, training=shrunk.training)
        for shrunk in found
    ]
    assert [record.charge for record in records] == [1.0, 0.5, 0.5]

    again = bench(cut(NARROW))

    assert bench.made() == []
    assert again.training.weights_reused
    first, second = found[0].network.module.state_dict(), again.network.module.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_a_cut_network_has_its_spec_and_what_it_is_compared_with_made_as_many_updates(bench: Bench) -> None:
    pruned = replace(cut(NARROW), pruning=Pruning(channel_fraction=0.5))
    plan = bench.plan(pruned)
    dense = bench(cut(NARROW))
    half = bench(pruned)

    assert bench.made() == [6, 6, 6]
    shape = [layer.weight.shape[0] for layer in dense.network.module.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert max(shape) == plan.spec.stages[-1].channels
    assert half.dense_score == dense.training.float_score  # unpruned, cut as this one, after as many updates
    assert dense.training.steps == half.training.steps
    weights = half.dense.module.state_dict()
    assert {name: each.shape for name, each in weights.items()} == {
        name: each.shape for name, each in dense.network.module.state_dict().items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [pytest.param("adamw", marks=pytest.mark.slow), "muon"])
@pytest.mark.parametrize("names", [("width",), ("width", "depth", "kernel")], ids=["width", "all"])
def test_weights_and_momentum_are_those_of_the_entries_that_stay(
    bench: Bench, optimizer: Any, names: tuple[str, ...]
) -> None:
    """Every weight at the beginning of the branch is a weight of the trunk, and its moments are that weight's own."""
    candidate = cut(replace(NARROW, recipe=replace(RECIPE, optimizer=optimizer)), *names)
    bench(candidate)
    trunk, branch = bench.calls
    plan = bench.plan(candidate)
    _, end = _stored_trunk(bench, plan)
    kept, before = branch["start"].moments, trunk["state"].moments
    parameters = [name for name in branch["weights"] if "running" not in name and "num_batches" not in name]
    assert set(kept) == set(parameters)  # nothing starts anew
    looked_at = 0
    for name in parameters:
        weight = branch["weights"][name]
        sources = [other for other in end if _kin(name, other) and _holds(end[other], weight)]
        assert sources, name
        for kind, moment in kept[name].items():
            if not moment.ndim:
                assert moment == before[sources[0]][kind]
                continue
            assert any(_pairs(end[other], before[other][kind]) >= _pairs(weight, moment) for other in sources), name
            looked_at += moment.numel()
    assert looked_at > 1000


def _stored_trunk(bench: Bench, plan: Plan) -> tuple[Any, dict[str, torch.Tensor]]:
    import safetensors.torch

    (path,) = (bench.session.folder / "weights").glob(f"{plan.trunk_key}-*.safetensors")
    held = safetensors.torch.load_file(path)
    return path, {name: tensor for name, tensor in held.items() if not name.startswith("state:")}


def _kin(name: str, other: str) -> bool:
    """Blocks of a stage move up where one is left out; everything else keeps its name."""
    ours, theirs = name.split("."), other.split(".")
    return len(ours) == len(theirs) and all(
        one == two or (place == 2 and ours[0] == "stages")
        for place, (one, two) in enumerate(zip(ours, theirs, strict=True))
    )


def _holds(whole: torch.Tensor, part: torch.Tensor) -> bool:
    return set(part.flatten().tolist()) <= set(whole.flatten().tolist())


def _pairs(weights: torch.Tensor, moments: torch.Tensor) -> set[tuple[float, float]]:
    return set(zip(weights.flatten().tolist(), moments.flatten().tolist(), strict=True))
