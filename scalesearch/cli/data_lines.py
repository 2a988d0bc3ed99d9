"""What `check` prints about a data set, and the sheet of its training images."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.quality import PROPORTIONS
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace

if TYPE_CHECKING:
    from scalesearch.data import Dataset


def data_line(data: "Dataset", task: str) -> str:
    """Return one line on a data set: its splits, and how exact a validation accuracy is; then notes and warnings."""
    from scalesearch.data import val_standard_error_points
    from scalesearch.tasks.registry import get_task

    notes = "".join(f"\n  {note}" for note in data.notes)
    warnings = "".join(f"\n  warning: {warning}" for warning in data.warnings)
    classes = f"{len(data.class_names)} classes, " if data.class_names else ""
    error = f"; standard error of a val accuracy {val_standard_error_points(data):.1f} points"
    return (
        f"data {data.name}: {classes}{len(data.train)} train, {len(data.val)} val, "
        f"{len(data.calibration)} calibration, {len(data.test)} test"
        f"{error if get_task(task).metric in PROPORTIONS else ''}{notes}{warnings}"
    )


def drawn_sheet(data: "Dataset", settings: RunSettings, base: NetworkSpec, space: SearchSpace, to: Path | None) -> str:
    """Draw a sheet of training pictures with their targets, after augmentation, and return a line on it."""
    from scalesearch.networks.scaling import scale_base
    from scalesearch.spaces.suggest import cheapest
    from scalesearch.study.pictures import SHEET_IMAGES, target_sheet, write_sheet
    from scalesearch.tasks.registry import task_for
    from scalesearch.values.candidate import Scaling

    size = scale_base(space, base, Scaling()).input_size
    decided = space.with_flip(flip=False) if space.flip_undecided else space
    recipe = replace(cheapest(decided).recipe, batch_size=SHEET_IMAGES)
    path = to or Path(f"check-{data.name}.png")
    try:
        write_sheet(target_sheet(task_for(settings), data.at(size), recipe, seed=settings.seed), path)
    except OSError as error:
        message = f"Cannot write {path}: {error.strerror}. Give another file with --to."
        raise ConfigError(message) from None
    return f"  {SHEET_IMAGES} training images at {size} with their targets, after augmentation: {path}"
