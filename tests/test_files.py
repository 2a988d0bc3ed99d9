"""Files that are whole or not there, readable as the umask has it and never writable for everybody."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scalesearch.files import absolute_from, named, read_file, remove_partial_files, replace_file
from scalesearch.toml_file import read_toml


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o000, 0o664), (0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_a_file_is_never_writable_for_everybody(mask: int, mode: int, tmp_path: Path, umask: None) -> None:
    os.umask(mask)
    replace_file(tmp_path / "record.json", b"{}")
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == mode
    assert os.umask(mask) == mask


@pytest.mark.slow
def test_a_command_makes_nothing_that_everybody_may_write(tmp_path: Path) -> None:
    """At umask 000, with folders, locks and files alike; children inherit it."""
    code = (
        "import os; os.umask(0)\n"
        "from scalesearch.cli.terminal import prepare_streams; prepare_streams()\n"
        "from pathlib import Path; from scalesearch.search.storage import only_coordinator, opened_study\n"
        "folder = Path('study'); folder.mkdir()\n"
        "with only_coordinator(folder), opened_study(folder): pass\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    made = [tmp_path / "study", *(tmp_path / "study").rglob("*")]
    assert len(made) >= 2
    assert [path.name for path in made if path.stat().st_mode & 0o002] == []


def test_what_is_no_plain_file_or_too_large_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * 2000)
    with pytest.raises(ValueError, match="no plain file"):
        read_toml(tmp_path / "pipe.toml")
    with pytest.raises(ValueError, match="no plain file"):
        read_file(tmp_path)
    with pytest.raises(ValueError, match="expected at most"):
        read_file(tmp_path / "large.toml", max_bytes=1999)


def test_what_a_kill_left_half_written_is_removed_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a kill between writing and renaming leaves it, by the name that the program itself gave.
    left = list[Path]()
    monkeypatch.setattr(Path, "replace", lambda self, _: left.append(self))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    for name in ("run.toml", "records/000003.json", "confirmed/weights/deep/a.b.safetensors"):
        replace_file(tmp_path / name, b"half")
    monkeypatch.undo()
    assert len(left) == 3 and all(path.is_file() for path in left)
    (tmp_path / "notes.partial").touch()
    (tmp_path / ".mine.abc.partial").mkdir()
    replace_file(tmp_path / "run.toml", b"whole")
    assert remove_partial_files(tmp_path) == 3
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["notes.partial", "run.toml"]


def test_a_path_is_seen_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert absolute_from(tmp_path, "a/../b") == str(tmp_path / "b")
    assert absolute_from(tmp_path, "/c/d") == "/c/d"
    assert absolute_from(tmp_path, "~/e") == str(tmp_path / "home" / "e")


def test_a_folder_is_named_however_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    assert named(Path()).name == named(Path("in/..")).name == tmp_path.name
    Path("latest").symlink_to("in")
    assert named(Path("latest")) == Path("latest")
