"""Find a study's images again from any working folder; the fingerprint decides whether they are the right ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.data.source import Sources
from scalesearch.data.source_names import is_name
from scalesearch.errors import ConfigError
from scalesearch.files import absolute_from
from scalesearch.values.network_spec import InputSize
from scalesearch.values.session import EARLIER_READING, DataSummary, Session
from scalesearch.values.settings import DataSettings

if TYPE_CHECKING:
    from scalesearch.data import Dataset

_SHOWN = 12
_ANCESTORS = 3
"""How many folders above a study are searched for its data, if the study is an old one that does not record where it
was run: `project/results/study` may have its images in `project/pictures`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoundData:
    """A data set that was searched for by its fingerprint, and where it was found."""

    dataset: "Dataset"
    settings: DataSettings
    """Settings that load the data set from the present working folder."""
    folder: str
    """The folder that relative paths in the original settings start from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedData:
    """A data set that was used before and is looked for."""

    settings: DataSettings
    """The data settings as they were given originally."""
    expected: DataSummary
    """Summary of the data set as it was then."""
    storage: InputSize
    """Height and width of its stored images."""
    channels: int
    """Number of channels of the network's images."""
    asker: str
    """The study or file whose data they are, for messages."""


def load_study_data(session: Session, sources: Sources) -> "Dataset":
    """Load exactly the images that the session was made with.

    They are looked for where the study was run and in the present folder. If the study does not record where it was
    run, they are looked for in the present folder and in the folders above the study.

    Args:
        session: The session of the study.
        sources: The sources of its task (`tasks.registry.sources_of`).

    Raises:
        ConfigError: If they are not there, or have changed.
    """
    return find_study_data(session, sources).dataset


def find_study_data(session: Session, sources: Sources) -> FoundData:
    """Load the study's images as `load_study_data` does, and return where they were found, too.

    Raises:
        ConfigError: If they are nowhere, or have changed.
    """
    folders = _folders(session.run_folder, session.folder)
    wanted = WantedData(
        settings=session.settings.data,
        expected=session.data,
        storage=session.storage,
        channels=session.base.image_channels,
        asker=str(session.folder),
    )
    found = find_data(wanted, sources, folders=folders)
    if not session.base.mean:
        return found
    # A network that came with its own normalisation keeps it, even if that of the images differs.
    return replace(found, dataset=replace(found.dataset, mean=session.data.mean, std=session.data.std))


def find_data(wanted: WantedData, sources: Sources, *, folders: Sequence[Path]) -> FoundData:
    """Load the data set with the expected fingerprint, trying the settings' relative paths from each of the folders.

    Args:
        wanted: The data set.
        sources: The sources of the task.
        folders: Folders that relative paths may start from, the likeliest first.

    Raises:
        ConfigError: If no folder leads to the data set.
    """
    from scalesearch.data import load_dataset

    settings, expected, asker = wanted.settings, wanted.expected, wanted.asker
    others, faults, read = list[str](), list[str](), list[str]()
    for folder, asked in _places(settings, folders, sources):
        try:
            # No search for copies: its warnings are known from the first time, and workers load the images here, too.
            dataset = load_dataset(
                asked, sources, storage_px=wanted.storage, channels=wanted.channels, look_for_copies=False
            )
        except ConfigError as error:  # another folder of that name, perhaps no data set at all
            faults.append(str(error).splitlines()[0])
            continue
        if dataset.fingerprint == expected.fingerprint:
            found = dataset.normalised_by(expected.mean, expected.std)  # those of a parent, where there is one
            return FoundData(dataset=replace(found, warnings=expected.warnings), settings=asked, folder=str(folder))
        others.append(_unlike(asked.source, dataset, expected, asker))
        read.append(_read_otherwise(dataset, expected))
    given = f"{settings.source!r}{f' in {folders[0]}' if folders and _is_relative(settings.source, sources) else ''}"
    remedy = "Give the place where they are now: --data PATH."
    if others:
        message = f"{others[0]}\n{read[0] or 'Restore them.'} {remedy}"
        raise ConfigError(message)
    if faults:
        message = f"The images that {asker} was run on ({given}) cannot be loaded: {faults[0]}\n{remedy}"
        raise ConfigError(message)
    message = f"The images that {asker} was run on are gone: it was run with --data {given}, and nothing is there"
    message += f", nor in {Path.cwd()}." if _is_relative(settings.source, sources) else "."
    message += f"\n{remedy}"
    raise ConfigError(message)


