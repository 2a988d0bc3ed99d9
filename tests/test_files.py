"""Half-written files of killed processes, and whose they are."""

from pathlib import Path

import pytest

from scalesearch.files import remove_partial_files, replace_file


def test_what_a_kill_left_half_written_is_removed_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a kill between writing and renaming leaves it, by the name that the program itself gave.
    left = list[Path]()
    monkeypatch.setattr(Path, "replace", lambda self, _: left.append(self))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    for name in ("run.toml", "records/000003.json", "confirmed/work/weights/a.b.safetensors"):
        replace_file(tmp_path / name, b"half")
    monkeypatch.undo()
    assert len(left) == 3 and all(path.is_file() for path in left)
    (tmp_path / "notes.partial").touch()
    (tmp_path / ".mine.abc.partial").mkdir()
    replace_file(tmp_path / "run.toml", b"whole")
    assert remove_partial_files(tmp_path) == 3
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["notes.partial", "run.toml"]
