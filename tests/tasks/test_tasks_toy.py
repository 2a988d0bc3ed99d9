"""A second task, of one folder and one registry line, goes the whole way: trained, cut, deployed, scored, told."""

import json
import math
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from toy_task.levels import Levels
from toy_task.task import TASK
from typer.testing import CliRunner

from scalesearch.analysis.front import pareto_front
from scalesearch.analysis.score_error import variance
from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.chain.planner import Planner
from scalesearch.cli import predict
from scalesearch.cli.full_training import train_export
from scalesearch.cli.preview import check_space
from scalesearch.config import load_run, parse_space
from scalesearch.data.finding import load_study_data
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.export.folder import write_export
from scalesearch.export.metadata import read_config
from scalesearch.records.front_scores import read_front_scores, write_front_scores
from scalesearch.records.store import RecordStore
from scalesearch.records.tables import trial_rows
from scalesearch.report.page import write_page
from scalesearch.study.contents import read_contents
from scalesearch.study.session import open_session
from scalesearch.tasks.registry import get_task, task_names, views_of
from scalesearch.values.candidate import Candidate, Pruning, Quantization, Recipe
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.settings import MachineSettings
from scalesearch.views.description import describe

# Trainings, quantization-aware updates and a cut: half a minute. The program's own tasks have quick tests.
pytestmark = pytest.mark.slow
SPACE = {"network": "resnet_small", "resolution_px": 16, "scaling": {"width": [0.5]}}
RECIPE = Recipe(
    optimizer="adamw", learning_rate=0.01, steps=120, retrain_steps=20, batch_size=32, shift_fraction=0.0, jitter=0.0
)


@pytest.fixture(scope="module", autouse=True)
def _registered() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry_homes(), "brightness", "toy_task.task:TASK")  # the one line
        yield


def registry_homes() -> dict[str, str]:
    from scalesearch.tasks import registry

    return registry._HOMES


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, brief_calm: None) -> Session:
    folder = tmp_path_factory.mktemp("toy")
    settings, space = load_run(flags={"data.source": "flats", "target": "cpu", "task": "brightness"}, overrides=[])
    quick = replace(settings.latency, max_s=0.2, warmup_s=0.02)
    machine = MachineSettings(threads=1, bf16="off", device="cpu")
    settings = replace(settings, latency=quick, machine=machine)
    space = parse_space(SPACE, name="toy", origin="toy.toml")
    (folder / "study").mkdir()
    return open_session(settings, space, folder / "study")


@pytest.fixture(scope="module")
def records(session: Session) -> tuple[MeasuredTrial, ...]:
    evaluator, store, found = TrialEvaluator(session), RecordStore(session.folder), []
    candidates = (
        Candidate(recipe=RECIPE),
        Candidate(recipe=RECIPE, pruning=Pruning(channel_fraction=0.5, criterion="taylor")),
        Candidate(recipe=RECIPE, quantization=Quantization(precision="int8", keep_float=1, calibration_images=32)),
        Candidate(recipe=RECIPE, quantization=Quantization(precision="int8", qat_steps=5, calibration_images=32)),
    )
    for number, candidate in enumerate(candidates):
        record = evaluator.evaluate(Planner(session)(candidate), trial=number, report=lambda _: None)
        store.save(record)
        found.append(record)
    write_front_scores(session.folder, [evaluator.score_on_test(record) for record in pareto_front(found)])
    return tuple(found)


def test_it_is_found_by_its_name_and_a_misspelt_one_is_told() -> None:
    assert get_task("brightness") is TASK
    assert set(task_names()) >= {"brightness", "classification"}
    with pytest.raises(ConfigError, match=r"no task is called 'brightnes'\. Did you mean 'brightness'\?"):
        get_task("brightnes")


