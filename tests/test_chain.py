"""The whole chain on tiny real work: data file to front, continued, refused, exported, trained again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from colours import colour_file, colour_images, colour_space

from scalesearch.cli.export import export_trial
from scalesearch.cli.full_training import train_export
from scalesearch.config import load_run
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.errors import ConfigError
from scalesearch.records.front_scores import read_front_scores
from scalesearch.records.run_file import read_run_file
from scalesearch.records.store import RecordStore
from scalesearch.search.events import Event, StudyOutcome, TrialFinished
from scalesearch.study.run import run_search
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import model_path, reference_path

# A whole search and two trainings: a minute, and the unit tests are to stay under three.
pytestmark = pytest.mark.slow

SETTINGS = ("latency.max_s=0.3", "latency.warmup_s=0.02", "machine.threads=1", "machine.bf16=off")


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_file(tmp_path_factory.mktemp("data") / "colours.npz")


@pytest.fixture(scope="module")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "tiny.toml"
    path.write_text(colour_space())
    return path


def search(
    folder: Path, data: Path, space: Path, *extra: str, budget: int = 4, heard: list[Event] | None = None
) -> StudyOutcome:
    flags = {"data.source": str(data), "budget": budget}
    settings, search_space = load_run(space=str(space), overrides=(*SETTINGS, *extra), flags=flags)
    return run_search(settings, search_space, folder, on_event=(heard if heard is not None else []).append)


@pytest.fixture(scope="module")
def study(data_file: Path, space_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyOutcome]:
    folder = tmp_path_factory.mktemp("results") / "tiny"
    return folder, search(folder, data_file, space_file, budget=3)


def complete(outcome: StudyOutcome) -> list[MeasuredTrial]:
    measured = (record.measured for record in outcome.records if record.state == "complete")
    return [record for record in measured if record]


def test_a_run_ends_with_a_front_of_learned_networks(study: tuple[Path, StudyOutcome]) -> None:
    folder, outcome = study
    assert outcome.ended == "budget"
    assert 2 < outcome.charged <= 3  # the rest may suffice for no other training
    assert outcome.charged == pytest.approx(sum(record.charge for record in outcome.records))
    for record in complete(outcome):
        assert record.quality and record.latency and record.training and record.cost
        # chance is a third; a network that answers the same for every image cannot pass
        assert record.quality.score > 0.55
        assert record.quality.score_low < record.quality.score < record.quality.score_high or record.quality.score == 1
        assert record.latency.p50_ms > 0
        assert {stage.stage for stage in record.stages} >= {"train", "export", "quantize", "latency", "quality"}
    assert outcome.front
    for name in ("trials.csv", "front.csv", "front.png", "run.toml", "study.sqlite3"):
        assert (folder / name).stat().st_size > 0


def test_only_front_members_keep_their_model(study: tuple[Path, StudyOutcome]) -> None:
    folder, outcome = study
    kept = {path.name for path in (folder / "models").iterdir()}
    assert kept == {f"trial_{record.trial:06d}.onnx" for record in outcome.front}


def test_the_front_is_scored_on_test_images_once_at_the_end(study: tuple[Path, StudyOutcome]) -> None:
    folder, outcome = study
    scores = read_front_scores(folder)
    assert [score.trial for score in scores] == sorted(record.trial for record in outcome.front)
    assert all(score.test.images == 60 for score in scores)


def test_pruned_trials_cost_less_than_their_dense_twin(study: tuple[Path, StudyOutcome]) -> None:
    pruned = [r for r in complete(study[1]) if r.candidate.pruning.channel_fraction and r.cost and r.dense_macs]
    for record in pruned:
        assert record.cost and record.dense_macs
        assert record.cost.macs < record.dense_macs


def test_the_same_command_adds_nothing_and_a_larger_budget_goes_on(
    study: tuple[Path, StudyOutcome], data_file: Path, space_file: Path
) -> None:
    folder, first = study
    again = search(folder, data_file, space_file, budget=3)
    assert again.records == first.records
    heard: list[Event] = []
    more = search(folder, data_file, space_file, budget=4, heard=heard)
    assert 4 <= more.charged < 5
    assert more.records[: len(first.records)] == first.records
    new = [event.record for event in heard if isinstance(event, TrialFinished)]
    assert [record.trial for record in new] == [record.trial for record in more.records[len(first.records) :]]


def test_lost_files_come_back_as_they_were_and_others_in_their_place_are_refused(
    study: tuple[Path, StudyOutcome], data_file: Path, space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice of every refusal is to delete the file: this is what then happens, here from another folder."""
    folder = tmp_path / "copy"
    shutil.copytree(study[0], folder)
    monkeypatch.chdir(data_file.parent)
    front = search(folder, Path(data_file.name), space_file, budget=4).front
    model, reference = model_path(folder, front[0].trial), reference_path(folder)
    kept = {path: path.read_bytes() for path in (model, reference)}
    monkeypatch.chdir(tmp_path)
    reference.write_bytes(kept[model])
    with pytest.raises(ConfigError, match="is not the file that this study's latencies are relative to"):
        search(folder, Path(data_file.name), space_file, budget=4)
    scores = read_front_scores(folder)
    for path in (reference, folder / "front_scores.json", model):
        path.unlink()
    search(folder, Path(data_file.name), space_file, budget=4)
    assert {path: path.read_bytes() for path in kept} == kept
    assert [score.test for score in read_front_scores(folder)] == [score.test for score in scores]

    model.write_bytes(kept[reference])
    (folder / "front_scores.json").unlink()
    search(folder, Path(data_file.name), space_file, budget=4)
    assert front[0].trial not in {score.trial for score in read_front_scores(folder)}
    assert len(read_front_scores(folder)) == len(front) - 1


