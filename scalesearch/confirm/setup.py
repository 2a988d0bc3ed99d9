"""Prepare a confirmation: read the study and its front, check the chip, and set up a folder for the trainings."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from scalesearch.analysis.front import pareto_front
from scalesearch.data import Dataset
from scalesearch.deployment.backends import get_backend
from scalesearch.errors import ConfigError, NoFeasibleTrialError
from scalesearch.files import replace_file
from scalesearch.records.confirmed import work_folder
from scalesearch.records.run_file import stored_session
from scalesearch.records.store import RecordStore
from scalesearch.records.stored_files import kept_reference
from scalesearch.study.reference import rebuild_reference
from scalesearch.training.weights import WeightStore
from scalesearch.values.parent import parent_folder
from scalesearch.values.plan import Plan
from scalesearch.values.record import TrialRecord
from scalesearch.values.session import Session, reference_path
from scalesearch.values.space import Limits
from scalesearch.values.training_length import trunk_steps
from scalesearch.views.words import device_text, remedy


def study_with_front(folder: Path) -> tuple[Session, tuple[TrialRecord, ...]]:
    """Return the session that the study was run with, and all its trials.

    Raises:
        ConfigError: The folder holds no study.
        NoFeasibleTrialError: The study has no front.
    """
    session = stored_session(folder)
    records = RecordStore(folder).all()
    if not pareto_front(records):
        message = f"{folder} has no feasible trial, so there is no front to confirm.\n{remedy(records)}"
        raise NoFeasibleTrialError(message)
    return session, records


def refuse_another_device(session: Session) -> None:
    """Raise ConfigError where this machine or its libraries are not those that the study was measured with."""
    here = get_backend(session.target.backend).device(session.settings.latency.threads)
    if here != session.device:
        message = (
            f"The study was measured on {device_text(session.device)}; this is {device_text(here)}.\n"
            "Latencies of unlike devices never share a front: confirm where it was searched, with the same versions."
        )
        raise ConfigError(message)


def work_session(session: Session) -> Session:
    """Return the session of the full trainings, in a folder of their own."""
    work = work_folder(session.folder)
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(work, error) from None
    # Twins and the compiler check say nothing about full length, and here all trainings are alike.
    settings = replace(session.settings, twins=False, accept="off", lengths="off")
    # A member near a limit of the search is confirmed like every other one: nothing is to be rejected here.
    space = replace(session.space, limits=Limits())
    return replace(session, folder=work, settings=settings, space=space)


def lay_parent(session: Session, work: Session) -> None:
    """Copy the parent's weights into the folder of the full trainings, which inherit from the study's own parent."""
    kept, target = parent_folder(session.folder), parent_folder(work.folder)
    try:
        for path in sorted(kept.glob("*.safetensors")) if session.parent else ():
            if not (target / path.name).is_file():
                target.mkdir(exist_ok=True)
                replace_file(target / path.name, path.read_bytes())
    except OSError as error:
        raise _unwritable(work.folder, error) from None


def lay_trunks(aside: Path, work: Session, plans: Iterable[Plan]) -> int:
    """Copy trunks that the plans' trainings would make themselves, of the same seeds, and return how many there were.

    Args:
        aside: The folder of an earlier confirmation that was set aside; it is only read.
        work: The session of the full trainings, which go on from the trunks in its folder.
        plans: The plans of these trainings.
    """
    kept, store = (WeightStore(folder / "weights") for folder in (aside / work.folder.name, work.folder))
    laid = set[str]()
    try:
        for plan in plans:
            if plan.trunk_key and kept.lay_trunk(plan.trunk_key, trunk_steps(plan.candidate.recipe), to=store):
                laid.add(plan.trunk_key)
    except OSError as error:
        raise _unwritable(work.folder, error) from None
    return len(laid)


def lay_reference(session: Session, work: Session, dataset: Dataset) -> None:
    """Copy the study's reference engine into the folder of the full trainings; a lost one is built again there.

    Raises:
        ConfigError: The study's file has changed; or it was lost, and building it again gives a different file.
    """
    kept, target = kept_reference(session), reference_path(work.folder)
    try:
        if kept is None:
            rebuild_reference(session, dataset, to=target)
        else:
            replace_file(target, kept.read_bytes())
    except OSError as error:
        raise _unwritable(work.folder, error) from None


def _unwritable(work: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"Cannot write to {work}: {error.strerror}.\n"
        "The confirmed front lies in the study's folder: make that writable, or copy the study to where it is."
    )
