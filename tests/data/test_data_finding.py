"""A study's images are found from any folder, and only the very same ones."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from scalesearch.data import LABEL_SOURCES, load_dataset
from scalesearch.data.finding import data_path, find_study_data, load_study_data, with_data
from scalesearch.errors import ConfigError
from scalesearch.records.run_file import continues_with
from scalesearch.values.session import Session
from scalesearch.values.settings import DataSettings, RunSettings

SIDE_PX = 12


def grain(path: Path, *, seed: int, count: int = 90, classes: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(seed).integers(0, 256, (count, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(count) % classes)
    return path


@pytest.fixture
def study(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Run as `--data grain.npz` in the folder `project`; we are in another one since."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    project, away = tmp_path / "project", tmp_path / "away"
    grain(project / "grain.npz", seed=1)
    monkeypatch.chdir(project)
    data = DataSettings(source="grain.npz", calibration_images=12, val_fraction=0.3)
    found = load_dataset(data, LABEL_SOURCES, storage_px=SIDE_PX)
    away.mkdir()
    monkeypatch.chdir(away)
    summary = dataclasses.replace(session.data, name="grain", fingerprint=found.fingerprint, train_images=31)
    folder = project / "results" / "first"
    return dataclasses.replace(
        session, folder=folder, settings=RunSettings(data=data), storage_px=SIDE_PX, data=summary,
        run_folder=str(project),
    )  # fmt: skip


def test_relative_data_are_found_from_another_folder(study: Session, tmp_path: Path) -> None:
    assert load_study_data(study, LABEL_SOURCES).fingerprint == study.data.fingerprint
    found = find_study_data(study, LABEL_SOURCES)
    assert Path(found.settings.source) == tmp_path / "project" / "grain.npz" == data_path(study, LABEL_SOURCES)
    assert found.folder == study.run_folder


def test_known_images_are_not_searched_for_copies_again_and_keep_their_warnings(
    study: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()

    def search(splits: object, *, name: str, fit: str) -> tuple[str, ...]:
        asked.append(name)
        return ("alike",)

    monkeypatch.setattr("scalesearch.data.notes.near_copy_warnings", search)
    warned = dataclasses.replace(study, data=dataclasses.replace(study.data, warnings=("as the first run saw",)))
    assert load_study_data(warned, LABEL_SOURCES).warnings == ("as the first run saw",)
    assert not asked
    settings = dataclasses.replace(study.settings.data, source=str(data_path(study, LABEL_SOURCES)))
    assert "alike" in load_dataset(settings, LABEL_SOURCES, storage_px=SIDE_PX).warnings
    assert len(asked) == 1


def test_a_set_of_that_name_here_is_taken_only_if_it_is_the_same(study: Session, tmp_path: Path) -> None:
    grain(Path("grain.npz"), seed=2)
    assert load_study_data(study, LABEL_SOURCES).fingerprint == study.data.fingerprint
    (tmp_path / "project" / "grain.npz").unlink()
    with pytest.raises(ConfigError, match=r"fingerprint was .*, is ") as caught:
        load_study_data(study, LABEL_SOURCES)
    assert "--data PATH" in str(caught.value) and len(str(caught.value).splitlines()) <= 3
    grain(Path("grain.npz"), seed=1)
    assert find_study_data(study, LABEL_SOURCES).folder == str(tmp_path / "away")


@pytest.mark.parametrize("below", ["results/first", "first", "."])
def test_a_study_of_old_finds_its_data_beside_itself(study: Session, tmp_path: Path, below: str) -> None:
    old = dataclasses.replace(study, run_folder="", folder=tmp_path / "project" / below)
    if below == ".":  # nothing beside it: what is in a study is no data set
        with pytest.raises(ConfigError, match="nothing is there"):
            load_study_data(old, LABEL_SOURCES)
        return
    assert load_study_data(old, LABEL_SOURCES).fingerprint == study.data.fingerprint


def test_gone_data_are_told_with_study_folder_and_remedy(study: Session, tmp_path: Path) -> None:
    (tmp_path / "project" / "grain.npz").unlink()
    with pytest.raises(ConfigError) as caught:
        load_study_data(study, LABEL_SOURCES)
    told = str(caught.value)
    for part in (str(study.folder), "'grain.npz'", str(tmp_path / "project"), "--data PATH"):
        assert part in told
    assert len(told.splitlines()) <= 3 and "Known names" not in told


def test_a_moved_set_is_given_and_compared(study: Session, tmp_path: Path) -> None:
    moved = (tmp_path / "project" / "grain.npz").rename(tmp_path / "renamed.npz")
    session = with_data(study, "../renamed.npz", LABEL_SOURCES)
    assert session.settings.data.source == str(moved)
    assert load_study_data(session, LABEL_SOURCES).fingerprint == study.data.fingerprint
    assert with_data(study, None, LABEL_SOURCES) is study


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("../other.npz", ("fingerprint was", "3 classes", "5 classes", "31 training")),
        ("../nothing", ("--data ../nothing", "'grain.npz'", "where there is nothing")),
        ("../project", ("--data ../project", "Came:")),
    ],
)
def test_other_images_are_refused(study: Session, tmp_path: Path, given: str, says: tuple[str, ...]) -> None:
    grain(tmp_path / "other.npz", seed=1, count=150, classes=5)
    study = dataclasses.replace(study, data=dataclasses.replace(study.data, class_names=("a", "b", "c")))
    with pytest.raises(ConfigError) as caught:
        with_data(study, given, LABEL_SOURCES)
    for part in (*says, str(study.folder)):
        assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_what_this_version_reads_otherwise_is_said(
    study: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "data grain: the whole match counts (earlier versions: one group)"
    monkeypatch.setattr("scalesearch.data.crossing_groups", lambda *_: (told,))
    grain(tmp_path / "project" / "grain.npz", seed=2)
    for ask in (load_study_data, lambda known, sources: with_data(known, "../project/grain.npz", sources)):
        with pytest.raises(ConfigError, match="fingerprint was") as caught:
            ask(study, LABEL_SOURCES)
        assert f"\nIf the files are the same: {told}; a new study (--fresh) is needed. " in str(caught.value)
        assert len(str(caught.value).splitlines()) <= 3
    known = dataclasses.replace(study, data=dataclasses.replace(study.data, warnings=(told,)))
    with pytest.raises(ConfigError, match=r"\nRestore them\. "):
        load_study_data(known, LABEL_SOURCES)


def test_named_sets_have_no_place(study: Session) -> None:
    named = dataclasses.replace(study, settings=RunSettings(data=DataSettings(source="signs")))
    assert data_path(named, LABEL_SOURCES) is None
    assert data_path(dataclasses.replace(study, run_folder="/nowhere", folder=Path("/nowhere")), LABEL_SOURCES) is None


def test_a_run_goes_on_with_equal_settings_only(study: Session) -> None:
    from scalesearch.records.run_file import write_run_file

    assert not continues_with(study.settings.data, study.folder)
    write_run_file(study)
    assert continues_with(study.settings.data, study.folder)
    assert continues_with(dataclasses.replace(study.settings.data, memory="disk"), study.folder)
    assert not continues_with(DataSettings(source="grain.npz"), study.folder)
    padded = dataclasses.replace(study.settings.data, fit="pad")
    write_run_file(dataclasses.replace(study, settings=RunSettings(data=padded)))
    assert continues_with(study.settings.data, study.folder)  # `auto` is what the study has
    assert not continues_with(dataclasses.replace(padded, fit="crop"), study.folder)
