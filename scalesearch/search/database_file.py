"""Check `study.sqlite3`, explain its errors, and open it even where it cannot be written.

The study can do without this file: trials, figures, notes and downloads are made again from `records/`.
"""

import atexit
import functools
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
import sqlalchemy

from scalesearch.errors import ConfigError

_DELETE = (
    "Delete it (and {name}-wal, if there): the study's own command makes it again from records/, "
    "but for notes typed in the dashboard."
)
_FOREIGN = "Move it away, or give another folder with --to."
# Keyed by the beginning of SQLite's own name for the error: what it means, and what to do.
_KINDS = {
    "SQLITE_NOTADB": ("cannot be opened as a study: it is no SQLite database", _DELETE),
    "SQLITE_CORRUPT": ("cannot be opened as a study: it is damaged", _DELETE),
    "SQLITE_FULL": (
        "cannot grow: the disk is full",
        "Finished trials are on disk: free some space and type the same command again.",
    ),
    "SQLITE_READONLY": ("cannot be written", "Make the file and its folder writable, or work on a copy of the study."),
    "SQLITE_CANTOPEN": ("cannot be opened", "Make the file and its folder readable and writable, or work on a copy."),
    "SQLITE_PERM": ("cannot be opened", "Make the file and its folder readable and writable, or work on a copy."),
    "SQLITE_BUSY": (
        "is locked by another program",
        "Close what has it open (a database browser?) and type the same command again.",
    ),
    "SQLITE_LOCKED": (
        "is locked by another program",
        "Close what has it open (a database browser?) and type the same command again.",
    ),
    "SQLITE_IOERR": (
        "cannot be read or written: the disk failed or is full",
        "Finished trials are on disk: mend the cause and type the same command again.",
    ),
}
_OTHER = ("cannot be opened as a study: it does not hold what Optuna expects", _DELETE)


@contextmanager
def in_words(file: Path) -> Iterator[None]:
    """Turn what SQLite, SQLAlchemy and Optuna raise on this database file into one ConfigError.

    Raises:
        ConfigError: The file is damaged, full, locked, not writable, or of another version of Optuna.
    """
    try:
        yield
    except (sqlite3.Error, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise _explained(file, error) from error
    except RuntimeError as error:
        if not is_of_another_version(error):
            raise
        message = (
            f"{file} was written by another version of Optuna than the {optuna.__version__} here.\n"
            f"Install the version that run.toml names. Or: {_DELETE.format(name=file.name)}"
        )
        raise ConfigError(message) from error


def is_of_another_version(error: RuntimeError) -> bool:
    """Tell whether Optuna raised this because another version of it wrote the tables."""
    return "optuna" in str(error).lower() and "schema" in str(error).lower()


def look_into(file: Path) -> None:
    """Raise ConfigError where the file exists and is not a sound Optuna database; write nothing into it.

    Optuna would put its tables into any database that it is given.
    """
    if not file.exists() or (file.is_file() and not file.stat().st_size):
        return
    with in_words(file), closing(sqlite3.connect(uri_of(file), uri=True, timeout=10)) as database:
        names = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        damage = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise sqlite3.DatabaseError(damage)
        if names and not {"studies", "trials"} <= names:
            message = (
                f"{file} is a database, but not an Optuna study: it holds {', '.join(sorted(names)[:3])}.\n{_FOREIGN}"
            )
            raise ConfigError(message)


def is_read_only(file: Path) -> bool:
    """Tell whether this process cannot write the database or its folder, in which SQLite writes further files."""
    return not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))


def uri_of(file: Path) -> str:
    """Return the URI by which the database is opened, for reading only where nothing can be written.

    To read a database with a write-ahead log, SQLite creates a third file. Where it cannot, a database whose log is
    empty or absent is opened as immutable; otherwise a copy is read, since the last trials are only in the log.
    """
    uri = file.resolve().as_uri()
    if not is_read_only(file):
        return f"{uri}?mode=rw"
    if _opens(f"{uri}?mode=ro"):
        return f"{uri}?mode=ro"
    log = Path(f"{file}-wal")
    return f"{_copied(file.resolve(), log.resolve()).as_uri()}?mode=rw" if _size(log) else f"{uri}?mode=ro&immutable=1"


@functools.cache
def _copied(file: Path, log: Path) -> Path:
    """Return the path of a private copy of the database and its log, which is removed when the process ends.

    It is made once per process, since the file cannot be changed.
    """
    folder = Path(tempfile.mkdtemp(prefix="scalesearch-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copyfile(file, folder / file.name)
    shutil.copyfile(log, folder / log.name)
    return folder / file.name


def _opens(uri: str) -> bool:
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        return False
    except sqlite3.DatabaseError:  # damaged: `in_words` reports that
        return True
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _explained(file: Path, error: BaseException) -> ConfigError:
    found: BaseException | None = error
    while found is not None and not isinstance(found, sqlite3.Error):
        found = getattr(found, "orig", None) or found.__cause__
    name = getattr(found, "sqlite_errorname", "") or ""
    state, remedy = next((words for kind, words in _KINDS.items() if name.startswith(kind)), _OTHER)
    reason = " ".join(str(found if found is not None else error).split())[:200]
    return ConfigError(f"{file} {state} ({reason}).\n{remedy.format(name=file.name)}")
