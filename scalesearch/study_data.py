"""Finds a study's images again, from whatever folder it is worked on; the fingerprint decides whether they are its."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.errors import ConfigError
from scalesearch.values.session import DataSummary, Session
from scalesearch.values.settings import DataSettings

if TYPE_CHECKING:
    from scalesearch.training.datasets import Dataset

_SHOWN = 12
_ANCESTORS = 3
"""How far above a study of old its data are looked for: `project/results/study` beside `project/pictures`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoundData:
    """A data set that was asked for by its fingerprint, and where it is."""

    dataset: "Dataset"
    settings: DataSettings
    """That load it from the present working folder."""
    folder: str
    """The folder that the settings as they were asked for are meant from."""


def load_study_data(session: Session) -> "Dataset":
    """The very images that the session was made with.

    Looked for where the study was run and in the present folder; for a study that does not tell where it was run, also
    beside the study.

    Raises:
        ConfigError: They are not there, or are others now.
    """
    return find_study_data(session).dataset


def find_study_data(session: Session) -> FoundData:
    """`load_study_data`, and where the images were found.

    Raises:
        ConfigError: They are nowhere, or are others now.
    """
    folders = _folders(session.run_folder, session.folder)
    return find_data(
        session.settings.data,
        session.data,
        storage_px=session.storage_px,
        channels=session.base.image_channels,
        folders=folders,
        asker=str(session.folder),
    )


def find_data(
    settings: DataSettings,
    expected: DataSummary,
    *,
    storage_px: int,
    channels: int,
    folders: Sequence[Path],
    asker: str,
) -> FoundData:
    """The data set of that fingerprint, which the settings lead to from one of the folders.

    Args:
        settings: As they were given once.
        expected: What the data set was then.
        storage_px: Side of its stored images.
        channels: Of the network's images.
        folders: That relative paths may be meant from, the likeliest first.
        asker: The study or file whose data they are, for messages.

    Raises:
        ConfigError: No folder leads to it.
    """
    from scalesearch.training.datasets import load_dataset

    others, faults = list[str](), list[str]()
    for folder, asked in _places(settings, folders):
        try:
            dataset = load_dataset(asked, storage_px=storage_px, channels=channels)
        except ConfigError as error:  # another folder of that name, perhaps no data set at all
            faults.append(str(error).splitlines()[0])
            continue
        if dataset.fingerprint == expected.fingerprint:
            return FoundData(dataset=dataset, settings=asked, folder=str(folder))
        others.append(_unlike(asked.source, dataset, expected, asker))
    given = f"{settings.source!r}{f' in {folders[0]}' if folders and _is_relative(settings.source) else ''}"
    remedy = "Give the place where they are now: --data PATH."
    if others:
        message = f"{others[0]}\nRestore them. {remedy}"
        raise ConfigError(message)
    if faults:
        message = f"The images that {asker} was run on ({given}) cannot be loaded: {faults[0]}\n{remedy}"
        raise ConfigError(message)
    message = f"The images that {asker} was run on are gone: it was run with --data {given}, and nothing is there"
    message += f", nor in {Path.cwd()}." if _is_relative(settings.source) else "."
    message += f"\n{remedy}"
    raise ConfigError(message)


def with_data(session: Session, data: str | None) -> Session:
    """The session, its images taken from `data`, a place they were moved to (None: from where they were).

    They are loaded once, so that other images are refused before any work.

    Raises:
        ConfigError: There are no images, or others than the study's.
    """
    if data is None:
        return session
    from scalesearch.training.datasets import load_dataset

    asked = _seen_from(Path.cwd(), replace(session.settings.data, source=data))
    try:
        dataset = load_dataset(asked, storage_px=session.storage_px, channels=session.base.image_channels)
    except ConfigError as error:
        message = (
            f"--data {data}: expected the images that {session.folder} was run on "
            f"({session.settings.data.source!r}, {_counts(session.data)}).\nCame: {str(error).splitlines()[0]}"
        )
        raise ConfigError(message) from None
    if dataset.fingerprint != session.data.fingerprint:
        unlike = _unlike(data, dataset, session.data, str(session.folder))
        message = f"--data {data}: {unlike}\nGive the same images: a study's numbers are true for them only."
        raise ConfigError(message)
    return replace(session, settings=replace(session.settings, data=asked), run_folder=str(Path.cwd()))


