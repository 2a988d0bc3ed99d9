"""Owns `confirmed/` in a study's folder: one JSON file for each member and seed that was trained at full length."""

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from scalesearch.errors import ConfigError
from scalesearch.files import replace_file
from scalesearch.values.confirmed import ConfirmedRun

FOLDER = "confirmed"
_ADAPTER = TypeAdapter(ConfirmedRun)


def confirmed_path(study: Path, trial: int, seed: int) -> Path:
    """Where the run of that trial and seed is or will be."""
    return study / FOLDER / f"trial_{trial:06d}_seed_{seed}.json"


def confirmed_model_path(study: Path, trial: int, seed: int) -> Path:
    """Where the deployed ONNX file of that run is."""
    return study / FOLDER / "models" / f"trial_{trial:06d}_seed_{seed}.onnx"


def write_confirmed(study: Path, run: ConfirmedRun) -> Path:
    """The run's file, whole or not at all."""
    path = confirmed_path(study, run.trial, run.seed)
    replace_file(path, json.dumps(_ADAPTER.dump_python(run, mode="json"), indent=1).encode())
    return path


def read_confirmed(study: Path) -> tuple[ConfirmedRun, ...]:
    """Every confirmed run of a study, by trial and seed; empty where none was ever confirmed.

    Raises:
        ConfigError: One of the files cannot be read.
    """
    found = []
    for path in (study / FOLDER).glob("trial_*_seed_*.json"):
        try:
            found.append(_ADAPTER.validate_json(path.read_bytes()))
        except (OSError, ValidationError) as error:
            message = (
                f"{path} cannot be read: {str(error).splitlines()[0]}.\nRestore it, or remove it to confirm again."
            )
            raise ConfigError(message) from None
    return tuple(sorted(found, key=lambda run: (run.trial, run.seed)))


def confirmed_hint(study: Path) -> str:
    """One line for those who look at the searched front: that a confirmed one is there; empty where none is."""
    if not (study / FOLDER / "confirmed.csv").is_file():
        return ""
    return f"confirmed at full length: {study / FOLDER / 'confirmed.png'}, confirmed.csv (`scalesearch confirm`)"
