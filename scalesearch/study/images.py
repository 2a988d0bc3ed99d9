"""A study's images: those of its first run, or new ones, and what is kept about them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from scalesearch.data import Dataset, load_dataset, val_standard_error_points
from scalesearch.data.finding import find_study_data, leads_somewhere
from scalesearch.data.source import Sources
from scalesearch.data.source_names import plain_source
from scalesearch.data.split_names import splits_of
from scalesearch.errors import ConfigError
from scalesearch.records.run_file import same_images
from scalesearch.study.own_module import normalised
from scalesearch.tasks.base import Task
from scalesearch.tasks.registry import usual_fit
from scalesearch.values.network_spec import InputSize, NetworkSpec
from scalesearch.values.quality import PROPORTIONS
from scalesearch.values.session import DataSummary, Session
from scalesearch.values.settings import DataSettings


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudyImages:
    """The images of a study, and how they are found again."""

    dataset: Dataset
    settings: DataSettings
    """The requested settings, with the values that were found for those that were `auto`."""
    run_folder: str
    """The folder that relative paths in the settings start from."""


def load_images(
    asked: DataSettings,
    stored: Session | None,
    sources: Sources,
    *,
    storage: InputSize,
    base: NetworkSpec,
    say: Callable[[str], None],
) -> StudyImages:
    """Load the images that the settings ask for, normalised as the base network wants them.

    Args:
        asked: The data settings of this run.
        stored: The study as its first run left it; None for a new one.
        sources: The sources of the task.
        storage: Height and width of the stored images.
        base: The base network, which says how many channels there are and may have a normalisation of its own.
        say: Is called with one line per step that takes time.

    Raises:
        ConfigError: There are no such images, or they do not fit the settings.
    """
    asked = _as_found_before(asked, stored) if stored else asked
    say(f"data: loading {asked.source}")
    dataset, run_folder = _found(asked, stored, sources, storage=storage, channels=base.image_channels)
    for note in dataset.notes:
        say(note)
    used = dataclasses.replace(asked, window=dataset.window, source=plain_source(asked.source))
    return StudyImages(dataset=normalised(dataset, base), settings=used, run_folder=run_folder)


def with_fit(asked: DataSettings, stored: Session | None, task: Task) -> DataSettings:
    """Return the data settings with `fit` resolved: as the study was begun with, or, in a new one, the task's own.

    Args:
        asked: The data settings of this run.
        stored: The study as its first run left it; None for a new one.
        task: The task.
    """
    if asked.fit != "auto":
        return asked
    return dataclasses.replace(asked, fit=stored.settings.data.fit if stored else usual_fit(task))


def _as_found_before(asked: DataSettings, stored: Session) -> DataSettings:
    """Return the settings with the values that the study's first run found for those that are `auto`.

    Images that were added since then must not change these values.
    """
    known = stored.settings.data
    if asked.window == "auto":
        asked = dataclasses.replace(asked, window=known.window)
    # Except where an older version took the folders Training/ and Testing/ for classes: such a study should be refused.
    if asked.layout == "auto" and "train" not in splits_of(stored.data.class_names).values():
        asked = dataclasses.replace(asked, layout=known.layout)
    return asked


def _found(
    settings: DataSettings, stored: Session | None, sources: Sources, *, storage: InputSize, channels: int
) -> tuple[Dataset, str]:
    """Return the images, and the folder that relative paths in the settings start from.

    The command that began a study finds the study's images from any working folder.
    """
    if stored and same_images(stored.settings.data, settings) and stored.storage == storage:
        asked = dataclasses.replace(stored.settings, data=settings)
        try:
            found = find_study_data(dataclasses.replace(stored, settings=asked), sources)
        except ConfigError:
            if not leads_somewhere(settings.source, (Path.cwd(),), sources):
                raise
            # Other images are here: comparing the two sessions shows the difference.
        else:
            return found.dataset, found.folder
    return load_dataset(settings, sources, storage_px=storage, channels=channels), str(Path.cwd())


def summary_of(dataset: Dataset, metric: str) -> DataSummary:
    """Return what is kept about a data set in the session of a study that is scored by `metric`."""
    return DataSummary(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        class_names=dataset.class_names,
        mean=dataset.mean,
        std=dataset.std,
        train_images=len(dataset.train),
        val_images=len(dataset.val),
        calibration_images=len(dataset.calibration),
        test_images=len(dataset.test),
        val_standard_error_points=val_standard_error_points(dataset) if metric in PROPORTIONS else None,
        warnings=dataset.warnings,
    )
