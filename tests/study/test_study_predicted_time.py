"""The predicted time: its parts add up."""

from dataclasses import replace

import pytest

from scalesearch.analysis.belief import at_length
from scalesearch.chain.planner import PlanBasis, Planner
from scalesearch.config import parse_space
from scalesearch.deployment.targets import get_target
from scalesearch.networks import base_spec
from scalesearch.spaces.suggest import random_candidates
from scalesearch.study.pieces import Pieces
from scalesearch.study.predicted_time import PlannedRun, candidates_of, distinct_trainings, predict
from scalesearch.values.plan import Plan
from scalesearch.values.settings import MachineSettings, RunSettings
from scalesearch.values.space import SearchSpace

PIECES = Pieces(steps=((1_000_000, 0.1), (3_000_000, 0.3)), export_s=1.0, quantize_s=0.5, image_s_per_mac=1e-10)
SETTINGS = RunSettings(machine=MachineSettings(threads=1, bf16="off"), budget=10)


def made(**sections: object) -> tuple[SearchSpace, tuple[Plan, ...]]:
    document = {"network": "resnet_small", "resolution_px": 16, "scaling": {"width": [0.5, 1.0, 1.5, 2.0]}, **sections}
    space = parse_space(document, name="tiny", origin="tiny.toml")
    target = get_target("cpu")
    basis = PlanBasis(base=base_spec("resnet_small"), space=space, target=target, num_classes=5, seed=0)
    return space, tuple(map(Planner(basis), random_candidates(space, 6, 0)))


def planned(settings: RunSettings, space: SearchSpace) -> PlannedRun:
    return PlannedRun(settings=settings, space=space, backend="onnxruntime")


def test_training_takes_its_steps_and_every_candidate_adds_its_own() -> None:
    lean = replace(SETTINGS, siblings=False, twins=False)
    space, plans = made(scaling={"width": {"low": 0.5, "high": 2.0}}, training={"steps": 100})
    expected = [100 * PIECES.step_s(plan.dense_cost.macs) for plan in plans]
    found = predict(planned(lean, space), plans, PIECES)
    assert found.training_s == pytest.approx(sum(expected) / len(expected))
    more = predict(planned(replace(lean, budget=20), space), plans, PIECES)
    assert found.trained == (10, 10) and more.trained == (20, 20)
    assert more.low_s > found.low_s and more.high_s > found.high_s > found.low_s


def test_siblings_and_twins_take_time_and_workers_save_some() -> None:
    space, plans = made(quantization={"precision": ["fp32", "int8"]}, pruning={"channel_fraction": [0.0, 0.5]})
    lean = predict(planned(replace(SETTINGS, siblings=False, twins=False), space), plans, PIECES)
    twins = predict(planned(replace(SETTINGS, siblings=False), space), plans, PIECES)
    whole = predict(planned(SETTINGS, space), plans, PIECES)
    shared = predict(planned(replace(SETTINGS, workers=2), space), plans, PIECES)
    assert lean.high_s < twins.high_s < whole.high_s
    assert lean.low_s < twins.low_s < whole.low_s
    assert shared.low_s < whole.low_s


def test_a_space_that_is_used_up_ends_the_run_sooner() -> None:
    space, plans = made(quantization={"precision": ["fp32", "int8"]})
    assert distinct_trainings(space) == 4  # precision costs no training
    assert predict(planned(SETTINGS, space), plans, PIECES).trained == (4, 4)


@pytest.mark.parametrize(
    ("quantization", "trainings"),
    [
        ({"precision": ["fp32", "int8"], "qat_steps": [0, 2, 4], "calibration": ["minmax", "mse"]}, 4 * (1 + 2 * 2)),
        ({"precision": ["int8"], "qat_steps": 4, "bias_correction": [True, False]}, 4),
        ({"precision": ["int8"], "qat_steps": {"low": 0, "high": 4, "step": 2}}, 4 * (1 + 2)),
        ({"precision": ["fp32", "fp16"], "qat_steps": [0, 4], "calibration": ["minmax", "mse"]}, 4),
        ({"precision": ["fp32", "int8"], "qat_steps": 0, "calibration": ["minmax", "mse"]}, 4),
    ],
)
def test_every_way_to_simulate_rounding_is_a_training(quantization: dict[str, object], trainings: int) -> None:
    space, plans = made(quantization=quantization, training={"steps": 30})
    assert distinct_trainings(space) == trainings
    found = predict(planned(replace(SETTINGS, budget=3 * trainings), space), plans, PIECES)
    assert found.trained[0] == trainings


