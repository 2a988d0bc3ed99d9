"""The folder that a command writes a study into, where it cannot be written."""

from pathlib import Path

import pytest

from scalesearch.cli.study_folder import prepare_folder
from scalesearch.errors import ConfigError
from scalesearch.folder_lock import hold_folder


def test_an_old_study_stays_where_a_new_one_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "run.toml").write_text("old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with hold_folder(folder, "run") as hold:
        with monkeypatch.context() as full, pytest.raises(ConfigError, match="No space left on device"):
            full.setattr(Path, "write_bytes", refuse)
            prepare_folder(folder, fresh=True, hold=hold)
        assert (folder / "run.toml").read_text() == "old" and not list(tmp_path.glob("*.old*"))
        assert prepare_folder(folder, fresh=False, hold=hold) is None
        assert prepare_folder(folder, fresh=True, hold=hold) == tmp_path / "study.old1"
        assert prepare_folder(folder, fresh=True, hold=hold) is None  # an empty one is no study
