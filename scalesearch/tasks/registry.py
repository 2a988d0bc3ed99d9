"""All tasks by name; the code of a task is loaded only when that task is asked for."""

from typing import Final

from scalesearch.registry import load, look_up
from scalesearch.tasks.base import Task, TaskViews
from scalesearch.values.record import TrialRecord

DEFAULT: Final = "classification"
_HOMES: Final = {
    "classification": "scalesearch.tasks.classification.task:TASK",
}
"""Module and name of the single object of each task."""


def task_names() -> tuple[str, ...]:
    """Return the names of all tasks."""
    return tuple(sorted(_HOMES))


def get_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        ConfigError: There is no such task; the message suggests the nearest name.
    """
    task: Task = load(look_up(name, _HOMES, missing="task: no task is called"))
    return task


def views_of(record: TrialRecord) -> TaskViews | None:
    """Return the views of the task that scored the record; None if it has no score or its task is not known here."""
    if record.quality is None:
        return None
    tasks = (get_task(name) for name in task_names())
    return next((task.views() for task in tasks if task.metric == record.quality.metric), None)
