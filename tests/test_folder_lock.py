"""One process at a time in a folder: who is refused, what they are told, and what no refusal may touch."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scalesearch import folder_lock
from scalesearch.errors import ConfigError
from scalesearch.folder_lock import INSIDE, hold_folder

_HOLDER = """
import sys, time
from pathlib import Path
from scalesearch.folder_lock import hold_folder
with hold_folder(Path(sys.argv[1]), "confirmation", inside=sys.argv[2] == "inside"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder(folder: Path, *, inside: bool = True) -> "Iterator[subprocess.Popen[str]]":
    """Another process that holds the folder."""
    command = [sys.executable, "-c", _HOLDER, str(folder), "inside" if inside else "beside"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("inside", [True, False])
def test_a_second_process_is_refused_by_name_until_the_first_dies(tmp_path: Path, inside: bool) -> None:
    folder = tmp_path / "study"
    with holder(folder, inside=inside) as process:
        words = rf"another confirmation \(process {process.pid}\) works on .*study"
        for mine in (True, False):
            with pytest.raises(ConfigError, match=words), hold_folder(folder, "run", inside=mine):
                pytest.fail("held twice")
        assert inside or not folder.exists()  # the refused one made nothing
        process.send_signal(signal.SIGKILL)
        process.wait()
    with hold_folder(folder, "run"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study"]
    assert list(folder.iterdir()) == []  # what the one that was killed left went with the next hold


def test_a_hold_leaves_nothing_behind_and_nothing_is_set_aside_of_an_empty_folder(tmp_path: Path) -> None:
    with hold_folder(tmp_path / "study", "run") as hold:
        assert hold.set_aside() is None
    assert list(tmp_path.iterdir()) == [tmp_path / "study"] and not list((tmp_path / "study").iterdir())


def test_the_folder_is_held_while_it_is_renamed_away_and_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "run.toml").write_text("old")
    (tmp_path / "study.old1").mkdir()
    with hold_folder(folder, "run") as hold:
        assert hold.set_aside() == tmp_path / "study.old2"
        assert (tmp_path / "study.old2" / "run.toml").read_text() == "old"
        assert {path.name for path in folder.iterdir()} <= {INSIDE}
        for inside in (True, False):
            with pytest.raises(ConfigError, match="another run"), hold_folder(folder, "run", inside=inside):
                pytest.fail("held twice")
        with hold_folder(tmp_path / "study.old2", "run"):  # what was set aside is nobody's
            pass


def test_a_link_and_another_spelling_are_the_same_folder(tmp_path: Path) -> None:
    folder, link = tmp_path / "study", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    with hold_folder(folder, "run"):
        for same in (link, tmp_path / "other" / ".." / "study"):
            with pytest.raises(ConfigError, match="another run"), hold_folder(same, "run"):
                pytest.fail("held twice")
    with hold_folder(link, "run") as hold:
        (folder / "mine").touch()
        hold.set_aside()
    assert link.is_symlink() and not (link / "mine").exists()
    assert (tmp_path / "study.old1" / "mine").exists()


def test_what_was_set_aside_is_put_back_where_the_new_folder_is_gone(tmp_path: Path) -> None:
    folder, link = tmp_path / "study", tmp_path / "link"
    folder.mkdir()
    (folder / "mine").touch()
    link.symlink_to(folder)
    with hold_folder(link, "run") as hold:
        aside = hold.set_aside()
        assert aside and not hold.put_back(aside) and not (folder / "mine").exists()
        hold.leave_empty()
        assert hold.put_back(aside) and link.is_symlink() and (link / "mine").exists()
        assert not hold.put_back(aside), "there is nothing left to put back"
        with pytest.raises(ConfigError, match="another run"), hold_folder(folder, "run"):
            pytest.fail("held twice")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "study"]


def test_a_folder_moved_while_it_is_held_stays_held(tmp_path: Path) -> None:
    with hold_folder(tmp_path / "study", "run"):
        (tmp_path / "study").rename(tmp_path / "moved")
        with pytest.raises(ConfigError, match="another run"), hold_folder(tmp_path / "moved", "run"):
            pytest.fail("held twice")


def test_without_a_writable_place_beside_it_the_lock_inside_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As by a folder that is mounted into two containers: each has its own folder around it.
    real = os.open

    def refuse(path: "str | os.PathLike[str]", *arguments: int) -> int:
        if str(path).endswith(".study.lock"):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    with (
        hold_folder(tmp_path / "study", "run"),
        pytest.raises(ConfigError, match="another run"),
        hold_folder(tmp_path / "study", "run"),
    ):
        pytest.fail("held twice")


def test_a_holder_elsewhere_is_named_with_its_host_and_an_old_file_by_its_number(tmp_path: Path) -> None:
    with hold_folder(tmp_path, "run"):
        for text, words in (
            ("77 farhost training\n", r"training \(process 77 on farhost\)"),
            ("78\n", r"run \(process 78\)"),
        ):
            (tmp_path.with_name(f".{tmp_path.name}.lock")).write_text(text)
            with pytest.raises(ConfigError, match=words), hold_folder(tmp_path, "run"):
                pytest.fail("held twice")


def test_what_cannot_be_written_is_said_with_the_way_out(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match=r"(?s)Cannot write to .*file.*--to"), hold_folder(file, "run"):
        pytest.fail("held a file")


def test_a_file_system_without_locks_is_warned_of_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(folder_lock, "flock", refuse)
    with hold_folder(tmp_path / "study", "run"):
        assert "without locks" in caplog.text


def test_a_hold_that_is_passed_on_is_not_taken_again(tmp_path: Path) -> None:
    with hold_folder(tmp_path, "run") as hold, hold_folder(tmp_path, "search", held=hold) as again:
        assert again is hold


def test_what_holds_nothing_but_the_lock_can_leave_no_trace(tmp_path: Path) -> None:
    with hold_folder(tmp_path / "empty", "run") as hold:
        hold.leave_empty()
    with hold_folder(tmp_path / "full", "run") as hold:
        (tmp_path / "full" / "record").touch()
        hold.leave_empty()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["full"]
