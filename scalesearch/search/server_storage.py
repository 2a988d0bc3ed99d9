"""A study on a PostgreSQL server, shared by whoever may connect. Records stay in the study's folder."""

import importlib.util
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import sqlalchemy

from scalesearch.errors import ConfigError, MissingBackendError
from scalesearch.files import replace_file
from scalesearch.plain_text import utf8_text
from scalesearch.search.database_file import is_of_another_version
from scalesearch.values.storage_url import check_storage_url

NAME_FILE = "study.name"
_TIMEOUT_S = 10
_LONGEST = 60


def server_storage(url: str) -> optuna.storages.RDBStorage:
    """Open the storage on that server; its tables are made where absent.

    The password, if one is needed, comes from libpq's own places (PGPASSWORD, ~/.pgpass). It is not part of `url`.

    Raises:
        ConfigError: `url` is not a PostgreSQL URL, or the database cannot be reached.
        MissingBackendError: The extra `postgresql` is not installed.
    """
    parsed = _parse(url)
    if importlib.util.find_spec("psycopg") is None:
        message = (
            "storage: PostgreSQL's driver is not installed.\nInstall it with: pip install 'scalesearch[postgresql]'\n"
            "Without it the study can live in its folder: leave `storage` out."
        )
        raise MissingBackendError(message)
    engine = {
        "pool_pre_ping": True,  # a restarted server costs a new connection, not the run
        "connect_args": {"connect_timeout": _TIMEOUT_S},
    }
    with server_in_words(
        url, "cannot open", "Start the server, mend the URL, or give the password by PGPASSWORD or ~/.pgpass."
    ):
        # hide_password=False: it has no password (values.settings), and hiding would change what is connected to.
        return optuna.storages.RDBStorage(parsed.render_as_string(hide_password=False), engine_kwargs=engine)


@contextmanager
def server_in_words(
    url: str,
    failed: str = "lost",
    remedy: str = "Finished trials are on disk: start the server and type the same command again.",
) -> Iterator[None]:
    """Turn what SQLAlchemy and Optuna raise on this database into one ConfigError.

    Args:
        url: The database.
        failed: What is said of it, as a verb.
        remedy: What the user can do.

    Raises:
        ConfigError: The server is gone or refuses, or the tables are of another version of Optuna.
    """
    parsed = _parse(url)
    place = f"database {parsed.database or '(none)'} on {parsed.host or 'this machine'}"
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error if isinstance(error, sqlalchemy.exc.SQLAlchemyError) else error.__cause__
        # The driver's own words. SQLAlchemy's add the statement and its parameters.
        reason = " ".join(str(getattr(cause, "orig", None) or "it refused the connection").split())
        message = f"storage: {failed} {place}.\n{reason[:300]}\n{remedy}"
        raise ConfigError(message) from None
    except RuntimeError as error:
        if not is_of_another_version(error):
            raise
        message = (
            f"storage: {place} was written by another version of Optuna than the {optuna.__version__} here.\n"
            "Install the version that run.toml names, or give another database."
        )
        raise ConfigError(message) from error


def _parse(url: str) -> sqlalchemy.URL:
    check_storage_url(url)
    try:
        parsed = sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # two ports, which are possible only in parameters
        message = (
            "storage: expected postgresql://USER@HOST:PORT/DATABASE, or nothing for the study's own SQLite file.\n"
            "Several servers are given as postgresql://USER@/DATABASE?host=ONE:PORT&host=OTHER:PORT."
        )
        raise ConfigError(message) from None
    return parsed.set(drivername="postgresql+psycopg")


def server_study_name(folder: Path) -> str:
    """Return the name of that folder's study on any server.

    It is unique, and stored in the folder, so that it stays the same if the folder is moved.
    """
    file = folder / NAME_FILE
    if not file.is_file():
        name = f"{utf8_text(folder.resolve().name)[:_LONGEST]} {uuid.uuid4().hex[:8]}"
        replace_file(file, f"{name}\n".encode())
    return file.read_text(encoding="utf-8").strip()
