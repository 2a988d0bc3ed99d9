"""Files of front members in the study, for download in Optuna Dashboard.

They are config.toml, model.onnx, classes.svg, and validation.jpg where answers were drawn on validation images.
"""

import contextlib
import json
import logging
import mimetypes
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalesearch.errors import ConfigError
from scalesearch.export.metadata import NAME, write_config
from scalesearch.records.run_file import read_run_file
from scalesearch.records.stored_files import kept_model, picture_path
from scalesearch.tasks.registry import views_of
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session

if TYPE_CHECKING:
    import optuna

FOLDER = "artifacts"
MODEL = "model.onnx"
VALIDATION = "validation.jpg"
# Not stored as the trial's own attributes, since Optuna refuses to change those of a finished trial. The dashboard
# reads this key too (optuna_dashboard.artifact, `_dashboard_artifact_prefix`).
_KEY = "dashboard:artifacts:{trial_id}:{artifact_id}"
_log = logging.getLogger(__name__)


def artifact_store(folder: Path) -> Any:
    """Open the store in `folder/artifacts/`, which is made where the folder can be written."""
    from optuna.artifacts import FileSystemArtifactStore

    with contextlib.suppress(OSError):  # a study that can only be read has nothing to download then
        (folder / FOLDER).mkdir(exist_ok=True)
    return FileSystemArtifactStore(folder / FOLDER)


def keep_artifacts(study: "optuna.Study", folder: Path, front: Collection[MeasuredTrial]) -> int:
    """Upload the files that members of the front lack, and return their number.

    Files of trials that left the front are removed. It is safe to repeat this: a trial never has two files of one name.
    """
    try:
        session = read_run_file(folder)
    except ConfigError:
        session = None
    if session is None:  # a search without a session (tests, other programs) has nothing to rebuild the files from
        return 0
    store = artifact_store(folder)
    stored = _stored(study)
    members = {record.trial: record for record in front}
    trials = {trial.number: trial._trial_id for trial in study.get_trials(deepcopy=False)}
    numbers = {trial_id: number for number, trial_id in trials.items()}
    for (trial_id, _), (key, artifact_id) in stored.items():
        if numbers.get(trial_id) not in members:
            _remove(study, store, key, artifact_id)
    _remove_nameless(folder, {artifact_id for _, artifact_id in stored.values()})
    uploaded = 0
    for number, record in members.items():
        if number not in trials:
            continue
        with _left_for_later(number):
            missing = {NAME, MODEL, *_pictures(record, folder)} - {
                name for trial_id, name in stored if trial_id == trials[number]
            }
            uploaded += _upload(study, store, trials[number], record, session, missing)
    return uploaded


@contextlib.contextmanager
def _left_for_later(trial: int) -> Iterator[None]:
    """Ignore a full disk: it costs a download, not the run, and the next call tries again."""
    try:
        yield
    except OSError as error:
        _log.warning("trial %s: its files could not be kept for the dashboard: %s", trial, error)


def _stored(study: "optuna.Study") -> dict[tuple[int, str], tuple[str, str]]:
    """Return (trial id, file name) -> (attribute, artifact id) for every stored file."""
    found = {}
    for key, value in study._storage.get_study_system_attrs(study._study_id).items():
        if key.startswith(_KEY.partition("{")[0]) and (meta := json.loads(value)):
            found[int(key.split(":")[2]), str(meta["filename"])] = (key, str(meta["artifact_id"]))
    return found


def _upload(
    study: "optuna.Study", store: Any, trial_id: int, record: MeasuredTrial, session: Session, missing: Iterable[str]
) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        done = 0
        for name in sorted(missing):
            file = _make(name, record, session, Path(scratch))
            if file is None:
                continue
            artifact_id = str(uuid.uuid4())
            with file.open("rb") as content:
                store.write(artifact_id, content)  # before it is named: a kill leaves a nameless file, not a dead link
            meta = {
                "artifact_id": artifact_id,
                "filename": name,
                "mimetype": mimetypes.guess_type(name)[0] or "application/octet-stream",
                "encoding": None,
            }
            key = _KEY.format(trial_id=trial_id, artifact_id=artifact_id)
            study._storage.set_study_system_attr(study._study_id, key, json.dumps(meta))
            done += 1
        return done


def _make(name: str, record: MeasuredTrial, session: Session, scratch: Path) -> Path | None:
    """Return the file of that name, made in `scratch` or existing already; None where it cannot be made."""
    if name == MODEL:
        try:
            return kept_model(session.folder, record)
        except ConfigError as error:  # another trial's file, or a damaged one
            _log.warning("trial %d has no model to download: %s", record.trial, error)
            return None
    if name == NAME:
        return write_config(record, session, scratch)
    if name == VALIDATION:
        return picture_path(session.folder, record.trial)
    views = views_of(record)
    if views is None:
        return None
    views.draw(record, scratch / name)
    return scratch / name


def _pictures(record: MeasuredTrial, folder: Path) -> Iterator[str]:
    """Yield the file names of the trial's pictures: of its classes, and of its answers on validation images.

    A task may draw none, and answers are drawn when the search has ended.
    """
    views = views_of(record)
    if views and views.picture:
        yield views.picture
    if picture_path(folder, record.trial).is_file():
        yield VALIDATION


def _remove_nameless(folder: Path, named: Collection[str]) -> None:
    """Remove files that the study does not name.

    They come from a run that was killed at that moment, or from a database that was deleted since.
    """
    for path in (folder / FOLDER).iterdir():
        with contextlib.suppress(ValueError):  # not a name of this program
            if str(uuid.UUID(path.name)) not in named and path.is_file():
                path.unlink(missing_ok=True)


def _remove(study: "optuna.Study", store: Any, key: str, artifact_id: str) -> None:
    from optuna.artifacts.exceptions import ArtifactNotFound

    # As the dashboard itself deletes: storages cannot remove an attribute.
    study._storage.set_study_system_attr(study._study_id, key, json.dumps(None))
    try:
        store.remove(artifact_id)
    except ArtifactNotFound:
        _log.info("artifact %s was gone already", artifact_id)
