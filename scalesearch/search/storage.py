"""Owns where the study lives: `study.sqlite3` with its engine options and durability, or a database server.

The lock of the one coordinator is in the folder in either case.
"""

import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy

from scalesearch.errors import ConfigError
from scalesearch.folder_lock import hold_folder
from scalesearch.records.run_file import read_run_file
from scalesearch.search.database_file import in_words, look_into, uri_of
from scalesearch.search.server_storage import server_storage, server_study_name

STUDY_FILE = "study.sqlite3"
STUDY_NAME = "scalesearch"
"""Of the one study in a folder's own file."""
OBJECTIVES = ("top1", "p50_ms")


def open_storage(file: Path) -> optuna.storages.RDBStorage:
    """The storage in `file`, created where absent.

    With SQLite's defaults a reader (the dashboard) blocks the coordinator, every suggestion costs an fsync, and two
    writers get the same trial: hence the write-ahead log, synchronous NORMAL and BEGIN IMMEDIATE.
    """
    storage = storage_in(file, _Connection)
    sqlalchemy.event.listen(storage.engine, "begin", _on_begin)
    return storage


def storage_in(
    file: Path | str, connection: type[sqlite3.Connection] = sqlite3.Connection
) -> optuna.storages.RDBStorage:
    """The storage in `file` (or of that `file:` URI) by connections of that class.

    A class, since it already connects while it is being made.
    """

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(file, timeout=60, factory=connection, check_same_thread=False, uri=isinstance(file, str))

    # Not by a URL with the path in it: a folder's name may hold what means something there (`?`, `%`).
    engine = {"creator": connect, "poolclass": sqlalchemy.QueuePool}
    return optuna.storages.RDBStorage("sqlite://", engine_kwargs=engine)


def storage_of(folder: Path) -> str:
    """The URL that the study in `folder` was last run with; empty where it is its own SQLite file."""
    try:
        session = read_run_file(folder)
    except ConfigError:  # of another version: only its own file is left to look into
        return ""
    return session.settings.storage if session else ""


def study_name(folder: Path, url: str) -> str:
    """The name of that folder's study in the database at `url`; empty is its own file."""
    return server_study_name(folder) if url else STUDY_NAME


def reading_storage(folder: Path) -> optuna.storages.RDBStorage:
    """A storage to read the study of that folder by; it must be there already, and may be where nothing can be written.

    Not `open_storage`: its BEGIN IMMEDIATE is for the coordinator, whom a reader would hold up.

    Raises:
        ConfigError: The database cannot be reached, or is unfit.
        MissingBackendError: The extra `postgresql` is not installed.
    """
    url = storage_of(folder)
    if url:
        return server_storage(url)
    file = folder.resolve() / STUDY_FILE
    look_into(file)
    with in_words(file):
        return storage_in(uri_of(file))


class _Connection(sqlite3.Connection):
    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.isolation_level = None  # else Python sends its own, deferred BEGIN
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")


def _on_begin(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStudy:
    """A study and the storage that it lives in."""

    study: optuna.Study
    storage: optuna.storages.RDBStorage

    def live_trial(self, number: int) -> optuna.Trial:
        """A trial that is RUNNING in the study, ready to be gone on with: it keeps what it was already asked."""
        study_id = self.storage.get_study_id_from_name(self.study.study_name)
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, number)
        return optuna.Trial(self.study, trial_id)


@contextmanager
def opened_study(folder: Path, *, url: str | None = None) -> Iterator[OpenStudy]:
    """The study of that folder (created where absent: accuracy up, latency down), closed afterwards.

    It lives in the database at `url`, or (empty) in the folder's own file; None: wherever the last run had it.

    Raises:
        ConfigError: The database cannot be reached, or is unfit or fails, also while it is open.
        MissingBackendError: The extra `postgresql` is not installed.
    """
    url = storage_of(folder) if url is None else url
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line for each trial is the live view's business
    if url:
        with _opened(server_storage(url), folder, url) as opened:
            yield opened
        return
    file = folder / STUDY_FILE
    look_into(file)
    with in_words(file), _opened(open_storage(file), folder, url) as opened:
        yield opened


@contextmanager
def _opened(storage: optuna.storages.RDBStorage, folder: Path, url: str) -> Iterator[OpenStudy]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(
                storage=storage,
                study_name=study_name(folder, url),
                directions=["maximize", "minimize"],
                load_if_exists=True,
            )
            if study.metric_names != list(OBJECTIVES):
                study.set_metric_names(list(OBJECTIVES))
        yield OpenStudy(study=study, storage=storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()  # merges the write-ahead log, so that a copy of the one file is whole


def sync_study(folder: Path) -> None:
    """Put what SQLite has committed on the disk.

    Under synchronous NORMAL a power cut (not a kill) may take the last commits. One call after a candidate was asked
    makes sure that no record is ever on the disk whose trial is not.
    """
    for name in (f"{STUDY_FILE}-wal", STUDY_FILE):
        file = folder / name
        if file.exists():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


@contextmanager
def only_coordinator(folder: Path) -> Iterator[None]:
    """Let this process alone run the study in `folder`; the system frees the lock when it dies.

    Raises:
        ConfigError: If another process runs it.
    """
    with hold_folder(folder, "run"):
        yield
