import csv
import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from command import run_command
from loading import loaded

from scalesearch.cli import study_commands
from scalesearch.cli.studies import find_study, front_under, parse_fraction, parse_latency_ms, read_records
from scalesearch.errors import ConfigError, NoFeasibleTrialError
from scalesearch.records.confirmed import write_confirmed
from scalesearch.records.front_scores import write_front_scores
from scalesearch.records.store import RecordStore
from scalesearch.records.tables import trial_rows, write_tables
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import Cost, FrontScore, LimitUse, MeasuredTrial, TrialRecord

MakeRecord = Callable[..., MeasuredTrial]


@pytest.fixture
def records(make_record: MakeRecord) -> list[TrialRecord]:
    return [
        make_record(0, top1=0.70, p50_ms=1.0, precision="int8"),
        make_record(1, top1=0.85, p50_ms=1.6),
        make_record(2, top1=0.60, p50_ms=2.0),
        make_record(3, top1=0.90, p50_ms=6.0),
        make_record(4, top1=0.86, p50_ms=1.61),
        make_record(5, top1=None),
    ]


@pytest.fixture
def folder(records: list[TrialRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "130")
    return _store(Path("results/first"), records)


def _store(folder: Path, records: list[TrialRecord]) -> Path:
    store = RecordStore(folder)
    for record in records:
        store.save(record)
    return folder


_run = partial(run_command, study_commands.register)


def test_front_is_a_table_from_fast_to_slow_with_knee_and_ties(folder: Path) -> None:
    lines = _run("front").splitlines()
    assert lines[0] == "results/first: 4 of 6 trials on the front (5 feasible)"
    assert "the deployed file itself, on 1000 validation images" in lines[1]
    assert "AMD EPYC (2 cores), onnxruntime 1.32.0, 1 thread, batch 1" in lines[2]
    rows = [line.split()[0] for line in lines if "% " in line and "x" in line and "-" in line and "(" in line]
    assert [row.lstrip("*") for row in rows if row.lstrip("*").isdigit()] == ["0", "1", "4", "3"]
    # 1 and 4 are a point apart with intervals of two; 0 and 3 stand alone.
    assert any(line.startswith("ties: 1 = 4 (") for line in lines)
    assert any(line.startswith("* trial 4 is the knee") for line in lines)
    assert "70.0 (68.0-72.0)" in "\n".join(lines)
    (trust,) = [line for line in lines if line.startswith("scores are of ")]
    assert "updates: whether so few favour small, large or cut networks, is not known (`scalesearch confirm`" in trust


def test_front_fits_an_ordinary_terminal_without_losing_a_digit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = _run("front")
    assert max(len(line) for line in text.splitlines() if "ties" not in line and "knee" not in line) <= 80
    assert "…" not in text
    assert "(68.0-72.0)" in text


def test_json_is_a_list_with_the_csvs_keys_and_nothing_else(folder: Path, records: list[TrialRecord]) -> None:
    rows = json.loads(_run("front", "--json"))
    assert [row["trial"] for row in rows] == [0, 1, 4, 3]
    assert list(rows[0]) == list(trial_rows(records)[0])
    assert rows[0]["p50_ms"] == 1.0


def test_csv_is_what_front_csv_holds(folder: Path, records: list[TrialRecord]) -> None:
    write_tables(folder, records, front={0, 1, 4, 3})
    assert _run("front", "--csv") == (folder / "front.csv").read_text()
    assert [row["trial"] for row in csv.DictReader(io.StringIO(_run("front", "--csv", "--max-latency", "2ms")))] == [
        "0",
        "1",
        "4",
    ]


def test_the_heading_says_how_many_of_the_front_are_within_the_bounds(folder: Path) -> None:
    heading = _run("front", "--max-latency", "2ms").splitlines()[0]
    assert heading == "results/first: 4 of 6 trials on the front, 3 of them within the bounds (5 feasible)"
    assert "within the bounds" not in _run("front", "--max-latency", "1s")


def test_limits_narrow_the_front(folder: Path) -> None:
    rows = json.loads(_run("front", "--json", "--max-latency", "0.005s", "--min-accuracy", "80%"))
    assert [row["trial"] for row in rows] == [1, 4]


@pytest.mark.parametrize(
    ("bounds", "nearest"),
    [
        ({"max_latency_ms": 0.5}, r"has 0\.5 ms or less: the fastest is trial 0 \(70\.0 %, 1\.000 ms\)"),
        ({"min_score": 0.95}, r"has 95 % or more: the most accurate is trial 3 \(90\.0 %, 6\.000 ms\)"),
        ({"max_latency_ms": 5.0, "min_score": 0.9}, r"those is trial 4 .*; the fastest with 90 % is trial 3 "),
    ],
    ids=["latency", "accuracy", "both"],
)
def test_bounds_that_nothing_meets_name_the_nearest(
    records: list[TrialRecord], bounds: dict[str, float], nearest: str
) -> None:
    with pytest.raises(NoFeasibleTrialError, match=nearest):
        front_under(records, **bounds)


def test_no_feasible_trial_names_the_nearest_to_the_limits(make_record: MakeRecord) -> None:
    far, near = make_record(0, excess=0.5), make_record(1, excess=0.04)
    rejected = make_record(
        2, top1=None, state="rejected", charged=False, limits=(LimitUse(limit="max_macs", excess=0.3),)
    )
    expected = r"among 3 \(2 over a limit, 1 rejected\)\.\nNearest: trial 1, infeasible: max_latency_ms exceeded by 4 %"
    with pytest.raises(NoFeasibleTrialError, match=expected):
        front_under([far, near, rejected])
    failed = make_record(5, top1=None, limits=(LimitUse(limit="max_macs", excess=-0.9),))
    with pytest.raises(NoFeasibleTrialError, match="The last: trial 5, failed: train: loss is not finite"):
        front_under([failed])
    nearest = r"Nearest: trial 1, infeasible: max_latency_ms exceeded by 4 %.*With --fresh, loosen \[limits\]"
    with pytest.raises(NoFeasibleTrialError, match=nearest):
        front_under([near, failed])


def test_show_tells_one_trial_and_by_default_the_knee(folder: Path) -> None:
    text = _run("show", "--trial", "0")
    assert text.startswith("trial 0 of results/first\n")
    assert "int8, percentile 99.99 over 128 images" in text
    assert _run("show").startswith("trial 4 of ")
    assert "failed: train: loss is not finite" in _run("show", "--trial", "5")


def test_show_prints_names_as_they_are(folder: Path, make_record: MakeRecord) -> None:
    RecordStore(folder).save(make_record(6, classes=("[red]stop[/red]", "[/]")))
    text = _run("show", "--trial", "6")
    assert "[red]stop[/red]" in text
    assert "[/]" in text


def test_show_json_is_the_trials_row(folder: Path) -> None:
    rows = json.loads(_run("show", "--trial", "1", "--json"))
    assert [(row["trial"], row["on_front"]) for row in rows] == [(1, True)]


def test_an_unknown_trial_is_answered_with_the_range(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--trial 999: no such trial; this study has 6, numbered 0 to 5"):
        _run("show", "--trial", "999")


def test_test_scores_are_shown_where_there_are_some(folder: Path, records: list[TrialRecord]) -> None:
    assert "test, %" not in _run("front")
    quality, latency = records[0].quality, records[0].latency
    assert quality and latency
    write_front_scores(folder, [FrontScore(trial=0, test=replace(quality, score=0.654), latency=latency)])
    text = _run("front")
    assert "test, %" in text
    assert "65.4" in text
    assert json.loads(_run("front", "--json"))[0]["test_top1"] == 0.654


def test_an_unstable_latency_is_marked(folder: Path, records: list[TrialRecord]) -> None:
    assert records[0].latency
    RecordStore(folder).save(replace(records[0], latency=replace(records[0].latency, stable=False)))
    text = _run("front")
    assert "!0 " in text
    assert "! its latency did not settle" in text


def test_json_and_csv_at_once_is_an_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match="one of --json and --csv"):
        _run("front", "--json", "--csv")


def test_the_newest_study_is_the_default(folder: Path, make_record: MakeRecord) -> None:
    newer = _store(Path("results/second"), [make_record(0)])
    os.utime(folder / "records", (1_000, 1_000))
    assert find_study(None) == newer
    os.utime(newer / "records", (500, 500))
    assert find_study(None) == folder
    (newer / "study.sqlite3").touch()  # as by figures of `histogram`, long after the last record
    (newer / "run.toml").touch()
    assert find_study(None) == folder
    begun = Path("results/third")
    begun.mkdir()
    (begun / "run.toml").touch()
    assert find_study(None) == begun


def test_a_study_is_found_by_folder_or_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_study(folder) == find_study(Path("first")) == folder
    assert find_study(folder.resolve()) == folder.resolve()
    monkeypatch.chdir(folder)
    assert find_study(Path()) == find_study(Path("records/..")) == Path.cwd()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("firts", "no study firts: there is no such folder.\nDid you mean results/first?"),
        ("empty", "empty is a folder, but not a study: it holds none of run.toml"),
        ("file.txt", "no study file.txt: that is a file"),
    ],
)
def test_what_is_no_study_is_said(folder: Path, name: str, message: str) -> None:
    Path("empty").mkdir()
    Path("file.txt").touch()
    with pytest.raises(ConfigError) as caught:
        find_study(Path(name))
    assert str(caught.value).startswith(message)
    assert "results/first" in str(caught.value) or "Studies under ./results: first" in str(caught.value)


