"""Open the storage of a study: `study.sqlite3`, with its engine options and durability, or a database server.

In either case the lock that admits one coordinator is in the study's folder.
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
from scalesearch.search.server_storage import server_in_words, server_storage, server_study_name
from scalesearch.values.quality import DEFAULT_METRIC

STUDY_FILE = "study.sqlite3"
STUDY_NAME = "scalesearch"
"""Name of the one study in a folder's own file."""
LATENCY = "p50_ms"
"""Name of the second objective; the first has the name of the task's metric."""


def open_storage(file: Path) -> optuna.storages.RDBStorage:
    """Open the storage in `file`, which is created where absent.

    With SQLite's defaults a reader (the dashboard) blocks the coordinator, every suggestion costs an fsync, and two
    writers get the same trial. Therefore it uses the write-ahead log, synchronous NORMAL and BEGIN IMMEDIATE.
    """
    storage = storage_in(file, _Connection)
    sqlalchemy.event.listen(storage.engine, "begin", _on_begin)
    return storage


def storage_in(
    file: Path | str, connection: type[sqlite3.Connection] = sqlite3.Connection
) -> optuna.storages.RDBStorage:
    """Open the storage in `file` (or of that `file:` URI) with connections of the given class.

    The connections are set up in a class because the storage already connects while it is being made.
    """

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(file, timeout=60, factory=connection, check_same_thread=False, uri=isinstance(file, str))

    # Not by a URL: the path may contain characters that have a meaning there (`?`, `%`).
    engine = {"creator": connect, "poolclass": sqlalchemy.QueuePool}
    return optuna.storages.RDBStorage("sqlite://", engine_kwargs=engine)


def storage_of(folder: Path) -> str:
    """Return the URL that the study in `folder` was last run with; empty where it is its own SQLite file."""
    try:
        session = read_run_file(folder)
    except ConfigError:  # of another version: assume its own file
        return ""
    return session.settings.storage if session else ""


def is_searched(folder: Path) -> bool:
    """Tell whether the folder is the study of a search, whose trials live in a database of its own or on a server."""
    return (folder / STUDY_FILE).exists() or bool(storage_of(folder))


def study_name(folder: Path, url: str) -> str:
    """Return the name of that folder's study in the database at `url`; an empty URL means the folder's own file."""
    return server_study_name(folder) if url else STUDY_NAME


def reading_storage(folder: Path) -> optuna.storages.RDBStorage:
    """Open a storage for reading the study of that folder.

    The study must exist already, and its folder may be read-only. This does not use `open_storage`, whose BEGIN
    IMMEDIATE is for the coordinator: a reader would block the coordinator with it.

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
        self.isolation_level = None  # otherwise Python sends its own, deferred BEGIN
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")


def _on_begin(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStudy:
    """A study and the storage that it is stored in."""

    study: optuna.Study
    storage: optuna.storages.RDBStorage

    def live_trial(self, number: int) -> optuna.Trial:
        """Return a trial that is RUNNING in the study, ready to be continued; it keeps the values it has already."""
        study_id = self.storage.get_study_id_from_name(self.study.study_name)
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, number)
        return optuna.Trial(self.study, trial_id)


@contextmanager
def opened_study(
    folder: Path, *, url: str | None = None, metric: str = "", latency: str = LATENCY
) -> Iterator[OpenStudy]:
    """Open the study of that folder, and close it afterwards.

    The study is created where absent (maximize the score, minimize latency).

    Args:
        folder: The study's folder.
        url: The database of the study; empty: the folder's own file; None: the database that the last run used.
        metric: Name of the first objective; empty: both names as they are stored.
        latency: Name of the second objective.

    Raises:
        ConfigError: The database cannot be reached, or is unfit or fails, also while it is open.
        MissingBackendError: The extra `postgresql` is not installed.
    """
    url, names = storage_of(folder) if url is None else url, (metric, latency)
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line for each trial is the live view's task
    if url:
        storage = server_storage(url)
        with server_in_words(url), _opened(storage, folder, url, names) as opened:
            yield opened
        return
    file = folder / STUDY_FILE
    look_into(file)
    with in_words(file), _opened(open_storage(file), folder, url, names) as opened:
        yield opened


@contextmanager
def _opened(storage: optuna.storages.RDBStorage, folder: Path, url: str, names: tuple[str, str]) -> Iterator[OpenStudy]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(
                storage=storage,
                study_name=study_name(folder, url),
                directions=["maximize", "minimize"],
                load_if_exists=True,
            )
            metric, latency = names
            if metric or not study.metric_names:
                wanted = [metric or DEFAULT_METRIC, latency]
                if study.metric_names != wanted:
                    study.set_metric_names(wanted)
        yield OpenStudy(study=study, storage=storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()  # merges the write-ahead log, so that a copy of the one file is complete


def sync_study(folder: Path) -> None:
    """Write to the disk what SQLite has committed.

    Under synchronous NORMAL a power cut (not a kill) may lose the last commits. One call after each ask makes sure that
    every record on the disk has its trial on the disk too.
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
    """Let this process alone run the study in `folder`; the system frees the lock when the process dies.

    Raises:
        ConfigError: If another process runs it.
    """
    with hold_folder(folder, "run"):
        yield