def continues_with(settings: DataSettings, folder: Path) -> bool:
    """Whether the study in the folder was run with these very settings, so that its images are found from anywhere."""
    from scalesearch.records.run_file import read_run_file

    try:
        stored = read_run_file(folder)
    except ConfigError:  # told when the study is opened
        return False
    if stored and settings.window == "auto":  # found by the first run
        settings = replace(settings, window=stored.settings.data.window)
    return stored is not None and stored.settings.data == settings


def leads_somewhere(source: str, folders: Sequence[Path]) -> bool:
    """Whether something is there that `source` can mean, seen from one of the folders."""
    return any(True for _ in _places(DataSettings(source=source), folders))


def data_path(session: Session) -> Path | None:
    """Where the study's images seem to be, by name alone; None where they have no place of their own."""
    for _, asked in _places(session.settings.data, _folders(session.run_folder, session.folder)):
        return None if _is_name(asked.source) else Path(asked.source).resolve()
    return None


def _folders(run_folder: str, study: Path) -> tuple[Path, ...]:
    """That a study's relative paths may be meant from: where it was run, where we are, and, of old, near the study."""
    if run_folder:
        return (Path(run_folder), Path.cwd())
    return (Path.cwd(), *study.resolve().parents[:_ANCESTORS])


def _places(settings: DataSettings, folders: Sequence[Path]) -> Iterator[tuple[Path, DataSettings]]:
    """The settings as they read from each folder, where there is something; each place once."""
    seen = set[DataSettings]()
    for folder in folders:
        asked = _seen_from(folder, settings)
        if asked not in seen and (_is_name(asked.source) or _exists(asked.source)):
            seen.add(asked)
            yield folder, asked


def _seen_from(folder: Path, settings: DataSettings) -> DataSettings:
    """The settings with absolute paths."""
    source, download = settings.source, settings.download_folder
    return replace(
        settings,
        source=source if _is_name(source) else _absolute(folder, source),
        download_folder=_absolute(folder, download) if download else "",
    )


def _absolute(folder: Path, path: str) -> str:
    return os.path.abspath(folder / Path(path).expanduser())  # noqa: PTH100  (a link stays one; `..` goes)


def _is_name(source: str) -> bool:
    """Whether it is the name of a known data set rather than a path."""
    from scalesearch.training.datasets import BUILTIN, SOURCES

    name = source.removeprefix(BUILTIN).lower().replace("_", "-")
    return any(name in kind.names for kind in SOURCES)


def _is_relative(source: str) -> bool:
    return not _is_name(source) and not Path(source).expanduser().is_absolute()


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long a name, or a null byte
        return False


def _unlike(source: str, dataset: "Dataset", expected: DataSummary, asker: str) -> str:
    parts = (len(part) for part in (dataset.train, dataset.val, dataset.calibration, dataset.test))
    came = _counted(*parts, classes=len(dataset.class_names))
    return (
        f"The images of {source} are not those that {asker} was run on: fingerprint was "
        f"{expected.fingerprint[:_SHOWN]}, is {dataset.fingerprint[:_SHOWN]} "
        f"(was {expected.name}: {_counts(expected)}; is {dataset.name}: {came})."
    )


def _counts(data: DataSummary) -> str:
    parts = (data.train_images, data.val_images, data.calibration_images, data.test_images)
    return _counted(*parts, classes=len(data.class_names))


def _counted(train: int, val: int, calibration: int, test: int, *, classes: int) -> str:
    return f"{train} training, {val} validation, {calibration} calibration and {test} test images, {classes} classes"
