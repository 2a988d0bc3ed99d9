"""One trunk, many branches: equal updates for all, nothing trained twice, and longer trainings that go on."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parent_studies import colours, opened

from scalesearch.chain import deploy
from scalesearch.chain.cutter import Cutter
from scalesearch.chain.deploy import Deployer
from scalesearch.chain.examples import tensors
from scalesearch.chain.one_trainer import OneTrainer
from scalesearch.chain.planner import Planner
from scalesearch.chain.shrink import Shrinker, Shrunk
from scalesearch.chain.stages import StageClock
from scalesearch.compression.fold import fold_batchnorm
from scalesearch.data import LABEL_SOURCES, Dataset, to_input
from scalesearch.data.finding import load_study_data
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.tasks.classification.pieces import build, train
from scalesearch.tasks.classification.task import TASK
from scalesearch.training import train as training
from scalesearch.training.losses import focal
from scalesearch.training.schedule import rates
from scalesearch.values.candidate import Candidate, Pruning, Quantization, Recipe, Scaling, ScheduleName
from scalesearch.values.identity import seed_from
from scalesearch.values.network import Network
from scalesearch.values.session import Session

SPACE = {"network": "resnet_small", "resolution_px": 16, "scaling": {"width": [0.5], "depth": [2.0]}}
RECIPE = Recipe(optimizer="adamw", learning_rate=0.01, steps=30, branch_fraction=0.4, warmup_steps=4, batch_size=16)
DENSE = Candidate(scaling=Scaling(depth=2), recipe=RECIPE)
HALF = replace(DENSE, pruning=Pruning(channel_fraction=0.5))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, stand_in_reference: None) -> Session:
    folder = tmp_path_factory.mktemp("shrink")
    colours(folder / "colours.npz", 3, seed=0)
    return opened(folder / "study", folder / "colours.npz", space=SPACE)


@dataclass
class Bench:
    """A shrinker with a folder of weights of its own; counts the updates that are really made."""

    session: Session
    updates: list[int]

    def __call__(self, candidate: Candidate) -> Shrunk:
        plan = Planner(self.session)(candidate)
        shrinker = Shrinker(self.session, DeviceLock("cpu", folder=self.session.folder))
        return shrinker(plan, self.data, StageClock())

    @property
    def data(self) -> Dataset:
        return load_study_data(self.session, LABEL_SOURCES).at(16)

    def made(self) -> int:
        """Return the number of updates since the last call."""
        total = sum(self.updates)
        self.updates.clear()
        return total


@pytest.fixture
def bench(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made: list[int] = []

    def counted(*arguments: object, **more: object) -> object:
        result = training.train(*arguments, **more)  # type: ignore[arg-type]
        made.append(result.steps)
        return result

    monkeypatch.setattr("scalesearch.chain.trainer.train", counted)
    return Bench(session=replace(session, folder=tmp_path), updates=made)


def weights(network: Network) -> dict[str, torch.Tensor]:
    return network.module.state_dict()


def equal(first: Network, second: Network) -> bool:
    ours, theirs = weights(first), weights(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_dense_and_cut_networks_make_equal_updates_and_share_their_trunk(bench: Bench) -> None:
    dense = bench(DENSE)
    assert bench.made() == 30
    half = bench(HALF)
    assert bench.made() == 12  # the branch alone
    blocks = bench(replace(DENSE, pruning=Pruning(block_fraction=0.5)))
    assert bench.made() == 12

    for shrunk in (dense, half, blocks):
        assert shrunk.training.steps == 30
        assert sum(curve.steps for curve in shrunk.training.loss_curves) == 30
    assert [shrunk.training.new_steps for shrunk in (dense, half, blocks)] == [30, 12, 12]
    assert half.dense_score == dense.training.float_score


@pytest.mark.slow
def test_a_cut_network_may_come_first(bench: Bench) -> None:
    half = bench(HALF)
    assert bench.made() == 30
    assert half.dense_score is None  # no candidate has trained the dense network's branch

    bench(DENSE)

    assert bench.made() == 12


@pytest.mark.slow
def test_two_workers_at_once_train_a_shared_trunk_once(bench: Bench) -> None:
    with ThreadPoolExecutor(2) as workers:
        dense, half = workers.map(bench, (DENSE, HALF))
    assert bench.made() == 30 + 12
    assert {dense.training.new_steps, half.training.new_steps} == {12, 30}
    assert not list((bench.session.folder / "weights").glob("*.lock"))


INT8 = Quantization(precision="int8")


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
@pytest.mark.parametrize("candidate", [DENSE, HALF])
def test_two_workers_at_once_train_a_network_once_for_both_precisions(
    bench: Bench, candidate: Candidate, schedule: ScheduleName
) -> None:
    candidate = replace(candidate, recipe=replace(RECIPE, schedule=schedule, retrain_steps=8))
    with ThreadPoolExecutor(2) as workers:
        one, other = workers.map(bench, (candidate, replace(candidate, quantization=INT8)))
    whole = 30 + 8 * (schedule == "cosine" and candidate.pruning.any)
    assert bench.made() == whole
    assert {one.training.new_steps, other.training.new_steps} == {0, whole}
    assert equal(one.network, other.network)
    assert not list((bench.session.folder / "weights").glob("*.lock"))


@pytest.mark.slow
def test_a_stored_trunk_is_used_while_another_worker_lengthens_it(bench: Bench) -> None:
    bench(DENSE)
    bench.made()
    plan = Planner(bench.session)(DENSE)
    folder = bench.session.folder
    other = OneTrainer(folder / "weights", DeviceLock("cpu", folder=folder))
    with ThreadPoolExecutor(1) as worker, other(plan.trunk_key, StageClock()):
        half = worker.submit(bench, HALF).result(timeout=60)
    assert half.training.new_steps == bench.made() == 12


@pytest.mark.slow
def test_the_dense_network_is_one_training_of_the_whole_schedule(bench: Bench) -> None:
    plan, data = Planner(bench.session)(DENSE), bench.data
    whole = train(
        build(plan.spec, dropout=RECIPE.dropout, seed=seed_from("init", plan.trunk_key)),
        *tensors(data.train),
        RECIPE,
        bench.session.machine,
        mean=data.mean,
        std=data.std,
        seed=seed_from("train", plan.trunk_key),
        rates=rates(RECIPE),
    )

    assert equal(bench(DENSE).network, whole.network)


@pytest.mark.slow
@pytest.mark.parametrize(
    "pruning",
    [
        Pruning(),
        pytest.param(Pruning(channel_fraction=0.5), marks=pytest.mark.slow),
        Pruning(channel_fraction=0.5, rounds=3, criterion="taylor"),
        pytest.param(Pruning(block_fraction=0.5, channel_fraction=0.25), marks=pytest.mark.slow),
        pytest.param(Pruning(sparsity="unstructured", sparse_fraction=0.5), marks=pytest.mark.slow),
    ],
    ids=["dense", "channels", "rounds", "blocks", "zeros"],
)
def test_what_is_stored_is_not_trained_again_and_is_the_same(bench: Bench, pruning: Pruning) -> None:
    candidate = replace(DENSE, pruning=pruning)
    first = bench(candidate)
    assert bench.made() == 30

    second = bench(candidate)

    assert bench.made() == 0
    assert second.training.weights_reused
    assert second.training.new_steps == 0
    assert second.training.steps == first.training.steps == 30
    assert equal(first.network, second.network)


def test_masked_weights_stay_zero_to_the_end_of_the_branch(bench: Bench) -> None:
    shrunk = bench(replace(DENSE, pruning=Pruning(sparsity="unstructured", sparse_fraction=0.5)))

    convolutions = [tensor for name, tensor in weights(shrunk.network).items() if tensor.ndim == 4]
    zeros = sum(int((tensor == 0).sum()) for tensor in convolutions)
    assert zeros / sum(tensor.numel() for tensor in convolutions) == pytest.approx(0.5, abs=0.001)


@pytest.mark.slow
def test_a_longer_training_goes_on_from_the_trunk_and_ends_as_if_it_had_not_stopped(
    bench: Bench, tmp_path: Path
) -> None:
    longer = replace(DENSE, recipe=replace(RECIPE, steps=50))
    bench(DENSE)
    bench.made()

    continued = bench(longer)

    assert bench.made() == 50 - 18  # the shorter trunk's updates were there
    assert continued.training.steps == 50
    assert continued.training.new_steps == 32
    apart = Bench(session=replace(bench.session, folder=tmp_path / "apart"), updates=bench.updates)
    assert equal(continued.network, apart(longer).network)
    assert bench.made() == 50


@pytest.mark.slow
def test_updates_with_simulated_rounding_are_taken_from_the_branch(bench: Bench) -> None:
    aware = replace(DENSE, quantization=Quantization(precision="int8", qat_steps=5))

    shrunk = bench(aware)

    assert shrunk.training.steps == 25  # the chain makes the other 5
    bench.made()
    bench(DENSE)
    assert bench.made() == 12  # the same trunk


@pytest.mark.parametrize("qat_steps", [12, 40])
def test_a_branch_without_a_float_update_is_refused_before_training(bench: Bench, qat_steps: int) -> None:
    asked = replace(DENSE, quantization=Quantization(precision="int8", qat_steps=qat_steps))

    assert "updates of the branch exceeded" in Planner(bench.session)(asked).rejected_because
    fewer = replace(DENSE, quantization=Quantization(precision="int8", qat_steps=11))
    assert not Planner(bench.session)(fewer).rejected_because


@pytest.mark.slow
def test_more_rounds_than_updates_still_end_at_the_asked_shape(bench: Bench) -> None:
    recipe = replace(RECIPE, steps=5)  # a branch of 2
    many = replace(HALF, recipe=recipe, pruning=Pruning(channel_fraction=0.5, rounds=4))

    shrunk = bench(many)

    assert shrunk.training.steps == 5
    assert (
        shrunk.network.module.get_parameter("stem.0.weight").shape
        == bench(replace(HALF, recipe=recipe)).network.module.get_parameter("stem.0.weight").shape
    )


def test_a_single_update_is_a_branch_without_a_trunk(bench: Bench) -> None:
    for pruning in (Pruning(), Pruning(channel_fraction=0.5)):
        shrunk = bench(Candidate(recipe=replace(RECIPE, steps=1), pruning=pruning))
        assert shrunk.training.steps == 1


@pytest.mark.parametrize("recipe", [replace(RECIPE, steps=1), replace(RECIPE, steps=2, branch_fraction=1.0)])
def test_the_dense_network_of_a_branch_without_a_trunk_can_be_exported(bench: Bench, recipe: Recipe) -> None:
    dense = bench(Candidate(recipe=recipe, pruning=Pruning(channel_fraction=0.5))).dense
    assert not dense.module.training
    fold_batchnorm(dense)  # it takes networks in eval mode alone; twins export this one


@pytest.mark.parametrize(
    ("recipe", "pruning"),
    [
        (replace(RECIPE, steps=1), Pruning()),
        (replace(RECIPE, steps=4, branch_fraction=1.0), Pruning(channel_fraction=0.5)),
        (replace(RECIPE, steps=5), Pruning(channel_fraction=0.5, rounds=4)),  # a branch of 2
        (replace(RECIPE, steps=4, schedule="cosine", retrain_steps=1), Pruning(channel_fraction=0.5, rounds=2)),
    ],
    ids=["one update", "no trunk", "rounds without updates", "cosine"],
)
def test_stored_weights_are_reused_where_a_part_of_the_training_has_no_update(
    bench: Bench, recipe: Recipe, pruning: Pruning
) -> None:
    candidate = Candidate(recipe=recipe, pruning=pruning)
    first = bench(candidate).training
    assert not first.weights_reused and first.new_steps == first.steps == bench.made()
    again = bench(candidate).training
    assert again.weights_reused and (again.new_steps, again.steps, bench.made()) == (0, first.steps, 0)


@pytest.mark.slow
def test_cosine_trains_to_its_end_and_once_more_after_the_cut(bench: Bench) -> None:
    recipe = replace(RECIPE, schedule="cosine", retrain_steps=6)

    shrunk = bench(replace(HALF, recipe=recipe))

    assert bench.made() == 36
    assert shrunk.training.steps == 36
    assert shrunk.dense_score is None  # the dense network made 30 updates, the cut one 36


def test_cosine_without_a_retraining_compares_a_cut_network_with_the_dense_one(bench: Bench) -> None:
    recipe = replace(RECIPE, steps=4, schedule="cosine", retrain_steps=0)
    dense = bench(replace(DENSE, recipe=recipe))
    half = bench(replace(HALF, recipe=recipe))
    assert half.training.steps == dense.training.steps == 4
    assert half.dense_score == dense.dense_score == dense.training.float_score


def test_a_cut_is_judged_by_the_loss_that_the_plan_trains_by(session: Session) -> None:
    plan = Planner(session)(replace(HALF, recipe=replace(RECIPE, loss="focal", label_smoothing=0.2)))
    data = load_study_data(session, LABEL_SOURCES).at(16)
    cutter = Cutter(plan, data, TASK, channel_multiple=8)
    network = build(plan.spec, seed=1)
    images = torch.from_numpy(to_input(data.calibration.images[:256], mean=data.mean, std=data.std))
    with torch.inference_mode():
        logits = network.module.eval()(images)
    wanted = float(focal(logits, data.calibration.targets[:256].tensor(), 0.0))
    assert cutter._loss(network) == pytest.approx(wanted, rel=1e-5)


def test_rounding_is_trained_by_the_loss_that_the_plan_trains_by(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Quantization(precision="int8", qat_steps=2)
    recipe = replace(RECIPE, loss="focal", label_smoothing=0.2)
    plan = Planner(session)(replace(DENSE, recipe=recipe, quantization=asked))
    monkeypatch.setattr(deploy, "quantization_aware", lambda _, __, lessons, **___: lessons)
    deployer = Deployer(session, TASK, DeviceLock("cpu", folder=session.folder), None)
    data, images = load_study_data(session, LABEL_SOURCES).at(16), np.zeros((1, 3, 16, 16), np.float32)
    lessons: Any = deployer._quantization_aware(build(plan.spec), plan, data, images)
    logits, labels = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 2])
    torch.testing.assert_close(lessons.loss(logits, labels), focal(logits, labels, 0.0))
