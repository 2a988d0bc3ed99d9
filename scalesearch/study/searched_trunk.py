"""Find the trunk that a search, or its confirmation, left of just the training that an export is about to get."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from scalesearch.errors import ConfigError
from scalesearch.records.confirmed import work_folder
from scalesearch.records.run_file import read_run_file
from scalesearch.training.weights import WeightStore
from scalesearch.values.plan import Plan
from scalesearch.values.session import Session
from scalesearch.values.training_length import trunk_steps


def lay_searched_trunk(plan: Plan, session: Session, studies: Iterable[Path]) -> str:
    """Copy the longest stored trunk that the training would make itself into the training's own folder.

    The trunk's key tells that it is: network, images, seed and recipe are equal, its length aside. The studies are only
    read.

    Args:
        plan: The plan of the training.
        session: The session of the training, which begins from that trunk if it lies in its folder.
        studies: Folders that may be that of the export's study, the likeliest first. None of them need exist.

    Returns:
        A line on what is continued; empty if the training continues nothing of these studies.
    """
    store = WeightStore(session.folder / "weights")
    trained = store.score(plan.shape_key if plan.pruning.any else plan.weights_key) is not None
    if not plan.trunk_key or trained:
        return ""
    steps = trunk_steps(plan.candidate.recipe)
    for study in studies:
        if not _trains_alike(study, session):
            continue
        for whose, folder in (("search", study), ("confirmation", work_folder(study))):
            if updates := WeightStore(folder / "weights").lay_trunk(plan.trunk_key, steps, to=store):
                return f"continues the {whose}'s trunk of {updates} updates"
    return ""


def _trains_alike(study: Path, session: Session) -> bool:
    """Tell whether the study trains on such a device, in such numbers, and with the same code of a user's module.

    The number of threads may differ, as in a study that goes on: it changes no more than the last digits.
    """
    try:
        stored = read_run_file(study)
    except (ConfigError, OSError):
        return False
    if stored is None or replace(stored.machine, threads=session.machine.threads) != session.machine:
        return False
    return stored.may_have_code(session.code_sha256, read_by=session.code_read_by)
