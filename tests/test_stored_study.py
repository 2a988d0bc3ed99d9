"""A study that commit 01a9c11 made, before there were several tasks, opens and goes on as if nothing had changed.

`tests/fixtures/study_of_the_first_wave/` holds what that commit wrote: `scalesearch run --space space.toml --data
images.npz --budget 4 --to study --target cpu --set latency.max_s=1 --set machine.threads=1 --set machine.bf16=off`.
"""

import csv
import dataclasses
import io
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from scalesearch.analysis.front import pareto_front
from scalesearch.chain.planner import Planner
from scalesearch.cli import run as command
from scalesearch.config import check_stored, load_run
from scalesearch.confirm.front import confirm_front
from scalesearch.confirm.request import ConfirmRequest
from scalesearch.deployment.backends import get_backend
from scalesearch.errors import ConfigError
from scalesearch.export.metadata import read_config, write_config
from scalesearch.records.front_scores import read_front_scores
from scalesearch.records.run_file import stored_session
from scalesearch.records.store import RecordStore
from scalesearch.records.tables import csv_text, trial_rows
from scalesearch.report.page import write_page
from scalesearch.study.contents import read_contents
from scalesearch.study.run import run_search
from scalesearch.values.quality import ClassDetail

FIXTURE = Path(__file__).parent / "fixtures" / "study_of_the_first_wave"
ABOUT = (*(f"records/{trial:06d}.json" for trial in range(11)), "run.toml", "front_scores.json")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it where it was run: in the present folder, beside its images."""
    for name in ("images.npz", "space.toml"):
        shutil.copy(FIXTURE / name, tmp_path / name)
    for name in ABOUT:
        (tmp_path / "study" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FIXTURE / name, tmp_path / "study" / name)
    monkeypatch.chdir(tmp_path)
    return Path("study")


def test_every_identity_is_the_same_to_the_byte(study: Path) -> None:
    planner, records = Planner(stored_session(study)), RecordStore(study).all()
    assert len(records) == 11
    for record in records:
        stored = json.loads((FIXTURE / "records" / f"{record.trial:06d}.json").read_text())
        plan = planner(record.candidate)
        assert plan.key == record.key == stored["key"]
        assert plan.spec == record.spec


def test_what_was_measured_reads_as_it_was_written(study: Path) -> None:
    for record in RecordStore(study).all():
        stored: dict[str, Any] = json.loads((FIXTURE / "records" / f"{record.trial:06d}.json").read_text())
        quality, measured = record.quality, record.measured
        assert quality and measured
        assert (quality.score, quality.score_low) == (stored["quality"]["top1"], stored["quality"]["top1_low"])
        assert quality.metric == "top1"
        assert isinstance(quality.detail, ClassDetail)
        assert quality.detail.macro_recall == stored["quality"]["macro_recall"]
        assert [entry.name for entry in quality.classes] == [entry["name"] for entry in stored["quality"]["classes"]]
        assert measured.training.float_score == stored["training"]["float_top1"]
        assert [step.score for step in record.accuracy_path] == [step["top1"] for step in stored["accuracy_path"]]
        assert [gain.score_change for gain in record.gains] == [gain["top1_change"] for gain in stored["gains"]]


def _plain(cell: str) -> str:
    return "0" if cell == "0.0" else cell  # a number that was handed on as it came, and now as its type says


def test_its_tables_have_the_columns_and_numbers_of_then(study: Path) -> None:
    records = RecordStore(study).all()
    front = {record.trial for record in pareto_front(records)}
    rows = trial_rows(records, front=front, scores=read_front_scores(study))
    ours = list(csv.DictReader(io.StringIO(csv_text(rows))))
    with (FIXTURE / "trials.csv").open(newline="") as file:
        theirs = list(csv.DictReader(file))
    for our, their in zip(ours, theirs, strict=True):
        assert {name: _plain(our[name]) for name in their} == {name: _plain(cell) for name, cell in their.items()}
    order = [name for name in ours[0] if name in theirs[0]]
    assert order == list(theirs[0])


def test_it_is_reported(study: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    write_page(read_contents(study), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "4 on the front" in page and "top-1" in page and "Classes: precision and recall" in page


def test_its_exports_can_be_trained(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their recipes have a `branch_fraction` of 0, which only the schedule `wsd` reads."""
    session, trained = stored_session(study), list[Path]()
    monkeypatch.setattr("scalesearch.cli.full_training.train_export", lambda path, **_: trained.append(path))
    paths = [
        write_config(record.measured, session, study.parent / "exports" / str(record.trial))
        for record in RecordStore(study).all()
        if record.measured
    ]
    for path in paths:
        command.train(path)
    assert trained == paths and len(paths) == 11

    config = read_config(paths[0])
    assert config.candidate.recipe.schedule == "cosine" and config.candidate.recipe.branch_fraction == 0
    newer = dataclasses.replace(config.candidate.recipe, schedule="wsd")
    with pytest.raises(ConfigError, match=r"training\.branch_fraction = 0\.0 is out of range"):
        check_stored(config.settings, dataclasses.replace(config.candidate, recipe=newer), origin="config.toml")


def _as_if_run_here(study: Path) -> None:
    """Name this machine as the device: latencies of unlike devices never share a front."""
    path, here = study / "run.toml", get_backend("onnxruntime").device(1)
    document = tomllib.loads(path.read_text())
    document["session"]["device"] = dataclasses.asdict(here)
    path.write_text(tomli_w.dumps(document))
    for record in (study / "records").glob("*.json"):
        stored = json.loads(record.read_text())
        stored["device"] = dataclasses.asdict(here)
        record.write_text(json.dumps(stored))


@pytest.mark.slow
def test_it_goes_on_to_a_larger_budget_without_one_retraining_and_is_confirmed(study: Path) -> None:
    _as_if_run_here(study)
    before = RecordStore(study).all()
    session = stored_session(study)
    settings = dataclasses.replace(session.settings, budget=5)
    outcome = run_search(settings, load_run(space="space.toml")[1], study)
    assert outcome.ended == "budget" and outcome.charged == 5
    assert outcome.records[: len(before)] == before  # answered from what is stored
    new = outcome.records[len(before) :]
    assert sum(record.charged for record in new) == 1
    trained = {record.key for record in before}
    assert not any(record.charged and record.key in trained for record in new)
    confirmed = confirm_front(study, ConfirmRequest(top=1, steps=25))
    assert confirmed.ended == "complete" and confirmed.confirmation is not None
