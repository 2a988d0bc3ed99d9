"""What is timed for the predicted time: real networks, and giants are not built for it."""

import pytest

from scalesearch.chain.planner import PlanBasis, Planner
from scalesearch.config import parse_space
from scalesearch.deployment.targets import get_target
from scalesearch.networks import base_spec
from scalesearch.spaces.suggest import random_candidates
from scalesearch.study import pieces
from scalesearch.study.pieces import Pieces, measure_pieces
from scalesearch.tasks.registry import get_task
from scalesearch.values.plan import Plan
from scalesearch.values.settings import Machine, MachineSettings

PIECES = Pieces(steps=((1_000_000, 0.1), (3_000_000, 0.3)), export_s=1.0, quantize_s=0.5, image_s_per_mac=1e-10)


def made(**sections: object) -> tuple[Plan, ...]:
    document = {"network": "resnet_small", "resolution_px": 16, "scaling": {"width": [0.5, 1.0, 1.5, 2.0]}, **sections}
    space = parse_space(document, name="tiny", origin="tiny.toml")
    basis = PlanBasis(base=base_spec("resnet_small"), space=space, target=get_target("cpu"), num_classes=5, seed=0)
    return tuple(map(Planner(basis), random_candidates(space, 6, 0)))


def test_a_step_is_read_off_lines_between_what_was_timed() -> None:
    assert PIECES.step_s(2_000_000) == pytest.approx(0.2)
    assert PIECES.step_s(500_000) == pytest.approx(0.1)  # what a step costs besides its MACs stays
    assert PIECES.step_s(6_000_000) == pytest.approx(0.6)


@pytest.mark.slow
def test_pieces_are_timed_on_real_networks() -> None:
    plans = made(training={"steps": 5, "batch_size": 4})
    found = measure_pieces(plans, task="classification", settings=MachineSettings(threads=1, bf16="off"))
    assert found.export_s > 0 and found.quantize_s > 0 and found.image_s_per_mac > 0
    assert [macs for macs, _ in found.steps] == sorted(macs for macs, _ in found.steps)
    assert all(seconds > 0 for _, seconds in found.steps)


@pytest.mark.slow
def test_steps_of_trunks_that_are_cut_are_timed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = {"width": [0.5, 1.0, 2.0], "width_by": "cut"}
    timed = list[int]()

    def step_s(plan: Plan, *_: object) -> float:
        timed.append(plan.dense_cost.macs)
        return 1.0

    monkeypatch.setattr(pieces, "_step_s", step_s)
    monkeypatch.setattr(pieces, "_file_pieces", lambda *_: (1.0, 1.0, 1.0))
    plans = [plan for plan in made(scaling=scaling) if plan.cut_from]
    assert plans

    measure_pieces(plans, task="classification", settings=MachineSettings(threads=1, bf16="off"))

    (widest,) = {plan.begun[1].macs for plan in plans}
    assert max(timed) == widest > max(plan.dense_cost.macs for plan in plans)


def test_dear_steps_are_timed_with_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = made(training={"batch_size": 4096})
    batches = list[int]()

    def timed(_: object, __: object, ___: object, batch: int) -> float:
        batches.append(batch)
        return 0.5 + 0.01 * batch  # half a second whatever the batch: the optimizer's work

    monkeypatch.setattr(pieces, "_timed_step_s", timed)
    step_s = pieces._step_s(plans[0], measured_machine(), get_task("classification"))
    assert max(batches) < 4096
    assert step_s == pytest.approx(0.5 + 0.01 * 4096)


def measured_machine() -> Machine:
    return Machine(device="cpu", threads=1, bf16=False, channels_last=True)
