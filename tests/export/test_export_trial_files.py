"""The float network of a trial: its own weights, also where updates with simulated rounding followed them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from parent_studies import colours, opened

from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.chain.planner import Planner
from scalesearch.chain.shrink import Shrinker
from scalesearch.chain.stages import StageClock
from scalesearch.compression.fold import fold_batchnorm
from scalesearch.data import LABEL_SOURCES
from scalesearch.data.finding import load_study_data
from scalesearch.export.parts import write_weights
from scalesearch.export.trial_files import built_file, deployed_file
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.values.candidate import Candidate, Quantization, Recipe
from scalesearch.values.network import OnnxModel
from scalesearch.values.plan import Plan
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session

SPACE = {"network": "resnet_small", "resolution_px": 16, "scaling": {"width": [0.5]}}
RECIPE = Recipe(optimizer="adamw", learning_rate=0.01, steps=20, branch_fraction=0.5, warmup_steps=4, batch_size=16)
AWARE = Candidate(recipe=RECIPE, quantization=Quantization(precision="int8", qat_steps=4, calibration_images=16))


class Rebuilding:
    """An evaluator that only notes what it is to build."""

    def __init__(self) -> None:
        self.plans = list[Plan]()

    def rebuild(self, plan: Plan, *, to: Path) -> OnnxModel:
        self.plans.append(plan)
        return OnnxModel(path=to, sha256="0" * 64, size_bytes=1, input_shape=(1, 3, 16, 16))


def test_a_file_in_another_precision_is_planned_with_the_trials_own_weights(
    session: Session, make_record: Callable[..., MeasuredTrial], tmp_path: Path
) -> None:
    record, evaluator = make_record(0, candidate=AWARE), Rebuilding()
    own, there = Planner(session)(AWARE), evaluator.plans
    given: Any = evaluator
    deployed_file(record, session, tmp_path / "own.onnx", kept=False, evaluator=given)
    built_file(record, session, tmp_path / "fp32.onnx", quantization=Quantization(), evaluator=given)
    assert there[0] == own
    assert there[1] == replace(own, candidate=replace(AWARE, quantization=Quantization()))
    # The branch of a trial in fp32 is longer, and has weights of its own.
    other = Planner(session)(there[1].candidate)
    assert (other.trunk_key, other.branch_updates) == (own.trunk_key, own.branch_updates + 4)
    assert other.weights_key != own.weights_key


def test_a_lost_file_is_made_again_without_the_compilers_check(
    session: Session, make_record: Callable[..., MeasuredTrial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check may need a library that is not installed where the study is exported."""
    made = list[tuple[str, bool]]()

    class Evaluator(Rebuilding):
        def __init__(self, of: Session, *, measures: bool) -> None:
            super().__init__()
            made.append((of.settings.accept, measures))

    monkeypatch.setattr("scalesearch.chain.evaluate.TrialEvaluator", Evaluator)
    checked = replace(session, settings=replace(session.settings, accept="rtx"))
    deployed_file(make_record(0, candidate=AWARE), checked, tmp_path / "own.onnx", kept=False)
    assert made == [("off", False)]


def test_weights_before_updates_with_rounding_are_those_that_the_study_stores(
    make_record: Callable[..., MeasuredTrial], stand_in_reference: None, tmp_path: Path
) -> None:
    colours(tmp_path / "colours.npz", 3, seed=0)
    session = opened(tmp_path / "study", tmp_path / "colours.npz", space=SPACE)
    plan = Planner(session)(AWARE)
    model = TrialEvaluator(session, measures=False).rebuild(plan, to=tmp_path / "model.onnx")
    record = make_record(0, candidate=AWARE, spec=plan.spec, onnx_sha256=model.sha256)
    stored = sorted((session.folder / "weights").iterdir())

    assert write_weights(record, session, model, tmp_path) == ()

    assert sorted((session.folder / "weights").iterdir()) == stored, "nothing was trained"
    shrinker = Shrinker(session, DeviceLock("cpu", folder=session.folder))
    branch = shrinker(plan, load_study_data(session, LABEL_SOURCES).at(16), StageClock())
    assert branch.training.weights_reused
    written = safetensors.numpy.load_file(tmp_path / "weights.safetensors")
    folded = fold_batchnorm(branch.network).module.state_dict()
    assert written.keys() == folded.keys()
    for name, tensor in folded.items():
        np.testing.assert_array_equal(written[name], tensor.numpy())
