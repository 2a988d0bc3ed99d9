"""Prepares a run: data set, base network, chip and machine become one Session, found out once and then kept."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from scalesearch.config import check_stages
from scalesearch.data import Dataset, load_dataset, plain_source, val_standard_error_points
from scalesearch.data.finding import find_study_data, leads_somewhere
from scalesearch.data.source import SOURCE_TARGETS
from scalesearch.data.split_names import splits_of
from scalesearch.deployment.acceptance import Gate
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.targets import fit_chip, get_target
from scalesearch.errors import ConfigError
from scalesearch.memory import available_bytes
from scalesearch.networks import find_spec
from scalesearch.records.run_file import read_run_file, refuse_changes, same_images, write_run_file
from scalesearch.spaces.axes import SCHEDULE_AXES, default_value
from scalesearch.spaces.suggest import for_target
from scalesearch.study.reference import make_reference, scale_base, with_reference
from scalesearch.tasks.base import Task
from scalesearch.tasks.registry import get_task
from scalesearch.training.machine import probe_machine
from scalesearch.values.candidate import Recipe, Scaling
from scalesearch.values.input_size import InputSize
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.session import DataSummary, Session
from scalesearch.values.settings import DataSettings, RunSettings, WindowSetting
from scalesearch.values.space import Choice, SearchSpace


def open_session(
    settings: RunSettings,
    space: SearchSpace,
    folder: Path,
    *,
    base: NetworkSpec | None = None,
    storage_px: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Session:
    """Make the session of a new study in `folder`, or compare with the study already there and return its session.

    What the first run found out (threads, bf16, the reference engine's calm time) is kept for every later one, so that
    a resumed study measures with the same unit.

    Args:
        settings: Settings of the run.
        space: The search space.
        folder: The study's folder.
        base: Replaces the space's base network, where an exported network is trained again.
        storage_px: Replaces the side of the stored images in pixels, so that it is trained on the very same images.
        say: Is called with one line per step that takes time.

    Raises:
        ConfigError: Bad data, network or target; or the study there was made with other ones (the text has the
            difference).
        MissingBackendError: The target's backend is not installed.
    """
    target = get_target(settings.target)
    backend = get_backend(target.backend)
    device = backend.device(settings.latency.threads)
    target = fit_chip(target)
    _require_targets(get_task(settings.task))
    if settings.accept == "rtx":
        Gate(target.compute_capability)  # a missing library is reported now, not by every trial
    stored = read_run_file(folder)
    space = with_schedule(for_target(space, target), stored.space if stored else None)
    base = base or find_spec(space.network)
    check_stages(space, len(base.stages))
    largest = InputSize.square(storage_px) if storage_px else largest_input(space, base)
    require_batch_memory(space, largest)
    storage_px = square_side(largest)
    if stored and settings.data.window == "auto":  # found by the first run: images added since must not change it
        settings = _with_window(settings, stored.settings.data.window)
    # Not where older programs took Training/ and Testing/ for classes: it is better to refuse that study than to
    # continue it.
    if stored and settings.data.layout == "auto" and "train" not in splits_of(stored.data.class_names).values():
        layout = stored.settings.data.layout
        settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, layout=layout))
    say(f"data: loading {settings.data.source}")
    dataset, run_folder = _data(settings.data, stored, storage_px=storage_px, channels=base.image_channels)
    for note in dataset.notes:
        say(note)
    settings = _with_window(settings, dataset.window)
    plain = dataclasses.replace(settings.data, source=plain_source(settings.data.source))
    settings = dataclasses.replace(settings, data=plain)
    say("machine: probing threads and number format" if stored is None else "machine: as probed by the first run")
    machine = stored.machine if stored else probe_machine(settings.machine, workers=settings.workers)
    session = Session(
        folder=folder,
        settings=settings,
        space=space,
        base=base,
        target=target,
        machine=machine,
        device=device,
        data=_summary(dataset),
        storage_px=storage_px,
        reference_calm_ms=stored.reference_calm_ms if stored else 0.0,
        reference_sha256=stored.reference_sha256 if stored else "",
        run_folder=run_folder,
    )
    if stored:
        refuse_changes(stored, session)
        session = with_reference(session, dataset, say=say)
    else:
        say("reference: building the engine that every latency is compared with")
        session = make_reference(session, dataset)
    write_run_file(session)
    return session


def with_schedule(space: SearchSpace, stored: SearchSpace | None) -> SearchSpace:
    """Return the space with the schedule of its trainings written out: the stored study's, or today's default.

    So a study goes on with the schedule that it was begun with, whatever a later version's default is.
    """
    for name in SCHEDULE_AXES:
        held = next((named.axis for named in stored.axes if named.name == name), None) if stored else None
        if stored is None:
            space = space.with_fixed(name, default_value(name))
        elif isinstance(held, Choice) and len(held.values) == 1:
            space = space.with_fixed(name, held.values[0])
    return space


def largest_input(space: SearchSpace, base: NetworkSpec) -> InputSize:
    """Return the size of the largest image that the space can ask for, or that multiplier 1 (the reference) needs."""
    axis = next((named.axis for named in space.axes if named.name == "scaling.resolution"), Choice(values=(1.0,)))
    largest = max(float(value) for value in axis.values) if isinstance(axis, Choice) else axis.high
    return scale_base(space, base, Scaling(resolution=max(largest, 1.0))).input_size


def square_side(size: InputSize) -> int:
    """Return the side in pixels of images of that size.

    Raises:
        ConfigError: The images are not square. Networks, costs and engines of any shape can be planned, but images are
            read as squares.
    """
    if not size.is_square:
        message = (
            f"resolution_px: images are read as squares, and the space asks for {size}.\n"
            "Give one number; `check` and `--dry-run` plan rectangles, too."
        )
        raise ConfigError(message)
    return size.height_px


def _require_targets(task: Task) -> None:
    """Raise ConfigError if no data source gives the targets that the task is trained on."""
    if task.targets != SOURCE_TARGETS:
        message = f"task {task.name!r}: expected data with {task.targets}; every data source gives {SOURCE_TARGETS}."
        raise ConfigError(message)


def require_batch_memory(space: SearchSpace, size: InputSize) -> None:
    """Raise ConfigError where one training batch of the largest images would not fit into memory."""
    axis = next((named.axis for named in space.axes if named.name == "training.batch_size"), None)
    sizes = (Recipe().batch_size,) if axis is None else axis.values if isinstance(axis, Choice) else (axis.high,)
    images = max(int(size) for size in sizes)
    size_bytes = images * size.pixels * 3 * 4  # red, green and blue in float32; the layers need more
    if size_bytes > available_bytes() / 2:
        message = (
            f"{space.name}: a training batch of {images} images at {size} takes {size_bytes / 1e9:.1f} GB before "
            f"the first layer, expected at most half of the {available_bytes() / 1e9:.1f} GB of memory available.\n"
            "Use a smaller training.batch_size, resolution_px or scaling.resolution."
        )
        raise ConfigError(message)


def _with_window(settings: RunSettings, window: WindowSetting) -> RunSettings:
    return dataclasses.replace(settings, data=dataclasses.replace(settings.data, window=window))


def _data(settings: DataSettings, stored: Session | None, *, storage_px: int, channels: int) -> tuple[Dataset, str]:
    """Return the images, and the folder that relative paths in the settings start from.

    A study's own images are found from any working folder by the command that the study was begun with.
    """
    if stored and same_images(stored.settings.data, settings) and stored.storage_px == storage_px:
        asked = dataclasses.replace(stored.settings, data=settings)
        try:
            found = find_study_data(dataclasses.replace(stored, settings=asked))
        except ConfigError:
            if not leads_somewhere(settings.source, (Path.cwd(),)):
                raise
            # Other images are here: comparing the two sessions shows the difference.
        else:
            return found.dataset, found.folder
    return load_dataset(settings, storage_px=storage_px, channels=channels), str(Path.cwd())


def _summary(dataset: Dataset) -> DataSummary:
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
        val_standard_error_points=val_standard_error_points(dataset),
        warnings=dataset.warnings,
    )
