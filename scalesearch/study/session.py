"""Prepares a run: data set, base network, chip and machine become one Session, found out once and then kept."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from scalesearch.config import check_axes
from scalesearch.config.checks import require_teacher
from scalesearch.data import Dataset, load_dataset, plain_source, val_standard_error_points
from scalesearch.data.finding import find_study_data, leads_somewhere
from scalesearch.data.source import Sources
from scalesearch.data.split_names import splits_of
from scalesearch.deployment.acceptance import Gate
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.targets import fit_chip, get_target
from scalesearch.errors import ConfigError
from scalesearch.memory import available_bytes
from scalesearch.networks import find_spec
from scalesearch.records.run_file import read_run_file, refuse_changes, same_images, write_run_file
from scalesearch.spaces.axes import SCHEDULE_AXES, default_value, largest_value
from scalesearch.spaces.suggest import for_target
from scalesearch.study.flips import with_flip
from scalesearch.study.own_module import module_notes, normalised, require_classification, require_fit
from scalesearch.study.parent import prepare_parent
from scalesearch.study.reference import make_reference, scale_base, with_reference
from scalesearch.tasks.registry import sources_of
from scalesearch.training.machine import probe_machine
from scalesearch.values.candidate import Scaling
from scalesearch.values.network_spec import InputSize, NetworkSpec
from scalesearch.values.session import DataSummary, Session
from scalesearch.values.settings import DataSettings, RunSettings
from scalesearch.values.space import FLIP, Choice, SearchSpace
from scalesearch.values.target import Device, Target


def open_session(
    settings: RunSettings,
    space: SearchSpace,
    folder: Path,
    *,
    base: NetworkSpec | None = None,
    storage: InputSize | None = None,
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
        storage: Replaces the size of the stored images, so that it is trained on the very same images.
        say: Is called with one line per step that takes time.

    Raises:
        ConfigError: Bad data, network or target; or the study there was made with other ones (the text has the
            difference).
        MissingBackendError: The target's backend, or the package of the parent's weights, is not installed.
    """
    require_teacher(largest_value(space.axes, "training.distill_weight"), settings.parent)
    target, device = _chip(settings)
    sources = sources_of(settings.task)
    stored = read_run_file(folder)
    space = with_schedule(for_target(space, target), stored.space if stored else None)
    space = _as_decided_before(space, stored.space) if stored else space
    base = base or find_spec(space.network)
    check_axes(space, base)
    require_classification(base, settings.task)
    storage = storage or largest_input(space, base)
    require_batch_memory(space, storage)
    asked = _as_found_before(settings.data, stored) if stored else settings.data
    say(f"data: loading {asked.source}")
    dataset, run_folder = _found(asked, stored, sources, storage=storage, channels=base.image_channels)
    for note in dataset.notes:
        say(note)
    dataset = normalised(dataset, base)
    require_fit(space, base, len(dataset.class_names))
    for line in module_notes(space, base, len(dataset.class_names)):
        say(line)
    parent = prepare_parent(settings, space, base, dataset, folder, stored=stored, say=say)
    if parent:
        dataset = dataset.normalised_by(parent.mean, parent.std)
    used = dataclasses.replace(asked, window=dataset.window, source=plain_source(asked.source))
    settings = dataclasses.replace(settings, data=used)
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
        storage_px=storage.height_px,
        storage_width_px=0 if storage.is_square else storage.width_px,
        reference_calm_ms=stored.reference_calm_ms if stored else 0.0,
        reference_sha256=stored.reference_sha256 if stored else "",
        run_folder=run_folder,
        parent=parent,
    )
    session = _with_reference(session, stored, dataset, say=say)
    session = with_flip(session, dataset, say=say)
    write_run_file(session)
    return session


def _chip(settings: RunSettings) -> tuple[Target, Device]:
    """Return the target, fitted to the chip that is here, and the device.

    Raises:
        MissingBackendError: The target's backend, or the compiler that must accept every graph, is not installed.
    """
    target = get_target(settings.target)
    device = get_backend(target.backend).device(settings.latency.threads)
    target = fit_chip(target)
    if settings.accept == "rtx":
        Gate(target.compute_capability)  # a missing library is reported now, not by every trial
    return target, device


def _with_reference(
    session: Session, stored: Session | None, dataset: Dataset, *, say: Callable[[str], None]
) -> Session:
    """Return the session with its reference engine: the study's own, or a new one for a new study."""
    if stored:
        refuse_changes(stored, session)
        return with_reference(session, dataset, say=say)
    say("reference: building the engine that every latency is compared with")
    return make_reference(session, dataset)


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


def _as_decided_before(space: SearchSpace, stored: SearchSpace) -> SearchSpace:
    """Return the space with the first run's decision whether training mirrors images."""
    axis = next((named.axis for named in stored.axes if named.name == FLIP), None)
    decided = isinstance(axis, Choice) and len(axis.values) == 1
    return space.with_flip(flip=bool(axis.values[0])) if decided and isinstance(axis, Choice) else space


def largest_input(space: SearchSpace, base: NetworkSpec) -> InputSize:
    """Return the size of the largest image that the space can ask for, or that multiplier 1 (the reference) needs."""
    largest = max(largest_value(space.axes, "scaling.resolution"), 1.0)
    return scale_base(space, base, Scaling(resolution=largest)).input_size


def require_batch_memory(space: SearchSpace, size: InputSize) -> None:
    """Raise ConfigError where one training batch of the largest images would not fit into memory."""
    images = int(largest_value(space.axes, "training.batch_size"))
    size_bytes = images * size.pixels * 3 * 4  # red, green and blue in float32; the layers need more
    if size_bytes > available_bytes() / 2:
        message = (
            f"{space.name}: a training batch of {images} images at {size} takes {size_bytes / 1e9:.1f} GB before "
            f"the first layer, expected at most half of the {available_bytes() / 1e9:.1f} GB of memory available.\n"
            "Use a smaller training.batch_size, resolution_px or scaling.resolution."
        )
        raise ConfigError(message)


def _as_found_before(asked: DataSettings, stored: Session) -> DataSettings:
    """Return the settings with what the study's first run found out for those that are `auto`.

    Images that were added since must not change it.
    """
    known = stored.settings.data
    if asked.window == "auto":
        asked = dataclasses.replace(asked, window=known.window)
    # Not where older programs took Training/ and Testing/ for classes: it is better to refuse that study than to
    # continue it.
    if asked.layout == "auto" and "train" not in splits_of(stored.data.class_names).values():
        asked = dataclasses.replace(asked, layout=known.layout)
    return asked


def _found(
    settings: DataSettings, stored: Session | None, sources: Sources, *, storage: InputSize, channels: int
) -> tuple[Dataset, str]:
    """Return the images, and the folder that relative paths in the settings start from.

    A study's own images are found from any working folder by the command that the study was begun with.
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
