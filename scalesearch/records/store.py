"""Owns `records/`: one JSON file per trial, written so that a reader sees all of it or nothing."""

import re
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from scalesearch.errors import ConfigError
from scalesearch.files import replace_file
from scalesearch.records.stored_json import read_json, to_json
from scalesearch.values.record import TrialRecord

_ADAPTER = TypeAdapter(TrialRecord)
_NAME = re.compile(r"\d{6,}\.json", re.ASCII)


class RecordStore:
    """The records of one study, in `folder/records/`. Reading never changes or removes a stored file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "records"

    def path(self, trial: int) -> Path:
        """Return the path of that trial's record, whether or not the file exists."""
        return self.folder / f"{trial:06d}.json"

    def save(self, record: TrialRecord) -> Path:
        """Write the record's file and return its path.

        The file is on the disk when this returns, so that neither a kill nor a power cut can leave half a file.
        """
        path = self.path(record.trial)
        replace_file(path, to_json(record, _ADAPTER) + b"\n")
        return path

    def make_longer(self, full_updates: int) -> None:
        """Store the records again whose study has been made longer since: its front has other members now.

        Args:
            full_updates: Updates of a member of the front; 0 changes nothing.
        """
        for record in self.all() if full_updates else ():
            if (current := record.in_study_of(full_updates)) is not record:
                self.save(current)

    def load(self, trial: int) -> TrialRecord:
        """Return the record of one trial.

        Raises:
            ConfigError: If there is none, or its file is not a whole record of this program.
        """
        path = self.path(trial)
        if not path.is_file():
            msg = f"no record of trial {trial} in {self.folder}: expected {path.name}"
            raise ConfigError(msg)
        return _read(path)

    def all(self) -> tuple[TrialRecord, ...]:
        """Return every record, by trial number.

        Files with other names, such as a copy that an editor left, are ignored.

        Raises:
            ConfigError: If one of the files is not a whole record of this program.
        """
        paths = (path for path in self.folder.glob("[0-9]*.json") if _NAME.fullmatch(path.name) and not path.is_dir())
        return tuple(sorted((_read(path) for path in paths), key=lambda record: record.trial))


def _read(path: Path) -> TrialRecord:
    try:
        record = read_json(path, _ADAPTER, strict=True)
        if path.stem != f"{record.trial:06d}":
            problem = f"holds trial {record.trial}"
            raise ValueError(problem)
    except ValueError as error:
        msg = f"cannot read the record {path}: {error}. Restore the file, or move it away to go on without this trial"
        raise ConfigError(msg) from error
    if record.quality and record.onnx_sha256 is None:  # from a version that stored no hashes
        record = replace(record, onnx_sha256="", network_sha256=record.network_sha256 or "")
    return record.measured or record