def with_data(session: Session, data: str | None, sources: Sources) -> Session:
    """Return the session with its images taken from `data`, the place where they are now.

    The images are loaded once, so that other images are refused before any work is done.

    Args:
        session: The session of the study.
        data: Where the images are now; None leaves the session as it is.
        sources: The sources of the study's task.

    Raises:
        ConfigError: If there are no images, or others than the study's.
    """
    if data is None:
        return session
    from scalesearch.data import load_dataset

    asked = _seen_from(Path.cwd(), replace(session.settings.data, source=data), sources)
    try:
        dataset = load_dataset(asked, sources, storage_px=session.storage, channels=session.base.image_channels)
    except ConfigError as error:
        message = (
            f"--data {data}: expected the images that {session.folder} was run on "
            f"({session.settings.data.source!r}, {_counts(session.data)}).\nCame: {str(error).splitlines()[0]}"
        )
        raise ConfigError(message) from None
    if dataset.fingerprint != session.data.fingerprint:
        unlike = _unlike(data, dataset, session.data, str(session.folder))
        read = _read_otherwise(dataset, session.data)
        message = (
            f"--data {data}: {unlike}\n{read + ' ' if read else ''}"
            "Give the same images: a study's numbers are true for them only."
        )
        raise ConfigError(message)
    return replace(session, settings=replace(session.settings, data=asked), run_folder=str(Path.cwd()))


def leads_somewhere(source: str, folders: Sequence[Path], sources: Sources) -> bool:
    """Tell whether `source` is a known name, or a path that exists if it starts from one of the folders."""
    return any(True for _ in _places(DataSettings(source=source), folders, sources))


def data_path(session: Session, sources: Sources) -> Path | None:
    """Return where the study's images seem to be, judged by the path alone; nothing is loaded.

    Returns:
        The path; None for a data set that is known by its name, or if nothing is found.
    """
    for _, asked in _places(session.settings.data, _folders(session.run_folder, session.folder), sources):
        return None if is_name(asked.source, sources) else Path(asked.source).resolve()
    return None


def _folders(run_folder: str, study: Path) -> tuple[Path, ...]:
    """Return the folders that a study's relative paths may start from.

    These are the folder where it was run and the present one; for an old study that does not record where it was run,
    the present folder and the folders above the study.
    """
    if run_folder:
        return (Path(run_folder), Path.cwd())
    return (Path.cwd(), *study.resolve().parents[:_ANCESTORS])


def _places(settings: DataSettings, folders: Sequence[Path], sources: Sources) -> Iterator[tuple[Path, DataSettings]]:
    """Yield the settings as seen from each folder where something exists; each place only once."""
    seen = set[DataSettings]()
    for folder in folders:
        asked = _seen_from(folder, settings, sources)
        if asked not in seen and (is_name(asked.source, sources) or _exists(asked.source)):
            seen.add(asked)
            yield folder, asked


def _seen_from(folder: Path, settings: DataSettings, sources: Sources) -> DataSettings:
    """Return the settings with absolute paths, seen from `folder`."""
    source, download = settings.source, settings.download_folder
    return replace(
        settings,
        source=source if is_name(source, sources) else absolute_from(folder, source),
        download_folder=absolute_from(folder, download) if download else "",
    )


def _is_relative(source: str, sources: Sources) -> bool:
    return not is_name(source, sources) and not Path(source).expanduser().is_absolute()


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


def _read_otherwise(dataset: "Dataset", expected: DataSummary) -> str:
    """Return a sentence on what this version reads otherwise in these files; empty if nothing is known."""
    told = [line for line in dataset.warnings if EARLIER_READING in line and line not in expected.warnings]
    return f"If the files are the same: {told[0]}; a new study (--fresh) is needed." if told else ""


def _counts(data: DataSummary) -> str:
    parts = (data.train_images, data.val_images, data.calibration_images, data.test_images)
    return _counted(*parts, classes=len(data.class_names))


def _counted(train: int, val: int, calibration: int, test: int, *, classes: int) -> str:
    return f"{train} training, {val} validation, {calibration} calibration and {test} test images, {classes} classes"
