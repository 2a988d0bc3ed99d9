"""Owns `confirmed/` in a study's folder: one JSON file for each trial and seed that was trained at full length."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from scalesearch.errors import ConfigError
from scalesearch.files import replace_file
from scalesearch.records.stored_json import read_json, to_json
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import Cost, MeasuredTrial

FOLDER = "confirmed"
UNKNOWN_COST: Final = Cost(macs=0, params=0)
"""Stands for the cost of a network of which nobody knows it any more."""
_ADAPTER = TypeAdapter(ConfirmedRun)
_NAME = re.compile(r"trial_\d{6,}_seed_\d+\.json", re.ASCII)


def confirmed_path(study: Path, trial: int, seed: int) -> Path:
    """Return the path of the run of that trial and seed, whether or not the file exists."""
    return study / FOLDER / f"trial_{trial:06d}_seed_{seed}.json"


def confirmed_model_path(study: Path, trial: int, seed: int) -> Path:
    """Return the path of that run's deployed ONNX file."""
    return study / FOLDER / "models" / f"trial_{trial:06d}_seed_{seed}.onnx"


def work_folder(study: Path) -> Path:
    """Return the folder in which the trainings of a confirmation keep their weights."""
    return study / FOLDER / "work"


def write_confirmed(study: Path, run: ConfirmedRun) -> Path:
    """Write the run's file, whole or not at all, and return its path."""
    path = confirmed_path(study, run.trial, run.seed)
    replace_file(path, to_json(run, _ADAPTER))
    return path


def read_confirmed(study: Path) -> tuple[ConfirmedRun, ...]:
    """Return every confirmed run of a study, by trial and seed; empty where nothing was ever confirmed.

    Raises:
        ConfigError: One of the files cannot be read, or holds another run than its name says.
    """
    found = []
    for path in (study / FOLDER).glob("trial_*_seed_*.json"):
        if not _NAME.fullmatch(path.name) or path.is_dir():  # another program's file
            continue
        try:
            run = read_json(path, _ADAPTER)
        except ValueError as error:
            message = f"{path} cannot be read: {error}.\nRestore it, or remove it to confirm again."
            raise ConfigError(message) from error
        if path.name != confirmed_path(study, run.trial, run.seed).name:  # a copy would count as one more seed
            message = (
                f"{path} holds trial {run.trial}, seed {run.seed}: its name says another.\n"
                "Restore it, or remove it to confirm again."
            )
            raise ConfigError(message)
        found.append(run)
    return tuple(sorted(found, key=lambda run: (run.trial, run.seed)))


def first_runs(study: Path) -> dict[int, ConfirmedRun]:
    """Return one run for each confirmed trial, by trial: the run that was timed together with the other members.

    If all seeds were trained, that is the run of the first seed, whatever the scores of the others, so that its numbers
    are not better by selection. If no run of a trial was timed together with others, it is the run of the lowest seed.

    Raises:
        ConfigError: One of the files cannot be read.
    """
    found = dict[int, ConfirmedRun]()
    for run in read_confirmed(study):
        if run.trial not in found or (run.timed_together and not found[run.trial].timed_together):
            found[run.trial] = run
    return found


def as_confirmed(record: MeasuredTrial, run: ConfirmedRun) -> MeasuredTrial:
    """Return the trial with the results of its run at full length.

    The candidate, recipe included, is still that of the search. The cost is `UNKNOWN_COST` if the run is of an earlier
    version, which did not store it, and its network has another shape than the trial's.
    """
    searched = record.cost if run.network_sha256 == record.network_sha256 else UNKNOWN_COST
    return replace(
        record,
        cost=run.cost or searched,
        full_updates=0 if record.short else record.full_updates,  # confirmed before its study was made longer
        training=replace(
            record.training,
            float_score=run.float_score,
            train_s=run.train_s,
            retrain_s=0.0,  # `train_s` includes the retraining
            steps=run.steps,
            weights_reused=False,
            final_loss=math.nan,  # a run stores neither this nor the loss curves
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
    """Return one line that points a reader of the searched front to the confirmed one; empty if there is none."""
    if not (study / FOLDER / "confirmed.csv").is_file():
        return ""
    return f"confirmed at full length: {study / FOLDER / 'confirmed.png'}, confirmed.csv (`scalesearch confirm`)"