def test_another_space_data_or_recipe_is_refused_with_the_difference(
    study: tuple[Path, StudyOutcome], data_file: Path, space_file: Path, tmp_path: Path
) -> None:
    folder, _ = study
    before = RecordStore(folder).all()
    with pytest.raises(ConfigError, match=r"training\.steps") as caught:
        search(folder, data_file, space_file, "training.steps=23")
    assert "24" in str(caught.value) and "23" in str(caught.value) and "--fresh" in str(caught.value)
    # More updates make the study longer, but not where its budget has no room for one of these trainings.
    with pytest.raises(ConfigError, match="of 25 updates from now on"):
        search(folder, data_file, space_file, "training.steps=25", budget=2)
    images, labels = colour_images(200, 9)
    np.savez(tmp_path / "other.npz", images=images, labels=labels)
    with pytest.raises(ConfigError, match=r"data\.fingerprint"):
        search(folder, tmp_path / "other.npz", space_file)
    assert RecordStore(folder).all() == before


def test_the_same_seed_gives_the_same_candidates_and_accuracies(
    study: tuple[Path, StudyOutcome], data_file: Path, space_file: Path, tmp_path: Path
) -> None:
    _, first = study
    second = search(tmp_path / "again", data_file, space_file, budget=2)
    for one, other in zip(first.records, second.records, strict=False):
        assert one.candidate == other.candidate
        assert one.quality and other.quality and one.training and other.training
        assert one.quality.score == other.quality.score
        assert one.training.final_loss == other.training.final_loss
        assert one.onnx_sha256 == other.onnx_sha256


def test_an_exported_trial_trains_again_to_the_same_network(study: tuple[Path, StudyOutcome], tmp_path: Path) -> None:
    folder, outcome = study
    session = read_run_file(folder)
    assert session
    dominated = [record for record in complete(outcome) if record not in outcome.front]
    for record in (outcome.front[-1], *dominated[:1]):  # of which one has no kept model, so it is rebuilt
        export_trial(record, session, tmp_path / f"export{record.trial}")
        assert (tmp_path / f"export{record.trial}" / "model.onnx").stat().st_size > 0
    best = outcome.front[-1]
    assert best.quality
    train_export(tmp_path / f"export{best.trial}", steps=24, data=None, seed=None, to=tmp_path / "again")
    result = json.loads((tmp_path / "again" / "result.json").read_text())
    assert result["macs"] == best.cost.macs if best.cost else False
    # the same number of steps on the same images from the same seed: the same weights, so the same accuracy
    assert result["top1"] == best.quality.score
    assert onnx_model(tmp_path / "again" / "model.onnx").sha256 == best.onnx_sha256


def test_a_limit_rejects_before_training(data_file: Path, space_file: Path, tmp_path: Path) -> None:
    outcome = search(tmp_path / "limited", data_file, space_file, "limits.max_macs=1000", budget=1)
    assert outcome.ended == "exhausted"
    assert outcome.charged == 0
    assert {record.state for record in outcome.records} == {"rejected"}
    assert all(record.training is None and "max_macs" in record.reason for record in outcome.records)
    # what a limit cost is read by people: the file says it too
    stored = json.loads((tmp_path / "limited" / "records" / "000000.json").read_text())
    assert stored["limits"][0]["excess"] > 0
