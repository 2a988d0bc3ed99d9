"""All tasks by name; the code of a task is loaded only when that task is asked for."""

import difflib
from importlib import import_module
from typing import Final

from scalesearch.errors import ConfigError
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
    if name not in _HOMES:
        near = difflib.get_close_matches(name, _HOMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        message = f"task: no task is called {name!r}.{hint} There are: {', '.join(task_names())}"
        raise ConfigError(message)
    module, _, attribute = _HOMES[name].partition(":")
    task: Task = getattr(import_module(module), attribute)
    return task


def views_of(record: TrialRecord) -> TaskViews | None:
    """Return the views of the task that scored the record; None if it has no score or its task is not known here."""
    if record.quality is None:
        return None
    tasks = (get_task(name) for name in task_names())
    return next((task.views() for task in tasks if task.metric == record.quality.metric), None)
