"""A folder is replaced whole or stays as it was, whatever happens while it is filled."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scalesearch import whole_folder as module
from scalesearch.whole_folder import whole_folder


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture(params=["exchanged in one step", "renamed in two"])
def _renaming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "renamed in two":
        monkeypatch.setattr(module, "_exchange", lambda *_: False)


@pytest.mark.usefixtures("_renaming")
def test_the_new_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "ship"
    for names in (("sail", "mast"), ("engine",)):
        with whole_folder(target) as new:
            assert not any(new.iterdir())
            for name in names:
                (new / name).write_text(name)
        assert content(target) == {name: name for name in names}
        assert os.listdir(tmp_path) == ["ship"]  # noqa: PTH208


@pytest.mark.usefixtures("_renaming")
def test_an_error_leaves_the_old_folder_and_no_trace(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "ship"
    with pytest.raises(ZeroDivisionError), whole_folder(target) as new:
        (new / "sail").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == [], "the parents that it made are gone, too"
    target.mkdir(parents=True)
    (target / "sail").write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_folder(target) as new:
        (new / "sail").write_text("half")
        raise KeyboardInterrupt
    assert content(target) == {"sail": "old"} and len(list(target.parent.iterdir())) == 1


def test_a_rename_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_exchange", lambda *_: False)
    target = tmp_path / "ship"
    target.mkdir()
    (target / "sail").write_text("old")
    rename = Path.rename

    def failing(self: Path, to: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(28, "No space left on device")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space"), whole_folder(target) as new:
        (new / "sail").write_text("new")
    assert content(target) == {"sail": "old"}


KILLED = """
import os, pathlib, signal, sys
from scalesearch import whole_folder as module
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
step, target = sys.argv[1], pathlib.Path(sys.argv[2])
if step == "after the exchange":
    module.sync_folder = die
if step == "between two renames":
    module._exchange = lambda *_: False
    rename, done = pathlib.Path.rename, []
    def renamed(self, to):
        if done: die()
        done.append(rename(self, to))
    pathlib.Path.rename = renamed
with module.whole_folder(target) as new:
    (new / "sail").write_text("new")
    if step == "while it is filled": die()
"""


@pytest.mark.parametrize("step", ["while it is filled", "after the exchange", "between two renames"])
def test_a_kill_leaves_old_or_new_and_the_next_call_cleans_up(step: str, tmp_path: Path) -> None:
    target = tmp_path / "ship"
    target.mkdir()
    (target / "sail").write_text("old")
    died = subprocess.run([sys.executable, "-c", KILLED, step, str(target)], check=False)
    assert died.returncode == -signal.SIGKILL
    if step != "between two renames":  # where folders cannot be exchanged, the next call puts the old one back
        assert content(target) == {"sail": "new" if step == "after the exchange" else "old"}
    with pytest.raises(ZeroDivisionError), whole_folder(target):
        raise ZeroDivisionError
    assert content(target) == {"sail": "new" if step == "after the exchange" else "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["ship"]
