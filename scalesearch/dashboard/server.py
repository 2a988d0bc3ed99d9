"""Serves Optuna Dashboard for one study: on loopback, and read-only except for notes."""

import contextlib
import errno
import io
import logging
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from scalesearch.analysis.baselines import start_samplers
from scalesearch.dashboard.artifacts import artifact_store
from scalesearch.dashboard.guard import HOST, guard
from scalesearch.dashboard.publisher import annotate_missing, installed, update_statistics
from scalesearch.errors import ConfigError, MissingBackendError
from scalesearch.records.run_file import read_run_file
from scalesearch.search.database_file import is_read_only, look_into, uri_of
from scalesearch.search.storage import STUDY_FILE, only_coordinator, opened_study, reading_storage, storage_of
from scalesearch.values.record import TrialRecord
from scalesearch.values.session import Session

if TYPE_CHECKING:
    import optuna


class DashboardServer:
    """Optuna Dashboard for one study, bound to loopback as soon as it is made. Its context closes the port."""

    def __init__(self, folder: Path, *, port: int) -> None:
        """Bind to `port` (0: any free one) without serving yet.

        Raises:
            ConfigError: `folder` holds no study, or the port is taken.
            MissingBackendError: The extra `dashboard` is not installed.
        """
        if not storage_of(folder):
            _look_into(folder)
        if not installed():
            msg = (
                "Optuna Dashboard is not installed, so the study cannot be opened in a browser.\n"
                "Install it with: pip install 'scalesearch[dashboard]'\n"
                "Without it: `scalesearch front` and `scalesearch show --trial N` print the same numbers."
            )
            raise MissingBackendError(msg)
        self._storage = reading_storage(folder)
        try:
            self._server = _bind(_application(self._storage, folder), port)
        except BaseException:
            self._close_storage()
            raise
        self.url = f"http://{HOST}:{self._server.server_port}/"

    def __enter__(self) -> "DashboardServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()
        self._close_storage()

    def _close_storage(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def serve(self) -> None:
        """Answer requests until interrupted or stopped."""
        self._server.serve_forever()

    def stop(self) -> None:
        """End `serve` from another thread."""
        self._server.shutdown()


def complete_notes(folder: Path, records: Iterable[TrialRecord]) -> int:
    """Save the notes that a run without Optuna Dashboard could not save, and return their number.

    The number is 0 while a run goes on, which saves its own notes.
    """
    with contextlib.suppress(ConfigError), only_coordinator(folder), opened_study(folder) as opened:
        every, session = list(records), _readable_session(folder)
        task = session.settings.task if session else ""
        saved = annotate_missing(opened.study, every, folder, samplers=start_samplers(session), task=task)
        if saved and session:
            update_statistics(opened.study, every, session.space)
        return saved
    return 0


def _readable_session(folder: Path) -> Session | None:
    try:
        return read_run_file(folder)
    except ConfigError:  # the notes are made of the records alone
        return None


def _look_into(folder: Path) -> None:
    """Raise ConfigError if the folder holds no study: Optuna Dashboard would make an empty one for a mistyped path."""
    path = folder / STUDY_FILE
    if not path.is_file():
        rest = "Give a study's folder, or start one with `scalesearch run`."
        if (folder / "records").is_dir():
            rest = "Its records are there: the study's own command (see run.toml) makes the database again from them."
        msg = f"no study to show: {path} does not exist.\n{rest}"
        raise ConfigError(msg)
    look_into(path)
    with closing(sqlite3.connect(uri_of(path), uri=True)) as database:
        found = database.execute("SELECT name FROM sqlite_master WHERE name = 'studies'").fetchone()
    if not found:
        msg = f"{path} is a database, but not an Optuna study.\nGive the folder that `scalesearch run` wrote."
        raise ConfigError(msg)


def _application(storage: "optuna.storages.RDBStorage", folder: Path) -> Callable[..., Any]:
    from optuna_dashboard import wsgi

    # It logs tracebacks. The guard says in one line what could not be answered.
    logging.getLogger("optuna_dashboard").setLevel(logging.CRITICAL)

    application = wsgi(storage, artifact_store=artifact_store(folder.resolve()))
    return guard(application, notes=bool(storage_of(folder)) or not is_read_only(folder / STUDY_FILE))


class _Server(ThreadingMixIn, WSGIServer):
    """A server with threads, so that one slow plot does not hold up the page. The threads end with the process."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a browser that went away in the middle of a request."""


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the page asks again every few seconds."""

    def get_stderr(self) -> Any:
        """Return a stream that discards tracebacks of broken-off responses, which mean nothing to a user."""
        return io.StringIO()


def _bind(application: Callable[..., Any], port: int) -> WSGIServer:
    try:
        return make_server(HOST, port, application, server_class=_Server, handler_class=_QuietHandler)
    except (OSError, OverflowError) as error:
        busy = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "another program is using it" if busy else str(error)
        msg = f"cannot serve on {HOST}, port {port}: {why}.\nGive another one with --port (0 takes any free port)."
        raise ConfigError(msg) from error
