"""Owns `records/`: one JSON file a trial, written so that a reader sees the whole of it or nothing."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from scalesearch.errors import ConfigError
from scalesearch.files import replace_file
from scalesearch.values.record import TrialRecord

_ADAPTER = TypeAdapter(TrialRecord)


class RecordStore:
    """The records of one study, in `folder/records/`. Nothing that is stored is ever changed or removed by a read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "records"

    def path(self, trial: int) -> Path:
        """Where the record of that trial is or will be."""
        return self.folder / f"{trial:06d}.json"

    def save(self, record: TrialRecord) -> Path:
        """The record's file, which is on the disk when this returns: a kill or a power cut cannot tear it."""
        # Not pydantic's dump_json: it writes NaN (the loss of a diverged training) as null, which no float field loads.
        text = json.dumps(_ADAPTER.dump_python(record, mode="json"), indent=1, allow_nan=True)
        path = self.path(record.trial)
        replace_file(path, f"{text}\n".encode())
        return path

    def load(self, trial: int) -> TrialRecord:
        """The record of one trial.

        Raises:
            ConfigError: If there is none, or its file is not a whole record of this program.
        """
        path = self.path(trial)
        if not path.is_file():
            msg = f"no record of trial {trial} in {self.folder}: expected {path.name}"
            raise ConfigError(msg)
        return _read(path)

    def all(self) -> tuple[TrialRecord, ...]:
        """Every record, by trial number.

        Raises:
            ConfigError: If one of the files is not a whole record of this program.
        """
        return tuple(sorted((_read(path) for path in self.folder.glob("[0-9]*.json")), key=lambda r: r.trial))


def _read(path: Path) -> TrialRecord:
    try:
        text = path.read_text(encoding="utf-8")
        record = _ADAPTER.validate_json(text, strict=True)
        stranger = _stranger(json.loads(text), _ADAPTER.dump_python(record, mode="json"))
        problem = f"unknown field {stranger!r} (written by another version?)" if stranger else ""
        if not stranger and path.stem != f"{record.trial:06d}":
            problem = f"holds trial {record.trial}"
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        problem = f"{where}: {first['msg']}"
    except (OSError, UnicodeDecodeError) as error:
        problem = str(error)
    if problem:
        msg = f"cannot read the record {path}: {problem}. Restore the file, or move it away to go on without this trial"
        raise ConfigError(msg)
    return record


def _stranger(raw: Any, known: Any, place: str = "") -> str:
    """Dotted place of the first key in `raw` that `known` lacks, or nothing; pydantic ignores such keys."""
    if isinstance(raw, dict) and isinstance(known, dict):
        for key, value in raw.items():
            if key not in known:
                return f"{place}{key}"
            if found := _stranger(value, known[key], f"{place}{key}."):
                return found
    elif isinstance(raw, list) and isinstance(known, list) and raw and isinstance(raw[0], dict):
        # Lists without objects are numbers, tens of thousands of them in the curves of one record.
        for index, (one, other) in enumerate(zip(raw, known, strict=True)):
            if found := _stranger(one, other, f"{place}{index}."):
                return found
    return ""
