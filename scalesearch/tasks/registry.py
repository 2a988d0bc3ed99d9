"""All tasks by name: those of this package, and those that other packages offer by entry points.

The code of a task is loaded only when that task is asked for.
"""

import contextlib
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final

from scalesearch.errors import ConfigError
from scalesearch.measurement.metric import PostprocessedMetric
from scalesearch.registry import load, look_up
from scalesearch.tasks.base import SettableScore, Task, TaskViews, built_parts
from scalesearch.values.latency import LatencyObjective
from scalesearch.values.record import TrialRecord
from scalesearch.values.settings import DetectionSettings, Fit, RunSettings
from scalesearch.values.space import NamedAxis
from scalesearch.views.layer_table import BuiltParts

if TYPE_CHECKING:
    from scalesearch.data.source import Sources

DEFAULT: Final = "classification"
GROUP: Final = "scalesearch.tasks"
"""The group of entry points in which another package offers its tasks: `name = "package.module:OBJECT"`."""
_HOMES: Final = {
    "classification": "scalesearch.tasks.classification.task:TASK",
    "detection": "scalesearch.tasks.detection.task:TASK",
    "segmentation": "scalesearch.tasks.segmentation.task:TASK",
}
"""Module and name of the single object of each task."""
_OWN_AXES: Final = "own_axes"
"""An attribute that tasks of other packages may be older than; without it, a task reads none of `READ_BY_SOME`."""
_FIT: Final = "fit"
"""Another such attribute; without it, a task's pictures are cropped, as all were before there was one."""


def task_names() -> tuple[str, ...]:
    """Return the names of all tasks."""
    return tuple(sorted({*_HOMES, *(offer.name for offer in entry_points(group=GROUP))}))


