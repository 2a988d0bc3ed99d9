"""Files of front members: there once, downloadable, and gone with the member."""

import hashlib
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from serving import serving
from study_runs import run

from scalesearch.dashboard.artifacts import FOLDER, keep_artifacts
from scalesearch.dashboard.publisher import DashboardListener, annotate_trial, update_figures, update_statistics
from scalesearch.export.metadata import read_config
from scalesearch.records.run_file import write_run_file
from scalesearch.records.stored_files import picture_path
from scalesearch.search.storage import opened_study
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session, model_path

pytest.importorskip("optuna_dashboard", reason="needs the extra: pip install 'scalesearch[dashboard]'")

MakeRecord = Callable[..., MeasuredTrial]
PAYLOAD = "<img src=x onerror=window.hacked=1>"


@pytest.fixture
def make_record(make_record: MakeRecord) -> MakeRecord:
    """Records whose hash is that of the file which the study keeps."""

    def make(trial: int, **changes: Any) -> MeasuredTrial:
        return make_record(trial, **{"onnx_sha256": hashlib.sha256(b"onnx %d" % trial).hexdigest()} | changes)

    return make


@pytest.fixture
def study(tmp_path: Path, session: Session) -> Iterator[optuna.Study]:
    write_run_file(session)
    (tmp_path / "models").mkdir()
    for number in (0, 1):
        (tmp_path / "models" / f"trial_{number:06d}.onnx").write_bytes(b"onnx %d" % number)
    with opened_study(tmp_path) as opened:
        for _ in range(3):
            trial = opened.study.ask()
            trial.set_user_attr("feasible", True)
            opened.study.tell(trial, (0.5, 1.0))
        yield opened.study


def _files(study: optuna.Study, number: int) -> dict[str, str]:
    from optuna_dashboard.artifact._backend import list_trial_artifacts

    attributes = study._storage.get_study_system_attrs(study._study_id)
    found = list_trial_artifacts(attributes, {}, study.trials[number])
    assert len({meta["filename"] for meta in found}) == len(found), "no two of one name"
    return {meta["filename"]: meta["artifact_id"] for meta in found}


def test_members_have_their_files_once(study: optuna.Study, make_record: MakeRecord, tmp_path: Path) -> None:
    front = [make_record(0), make_record(1)]
    assert keep_artifacts(study, tmp_path, front) == 6
    assert keep_artifacts(study, tmp_path, front) == 0
    assert sorted(_files(study, 1)) == ["classes.svg", "config.toml", "model.onnx"]
    assert _files(study, 2) == {}
    assert (tmp_path / FOLDER / _files(study, 1)["model.onnx"]).read_bytes() == b"onnx 1"
    assert read_config(tmp_path / FOLDER / _files(study, 1)["config.toml"]).trial == 1


def test_a_picture_of_validation_images_is_added_once_it_is_drawn(
    study: optuna.Study, make_record: MakeRecord, tmp_path: Path
) -> None:
    front = [make_record(0)]
    keep_artifacts(study, tmp_path, front)
    assert "validation.jpg" not in _files(study, 0)
    drawn = picture_path(tmp_path, 0)
    drawn.parent.mkdir()
    drawn.write_bytes(b"jpeg")
    assert keep_artifacts(study, tmp_path, front) == 1
    assert (tmp_path / FOLDER / _files(study, 0)["validation.jpg"]).read_bytes() == b"jpeg"
    assert keep_artifacts(study, tmp_path, []) == 0
    assert _files(study, 0) == {}
    assert drawn.read_bytes() == b"jpeg", "the study's own file stays"


def test_files_leave_with_the_member_and_come_back(
    study: optuna.Study, make_record: MakeRecord, tmp_path: Path
) -> None:
    keep_artifacts(study, tmp_path, [make_record(0), make_record(1)])
    assert keep_artifacts(study, tmp_path, [make_record(1)]) == 0
    assert _files(study, 0) == {}
    assert len(list((tmp_path / FOLDER).iterdir())) == 3
    assert keep_artifacts(study, tmp_path, [make_record(0), make_record(1)]) == 3