def test_no_study_and_no_results_say_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no study under \./results: .*scalesearch run --budget 8"):
        find_study(None)
    Path("results/new").mkdir(parents=True)
    Path("results/new/run.toml").touch()
    with pytest.raises(NoFeasibleTrialError, match="has no results yet"):
        read_records(find_study(None))


@pytest.mark.parametrize(
    ("text", "ms"), [("5ms", 5.0), ("0.5s", 500.0), (" 1.5 MS ", 1.5), ("800us", 0.8), (".25ms", 0.25)]
)
def test_latencies_are_read_with_their_unit(text: str, ms: float) -> None:
    assert parse_latency_ms(text) == pytest.approx(ms)


@pytest.mark.parametrize("text", ["5", "ms", "-5ms", "0ms", "5 min", "1e3ms", "nan", ""])
def test_latencies_without_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--max-latency .*expected a time above 0 with its unit"):
        parse_latency_ms(text)


def test_a_bare_number_is_answered_with_a_guess() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 5ms\?"):
        parse_latency_ms("5")
    with pytest.raises(ConfigError, match=r"Did you mean 80%\?"):
        parse_fraction("80")


@pytest.mark.parametrize(("text", "fraction"), [("0.8", 0.8), ("80%", 0.8), ("99.5 %", 0.995), ("0", 0.0), ("1", 1.0)])
def test_accuracies_are_fractions_or_percentages(text: str, fraction: float) -> None:
    assert parse_fraction(text) == pytest.approx(fraction)