def test_candidates_that_share_a_trunk_are_more_than_the_budget_has_full_trainings() -> None:
    """Of n networks, cut from one, the first trains the trunk: together they are 1 + (n - 1) / 3 full trainings."""
    cuts = {"low": 0.0, "high": 0.9}
    space, plans = made(scaling={"width": [1.0]}, pruning={"channel_fraction": cuts}, training={"steps": 30})
    lean = replace(SETTINGS, siblings=False, twins=False)

    found = predict(planned(lean, space), plans, PIECES)

    networks = len({plan.shape_key for plan in plans})
    assert networks > 3
    assert found.trained == (10, int(10 * networks / (1 + (networks - 1) / 3)))


@pytest.mark.parametrize(
    ("training", "share"),
    [
        ({"steps": 30}, "0.33"),
        ({"steps": 30, "branch_fraction": 0.5}, "0.5"),
        ({"steps": 30, "branch_fraction": [0.5, 0.2]}, "0.2 to 0.5"),
        ({"steps": 30, "branch_fraction": {"low": 0.25, "high": 0.4}}, "0.25 to 0.4"),
        ({"steps": [30, 60]}, "0.33"),
        ({"steps": 30, "schedule": "cosine"}, ""),
    ],
)
def test_what_a_branch_of_a_stored_trunk_is_charged_is_said(training: dict[str, object], share: str) -> None:
    space, plans = made(training=training)
    words = predict(planned(replace(SETTINGS, sampler="growth"), space), plans, PIECES).words
    told = (
        f"a full training (a candidate whose trunk is stored is charged for its branch alone, {share} of its updates)"
    )
    assert f"{told if share else 'a full training'}, and" in words


def test_a_trunk_that_is_cut_takes_the_time_of_the_larger_network() -> None:
    lean = replace(SETTINGS, siblings=False, twins=False)
    scaling = {"width": {"low": 0.5, "high": 2.0}}
    space, plans = made(scaling={**scaling, "width_by": "cut"}, training={"steps": 100, "branch_fraction": 0.25})
    _, widest = made(scaling={"width": [2.0]}, training={"steps": 100})
    trunk_s = 75 * PIECES.step_s(widest[0].dense_cost.macs)
    branches_s = [25 * PIECES.step_s(plan.cost.macs) for plan in plans]

    found = predict(planned(lean, space), plans, PIECES)

    assert found.training_s == pytest.approx(trunk_s + sum(branches_s) / len(branches_s))
    networks = len({plan.shape_key for plan in plans})
    assert found.trained == (10, int(10 * networks / (1 + (networks - 1) / 4)))  # one trunk for all of them
    _, scratch = made(scaling=scaling, training={"steps": 100, "branch_fraction": 0.25})
    slower = predict(planned(lean, space), scratch, PIECES)
    assert found.training_s > slower.training_s


@pytest.mark.slow
def test_cuts_of_one_cosine_training_are_charged_with_their_retraining_alone() -> None:
    cosine = {"steps": 30, "retrain_steps": 10, "schedule": "cosine"}
    cuts = {"low": 0.2, "high": 0.9}
    space, plans = made(scaling={"width": [1.0]}, pruning={"channel_fraction": cuts}, training=cosine)
    networks = len({plan.shape_key for plan in plans})
    assert networks > 3
    assert predict(planned(SETTINGS, space), plans, PIECES).trained == (
        10,
        int(10 * networks / (1 + (networks - 1) / 4)),
    )
    _, dense = made(scaling={"width": [1.0]}, training=cosine)
    assert candidates_of((plans[0], dense[0]), planned(SETTINGS, space)) == (10, 20)  # its weights are there: free
    space, plans = made(training=cosine)
    assert predict(planned(SETTINGS, space), plans, PIECES).trained == (4, 4)  # widths share nothing


