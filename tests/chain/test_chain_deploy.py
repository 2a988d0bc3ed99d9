"""From a plan to the deployed file, with updates that simulate its rounding."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from parent_studies import colours, opened

from scalesearch.chain import deploy
from scalesearch.chain.deploy import Deployed, Deployer
from scalesearch.chain.planner import Planner
from scalesearch.chain.stages import StageClock
from scalesearch.compression.qat import quantization_aware
from scalesearch.compression.simulation import layer_weights
from scalesearch.data import LABEL_SOURCES
from scalesearch.data.finding import load_study_data
from scalesearch.deployment.onnx_file import read_onnx
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.tasks.classification.pieces import build
from scalesearch.tasks.classification.task import TASK
from scalesearch.values.candidate import Candidate, Pruning, Quantization, Recipe, ScheduleName
from scalesearch.values.session import Session
from scalesearch.values.settings import Machine, MachineSettings

SPACE = {"network": "resnet_small", "resolution_px": 16, "scaling": {"width": [0.5]}}
RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=0.01,
    steps=20,
    retrain_steps=6,
    branch_fraction=0.5,
    warmup_steps=4,
    batch_size=16,
)
AWARE = Quantization(precision="int8", qat_steps=8, calibration_images=16)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, stand_in_reference: None) -> Session:
    folder = tmp_path_factory.mktemp("deploy")
    colours(folder / "colours.npz", 3, seed=0)
    return opened(folder / "study", folder / "colours.npz", space=SPACE)


def deployed(session: Session, candidate: Candidate, to: Path) -> Deployed:
    deployer = Deployer(session, TASK, DeviceLock("cpu", folder=session.folder), exports=None)
    return deployer(Planner(session)(candidate), load_study_data(session, LABEL_SOURCES).at(16), to, StageClock())


@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_the_deployed_file_has_the_zeros_of_sparsity_after_updates_with_rounding(
    session: Session, tmp_path: Path, schedule: ScheduleName
) -> None:
    pruning = Pruning(sparsity="unstructured", sparse_fraction=0.5)
    candidate = Candidate(recipe=replace(RECIPE, schedule=schedule), pruning=pruning, quantization=AWARE)
    work = deployed(replace(session, folder=tmp_path), candidate, tmp_path / "model.onnx")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in read_onnx(work.model.path).graph.initializer}
    zeros = weights = 0
    for name, tensor in work.shrunk.network.module.state_dict().items():
        if tensor.ndim == 4:
            zero = (tensor == 0).numpy()
            assert not stored[f"{name}_quantized"][zero].any()
            zeros, weights = zeros + int(zero.sum()), weights + zero.size
    assert zeros / weights == pytest.approx(0.5, abs=0.001)


def test_ranges_may_come_of_a_single_image(session: Session, tmp_path: Path) -> None:
    """The exported file is compared on several all the same."""
    single = Quantization(precision="int8", calibration_images=1)
    work = deployed(
        replace(session, folder=tmp_path), Candidate(recipe=RECIPE, quantization=single), tmp_path / "m.onnx"
    )
    assert any(node.op_type == "QuantizeLinear" for node in read_onnx(work.model.path).graph.node)


def test_updates_with_rounding_leave_those_layers_in_float_that_are_deployed_so(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped: list[frozenset[str]] = []

    def spied(*given: Any, **more: Any) -> Any:
        skipped.append(more["skip"])
        return quantization_aware(*given, **more)

    monkeypatch.setattr(deploy, "quantization_aware", spied)
    candidate = Candidate(recipe=RECIPE, quantization=replace(AWARE, keep_float=3))
    work = deployed(replace(session, folder=tmp_path), candidate, tmp_path / "model.onnx")
    stored = {tensor.name for tensor in read_onnx(work.model.path).graph.initializer}
    weights = layer_weights(work.shrunk.network.module)
    (skip,) = skipped
    assert len(skip) == 3 and skip == {name for name in weights if f"{name}_quantized" not in stored}
    assert not list(tmp_path.glob("*.ranked.onnx"))


@pytest.mark.parametrize("pruning", [Pruning(), Pruning(channel_fraction=0.5)])
def test_the_score_without_updates_with_rounding_is_that_of_the_trial_that_made_none(
    session: Session, tmp_path: Path, pruning: Pruning
) -> None:
    here = replace(session, folder=tmp_path)
    deployer, plan = Deployer(here, TASK, DeviceLock("cpu", folder=tmp_path), exports=None), Planner(here)
    aware = Candidate(recipe=RECIPE, pruning=pruning, quantization=AWARE)
    deployed(here, aware, tmp_path / "aware.onnx")
    assert deployer.float_score(plan(aware)) is None
    plain = deployed(here, Candidate(recipe=RECIPE, pruning=pruning), tmp_path / "plain.onnx")
    assert deployer.float_score(plan(aware)) == plain.training.float_score
    assert deployer.float_score(plan(replace(aware, recipe=replace(RECIPE, schedule="cosine")))) is None


@pytest.mark.parametrize(("asked", "threads"), [(0, 3), (2, 2)])
def test_updates_with_rounding_use_the_free_cores_beside_a_gpu(
    session: Session, monkeypatch: pytest.MonkeyPatch, asked: int, threads: int
) -> None:
    """Of six cores, each of two workers has three; what the user says holds."""
    monkeypatch.setattr("scalesearch.training.machine.usable_cores", lambda: 6)
    monkeypatch.setattr(deploy, "quantization_aware", lambda *_, **__: torch.get_num_threads())
    settings = replace(session.settings, workers=2, machine=MachineSettings(threads=asked, device="cuda"))
    machine = Machine(device="cuda", threads=asked or 1, bf16=False, channels_last=True)
    beside = replace(session, settings=settings, machine=machine)
    plan = Planner(beside)(Candidate(recipe=RECIPE, quantization=AWARE))
    deployer = Deployer(beside, TASK, DeviceLock("cpu", folder=session.folder), exports=None)
    data, images = load_study_data(session, LABEL_SOURCES).at(16), np.zeros((1, 3, 16, 16), np.float32)
    used: Any = deployer._quantization_aware(build(plan.spec), plan, data, images)
    assert used == threads


@pytest.mark.parametrize(
    ("schedule", "steps", "new"),
    [("wsd", 20, (20, 8, 10)), ("cosine", 20, (28, 8, 14))],
)
def test_updates_with_rounding_are_new_ones_and_weights_are_reused_without_them(
    session: Session, tmp_path: Path, schedule: ScheduleName, steps: int, new: tuple[int, int, int]
) -> None:
    """With `wsd` they are 8 of the branch's 10; with `cosine` they are beside the 20, and the 6 after a cut."""
    here = replace(session, folder=tmp_path)
    dense = Candidate(recipe=replace(RECIPE, schedule=schedule), quantization=AWARE)
    first = deployed(here, dense, tmp_path / "first.onnx").training
    again = deployed(here, dense, tmp_path / "again.onnx").training
    cut = deployed(here, replace(dense, pruning=Pruning(channel_fraction=0.5)), tmp_path / "cut.onnx").training
    assert first.steps == again.steps == steps
    assert cut.steps == steps + (6 if schedule == "cosine" else 0)
    assert (first.new_steps, again.new_steps, cut.new_steps) == new
    assert not (first.weights_reused or again.weights_reused or cut.weights_reused)
