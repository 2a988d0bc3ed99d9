"""A database that is damaged, another program's, full, locked or read-only is said so; deleted, it comes back."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from study_runs import assert_sound, run

from scalesearch.dashboard.publisher import stored_histograms
from scalesearch.errors import ConfigError
from scalesearch.search import database_file
from scalesearch.search.database_file import in_words, look_into, uri_of
from scalesearch.search.storage import STUDY_FILE, STUDY_NAME, open_storage, opened_study, reading_storage

pytestmark = pytest.mark.usefixtures("no_dashboard")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two trials, told by hand: no worker is started."""
    folder = tmp_path_factory.mktemp("made")
    with opened_study(folder, url="") as opened:
        for _ in range(2):
            trial = opened.study.ask()
            trial.suggest_float("x", 0, 1)
            opened.study.tell(trial, (0.5, 1.0))
    return folder


@pytest.fixture
def file(made: Path, tmp_path: Path) -> Path:
    shutil.copyfile(made / STUDY_FILE, tmp_path / STUDY_FILE)
    return tmp_path / STUDY_FILE


def garbage(file: Path) -> None:
    file.write_bytes(b"\x00\xffnothing of SQLite's" * 300)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def hole(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[8192:40960] = bytes(32768)
    file.write_bytes(content)


def foreign(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE bookmarks (address TEXT)")
        database.commit()


def newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE version_info SET schema_version = 99, library_version = '9.9'")
        database.execute("UPDATE alembic_version SET version_num = 'v9.9.0.a'")
        database.commit()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (garbage, r"(?s)study\.sqlite3 cannot be opened as a study: it is no SQLite database.*Delete it.*records/"),
        (cut, r"(?s)cannot be opened as a study.*Delete it"),
        (hole, r"(?s)cannot be opened as a study.*Delete it"),
        (foreign, r"(?s)is a database, but not an Optuna study: it holds bookmarks.*Move it away"),
        (newer, r"(?s)another version of Optuna than the .* here.*run\.toml"),
    ],
)
def test_an_unfit_database_is_said_in_three_lines_and_left_as_it_is(
    file: Path, harm: Callable[[Path], None], words: str
) -> None:
    harm(file)
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=words) as caught, opened_study(file.parent):
        pytest.fail("it was opened")
    assert len(str(caught.value).splitlines()) <= 3 and "--fresh" not in str(caught.value)
    with pytest.raises(ConfigError, match=words):
        reading_storage(file.parent)
    if harm is not newer:  # that one is looked at by Optuna, in its own mode of writing
        assert file.read_bytes() == before


def test_a_locked_and_a_full_one_are_told_apart(file: Path) -> None:
    with closing(sqlite3.connect(file, timeout=0.1)) as other, closing(sqlite3.connect(file, timeout=0.1)) as mine:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ConfigError, match=r"(?s)is locked by another program.*Close"), in_words(file):
            mine.execute("BEGIN EXCLUSIVE")
    with closing(sqlite3.connect(file)) as small:
        pages = small.execute("PRAGMA page_count").fetchone()[0]
        small.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(ConfigError, match=r"(?s)the disk is full.*free some space"), in_words(file):
            small.executemany("INSERT INTO studies (study_name) VALUES (?)", [(f"{n}" * 500,) for n in range(90)])


def test_a_disk_that_fills_up_in_the_middle_of_a_study_is_said(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)disk is full.*free some space"), opened_study(file.parent) as opened:
        with opened.storage.engine.connect() as connection:  # the pool gives the same one again
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        for number in range(200):
            opened.study.set_user_attr(f"attribute {number}", "x" * 1000)


def test_an_empty_file_is_a_new_study(tmp_path: Path) -> None:
    (tmp_path / STUDY_FILE).touch()
    look_into(tmp_path / STUDY_FILE)
    with opened_study(tmp_path) as opened:
        assert opened.study.trials == []


def test_what_cannot_be_written_is_read_as_it_is_and_nothing_is_made_beside_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_file, "is_read_only", lambda _: True)
    monkeypatch.setattr(database_file, "_opens", lambda _: False)  # as SQLite, which cannot make its third file there
    assert "immutable=1" in uri_of(file)
    assert trials_in(file.parent) == 2
    assert [path.name for path in file.parent.iterdir()] == [STUDY_FILE]
    assert stored_histograms(file.parent) == {}


def test_the_log_of_a_read_only_database_is_read_too(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(file)  # open, so that its log is not merged
    study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
    study.ask()
    there = tmp_path / "mounted"
    there.mkdir()
    for name in (STUDY_FILE, f"{STUDY_FILE}-wal"):
        shutil.copyfile(tmp_path / name, there / name)
    storage.remove_session()
    storage.engine.dispose()
    before = {path.name: path.read_bytes() for path in there.iterdir()}
    monkeypatch.setattr(database_file, "is_read_only", lambda path: path.parent == there)
    monkeypatch.setattr(database_file, "_opens", lambda _: False)
    assert trials_in(there) == 3
    assert {path.name: path.read_bytes() for path in there.iterdir()} == before


def trials_in(folder: Path) -> int:
    storage = reading_storage(folder)
    try:
        return len(optuna.load_study(study_name=STUDY_NAME, storage=storage).trials)
    finally:
        storage.remove_session()
        storage.engine.dispose()


@pytest.mark.slow
def test_a_deleted_database_comes_back_whole_from_the_records(tmp_path: Path) -> None:
    first = run(tmp_path, 4)
    (tmp_path / STUDY_FILE).unlink()
    again = run(tmp_path, 4)
    assert again.charged == 4 and again.records == first.records
    assert_sound(tmp_path, 4)