def test_a_parent_is_tuned_once_and_answers_each_size_of_the_training_images_where_it_teaches() -> None:
    settings = replace(SETTINGS, parent="export", parent_steps=50)
    space, plans = made(training={"batch_size": 10})
    alone = predict(planned(settings, space), plans, PIECES)
    tuned = predict(replace(planned(settings, space), parent_macs=2_000_000), plans, PIECES)
    assert tuned.low_s == pytest.approx(alone.low_s)  # it may know the classes
    assert tuned.high_s - alone.high_s == pytest.approx(1.25 * 50 * 0.2)

    sizes = {"width": [0.5, 1.0, 1.5, 2.0], "resolution": [0.5, 1.0]}
    space, plans = made(scaling=sizes, training={"batch_size": 10, "distill_weight": 0.5})
    alone = predict(planned(settings, space), plans, PIECES)
    taught = predict(replace(planned(settings, space), parent_macs=2_000_000, train_images=300), plans, PIECES)
    answers_s = len({plan.spec.input_size for plan in plans}) * 30 * 0.2 / 3
    assert len({plan.spec.input_size for plan in plans}) == 2
    assert taught.low_s - alone.low_s == pytest.approx(0.85 * answers_s)
    assert taught.high_s - alone.high_s == pytest.approx(1.25 * (50 * 0.2 + answers_s))


def test_the_network_that_decides_on_mirror_images_is_trained_once_before_all_others() -> None:
    settings = replace(SETTINGS, workers=2)
    space, plans = made(training={"steps": 100})
    alone = predict(planned(settings, space), plans, PIECES)
    judged = predict(replace(planned(settings, space), judge=plans[0]), plans, PIECES)
    seconds = 100 * PIECES.step_s(plans[0].dense_cost.macs)
    assert alone.before_s == (0.0, 0.0)
    assert judged.before_s == pytest.approx((0.85 * seconds, 1.25 * seconds))
    assert judged.low_s - alone.low_s == pytest.approx(0.85 * seconds)
    assert judged.high_s - alone.high_s == pytest.approx(1.25 * seconds)


def test_with_a_limit_on_latency_networks_may_be_timed_untrained_first() -> None:
    space, plans = made(limits={"max_latency_ms": 5.0})
    free, _ = made()
    limited, unlimited = (predict(planned(SETTINGS, each), plans, PIECES) for each in (space, free))
    assert limited.low_s == pytest.approx(unlimited.low_s)
    assert limited.high_s > unlimited.high_s


def test_trainings_of_unlike_lengths_are_few_in_full_or_many_short_ones() -> None:
    space, plans = made(training={"steps": [60, 240]}, scaling={"width": {"low": 0.5, "high": 2.0}})
    growth = replace(SETTINGS, sampler="growth")
    alike, _ = made(training={"steps": 240}, scaling={"width": {"low": 0.5, "high": 2.0}})
    in_full = tuple(replace(plan, candidate=at_length(plan.candidate, 240)) for plan in plans)
    found = predict(planned(growth, space), plans, PIECES)
    assert found.trained == (10, 40)
    assert found.training_s == pytest.approx(sum(240 * PIECES.step_s(plan.dense_cost.macs) for plan in plans) / 6)
    assert found.high_s > predict(planned(growth, alike), in_full, PIECES).high_s, "more exports and timings"
    # Two networks are two trainings, in however many lengths.
    two, plans_of_two = made(training={"steps": [60, 240]}, scaling={"width": [0.5, 1.0]}, pruning={})
    assert predict(planned(growth, two), plans_of_two, PIECES).trained == (2, 2)
    off = predict(planned(replace(growth, lengths="off"), space), plans, PIECES)
    assert off.trained == (10, 10)