@pytest.mark.parametrize("text", ["80", "101%", "-0.1", "high", "nan", ""])
def test_accuracies_without_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--min-accuracy .*expected a fraction from 0 to 1, or a percentage"):
        parse_fraction(text)


def test_dashboard_refuses_a_study_without_its_database(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"results/first/study\.sqlite3 does not exist"):
        _run("dashboard")
    assert not (folder / "study.sqlite3").exists()


def test_reading_a_study_loads_nothing_heavy(folder: Path) -> None:
    code = (
        "import typer; from scalesearch.cli import study_commands as c; a = typer.Typer(); c.register(a)\n"
        "assert a(['front'], standalone_mode=False) == 0"
    )
    assert not loaded(code, of={"torch", "optuna", "pandas", "onnx", "matplotlib", "numpy"})


def test_front_points_to_the_confirmed_one(folder: Path) -> None:
    assert "confirmed at full length" not in _run("front")
    (folder / "confirmed").mkdir()
    (folder / "confirmed" / "confirmed.csv").write_text("trial\n")
    assert "confirmed at full length: results/first/confirmed/confirmed.png" in _run("front")


def test_the_front_of_a_confirmed_study_says_how_far_it_can_be_trusted(
    make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six networks whose long scores rise by 5 points a doubling of the side, and one that was wronged."""
    monkeypatch.chdir(tmp_path)
    folder = Path("results/first")
    members = [(0, 24), (1, 24), (2, 32), (3, 32), (4, 48), (5, 48)]
    for trial, side_px in [*members, (9, 64)]:
        top1, p50_ms = (0.50 + 0.03 * trial, 1.0 + trial) if trial < 9 else (0.525, 2.2)
        record = make_record(trial, top1=top1, p50_ms=p50_ms)
        spec = replace(record.spec, resolution_px=side_px, num_classes=5 + trial)
        record = replace(record, spec=spec, cost=Cost(macs=2000 * side_px**2, params=1000))
        RecordStore(folder).save(record)
        if trial < 9:
            long = top1 + 0.1 + 0.05 * math.log2(side_px / 24)
            quality = replace(record.quality, score=long, score_low=long - 0.01, score_high=long + 0.01)
            run = ConfirmedRun(
                trial=trial, seed=1, steps=2 * record.training.steps, train_s=1.0, float_score=long, test=quality,
                validation=quality, latency=record.latency, size_bytes=1, onnx_sha256="0", network_sha256="1",
            )  # fmt: skip
            write_confirmed(folder, run)
    assert "brief front" not in run_command(study_commands.register, "front", "first")  # until the confirmation ends
    (folder / "confirmed" / "confirmed.csv").touch()
    told = " ".join(run_command(study_commands.register, "front", "first").split())
    assert "the brief front favours small images; no bias by MACs or cutting can be told" in told
    assert "likely on the long one: trial 9" in told
    steps = 2 * make_record(0).candidate.recipe.steps
    assert f"scalesearch confirm results/first --steps {steps} --seeds 1 --also 9" in told
    (damaged,) = (folder / "confirmed").glob("trial_000003_*.json")
    damaged.write_text("{")
    told = " ".join(run_command(study_commands.register, "front", "first").split())
    assert f"warning: {damaged} cannot be read" in told and "6 of 7 trials on the front" in told
