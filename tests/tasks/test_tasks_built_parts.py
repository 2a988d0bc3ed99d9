"""What is told of a network's layers is what its task builds of the spec: by `show`, notes and model cards."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from toy_task.task import ToyTask

from scalesearch.cli import study_commands
from scalesearch.cli.screen import wide_console
from scalesearch.export.model_card import write_model_card
from scalesearch.networks import BASES
from scalesearch.networks.build import outline
from scalesearch.records.run_file import write_run_file
from scalesearch.tasks.base import CardParts, built_parts
from scalesearch.tasks.registry import get_task, parts_of, views_of
from scalesearch.values.network_spec import NetworkSpec, StageSpec
from scalesearch.values.quality import Quality
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.session import Session
from scalesearch.views.description import describe
from scalesearch.views.layer_table import BuiltParts
from scalesearch.views.trial_card import trial_note

MakeRecord = Callable[..., MeasuredTrial]
METRICS = {"classification": "top1", "detection": "map50_95", "segmentation": "miou"}
HEAD = "1x1 convolution to 640 channels"


def deep_spec() -> NetworkSpec:
    """Return a network with a head and a last stage at a stride of 64, which a detector does not read."""
    base = BASES["mobilenet_small"]()
    assert base.total_stride == 8
    stages = [
        StageSpec(block="inverted_residual", depth=2, channels=channels, kernel=3, stride=2, expansion=6)
        for channels in (160, 176, 200)
    ]
    head = replace(base.head, channels=640)
    return replace(base, stages=(*base.stages, *stages), head=head, resolution_px=64, width_px=128, num_classes=4)


def made(make_record: MakeRecord, task: str) -> MeasuredTrial:
    quality = Quality(score=0.5, score_low=0.4, score_high=0.6, images=100, metric=METRICS[task])
    spec = deep_spec()
    wider = replace(spec, stages=tuple(replace(stage, depth=3) for stage in spec.stages))
    return make_record(3, quality=quality, spec=spec, cut_from=wider)


@pytest.mark.parametrize("task", METRICS)
def test_the_parts_that_are_told_are_those_of_the_module(task: str, make_record: MakeRecord) -> None:
    spec = deep_spec()
    module = outline(spec, get_task(task).make_module).module
    names = dict(module.named_children())
    parts = BuiltParts(stages=len(list(names["stages"].children())), classifier="head" in names)
    assert parts.stages == len(spec.stages) - (task == "detection")
    assert parts.classifier == (task == "classification")
    assert built_parts(get_task(task).views(), spec) == parts
    assert parts_of(made(make_record, task)) == parts
    failed: TrialRecord = make_record(3, top1=None, spec=spec)
    assert views_of(failed) is None
    assert parts_of(failed, task) == parts
    assert parts_of(failed) is None
    assert parts_of(failed, "a task of a package that is gone") is None


def test_a_task_whose_views_do_not_say_has_its_own_layers_after_all_stages() -> None:
    spec = deep_spec()
    assert built_parts(ToyTask().views(), spec) == BuiltParts(stages=len(spec.stages), classifier=False)


@pytest.mark.parametrize("task", METRICS)
def test_show_note_and_card_tell_only_layers_that_are_there(
    task: str, make_record: MakeRecord, session: Session
) -> None:
    record = made(make_record, task)
    parts = parts_of(record)
    assert parts is not None
    stages, last = len(record.spec.stages), "200 channels"
    built = stages - (task == "detection")

    told = {label: text for each in describe(record, parts=parts) for label, text in each.lines}
    assert [label for label in told if re.fullmatch(r"stage \d+", label)] == [f"stage {n + 1}" for n in range(built)]
    assert told.get("head") == (HEAD if task == "classification" else None)
    assert (last in " ".join(told.values())) == (task != "detection")
    assert told["begun as"].count(" x ") == built

    rows = [line.split("|")[1].strip(" \u00a0") for line in trial_note(record, parts=parts).splitlines() if "|" in line]
    assert str(built) in rows and (str(stages) in rows) == (built == stages)
    assert ("head" in rows, "classes" in rows) == (task == "classification",) * 2

    words = CardParts(noun="A network", answers="numbers", script="answers")
    card = write_model_card(record, session, session.folder, card=words, parts=parts).read_text(encoding="utf-8")
    assert ("| head | 1x1 | 1 | 640 |" in card) == (task == "classification")
    assert ("| 200 | 2 |" in card) == (task != "detection")
    assert card.count("inverted residual |") == built


def test_a_trial_without_a_score_is_shown_by_the_studys_task(
    make_record: MakeRecord, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    failed: TrialRecord = make_record(3, top1=None, spec=deep_spec())
    for task, told in (("classification", True), ("detection", False)):
        write_run_file(replace(session, settings=replace(session.settings, task=task)))
        study_commands._print_trial(wide_console(), failed, session.folder)
        shown = capsys.readouterr().out
        assert (HEAD in shown) == told
        assert (f"stage {len(deep_spec().stages)} " in shown) == told
    (session.folder / "run.toml").write_text("damaged")
    study_commands._print_trial(wide_console(), failed, session.folder)
    assert HEAD in capsys.readouterr().out
