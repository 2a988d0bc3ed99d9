"""Check where `export --to` may write: into a new folder, or over an earlier export. Other files are never touched."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.errors import ConfigError
from scalesearch.export.environment import LOCK
from scalesearch.export.metadata import CALIBRATION, NAME, PREPROCESSING
from scalesearch.export.model_card import CARD
from scalesearch.views.histogram_page import PICTURES

if TYPE_CHECKING:
    from scalesearch.export.metadata import ExportedConfig
    from scalesearch.values.session import Session

MODEL = "model.onnx"
WEIGHTS = "weights.safetensors"
SCRIPT = "infer.py"
FIXED = (MODEL, WEIGHTS, SCRIPT, NAME, PREPROCESSING, CALIBRATION, LOCK, CARD)
"""Files that may be in every export, whatever its formats."""
_LITTER = re.compile(r"\.DS_Store|Thumbs\.db|desktop\.ini|\._.*|__pycache__|\.directory")
_BUILT_IN_C = re.compile(r"self_test|.*\.o")
"""Files that the Makefile of the format `c` builds."""
_OBJECTS = re.compile(r"^OBJECTS = model\.o (.*)labels\.o self_test\.o$", re.MULTILINE)
"""The line of that Makefile with the files of the task between those of all tasks."""
_SHOWN, _SHOWN_SIGNS = 4, 200


def check_place(folder: Path, session: "Session") -> None:
    """Raise ConfigError if an export may not be written to this place.

    That is so for a link, for a file, and for a folder that is used for something else.

    Args:
        folder: Folder of the export.
        session: Session of the study.
    """
    from scalesearch.data.finding import data_path
    from scalesearch.tasks.registry import sources_of

    remedy = "Give a folder for the export alone with --to."
    try:
        is_link, is_other = folder.is_symlink(), folder.exists() and not folder.is_dir()
        place = folder.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        message = f"Cannot write to {str(folder)[:_SHOWN_SIGNS]}: {getattr(error, 'strerror', '') or error}. {remedy}"
        raise ConfigError(message) from None
    if is_link:
        message = f"{folder} is a link, and an export replaces its folder whole. Give what it leads to with --to."
        raise ConfigError(message)
    if is_other:
        message = f"{folder} is a file: expected a folder, or a name that is free. {remedy}"
        raise ConfigError(message)
    study, data = session.folder.resolve(), data_path(session, sources_of(session.settings.task))
    for needed, what in (
        (Path.cwd(), "the folder that you are in"),
        (Path.home(), "your home folder"),
        (study, "the study's folder"),
        *(((data, "the folder of the images"),) if data else ()),
    ):
        if needed.resolve().is_relative_to(place):
            inside = "" if needed.resolve() == place else ", or holds it"
            message = f"{folder} is {what}{inside}: an export replaces its folder whole.\n{remedy}"
            raise ConfigError(message)
    if data and place.is_relative_to(data):
        message = f"{folder} is within the images of the study, {data}: it would be taken for images.\n{remedy}"
        raise ConfigError(message)
    if place.is_relative_to(study) and place.relative_to(study).parts[0] in _study_names():
        message = f"{folder} is where the study keeps its own files.\n{remedy}"
        raise ConfigError(message)
    if folder.is_mount():
        message = f"{folder} is a mount point, which cannot be replaced. Give a folder in it with --to."
        raise ConfigError(message)


def earlier_export(folder: Path) -> "ExportedConfig | None":
    """Return the config of the export that is in the folder already; None where there is none.

    Pictures of a trial do not count as an export.

    Raises:
        ConfigError: Something is there that no export wrote.
    """
    from scalesearch.export.metadata import NAME, read_config

    if not folder.is_dir():
        return None
    strange = sorted(_strangers(folder))
    if strange:
        shown = f"{', '.join(strange[:_SHOWN])}{', ...' if len(strange) > _SHOWN else ''}"
        message = (
            f"{folder} holds {shown}, which no export wrote; an export replaces its folder whole.\n"
            "Move that elsewhere, or give another folder with --to."
        )
        raise ConfigError(message)
    if (folder / NAME).is_file():
        return read_config(folder)
    others = sorted(path.name for path in folder.iterdir() if path.name not in PICTURES and not _is_litter(path))
    if others:
        message = (
            f"{folder} holds {', '.join(others[:_SHOWN])} without the {NAME} of an export, so it may be yours.\n"
            "Move it elsewhere, or give another folder with --to."
        )
        raise ConfigError(message)
    return None


def refuse_other_trial(folder: Path, study: str, trial: int) -> None:
    """Raise ConfigError where the folder holds the export of another trial, whose network the pictures would not show.

    Args:
        folder: Where pictures of a trial are to be written.
        study: The name of the trial's study.
        trial: Number of the trial.
    """
    from scalesearch.export.metadata import NAME, read_config

    try:
        config = read_config(folder) if (folder / NAME).is_file() else None
    except ConfigError:  # not from this program: two more files do no harm there
        return
    if config and (config.study, config.trial) != (study, trial):
        message = (
            f"{folder} holds the export of trial {config.trial} of {config.study}; these pictures are of trial {trial} "
            f"of {study}.\nGive another folder with --to."
        )
        raise ConfigError(message)


def kept_parts(folder: Path, *, model: Path, pictures_of: tuple[str, int] | None) -> tuple[str, ...]:
    """Return the names, below `folder`, of files that are still right for the new `model`: other formats and pictures.

    They are kept only if the folder holds the very same model.onnx already. Pictures show the search's network, and are
    kept only if `pictures_of` is given (a study's name, a trial's number); those of that trial also if the folder holds
    nothing else.
    """
    from scalesearch.export.formats import OUTPUTS
    from scalesearch.views.histogram_page import page_is_of

    if not folder.is_dir():
        return ()
    old = folder / MODEL
    if old.is_file():
        same = old.read_bytes() == model.read_bytes()
        tops = dict.fromkeys(Path(name).parts[0] for names in OUTPUTS.values() for name in names)
        pictures = PICTURES if pictures_of else ()
        return tuple(name for name in (*tops, *pictures) if same and name != MODEL and (folder / name).exists())
    if pictures_of and page_is_of(folder / PICTURES[1], *pictures_of):
        return tuple(name for name in PICTURES if (folder / name).is_file())
    return ()


def _strangers(folder: Path) -> Iterator[str]:
    """Yield what is in the folder under a name that no export uses."""
    from scalesearch.export.formats import OUTPUTS

    files = {*FIXED, *PICTURES, *(name for names in OUTPUTS.values() for name in names), *_c_modules(folder)}
    folders = {str(Path(name).parent) for name in files} - {"."}
    for path in folder.iterdir():
        if _is_litter(path):
            continue
        if path.name in folders and path.is_dir() and not path.is_symlink():
            for inner in path.iterdir():
                name = f"{path.name}/{inner.name}"
                built = path.name == "c" and _BUILT_IN_C.fullmatch(inner.name)
                if not (_is_litter(inner) or ((name in files or built) and _is_plain(inner))):
                    yield name
        elif path.name not in files or not _is_plain(path):
            yield path.name


def _c_modules(folder: Path) -> Iterator[str]:
    """Yield the C files of a task of another package, which the Makefile of an export names; it must be unchanged."""
    from scalesearch.deployment.formats.c_texts import makefile

    try:
        text = (folder / "c" / "Makefile").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return
    if found := _OBJECTS.search(text):
        names = found[1].replace(".o", "").split()
        if text == makefile(dict.fromkeys(names)):
            yield from (f"c/{name}.{ending}" for name in names for ending in "ch")


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_litter(path: Path) -> bool:
    """Tell whether an operating system or Python, not a person, left this file."""
    return bool(_LITTER.fullmatch(path.name))


def _study_names() -> frozenset[str]:
    """Return the names of a study's folders and files, whether or not they exist yet."""
    from scalesearch.records.confirmed import FOLDER as CONFIRMED

    return frozenset(
        (
            "records", "models", "weights", "exported", "twins", "untrained", "artifacts", "logs", "plans",
            "histograms", "pictures", "parent", CONFIRMED,
        )
    )  # fmt: skip
