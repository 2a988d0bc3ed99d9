"""What a run prints: one line per trial in a log, NDJSON on request, and the moving view of a terminal."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from scalesearch.cli.live import View, _LineView, _LiveView, view
from scalesearch.cli.run_lines import show_end, trial_line
from scalesearch.search.events import (
    Plateau,
    RunStarted,
    RunStopped,
    SamplerChanged,
    StageEntered,
    StudyOutcome,
    TrialFinished,
    TrialStarted,
)
from scalesearch.values.record import LimitUse, MeasuredTrial, StageTime
from scalesearch.values.settings import UNLIMITED_BUDGET

RecordFactory = Callable[..., MeasuredTrial]


def outcome(records: tuple[MeasuredTrial, ...]) -> StudyOutcome:
    front = tuple(record for record in records if record.feasible)
    return StudyOutcome(
        records=records, front=front, ended="budget", message="done", charged=len(records), wall_s=3.0, search_s=0.1
    )


def events(record: MeasuredTrial) -> tuple[RunStarted | TrialStarted | StageEntered | TrialFinished | RunStopped, ...]:
    return (
        RunStarted(budget=2, charged_done=0, records=0, continued=0),
        TrialStarted(trial=record.trial, candidate=record.candidate),
        StageEntered(trial=record.trial, stage="train"),
        TrialFinished(record=record, on_front=True, charged_done=1, budget=2, front_size=1, hypervolume=1.5),
        RunStopped(ended="budget", message="done"),
    )


def test_json_is_one_object_a_line_with_the_tables_keys(
    make_record: RecordFactory, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    record = make_record(3, top1=0.9)
    with view(tmp_path, as_json=True) as shown:
        shown.say("loading")
        for event in events(record):
            shown.event(event)
    shown.ended(outcome((record,)))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = [line["event"] for line in lines]
    assert names == [
        "message",
        "run_started",
        "trial_started",
        "stage_entered",
        "trial_finished",
        "run_stopped",
        "ended",
    ]
    finished = lines[4]
    assert (finished["trial"], finished["top1"], finished["p50_ms"]) == (3, 0.9, 1.0)
    assert (finished["charged_done"], finished["front_size"], finished["on_front"]) == (1, 1, True)
    assert lines[-1]["front"] == [3]


def test_a_trial_without_a_score_has_the_columns_of_its_studys_metric(
    make_record: RecordFactory, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    failed = make_record(3, top1=None)
    with view(tmp_path, as_json=True) as shown:
        shown.event(
            TrialFinished(record=failed, metric="map50_95", charged_done=1, budget=2, front_size=0, hypervolume=0.0)
        )
    line = json.loads(capsys.readouterr().out)
    assert "top1" not in line and line["map50_95"] is None and line["on_front"] is False


def test_a_log_gets_one_line_per_trial(make_record: RecordFactory, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as file:
        shown = _LineView(Console(file=file), tmp_path)
        for event in events(make_record(3)):
            shown.event(event)
    lines = path.read_text().splitlines()
    assert [line for line in lines if "trial" in line and "[1/2]" in line] == [lines[1]]
    assert "\x1b" not in path.read_text()


def test_no_time_is_left_where_the_last_training_was_larger_than_the_rest_of_the_budget(
    make_record: RecordFactory, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    with path.open("w") as file:
        shown = _LineView(Console(file=file), tmp_path)
        shown.event(RunStarted(budget=2, charged_done=0, records=0, continued=0))
        shown.event(TrialFinished(record=make_record(3), charged_done=2.35, budget=2, front_size=1, hypervolume=1.5))
    assert path.read_text().splitlines()[-1].startswith("[2.3/2]")
    assert " left" not in path.read_text()


def test_a_budget_that_is_not_used_up_does_not_look_as_if_it_were(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as file:
        shown = _LineView(Console(file=file), tmp_path)
        for done in (1.975, 1.3, 2.0):
            shown.event(RunStarted(budget=2, charged_done=done, records=5, continued=0))
    told = [line.partition("after ")[2] for line in path.read_text().splitlines()]
    assert told == ["1.9 full trainings, 0.1 to go", "1.3 full trainings, 0.7 to go", "2 full trainings, 0 to go"]


def test_the_terminal_shows_progress_stage_and_last_trials(make_record: RecordFactory, tmp_path: Path) -> None:
    console = Console(width=120, record=True, force_terminal=True, file=(tmp_path / "screen").open("w"))
    shown = _LiveView(console, tmp_path)
    for event in events(make_record(3))[:3]:
        shown.event(event)
    console.print(shown._render())
    assert "trial 3: train" in console.export_text(clear=True)
    for event in events(make_record(3))[3:]:
        shown.event(event)
    console.print(shown._render())
    text = console.export_text()
    assert "1 of 2" in text and "front 1" in text and "trial   3" in text and "trial 3: train" not in text
    console.file.close()


def test_a_trial_without_result_says_why(make_record: RecordFactory) -> None:
    assert "loss is not finite" in trial_line(make_record(1, top1=None))
    assert "same as 1" in trial_line(make_record(4, same_as=1, charged=False))
    assert "max_latency_ms" in trial_line(make_record(5, excess=0.5))


def test_a_run_without_a_budget_counts_trainings_and_the_time_that_is_left(
    make_record: RecordFactory, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    with path.open("w") as file:
        shown = _LineView(Console(file=file), tmp_path)
        shown.event(RunStarted(budget=UNLIMITED_BUDGET, charged_done=0, records=0, continued=0, max_time_s=1800))
        shown._progress._start -= 600.0
        event = TrialFinished(
            record=make_record(3), charged_done=2.35, budget=UNLIMITED_BUDGET, front_size=1, hypervolume=1.5
        )
        shown.event(event)
        shown.event(Plateau(candidates=20, growth=0.0012))
        shown.event(Plateau(candidates=20, in_part=14, growth=0.0012))
    opening, trial, plateau, unlike = path.read_text().splitlines()
    assert opening.endswith(": no budget, at most 30 min")
    assert trial.startswith("[2.3] trial") and trial.endswith("about 20 min left")
    assert plateau.startswith("plateau: hypervolume grew by 0.12 % in the last 20 trained candidates; ")
    assert "20 trained candidates (6 in full length, 14 in part); " in unlike


def test_another_sampler_is_said_by_logs_and_terminals(tmp_path: Path) -> None:
    told = "sampler: tpe from now on, which asks faster: the study has 1,001 trials (--sampler NAME)"
    path = tmp_path / "log"
    views: tuple[Callable[[Console, Path], View], ...] = (_LineView, _LiveView)
    for made in views:
        with path.open("w") as file:
            shown = made(Console(file=file, width=200), tmp_path)
            shown.event(SamplerChanged(sampler="tpe", trials=1001))
        assert path.read_text() == f"{told}\n"


def test_the_time_that_went_into_trainings_before_the_search_is_told_and_not_left(
    make_record: RecordFactory, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    with path.open("w") as file:
        shown = _LineView(Console(file=file), tmp_path)
        shown.event(
            RunStarted(budget=UNLIMITED_BUDGET, charged_done=0, records=0, continued=0, max_time_s=1800, prepared_s=600)
        )
        shown._progress._start -= 600.0
        event = TrialFinished(
            record=make_record(3), charged_done=2.35, budget=UNLIMITED_BUDGET, front_size=1, hypervolume=1.5
        )
        shown.event(event)
        assert shown._progress.share == pytest.approx(2 / 3, abs=0.01)
    opening, trial = path.read_text().splitlines()
    assert opening.endswith(": no budget, at most 30 min (10 min of them are over)")
    assert trial.endswith("about 10 min left")


def test_the_end_tells_what_a_limit_of_latency_saved(make_record: RecordFactory, tmp_path: Path) -> None:
    trained = replace(make_record(0), stages=(StageTime(stage="train", seconds=12.0),))
    slow = make_record(
        1,
        top1=None,
        state="rejected",
        charged=False,
        limits=(LimitUse(limit="max_latency_ms", excess=0.4),),
        stages=(StageTime(stage="untrained", seconds=2.0),),
    )
    line = "limits.max_latency_ms: 1 candidate was too slow and rejected untrained, 1 trained: 2 s of timing"
    for records in ((trained, slow), (trained,)):
        path = tmp_path / "log"
        with path.open("w") as file:
            show_end(Console(file=file, width=300), replace(outcome(()), records=records), tmp_path)
        assert (line in path.read_text()) == (slow in records)