def test_networks_of_two_outputs_are_trained_cut_quantized_and_scored(records: tuple[MeasuredTrial, ...]) -> None:
    dense, cut, partly, aware = records
    assert all(record.quality.metric == "closeness" for record in records)
    assert dense.quality.score > 0.78  # one level for all pictures gives 0.75 at best
    assert cut.cost.macs < 0.5 * dense.cost.macs and cut.quality.score > 0.72
    assert {record.quality.score > 0.72 for record in (partly, aware)} == {True}
    assert [step.step for step in dense.accuracy_path] == ["float", "onnx_fp32", "engine"]
    assert dense.accuracy_path[0].score == pytest.approx(dense.quality.score, abs=1e-4)


def test_every_table_and_text_has_the_metrics_own_name(records: tuple[MeasuredTrial, ...], session: Session) -> None:
    row = trial_rows(RecordStore(session.folder).all(), scores=read_front_scores(session.folder))[0]
    assert row["closeness"] == records[0].quality.score
    assert {"closeness_low", "float_closeness", "onnx_fp32_closeness", "test_closeness", "mean_cell"} <= set(row)
    assert not any("top1" in name for name in row)
    views = views_of(records[0])
    assert views is not None
    sections = describe(records[0], task_sections=views.sections(records[0]))
    words = json.dumps([(section.title, section.lines) for section in sections])
    assert "closeness, %" in words and "Cells" in words
    assert "top-1" not in words


def test_a_stored_record_comes_back_whole(records: tuple[MeasuredTrial, ...], session: Session) -> None:
    assert RecordStore(session.folder).all() == records


