"""What a confirmation begins with: the study and its front, the same chip and images as then, a folder of its own."""

from dataclasses import replace
from pathlib import Path

from scalesearch.deployment.backends import get_backend
from scalesearch.errors import ConfigError, NoFeasibleTrialError
from scalesearch.files import replace_file
from scalesearch.records.confirmed import work_folder
from scalesearch.records.report import device_text
from scalesearch.records.run_file import stored_session
from scalesearch.records.store import RecordStore
from scalesearch.search.front import pareto_front
from scalesearch.training.datasets import load_dataset
from scalesearch.values.record import TrialRecord
from scalesearch.values.session import Session, reference_path


def study_and_front(folder: Path) -> tuple[Session, tuple[TrialRecord, ...]]:
    """The session that the study was run with, and its front, fastest first.

    Raises:
        ConfigError: The folder holds no study.
        NoFeasibleTrialError: The study has no front.
    """
    session = stored_session(folder)
    members = pareto_front(RecordStore(folder).all())
    if not members:
        message = (
            f"{folder} has no feasible trial, so there is no front to confirm.\nContinue the run, or loosen [limits]."
        )
        raise NoFeasibleTrialError(message)
    return session, members


def refuse_another_device(session: Session) -> None:
    """Raise ConfigError where this machine or its libraries are not those that the study was measured with."""
    here = get_backend(session.target.backend).device(session.settings.latency.threads)
    if here != session.device:
        message = (
            f"The study was measured on {device_text(session.device)}; this is {device_text(here)}.\n"
            "Latencies of unlike devices never share a front: confirm where it was searched, with the same versions."
        )
        raise ConfigError(message)


def refuse_other_images(session: Session) -> None:
    """Raise ConfigError where the images are not those that the study was run on."""
    now = load_dataset(session.settings.data, storage_px=session.storage_px)
    if now.fingerprint != session.data.fingerprint:
        message = (
            f"The images of {session.settings.data.source} are not those that the study was run on: "
            f"fingerprint was {session.data.fingerprint[:12]}, is {now.fingerprint[:12]}.\n"
            "Restore them, or search anew on the new ones: a front is true for its images only."
        )
        raise ConfigError(message)


def refuse_missing_reference(session: Session) -> None:
    """Raise ConfigError where the study's reference engine is gone."""
    if not reference_path(session.folder).is_file():
        message = f"{reference_path(session.folder)} is missing: every latency of the study is relative to that engine."
        raise ConfigError(message)


def work_session(session: Session) -> Session:
    """The session of the full trainings, in a folder of their own with the study's reference engine."""
    work = work_folder(session.folder)
    try:
        work.mkdir(parents=True, exist_ok=True)
        replace_file(reference_path(work), reference_path(session.folder).read_bytes())
    except OSError as error:
        message = (
            f"Cannot write to {work}: {error.strerror}.\n"
            "The confirmed front lies in the study's folder: make that writable, or copy the study to where it is."
        )
        raise ConfigError(message) from None
    # Twins and the gate say nothing of full length.
    return replace(session, folder=work, settings=replace(session.settings, twins=False, accept="off"))
