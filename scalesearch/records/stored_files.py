"""The pictures and ONNX files that a study keeps. An ONNX file is used only if its hash is the recorded one."""

import hashlib
from pathlib import Path

from scalesearch.errors import ConfigError
from scalesearch.records.confirmed import confirmed_model_path
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import TrialRecord
from scalesearch.values.session import Session, model_path, reference_path


def kept_model(study: Path, record: TrialRecord) -> Path | None:
    """Return the trial's deployed ONNX file in the study's folder; None where the study does not keep it.

    Raises:
        ConfigError: The file there is not the one that was measured.
    """
    way_out = "it is then made again from the trial's kept weights, or by training it again."
    return checked_file(
        model_path(study, record.trial), record.onnx_sha256, f"that trial {record.trial} measured", way_out
    )


def confirmed_model(study: Path, run: ConfirmedRun) -> Path | None:
    """Return the deployed ONNX file of a run at full length; None where it is missing.

    Raises:
        ConfigError: The file there is not the one that was confirmed.
    """
    path = confirmed_model_path(study, run.trial, run.seed)
    way_out = "`scalesearch confirm` then trains that network again."
    return checked_file(path, run.onnx_sha256, "that was confirmed", way_out)


def kept_reference(session: Session) -> Path | None:
    """Return the ONNX file of the study's reference engine; None where it is missing.

    Raises:
        ConfigError: The file there is another one, with which every later latency would be wrong.
    """
    way_out = "the same one is then built again by `scalesearch run` with the study's settings, or by `confirm`."
    what = "that this study's latencies are relative to"
    return checked_file(reference_path(session.folder), session.reference_sha256, what, way_out)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of the file's content as 64 hex digits.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked_file(path: Path, sha256: str | None, what: str, way_out: str) -> Path | None:
    """Return the path if the file there has that hash, and None where there is no file.

    Args:
        path: Path of a stored file.
        sha256: 64 hex digits; None or empty where no hash was stored, and then any file is accepted.
        what: Completes "is not the file ..." in the message.
        way_out: What the message says will happen once the file is deleted.

    Raises:
        ConfigError: It is another file, or cannot be read.
    """
    if not path.is_file():
        return None
    try:
        found = file_sha256(path)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}.\nMake it readable, or delete it: {way_out}"
        raise ConfigError(message) from None
    if sha256 and found != sha256:
        message = (
            f"{path} is not the file {what}: its SHA-256 is {found[:12]}..., and {sha256[:12]}... was expected.\n"
            f"Put that file back, or delete this one: {way_out}"
        )
        raise ConfigError(message)
    return path


def picture_path(folder: Path, trial: int) -> Path:
    """Return the path of a trial's picture in the study's folder."""
    return folder / "pictures" / f"trial_{trial:06d}.jpg"


def stored_pictures(folder: Path, trials: "tuple[int, ...]") -> dict[int, bytes]:
    """Return the pictures of those of the trials that have one, as JPEG files."""
    found = {trial: picture_path(folder, trial) for trial in trials}
    return {trial: path.read_bytes() for trial, path in found.items() if path.is_file()}
