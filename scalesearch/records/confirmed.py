"""Owns `confirmed/` in a study's folder: one JSON file for each member and seed that was trained at full length."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from scalesearch.errors import ConfigError
from scalesearch.files import read_file, replace_file
from scalesearch.plain_text import utf8_values
from scalesearch.records.plausible import first_fault, impossible
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import TrialRecord

FOLDER = "confirmed"
_ADAPTER = TypeAdapter(ConfirmedRun)
_NAME = re.compile(r"trial_\d{6,}_seed_\d+\.json", re.ASCII)


def confirmed_path(study: Path, trial: int, seed: int) -> Path:
    """Where the run of that trial and seed is or will be."""
    return study / FOLDER / f"trial_{trial:06d}_seed_{seed}.json"


def confirmed_model_path(study: Path, trial: int, seed: int) -> Path:
    """Where the deployed ONNX file of that run is."""
    return study / FOLDER / "models" / f"trial_{trial:06d}_seed_{seed}.onnx"


def work_folder(study: Path) -> Path:
    """Where the trainings of a confirmation keep their weights."""
    return study / FOLDER / "work"


def write_confirmed(study: Path, run: ConfirmedRun) -> Path:
    """The run's file, whole or not at all."""
    path = confirmed_path(study, run.trial, run.seed)
    replace_file(path, json.dumps(utf8_values(_ADAPTER.dump_python(run, mode="json")), indent=1).encode())
    return path


def read_confirmed(study: Path) -> tuple[ConfirmedRun, ...]:
    """Every confirmed run of a study, by trial and seed; empty where none was ever confirmed.

    Raises:
        ConfigError: One of the files cannot be read.
    """
    found = []
    for path in (study / FOLDER).glob("trial_*_seed_*.json"):
        if not _NAME.fullmatch(path.name) or path.is_dir():  # none of ours
            continue
        try:
            run = _ADAPTER.validate_json(read_file(path))
            problem = impossible(run)
        except ValidationError as error:
            problem = first_fault(error)
        except (OSError, ValueError) as error:
            problem = str(error)
        if problem:
            message = f"{path} cannot be read: {problem}.\nRestore it, or remove it to confirm again."
            raise ConfigError(message)
        found.append(run)
    return tuple(sorted(found, key=lambda run: (run.trial, run.seed)))


def first_runs(study: Path) -> dict[int, ConfirmedRun]:
    """The run of each confirmed trial that was timed together with the other members, by trial.

    That is its first seed's, where all seeds are there, whatever the others reached: its numbers are no winner's.

    Raises:
        ConfigError: One of the files cannot be read.
    """
    found = dict[int, ConfirmedRun]()
    for run in read_confirmed(study):
        if run.trial not in found or (run.timed_together and not found[run.trial].timed_together):
            found[run.trial] = run
    return found


def as_confirmed(record: TrialRecord, run: ConfirmedRun) -> TrialRecord:
    """A trial with what its run at full length made of it; its candidate, recipe included, is still the search's."""
    assert record.training is not None  # only front members are confirmed
    return replace(
        record,
        training=replace(
            record.training,
            float_top1=run.float_top1,
            train_s=run.train_s,
            retrain_s=0.0,  # `train_s` holds both
            steps=run.steps,
            weights_reused=False,
            final_loss=math.nan,  # neither is kept of a run
            loss_curves=(),
        ),
        quality=run.validation,
        latency=run.latency,
        accuracy_path=(),
        gains=(),
        size_bytes=run.size_bytes,
        onnx_sha256=run.onnx_sha256,
        network_sha256=run.network_sha256,
        warnings=(),
    )


def confirmed_hint(study: Path) -> str:
    """One line for those who look at the searched front: that a confirmed one is there; empty where none is."""
    if not (study / FOLDER / "confirmed.csv").is_file():
        return ""
    return f"confirmed at full length: {study / FOLDER / 'confirmed.png'}, confirmed.csv (`scalesearch confirm`)"