def test_report_and_export_carry_what_the_task_adds(
    records: tuple[MeasuredTrial, ...], session: Session, tmp_path: Path
) -> None:
    pytest.importorskip("plotly")
    write_page(read_contents(session.folder), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "members look at cells." in page and '<a href="#cells">Cells</a>' in page
    assert "top-1" not in page.split("<script", 1)[0]
    best = pareto_front(records)[0]
    write_export(best, session, tmp_path / "export", formats=())
    assert (tmp_path / "export" / "infer.py").read_bytes() == TASK.infer_script()
    card = (tmp_path / "export" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "A light meter, found by scalesearch" in card and "Its cells were looked at." in card
    assert "gives level (batch, 1) and cells (batch, 1, height, width)" in card and "## Score" in card
    assert not re.search(r"top-1|classif|class names|labels|accuracy", card.replace("On the way", ""), re.IGNORECASE)


def test_config_holds_the_scores_by_the_metrics_name_and_comes_back(
    records: tuple[MeasuredTrial, ...], session: Session, tmp_path: Path
) -> None:
    best = pareto_front(records)[0]
    write_export(best, session, tmp_path / "export", formats=())
    told = tomllib.loads((tmp_path / "export" / "config.toml").read_text(encoding="utf-8"))["expected"]
    assert told["closeness"] == best.quality.score and told["float_closeness"] == best.training.float_score
    assert {"closeness_low", "closeness_high", "test_closeness", "confirmed_test_closeness"} <= set(told)
    assert not any("top1" in name or "score" in name for name in told)
    expected = read_config(tmp_path / "export").expected
    assert (expected.metric, expected.score) == ("closeness", best.quality.score)
    assert expected.test_score == told["test_closeness"]


def test_an_export_is_trained_at_full_length_and_told_by_the_metrics_name(
    records: tuple[MeasuredTrial, ...], session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_export(records[0], session, tmp_path / "export", formats=())
    train_export(tmp_path / "export", steps=20, data=None, seed=None, to=tmp_path / "trained")
    told = capsys.readouterr().out
    assert "closeness on validation: " in told and "closeness on test: " in told and "top-1" not in told
    result = json.loads((tmp_path / "trained" / "result.json").read_text(encoding="utf-8"))
    assert {"closeness", "test_closeness", "test_closeness_low", "test_closeness_high"} <= set(result)


@pytest.mark.parametrize("name", ["c", "litert"])
def test_a_format_for_classifiers_says_that_it_holds_one_output(
    name: str, records: tuple[MeasuredTrial, ...], session: Session, tmp_path: Path
) -> None:
    pytest.importorskip({"c": "emx_onnx_cgen", "litert": "litert_torch"}[name])
    with pytest.raises(StageFailed, match="networks of one output, and this one has several: level, cells"):
        write_export(records[0], session, tmp_path / "export", formats=(name,))


def test_targets_are_the_sources_real_numbers(session: Session) -> None:
    data = load_study_data(session, TASK.sources())
    assert data.class_names == () and data.fingerprint == session.data.fingerprint
    for split in (data.train, data.val, data.calibration, data.test):
        assert isinstance(split.targets, Levels) and split.targets.values.dtype == np.float32
        # A picture's mean is 30 + 180 level, and the mean of 768 noises of -20..20 is within 3 grey levels of 0.
        grey = np.asarray(split.images).mean(axis=(1, 2, 3))
        assert np.abs(grey - (30 + 180 * split.targets.values)).max() < 3
    assert not any("accuracy" in warning or "classes" in warning for warning in data.warnings)


def test_a_source_of_another_task_is_refused_with_those_of_this_one(session: Session, tmp_path: Path) -> None:
    other = replace(session.settings, data=replace(session.settings.data, source="signs"))
    with pytest.raises(ConfigError, match=r"expected a known name, came 'signs'\nKnown names: flats\. All .* levels"):
        open_session(other, session.space, tmp_path)
    labels = replace(other, task="classification", data=replace(other.data, source="flats"))
    with pytest.raises(ConfigError, match=r"expected a folder, .* came 'flats'\nKnown names: signs, .* give labels"):
        open_session(labels, session.space, tmp_path)


@pytest.mark.slow
def test_a_check_times_steps_on_made_up_levels(
    session: Session, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    check_space(replace(session.settings, budget=2), session.space, with_data=True, to=tmp_path / "sheet.png")
    told = capsys.readouterr().out
    assert re.search(r"data flats: \d+ train, \d+ val", told) and "accuracy" not in told
    assert "A budget of 2 takes" in " ".join(told.split()) and "The space is sound." in told


def test_predict_prints_what_the_task_answers(
    records: tuple[MeasuredTrial, ...], session: Session, tmp_path: Path
) -> None:
    write_export(records[0], session, tmp_path / "export", formats=())
    for level in (30, 210):
        Image.new("RGB", (20, 12), (level,) * 3).save(tmp_path / f"{level}.png")
    (tmp_path / "torn.png").write_bytes(b"no image")
    app = typer.Typer()
    predict.register(app)
    images = [str(tmp_path / name) for name in ("30.png", "210.png", "torn.png")]
    done = CliRunner().invoke(app, [str(tmp_path / "export"), *images, "--json"], standalone_mode=False)
    dark, bright, torn = json.loads(done.stdout)
    assert set(dark) == {"file", "level"} and set(torn) == {"file", "error"} and done.return_value == 1
    assert dark["level"] < 0.35 and bright["level"] > 0.65
    table = CliRunner().invoke(app, [str(tmp_path / "export"), images[1]], standalone_mode=False).stdout.split()
    assert table[:2] == ["file", "level"]
    assert f"{bright['level']:.2f}" in table  # before the rest of a long file name that was broken into lines


def test_a_models_unknown_task_is_told(
    records: tuple[MeasuredTrial, ...], session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_export(records[0], session, tmp_path / "export", formats=())
    monkeypatch.delitem(registry_homes(), "brightness")
    with pytest.raises(ConfigError, match=r"model\.onnx cannot be used: .*no task is called 'brightness'") as caught:
        predict.open_export(tmp_path / "export")
    assert str(caught.value).endswith(
        f"There are: {', '.join(task_names())}\nInstall the package that offers the task of this network."
    )


def test_the_error_of_a_score_that_is_no_proportion_is_its_metrics_own(records: tuple[MeasuredTrial, ...]) -> None:
    quality = records[0].quality
    assert math.sqrt(variance(quality)) == pytest.approx(0.01 / 1.959964)  # the toy's interval is +- 0.01
    plain = replace(quality, metric="top1")
    assert variance(plain) == plain.score * (1 - plain.score) / plain.images
