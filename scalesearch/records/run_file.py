"""run.toml: everything that a study was run with, resolved; and whether a later run may continue the study."""

import dataclasses
import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import TypeAdapter, ValidationError

from scalesearch.errors import ConfigError
from scalesearch.files import replace_file
from scalesearch.plain_text import utf8_text, utf8_values, without_secrets
from scalesearch.records.plausible import first_fault, impossible
from scalesearch.toml_file import read_toml
from scalesearch.values.candidate import Recipe
from scalesearch.values.identity import values_before
from scalesearch.values.session import EARLIER_READING, Session
from scalesearch.values.settings import DataSettings
from scalesearch.values.storage_url import check_storage_url

NAME = "run.toml"
_LIBRARIES = ("scalesearch", "torch", "optuna", "fvcore", "onnx", "onnxruntime", "torch-pruning", "numpy", "pandas")
# What makes trials comparable. Budget, workers, sampler and stage limits may change between the runs of a study.
_IDENTITY = (
    "space",
    "base",
    "target",
    "device",
    "data",
    "settings.task",
    "parent",
    "settings.seed",
    "settings.latency",
    "settings.detection",
    "settings.tensorrt",
    "settings.machine.device",
)
# Descriptions may be reworded. Two names for the same images do not make two data sets (a folder may have been moved):
# the fingerprint decides.
# The standard error follows from the number of images; earlier versions stored it for every score.
_NO_IDENTITY = (
    "space.summary",
    "target.summary",
    "data.warnings",
    "data.name",
    "data.val_standard_error_points",
    "parent.source",
    "parent.licence",
    "parent.head",
)
_WAY_OUT = (
    "Give the old settings to continue it, --fresh to start anew (the old folder is kept), or --to another folder."
)
_SHOWN_DIFFERENCES = 4
_SHOWN_DIGITS = 12
_SCHEDULE = "training.schedule"


def write_run_file(session: Session) -> None:
    """Write `run.toml` into the study's folder, whole or not at all."""
    document: dict[str, Any] = {
        "written_by": f"scalesearch {importlib.metadata.version('scalesearch')}",
        "command": recorded_command(sys.argv),
        "versions": {"python": platform.python_version(), **library_versions()},
        "host": {"system": platform.platform(), "cpus": os.cpu_count() or 0},
        "session": _plain(session),
    }
    replace_file(session.folder / NAME, tomli_w.dumps(utf8_values(document)).encode())


def recorded_command(arguments: Sequence[str]) -> str:
    """Return the command line as text, without any password in it.

    A password is removed even from a setting that a later one replaced.
    """
    name, *others = arguments
    return utf8_text(shlex.join([Path(name).name, *map(_recorded, others)]))


def _recorded(argument: str) -> str:
    key, equals, value = argument.partition("storage=")
    if not equals:
        return without_secrets(argument)
    try:
        check_storage_url(value.strip().strip("'\""))
    except ConfigError:
        value = "..."
    return without_secrets(key) + equals + value


def read_run_file(folder: Path) -> Session | None:
    """Return the session that a study was run with; None where the folder holds no study yet.

    Raises:
        ConfigError: The file is there but cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        document = read_toml(path)
        session = TypeAdapter(Session).validate_python(_renamed(document["session"]))
        said = document["session"].get("settings", {}).get("data", {})
        data = as_read_before(session.settings.data, said)
        session = dataclasses.replace(session, settings=dataclasses.replace(session.settings, data=data))
        reason = impossible(session)
    except ValidationError as error:
        reason = first_fault(error)
    except (KeyError, TypeError):
        reason = "it has no table [session]"
    except (OSError, ValueError, ConfigError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
    if reason:
        message = (
            f"{path} cannot be read: {reason}.\nIt says what the study was run with, so the study cannot go on. "
            "Mend the file, start anew with --fresh (the old folder is kept), or give another folder with --to."
        )
        raise ConfigError(message)
    if "layout" not in document["session"].get("settings", {}).get("data", {}):
        data = layout_of_before(session.settings.data, session.data.class_names)
        session = dataclasses.replace(session, settings=dataclasses.replace(session.settings, data=data))
    if session.code_sha256 and not session.code_read_by:
        session = dataclasses.replace(session, code_read_by=_code_reader_of_before(document))
    # The folder may have been moved since.
    return dataclasses.replace(session, folder=folder)


def _code_reader_of_before(document: dict[str, Any]) -> str:
    """Return what `Session.code_read_by` would be, which earlier versions did not store; empty if that is unknown."""
    versions = document.get("versions", {})
    if not {"python", "torch"} <= versions.keys():
        return ""
    python, torch = str(versions["python"]), str(versions["torch"])
    return f"Python {'.'.join(python.split('.')[:2])}, torch {torch.partition('+')[0]}"


def continues_with(settings: DataSettings, folder: Path) -> bool:
    """Tell whether the study in the folder was run with exactly these settings.

    If so, its images are found from any working folder.
    """
    try:
        stored = read_run_file(folder)
    except ConfigError:  # reported when the study is opened
        return False
    if stored and settings.window == "auto":  # the first run found the values
        settings = dataclasses.replace(settings, window=stored.settings.data.window)
    if stored and settings.fit == "auto":
        settings = dataclasses.replace(settings, fit=stored.settings.data.fit)
    return stored is not None and same_images(stored.settings.data, settings)


def same_images(one: DataSettings, other: DataSettings) -> bool:
    """Tell whether two settings ask for the same images; `memory`, where they are held, makes no difference."""
    return one == dataclasses.replace(other, memory=one.memory)


def _renamed(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a session as this version writes it: its field names, and an axis for the schedule."""
    axes = document["space"]["axes"]
    if all(axis["name"] != _SCHEDULE for axis in axes):
        axes.append({"name": _SCHEDULE, "axis": {"values": [values_before(Recipe)["schedule"]]}})
    data = document["data"]
    if "val_standard_error" in data:  # always in percentage points, but the old name did not say so
        data["val_standard_error_points"] = data.pop("val_standard_error")
    return document


