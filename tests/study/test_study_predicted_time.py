"""The predicted time: its parts add up, and giants are not built for it."""

from dataclasses import replace

import pytest

from scalesearch.chain.planner import PlanBasis, Planner
from scalesearch.config import parse_space
from scalesearch.deployment.targets import get_target
from scalesearch.networks import base_spec
from scalesearch.spaces.suggest import random_candidates
from scalesearch.study import predicted_time
from scalesearch.study.predicted_time import Pieces, distinct_trainings, measure_pieces, predict
from scalesearch.tasks.registry import get_task
from scalesearch.values.plan import Plan
from scalesearch.values.settings import Machine, MachineSettings, RunSettings
from scalesearch.values.space import SearchSpace

PIECES = Pieces(steps=((1_000_000, 0.1), (3_000_000, 0.3)), export_s=1.0, quantize_s=0.5, image_s_per_mac=1e-10)
SETTINGS = RunSettings(machine=MachineSettings(threads=1, bf16="off"), budget=10)


def made(**sections: object) -> tuple[SearchSpace, tuple[Plan, ...]]:
    document = {"network": "resnet_small", "resolution_px": 16, "scaling": {"width": [0.5, 1.0, 1.5, 2.0]}, **sections}
    space = parse_space(document, name="tiny", origin="tiny.toml")
    target = get_target("cpu")
    basis = PlanBasis(base=base_spec("resnet_small"), space=space, target=target, num_classes=5, seed=0)
    return space, tuple(map(Planner(basis), random_candidates(space, 6, 0)))


def test_a_step_is_read_off_lines_between_what_was_timed() -> None:
    assert PIECES.step_s(2_000_000) == pytest.approx(0.2)
    assert PIECES.step_s(500_000) == pytest.approx(0.1)  # what a step costs besides its MACs stays
    assert PIECES.step_s(6_000_000) == pytest.approx(0.6)


def test_training_takes_its_steps_and_every_candidate_adds_its_own() -> None:
    lean = replace(SETTINGS, siblings=False, twins=False)
    space, plans = made(scaling={"width": {"low": 0.5, "high": 2.0}}, training={"steps": 100})
    expected = [100 * PIECES.step_s(plan.dense_cost.macs) for plan in plans]
    found = predict(lean, space, "onnxruntime", plans, PIECES)
    assert found.training_s == pytest.approx(sum(expected) / len(expected))
    more = predict(replace(lean, budget=20), space, "onnxruntime", plans, PIECES)
    assert found.trained == 10 and more.trained == 20
    assert more.low_s > found.low_s and more.high_s > found.high_s > found.low_s


def test_siblings_and_twins_take_time_and_workers_save_some() -> None:
    space, plans = made(quantization={"precision": ["fp32", "int8"]}, pruning={"channel_fraction": [0.0, 0.5]})
    lean = predict(replace(SETTINGS, siblings=False, twins=False), space, "onnxruntime", plans, PIECES)
    twins = predict(replace(SETTINGS, siblings=False), space, "onnxruntime", plans, PIECES)
    whole = predict(SETTINGS, space, "onnxruntime", plans, PIECES)
    shared = predict(replace(SETTINGS, workers=2), space, "onnxruntime", plans, PIECES)
    assert lean.high_s < twins.high_s < whole.high_s
    assert lean.low_s < twins.low_s < whole.low_s
    assert shared.low_s < whole.low_s


def test_a_space_that_is_used_up_ends_the_run_sooner() -> None:
    space, plans = made(quantization={"precision": ["fp32", "int8"]})
    assert distinct_trainings(space) == 4  # precision costs no training
    assert predict(SETTINGS, space, "onnxruntime", plans, PIECES).trained == 4


def test_pieces_are_timed_on_real_networks() -> None:
    _, plans = made(training={"steps": 5, "batch_size": 4})
    pieces = measure_pieces(SETTINGS, plans)
    assert pieces.export_s > 0 and pieces.quantize_s > 0 and pieces.image_s_per_mac > 0
    assert [macs for macs, _ in pieces.steps] == sorted(macs for macs, _ in pieces.steps)
    assert all(seconds > 0 for _, seconds in pieces.steps)


def test_dear_steps_are_timed_with_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    _, plans = made(training={"batch_size": 4096})
    batches = list[int]()

    def timed(_: object, __: object, ___: object, batch: int) -> float:
        batches.append(batch)
        return 0.5 + 0.01 * batch  # half a second whatever the batch: the optimizer's work

    monkeypatch.setattr(predicted_time, "_timed_step_s", timed)
    step_s = predicted_time._step_s(plans[0], measured_machine(), get_task("classification"))
    assert max(batches) < 4096
    assert step_s == pytest.approx(0.5 + 0.01 * 4096)


def measured_machine() -> Machine:
    return Machine(device="cpu", threads=1, bf16=False, channels_last=True)