def get_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        ConfigError: There is no such task (the message suggests the nearest name), two packages offer one by that name,
            or the package that offers it gives no such task.
    """
    offers = tuple(entry_points(group=GROUP, name=name))
    if name in _HOMES:
        if offers:
            _refuse_two(name, ["scalesearch itself", *map(_told, offers)])
        task: Task = load(_HOMES[name])
        return task
    offer = _offer(name)
    if len({each.value for each in offers}) > 1:
        _refuse_two(name, [_told(each) for each in offers])
    assert offer is not None  # the names of this package were looked up above
    return _loaded(offer)


def task_for(settings: RunSettings) -> Task:
    """Return the task of a run, with the score that its settings ask for.

    Raises:
        ConfigError: As `get_task`; or settings of another task are given.
    """
    task = get_task(settings.task)
    if task.name != "detection" and settings.detection != DetectionSettings():
        message = (
            f"detection.objective and detection.precision: expected --task detection, came {task.name}.\n"
            "Leave them out, or give --task detection."
        )
        raise ConfigError(message)
    return task.with_settings(settings) if isinstance(task, SettableScore) else task


def sources_of(name: str) -> "Sources":
    """Return the data sources of the task of that name.

    Raises:
        ConfigError: As `get_task`; or a source gives other targets than the task is trained on.
    """
    return checked_sources(get_task(name))


def checked_sources(task: Task) -> "Sources":
    """Return the data sources of a task.

    Raises:
        ConfigError: There is none, or one gives other targets than the task is trained on.
    """
    sources = task.sources()
    other = next((source for source in sources if source.targets != task.targets), None)
    if other or not sources:
        came = f"its source {other.kind!r} with {other.targets}" if other else "no source"
        message = (
            f"task {task.name!r}: expected data sources with {task.targets}, came {came}.\nThe task must be mended."
        )
        raise ConfigError(message)
    return sources


def usual_fit(task: Task) -> Fit:
    """Return how a new study of the task fits pictures of another shape, unless its settings say how."""
    fit: Fit = getattr(task, _FIT, "crop")
    return fit


def require_postprocessing(task: Task, objective: LatencyObjective) -> None:
    """Raise ConfigError if the objective is `end_to_end` but the task has no post-processing that is measured."""
    if objective == "engine" or isinstance(task.make_metric(()), PostprocessedMetric):
        return
    message = (
        f"latency.objective = {objective!r}: expected a task whose answers are worked on after the network, as "
        f"detection's are; {task.name} has no such work that is measured.\nLeave out latency.objective: the engine's "
        "latency is all there is."
    )
    raise ConfigError(message)


def check_task_name(name: str) -> None:
    """Raise ConfigError if there is no task of that name; no task is loaded for that."""
    _offer(name)


def _offer(name: str) -> EntryPoint | None:
    """Return another package's offer of that name; None if the task is this package's own."""
    known = {offer.name: offer for offer in entry_points(group=GROUP)}
    return look_up(name, dict(sorted({**known, **dict.fromkeys(_HOMES)}.items())), missing="task: no task is called")


def views_of(record: TrialRecord) -> TaskViews | None:
    """Return the views of the task that scored the record; None if it has no score or its task is not known here."""
    if record.quality is None:
        return None
    metric = record.quality.metric
    return next((task.views() for task in loadable_tasks() if _gives(task, metric)), None)


def parts_of(record: TrialRecord, task: str = "") -> BuiltParts | None:
    """Return which parts of its spec a trial's network has; None if it has no spec or its task is not known here.

    `task` is the name of the study's task, for a trial without a score, by which its task would be known.
    """
    views = views_of(record)
    if views is None and task:
        with contextlib.suppress(ConfigError):
            views = get_task(task).views()
    return built_parts(views, record.spec) if views and record.spec else None


def _gives(task: Task, metric: str) -> bool:
    return task.gives(metric) if isinstance(task, SettableScore) else task.metric == metric


def loadable_tasks() -> Iterator[Task]:
    """Yield all tasks that can be loaded; those of other packages, which may be slow or broken, come last."""
    for name in sorted(task_names(), key=lambda name: (name not in _HOMES, name)):
        with contextlib.suppress(ConfigError):
            yield get_task(name)


def _loaded(offer: EntryPoint) -> Task:
    """Return the task that a package offers.

    Raises:
        ConfigError: It cannot be loaded, or is no task of that name.
    """
    try:
        task: Task = offer.load()
    except Exception as error:  # whatever the package's own code raises
        came = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        message = (
            f"task {offer.name!r}: expected a task at {_told(offer)}, came {came}.\nInstall a version of that package "
            "that fits this one, or remove it."
        )
        raise ConfigError(message) from error
    lacking = [part for part in sorted(_parts()) if not hasattr(task, part)]
    if lacking or task.name != offer.name:
        came = f"an object without {', '.join(lacking)}" if lacking else f"a task with name = {task.name!r}"
        message = (
            f"task {offer.name!r}: expected a task of that name at {_told(offer)}, came {came}.\nWhat a task must have "
            "is said in scalesearch/tasks/base.py; install a version of that package that fits."
        )
        raise ConfigError(message)
    return task


def _parts() -> set[str]:
    """Return the names of the attributes and methods that every task must have: all but what it may be older than."""
    return {name for name in (*Task.__annotations__, *vars(Task)) if not name.startswith("_")} - {_OWN_AXES, _FIT}


def _refuse_two(name: str, homes: list[str]) -> None:
    message = (
        f"task {name!r}: expected one task of that name, found {' and '.join(homes)}.\nRemove one of the packages."
    )
    raise ConfigError(message)


def _told(offer: EntryPoint) -> str:
    package = f" of {offer.dist.name} {offer.dist.version}" if offer.dist else ""
    return f"{offer.value}{package}"


_LOSS_WEIGHTS: Final = "training.loss_weights."
READ_BY_SOME: Final = (
    "scaling.decoder",
    "scaling.neck_width",
    "scaling.neck_follows",
    *(_LOSS_WEIGHTS + term for term in ("class", "box", "objectness", "dice")),
    "training.class_weights",
    "training.scale_fraction",
)
"""Axes that only some tasks read: a task names those that it reads in `own_axes`. Every task reads all other axes."""


def require_own_axes(task: Task, axes: Sequence[NamedAxis]) -> None:
    """Raise ConfigError if one of the axes is read only by other tasks."""
    own: tuple[str, ...] = getattr(task, _OWN_AXES, ())
    for named in axes:
        if named.name in READ_BY_SOME and named.name not in own:
            message = (
                f"{named.name}: expected an axis that the task {task.name!r} reads, but its networks, batches and "
                f"losses have no such part.\nRemove it from the space, or give {_readers(named.name)}."
            )
            raise ConfigError(message)


def _readers(axis: str) -> str:
    """Return the flags that ask for the tasks that read the axis: "--task detection or --task segmentation"."""
    names = [task.name for task in loadable_tasks() if axis in getattr(task, _OWN_AXES, ())]
    return " or ".join(f"--task {name}" for name in names)