def as_read_before(data: DataSettings, said: Container[str]) -> DataSettings:
    """Return the data settings of a file with what images were read by before there was a setting for it.

    Args:
        data: The settings of the file, with today's defaults for what it does not say.
        said: The names of those that it says.
    """
    if "window" not in said:  # images of more than 8 bits were read on their whole scale
        data = dataclasses.replace(data, window="full")
    if "fit" not in said:
        data = dataclasses.replace(data, fit="crop")
    return data


def layout_of_before(data: DataSettings, class_names: tuple[str, ...]) -> DataSettings:
    """Return the data settings with the `layout` by which the images were read, if they are older than that setting.

    The class names are known, so the layout can be found: the class folders lie in the source folder itself, or in the
    folders of its splits. Where the source is another machine's, or closed to this user, the settings stay as they are.
    """
    try:
        root = Path(data.source).expanduser()
        if not root.is_dir():
            return data
        flat = all((root / name).is_dir() for name in class_names)
    except (OSError, RuntimeError):  # a folder of another user, or `~name` of one that is not here
        return data
    return dataclasses.replace(data, layout="classes" if flat else "splits")


def stored_session(folder: Path) -> Session:
    """Return the session that the study in `folder` was run with.

    Raises:
        ConfigError: The folder holds none, or one that cannot be read.
    """
    session = read_run_file(folder)
    if session is None:
        message = f"{folder} holds no run.toml: it is not a study, or its run ended before the first trial."
        raise ConfigError(message)
    return session


def refuse_changes(stored: Session, current: Session, *, way_out: str = "") -> None:
    """Raise ConfigError, with the differences, if trials of the two sessions could not share a front.

    `way_out` is what the user may do instead, as a sentence; by default, what `scalesearch run` offers.
    """
    old, new = dict(_identity(stored)), dict(_identity(current))
    changes = [
        f"{key}: was {old.get(key, 'absent')!r}, is {new.get(key, 'absent')!r}"
        for key in (*old, *(key for key in new if key not in old))
        if old.get(key) != new.get(key)
    ]
    number_format, asked = "on" if stored.machine.bf16 else "off", current.settings.machine.bf16
    if asked not in ("auto", number_format):  # all trainings of a study round alike
        changes.append(f"machine.bf16: was {number_format!r}, is {asked!r}")
    if not stored.may_have_code(current.code_sha256, read_by=current.code_read_by):
        shown = (session.code_sha256[:_SHOWN_DIGITS] for session in (stored, current))
        changes.append("the code of {}: was {}..., is {}...".format(current.base.origin, *shown))
    if not changes:
        return
    changes = [*_read_otherwise(stored, current), *changes]
    more = f"; and {len(changes) - _SHOWN_DIFFERENCES} more" if len(changes) > _SHOWN_DIFFERENCES else ""
    message = (
        f"The study in {stored.folder} was run with other settings, and unlike trials may not share a front.\n"
        f"{'; '.join(changes[:_SHOWN_DIFFERENCES])}{more}.\n"
        f"{way_out or _WAY_OUT}"
    )
    raise ConfigError(message)


def _read_otherwise(stored: Session, current: Session) -> Iterator[str]:
    """Yield the settings whose change makes other pixels of the same files, and what this version reads otherwise.

    They explain why the fingerprint differs.
    """
    if stored.data.fingerprint == current.data.fingerprint:
        return
    for name, known in (("window", "window"), ("fit", "framing")):
        was, now = (getattr(session.settings.data, known) for session in (stored, current))
        if was != now:
            yield f"data.{name}: was {was!r}, is {now!r}"
    for told in current.data.warnings:
        if EARLIER_READING in told and told not in stored.data.warnings:
            yield told


def _identity(session: Session) -> Iterator[tuple[str, object]]:
    for key, value in _flat(_plain(session)):
        if any(key == name or key.startswith(f"{name}.") for name in _IDENTITY) and key not in _NO_IDENTITY:
            yield key, value


def _plain(session: Session) -> dict[str, Any]:
    document: dict[str, Any] = TypeAdapter(Session).dump_python(session, mode="json", exclude_none=True)
    return document


def _flat(document: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for index, item in enumerate(value):
                name = item.get("name", index)
                yield from _flat({k: v for k, v in item.items() if k != "name"}, f"{prefix}{key}.{name}.")
        else:
            yield prefix + key, value


def library_versions() -> dict[str, str]:
    """Return the installed versions of the libraries that a result depends on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
