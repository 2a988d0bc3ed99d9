from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from scalesearch.tasks.classification.views import ClassificationViews
from scalesearch.values.record import FrontScore, MeasuredTrial, TrialRecord
from scalesearch.views.columns import SHAPE
from scalesearch.views.description import describe
from scalesearch.views.words import shape_text

MakeRecord = Callable[..., MeasuredTrial]
CUT, PRECISION = "the same trunk, but another cut", "the same network in another precision"


def _text(record: TrialRecord, score: FrontScore | None = None) -> dict[str, dict[str, str]]:
    told = describe(record, score, task_sections=ClassificationViews().sections(record))
    return {section.title: dict(section.lines) for section in told}


def test_every_part_of_a_complete_trial_is_told(make_record: MakeRecord) -> None:
    page = _text(make_record(3, top1=0.8, p50_ms=1.5, precision="int8", warnings=("pruned less than asked",)))
    assert list(page) == [
        "Result",
        "What was asked",
        "What it became",
        "Training",
        "Latency",
        "Quality of the deployed file",
        "What compression brought",
        "Weakest classes",
        "Time",
        "Warnings",
    ]
    assert page["Result"]["top-1, %"] == "80.0 (78.0-82.0), 95 % interval"
    assert page["What was asked"]["precision"] == "int8, percentile 99.99 over 128 images"
    assert page["What it became"]["stage 2"] == "3 x basic, 48 channels, 3x3, stride 2"
    assert page["What it became"]["MACs"] == "20 M, 31 M before pruning"
    way = "torch 81.0 % -> ONNX fp32 81.0 % -> engine 80.0 %, -1.0 points"
    assert page["Quality of the deployed file"]["way to the engine"] == way
    assert page["What compression brought"] == {
        "channels 25 %": "1.20x as fast (1.10-1.30), top-1 -2.0 points",
        "int8": "0.95x as fast (0.90-1.00), top-1 -1.0 points, "
        "NO GAIN: not faster beyond doubt, and no accuracy was gained",
    }
    assert list(page["Weakest classes"]) == ["speed 30", "priority", "yield", "stop"], "lowest recall first"
    assert page["Time"]["together"] == "14.0 s"


def test_a_step_whose_accuracy_was_not_compared_is_not_said_to_cost_any(make_record: MakeRecord) -> None:
    record = make_record(3, precision="int8")
    unknown = tuple(replace(gain, speedup_low=0.9, score_change=None) for gain in record.gains)
    for text in _text(replace(record, gains=unknown))["What compression brought"].values():
        assert "not compared" in text
        assert text.endswith("NO GAIN: not faster beyond doubt")


def test_a_trial_that_was_cut_from_a_larger_trunk_tells_of_it(make_record: MakeRecord) -> None:
    record = make_record(3)
    scaling = replace(record.candidate.scaling, width_by="cut", kernel_by="cut")
    first, last = record.spec.stages
    wide = replace(record.spec, stages=(replace(first, channels=40, kernel=5), last))
    cut = replace(record, cut_from=wide, candidate=replace(record.candidate, scaling=scaling))

    page = _text(cut)

    assert page["What was asked"]["by a cut"] == "width, kernel, where it is below the largest of the space"
    begun = "the trunk of a network of larger width and kernel: stem 16, 2 x 40 (5x5), 3 x 48 (3x3)"
    assert page["What it became"]["begun as"] == begun
    assert page["Training"]["time"].endswith("after the cut")
    assert shape_text(cut) == f"{shape_text(record)}, cut"
    assert SHAPE.cell(cut) == shape_text(cut)


def test_a_failed_trial_tells_its_reason_and_nothing_that_it_never_reached(make_record: MakeRecord) -> None:
    page = _text(make_record(3, top1=None))
    assert page["Result"]["verdict"] == "failed: train: loss is not finite"
    assert not {"Training", "Latency", "Quality of the deployed file", "Weakest classes"} & set(page)


def test_an_unstable_latency_and_a_repeat_are_said(make_record: MakeRecord) -> None:
    record = make_record(0, same_as=4, state="cached")
    assert record.latency is not None
    page = _text(replace(record, latency=replace(record.latency, stable=False)))
    assert "NOT STABLE" in page["Latency"]["p50, ms"]
    assert page["Result"]["answered from"].startswith("trial 4:")


def test_the_last_look_is_told(make_record: MakeRecord) -> None:
    record = make_record(0, top1=0.7)
    assert record.quality and record.latency
    page = _text(record, FrontScore(trial=0, test=record.quality, latency=record.latency))
    assert page["Looked at again after the search"]["test top-1, %"].startswith("70.0 (68.0-72.0) on 1000")


def test_the_teachers_share_is_told_where_there_is_one(make_record: MakeRecord) -> None:
    record = make_record(3)
    assert "distillation" not in _text(record)["Training"]
    recipe = replace(record.candidate.recipe, distill_weight=0.25, distill_temperature=2.0)
    taught = replace(record, candidate=replace(record.candidate, recipe=recipe))
    assert _text(taught)["Training"]["distillation"] == "25 % of the loss by the parent's answers, at temperature 2"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"other_cut": True, "charged": True}, ("branch of", CUT)),
        ({"other_cut": True, "top1": None}, ("branch of", CUT)),
        ({"other_cut": False}, ("sibling of", PRECISION)),
        # Records of earlier versions.
        ({"charged": True}, ("branch of", CUT)),
        ({}, ("sibling of", PRECISION)),
        ({"top1": None}, ("branch or sibling of", f"{CUT}, or {PRECISION}")),
    ],
)
def test_a_branch_is_told_from_a_sibling(
    changes: dict[str, Any], told: tuple[str, str], make_record: MakeRecord
) -> None:
    record = make_record(3, **{"sibling_of": 1, "charged": False, **changes})
    assert (told[0], f"trial 1: {told[1]}") in _text(record)["Result"].items()


def test_what_of_a_full_training_was_charged_is_told(make_record: MakeRecord) -> None:
    def charged(steps: int, new_steps: int) -> str:
        record = make_record(3)
        recipe = replace(record.candidate.recipe, steps=steps)
        training = replace(record.training, steps=steps, new_steps=new_steps)
        record = replace(record, candidate=replace(record.candidate, recipe=recipe), training=training, charged=True)
        return next(
            value
            for part in _text(replace(record, full_updates=400)).values()
            for name, value in part.items()
            if name == "charged"
        )

    assert charged(100, 100) == "yes: 25 % of a full training"
    assert charged(200, 150) == "yes: 38 % of a full training, a part of it was there"
    assert charged(400, 300) == "yes: 75 % of a full training, the rest was there"
    assert charged(400, 400) == "yes: its training was started"
