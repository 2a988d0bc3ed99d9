"""Axes of a search space that some tasks read and others do not: asking for them in vain is refused."""

from collections.abc import Sequence
from typing import Final

from scalesearch.errors import ConfigError
from scalesearch.tasks.base import Task
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
                f"no such part.\nRemove it from the space, or take another --task."
            )
            raise ConfigError(message)
