"""An export's folder holds one trial's files: what may be replaced, what stays, and what is refused."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scalesearch.deployment.formats.c_texts import makefile
from scalesearch.errors import ConfigError
from scalesearch.export.formats import FORMATS, OUTPUTS
from scalesearch.export.metadata import write_config
from scalesearch.export.target import check_place, earlier_export, kept_parts, refuse_other_trial
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.settings import DataSettings, RunSettings

MakeRecord = Callable[..., MeasuredTrial]


@pytest.fixture
def study(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    home, here = tmp_path / "home", tmp_path / "home" / "work"
    (here / "pictures" / "train").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    folder = here / "results" / "first"
    (folder / "models").mkdir(parents=True)
    return replace(
        session, folder=folder, run_folder=str(here), settings=RunSettings(data=DataSettings(source="pictures"))
    )


@pytest.fixture
def export(study: Session, make_record: MakeRecord) -> Path:
    """Of trial 5, with a C format that somebody built, and pictures."""
    folder = Path("ship")
    write_config(make_record(5), study, folder)
    for name in ("model.onnx", "MODEL_CARD.md", "histogram.png", "c/model.c", "c/Makefile", "c/model.o", "c/self_test"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize(
    ("to", "says"),
    [
        (".", "the folder that you are in"),
        ("", "the folder that you are in"),
        ("..", "or holds it"),
        ("/", "or holds it"),
        ("~", "or holds it"),
        ("results", "the study's folder, or holds it"),
        ("results/first", "is the study's folder"),
        ("results/first/models", "the study keeps its own files"),
        ("results/first/confirmed/best", "the study keeps its own files"),
        ("results/first/pictures/best", "the study keeps its own files"),
        ("results/first/parent", "the study keeps its own files"),
        ("results/first/untrained", "the study keeps its own files"),
        ("pictures", "the folder of the images"),
        ("pictures/train/best", "within the images"),
        ("a_file", "is a file"),
        ("a_link", "is a link"),
        ("a_dead_link", "is a link"),
        ("/dev/null", "is a file"),
        ("x" * 300, "x"),
    ],
)
def test_places_that_are_needed_are_refused(to: str, says: str, study: Session) -> None:
    Path("a_file").write_text("mine")
    Path("somewhere").mkdir()
    Path("a_link").symlink_to("somewhere")
    Path("a_dead_link").symlink_to("nowhere")
    with pytest.raises(ConfigError) as caught:
        check_place(Path(to).expanduser(), study)
    assert says in str(caught.value) and "--to" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("to", ["best", "new/best", "results/second", "somewhere", "results/first/best"])
def test_other_places_are_free(to: str, study: Session) -> None:
    Path("somewhere").mkdir()
    check_place(Path(to), study)
    assert earlier_export(Path(to)) is None


def test_an_earlier_export_is_known_with_what_systems_and_make_leave_in_it(export: Path) -> None:
    for name in (".DS_Store", "c/._model.c", "Thumbs.db"):
        (export / name).write_text("")
    (export / "__pycache__").mkdir()
    found = earlier_export(export)
    assert found and found.trial == 5


@pytest.mark.parametrize("name", ["notes.txt", "c/main.c", "openvino/my.xml", ".secret", "run.toml", "model.onnx.bak"])
def test_what_no_export_wrote_is_never_replaced(name: str, export: Path) -> None:
    (export / name).parent.mkdir(exist_ok=True)
    (export / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"ship holds {name}, which no export wrote") as caught:
        earlier_export(export)
    assert "another folder with --to" in str(caught.value)
    assert (export / name).read_text() == "mine"


def test_c_files_of_a_task_of_another_package_are_known_by_the_unchanged_makefile(export: Path) -> None:
    (export / "c").mkdir(exist_ok=True)
    made = export / "c" / "Makefile"
    made.write_text(makefile({"level": ("", "")}))
    for name in ("level.c", "level.h"):
        (export / "c" / name).write_text("")
    assert earlier_export(export)
    made.write_text(made.read_text().replace("OBJECTS = model.o", "OBJECTS = model.o mine.o"))
    (export / "c" / "mine.c").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds c/level\.c, c/level\.h, c/mine\.c, which no export wrote"):
        earlier_export(export)


def test_a_link_or_folder_under_a_name_of_ours_is_not_ours(export: Path, tmp_path: Path) -> None:
    (export / "infer.py").symlink_to(tmp_path)
    (export / "model.pte").mkdir()
    with pytest.raises(ConfigError, match=r"holds infer\.py, model\.pte, which"):
        earlier_export(export)


def test_names_of_ours_without_a_config_may_be_somebodys(export: Path) -> None:
    (export / "config.toml").unlink()
    with pytest.raises(ConfigError, match=r"without the config\.toml of an export, so it may be yours"):
        earlier_export(export)
    (export / "config.toml").write_text("[tool]\n")
    with pytest.raises(ConfigError, match=r"Expected a config\.toml that `scalesearch export` wrote"):
        earlier_export(export)


def test_other_formats_stay_beside_the_very_same_model_only(export: Path, tmp_path: Path) -> None:
    model = tmp_path / "new.onnx"
    shutil.copy(export / "model.onnx", model)
    assert kept_parts(export, model=model, pictures_of=("first", 5)) == ("c", "histogram.png")
    assert kept_parts(export, model=model, pictures_of=None) == ("c",)
    model.write_text("of another trial")
    assert kept_parts(export, model=model, pictures_of=("first", 5)) == ()


def test_pictures_that_were_drawn_before_the_export_stay_with_their_trial(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "histogram.html").write_text("<title>a &amp; b, trial 5: int8</title>")
    model = tmp_path / "model.onnx"
    model.write_text("model")
    assert earlier_export(folder) is None
    assert kept_parts(folder, model=model, pictures_of=("a & b", 5)) == ("histogram.html",)
    for other in (("a & b", 55), ("b", 5), None):
        assert kept_parts(folder, model=model, pictures_of=other) == ()


def test_pictures_of_one_trial_do_not_go_into_the_export_of_another(export: Path) -> None:
    refuse_other_trial(export, "first", 5)
    refuse_other_trial(Path("free"), "first", 6)
    for study, trial in (("first", 6), ("second", 5)):
        with pytest.raises(ConfigError, match=r"the export of trial 5 of first"):
            refuse_other_trial(export, study, trial)


def test_every_format_says_what_it_writes() -> None:
    """Else its files would be taken for the user's, and the next export refused."""
    assert OUTPUTS.keys() == FORMATS.keys()
