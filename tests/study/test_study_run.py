"""What a run does to its folder besides searching: who may work in it, and what lies in it that is not ours."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from scalesearch.cli import run as command
from scalesearch.config import load_run
from scalesearch.errors import ConfigError
from scalesearch.folder_lock import hold_folder
from scalesearch.records.store import RecordStore
from scalesearch.study import run as running
from scalesearch.study.keeper import Keeper
from scalesearch.study.preparation import Preparation
from scalesearch.study.run import clear_leftovers, run_search, tune_parent
from scalesearch.training.weights import KeptTraining, WeightStore
from scalesearch.values.parent import Parent, parent_folder
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session, model_path


def test_a_parent_is_said_to_be_fine_tuned_only_if_it_is_not_yet(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = Parent(
        source="weights.pth", sha256="a" * 64, licence="free", network=session.base, mean=(0.5,) * 3, std=(0.5,) * 3,
        head="new", steps=4, key="b" * 64,
    )  # fmt: skip
    monkeypatch.setattr(running, "run_apart", lambda *_, **__: ("as it went",))
    said = list[str]()

    assert tune_parent(replace(session, parent=parent), said.append) == ("as it went",)
    kept = KeptTraining(float_score=0.5, train_s=1.0, final_loss=1.0, losses=(), steps=4, safe_recipe_used=False)
    WeightStore(parent_folder(tmp_path)).save(parent.key, nn.Linear(2, 2), kept)
    tune_parent(replace(session, parent=parent), said.append)
    tune_parent(replace(session, parent=replace(parent, steps=0)), said.append)

    assert said == ["parent: fine-tuning it by 4 updates, once for the whole study"]
    assert tune_parent(session, said.append) == () and len(said) == 1


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("holder", ["run", "confirmation"])
def test_a_run_is_refused_before_anything_is_written_or_renamed(tmp_path: Path, fresh: bool, holder: str) -> None:
    folder = tmp_path / "study"
    (folder / "records").mkdir(parents=True)
    (folder / "run.toml").write_text("of the run that is at work")
    with hold_folder(folder, holder):
        before = everything(tmp_path)
        with pytest.raises(ConfigError, match=rf"(?s)another {holder} \(process \d+\) works on .*study.*--to"):
            command.run(to=folder, fresh=fresh)
        settings, space = load_run(space="resnet_small")
        with pytest.raises(ConfigError, match=f"another {holder}"):
            run_search(settings, space, folder)
        assert everything(tmp_path) == before
        assert sorted(path.name for path in tmp_path.iterdir()) == [".study.lock", "study"]


def test_a_folder_in_which_nothing_came_about_is_removed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        message = "no such folder: images"
        raise ConfigError(message)

    monkeypatch.setattr(running, "open_session", fail)
    with pytest.raises(ConfigError, match="images"):
        command.run(to=tmp_path / "study")
    assert list(tmp_path.iterdir()) == []


def test_trainings_before_the_search_are_part_of_its_time(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[float]()

    def opened(settings: object, space: object, folder: Path, *, preparation: Preparation, **_: object) -> Session:
        time.sleep(0.05)  # data, reference: not counted
        with preparation.training():
            time.sleep(0.05)
        return replace(session, folder=folder)

    def searched(*_: object, prepared_s: float, **__: object) -> None:
        told.append(prepared_s)
        raise KeyboardInterrupt

    def tuned(*_: object) -> tuple[str, ...]:
        time.sleep(0.05)
        return ()

    for name, stand_in in (("open_session", opened), ("tune_parent", tuned), ("run_study", searched)):
        monkeypatch.setattr(running, name, stand_in)
    settings, space = load_run(space="resnet_small")
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_search(settings, space, tmp_path / "study")
    assert 0.1 <= told[0] <= time.monotonic() - began - 0.05


def test_stray_files_in_models_stop_nothing_and_stay(tmp_path: Path, make_record: Callable[..., MeasuredTrial]) -> None:
    record = make_record(1)
    RecordStore(tmp_path).save(record)
    keeper = Keeper(tmp_path, "signs, 300 validation images")
    models = tmp_path / "models"
    (models / "trial_000001.dense.onnx").mkdir(parents=True)
    strays = ("notes.txt", "trial_abc.onnx", "trial_.onnx", "trial_000001 (copy).onnx", "trial_000005.fp32.onnx")
    ours = ("", ".fp32", ".untrained", ".untrained.fp32")
    for name in (*strays, *(f"trial_000001{kind}.onnx" for kind in ours)):
        (models / name).touch()
    keeper.write((record,), ())
    left = sorted(path.name for path in models.iterdir())
    assert left == sorted([*strays, "trial_000001.dense.onnx"])  # what is ours went, but for trial 5's, at work


def test_a_run_starts_by_clearing_what_a_kill_left_and_what_is_in_the_way(tmp_path: Path) -> None:
    model_path(tmp_path, 2).mkdir(parents=True)
    (model_path(tmp_path, 2) / "mine.txt").touch()
    (tmp_path / "records" / "000003.json").mkdir(parents=True)
    for name in (".writable", ".run.toml.x7_a9z_q.partial", "records/.000001.json.abcdefgh.partial"):
        (tmp_path / name).touch()
    said = list[str]()
    clear_leftovers(tmp_path, said.append)
    left = sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file() or "moved" in path.name
    )
    assert left == [
        "models/trial_000002.onnx.moved1", "models/trial_000002.onnx.moved1/mine.txt", "records/000003.json.moved1",
    ]  # fmt: skip
    assert len(said) == 2 and all("is a folder where a file of the study belongs" in line for line in said)
    assert RecordStore(tmp_path).all() == ()