def test_a_missing_model_and_a_full_disk_cost_a_download_not_the_run(
    study: optuna.Study, make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keep_artifacts(study, tmp_path, [make_record(2)]) == 2

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("optuna.artifacts.FileSystemArtifactStore.write", full)
    assert keep_artifacts(study, tmp_path, [make_record(0)]) == 0
    assert _files(study, 0) == {}
    monkeypatch.undo()
    assert keep_artifacts(study, tmp_path, [make_record(0)]) == 3


def test_a_model_that_was_replaced_is_not_handed_out(
    study: optuna.Study, make_record: MakeRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "models" / "trial_000001.onnx").write_bytes(b"onnx 0")
    keep_artifacts(study, tmp_path, [make_record(0), make_record(1)])
    assert "model.onnx" in _files(study, 0)
    assert sorted(_files(study, 1)) == ["classes.svg", "config.toml"]
    assert "trial_000001.onnx is not the file that trial 1 measured" in caplog.text


def test_a_study_without_run_toml_has_none(study: optuna.Study, make_record: MakeRecord, tmp_path: Path) -> None:
    (tmp_path / "run.toml").unlink()
    assert keep_artifacts(study, tmp_path, [make_record(0)]) == 0


@pytest.fixture
def served(study: optuna.Study, make_record: MakeRecord, tmp_path: Path, session: Session) -> Iterator[str]:
    names = (PAYLOAD, "</script><script>window.hacked=1</script>", "[x](javascript:window.hacked=1)")
    records = [make_record(number, top1=0.5 + number / 10, p50_ms=1.0 + number, classes=names) for number in range(2)]
    records.append(make_record(2, top1=None, reason=f"data: {PAYLOAD}.jpg cannot be read", warnings=names))
    for record in records:
        annotate_trial(study, study.trials[record.trial], record)
    update_figures(study, records)
    update_statistics(study, records, session.space)
    keep_artifacts(study, tmp_path, records[:2])
    with serving(tmp_path) as url:
        yield url


def test_the_dashboard_hands_the_file_out(served: str, study: optuna.Study) -> None:
    trial = study.trials[1]
    artifact = _files(study, 1)["model.onnx"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{served}artifacts/{study._study_id}/{trial._trial_id}/{artifact}") as answer:
        assert answer.read() == b"onnx 1"


def _upload_by_hand(study: optuna.Study, trial: optuna.trial.FrozenTrial, name: str) -> None:
    meta = {"artifact_id": "by-hand", "filename": name, "mimetype": "image/svg+xml", "encoding": None}
    key = f"dashboard:artifacts:{trial._trial_id}:by-hand"
    study._storage.set_study_system_attr(study._study_id, key, json.dumps(meta))


@pytest.mark.slow
def test_a_browser_goes_from_the_front_page_to_a_trial_and_its_files(
    served: str, study: optuna.Study, chromium: Any
) -> None:
    tab = chromium.new_page(viewport={"width": 1400, "height": 2400})
    failed: list[str] = []
    tab.on("pageerror", lambda error: failed.append(str(error)))
    # On a database server a study is named after its folder; files are named by us, but people upload their own.
    optuna.create_study(storage=study._storage, study_name=PAYLOAD)
    _upload_by_hand(study, study.trials[1], f"{PAYLOAD}.svg")
    tab.goto(f"{served}dashboard/")
    tab.get_by_text(PAYLOAD).first.wait_for(timeout=60_000)
    tab.get_by_text("scalesearch").first.click()
    for title in ("Feasible front", "Hypervolume of the front", "What compression paid"):
        tab.get_by_text(title).first.wait_for(timeout=60_000)
    tab.locator("a[href$='/trials']").first.click()
    tab.get_by_text("Trial 1", exact=True).first.click()
    tab.get_by_text("Layers", exact=True).first.wait_for(timeout=60_000)
    body = tab.inner_text("body")
    for words in (
        "top-1 60.0",
        "average pooling",
        "Where accuracy went",
        "What compression brought",
        PAYLOAD,
        f"{PAYLOAD}.svg",
        "User Attribute",
        "feasible True",
    ):
        assert words in body, words
    assert tab.locator("a[href^='javascript']").count() == 0
    for name in ("config.toml", "model.onnx", "classes.svg"):
        tab.get_by_text(name).first.scroll_into_view_if_needed(timeout=60_000)
    links = [link.get_attribute("href") for link in tab.locator("a[download='model.onnx']").all()]
    assert any(_files(study, 1)["model.onnx"] in (link or "") for link in links)
    assert tab.evaluate("window.hacked") is None
    tab.get_by_text("Trial 2", exact=True).first.click()
    tab.get_by_text(f"{PAYLOAD}.jpg").first.wait_for(timeout=60_000)
    assert tab.locator("img[src='x']").count() == 0
    assert tab.evaluate("window.hacked") is None
    assert failed == []
    tab.close()


def test_files_that_no_trial_names_are_removed_and_others_stay(
    study: optuna.Study, make_record: MakeRecord, tmp_path: Path
) -> None:
    keep_artifacts(study, tmp_path, [make_record(0)])
    (tmp_path / FOLDER / "3c0c8d5e-11f4-4a3c-9d55-0a6e4a1b2c3d").write_bytes(b"of a run that was killed just then")
    (tmp_path / FOLDER / "notes.txt").touch()
    keep_artifacts(study, tmp_path, [make_record(0)])
    names = {path.name for path in (tmp_path / FOLDER).iterdir()}
    assert names == {*_files(study, 0).values(), "notes.txt"}


@pytest.mark.slow
def test_a_deleted_database_comes_back_with_its_figures_notes_and_files(tmp_path: Path, session: Session) -> None:
    write_run_file(session)
    listener = DashboardListener(tmp_path, session.space, ["tpe"])
    front = run(tmp_path, 3, listener=listener).front
    for member in front:
        model_path(tmp_path, member.trial).parent.mkdir(exist_ok=True)
        model_path(tmp_path, member.trial).write_bytes(b"onnx")
    before = {path.name for path in (tmp_path / FOLDER).iterdir()}
    (tmp_path / "study.sqlite3").unlink()
    run(tmp_path, 3, listener=listener)  # the budget is used up: nothing is evaluated
    from optuna_dashboard import get_note
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    with opened_study(tmp_path) as opened:
        for member in front:
            assert "model.onnx" in _files(opened.study, member.trial)
            assert get_note(opened.live_trial(member.trial))
        assert "feasible_front" in get_plotly_graph_objects(
            opened.study._storage.get_study_system_attrs(opened.study._study_id)
        )
        named = {artifact for record in front for artifact in _files(opened.study, record.trial).values()}
    after = {path.name for path in (tmp_path / FOLDER).iterdir()}
    assert after == named and not after & before
