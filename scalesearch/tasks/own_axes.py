"""Axes of a search space that some tasks read and others do not: asking for them in vain is refused."""

from collections.abc import Sequence
from typing import Final

from scalesearch.errors import ConfigError
from scalesearch.tasks.base import Task
from scalesearch.tasks.registry import loadable_tasks
from scalesearch.values.space import NamedAxis

_LOSS_WEIGHTS: Final = "training.loss_weights."
READ_BY_SOME: Final = (
    "scaling.decoder",
    "scaling.neck_width",
    *(_LOSS_WEIGHTS + term for term in ("class", "box", "objectness", "dice")),
)
"""A task names in `own_axes` those of these that it reads. All other axes are read by every task."""


def require_own_axes(task: Task, axes: Sequence[NamedAxis]) -> None:
    """Raise ConfigError if one of the axes is among those that only other tasks read."""
    own: tuple[str, ...] = getattr(task, "own_axes", ())  # tasks of other packages may be older than this attribute
    for named in axes:
        if named.name in READ_BY_SOME and named.name not in own:
            message = (
                f"{named.name}: expected an axis that the task {task.name!r} reads, but its networks and losses have "
                f"no such part.\nRemove it from the space, or give {_readers(named.name)}."
            )
            raise ConfigError(message)


def _readers(axis: str) -> str:
    """Return the flags that ask for the tasks that read the axis: "--task detection or --task segmentation"."""
    names = [task.name for task in loadable_tasks() if axis in getattr(task, "own_axes", ())]
    return " or ".join(f"--task {name}" for name in names)
