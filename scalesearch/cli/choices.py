"""What a command decides before it starts work: the task's defaults, the chip, the workers, the folder."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from scalesearch.errors import ConfigError
from scalesearch.values.session import Session
from scalesearch.values.settings import RunSettings


def task_defaults(
    space: str | None, data: str | None, task: str | None, overrides: Iterable[str]
) -> tuple[str, str | None]:
    """Return the space and the data to use: those that were named, or else the defaults of the task.

    Args:
        space: The space that was named, if one was.
        data: The data that were named by `--data`, if any were.
        task: The task that was named by `--task`, if one was.
        overrides: The texts of `--set`, which may name space, data and task, too.

    Raises:
        ConfigError: There is no such task, or an override is not `key=value`.
    """
    from scalesearch.config import parse_override
    from scalesearch.tasks.registry import DEFAULT, get_task

    named = dict(map(parse_override, overrides))
    name = task or str(named.get("task", DEFAULT))
    space = space or str(named.get("space", ""))
    if name == DEFAULT:
        return space or get_task(DEFAULT).space, data
    chosen = get_task(name)
    if data is None and "data.source" not in named:
        data = next((each for source in chosen.sources() for each in source.names), None)
    return space or chosen.space, data


def refuse_two_meanings(settings: RunSettings, data: str | None, overrides: list[str] | None) -> None:
    """Raise ConfigError if the user typed the name of a data set that is both a built-in one and a folder here.

    A default that was not typed always means the built-in set; a folder of that name is only mentioned.
    """
    from scalesearch.data import refuse_ambiguous_source
    from scalesearch.tasks.registry import sources_of

    if data is not None or is_set("data.source", overrides):
        refuse_ambiguous_source(settings.data.source, sources_of(settings.task))


def is_set(name: str, overrides: list[str] | None) -> bool:
    """Tell whether `--set` gives the setting."""
    return any(text.partition("=")[0].strip() == name for text in overrides or ())


def continues(folder: Path, source: str) -> bool:
    """Tell whether the study in `folder` was begun with the same source, so that it must mean the same data again."""
    stored = _stored(folder)
    return stored is not None and stored.settings.data.source == source


def _stored(folder: Path) -> Session | None:
    """Return the session of the study in `folder`; None if there is none, or it cannot be read."""
    from scalesearch.records.run_file import read_run_file

    try:
        return read_run_file(folder)
    except ConfigError:  # reported when the study is opened
        return None


def choose_chip(settings: RunSettings) -> tuple[RunSettings, str]:
    """Return settings that name their chip, and one line on how `auto` chose it (empty where it was named)."""
    from scalesearch.deployment.targets import AUTO, choose_target, get_target

    if settings.target != AUTO:
        get_target(settings.target)  # a wrong name is reported now, not once torch is loaded
        return settings, ""
    target, why = choose_target()
    return dataclasses.replace(settings, target=target.name), why


def choose_workers(
    settings: RunSettings, overrides: list[str] | None, *, asked: str | None = None, study: Path | None = None
) -> tuple[RunSettings, str]:
    """Return settings with the number of workers, and one line on how `auto` chose it (empty where it was given).

    Args:
        settings: The settings of the run.
        overrides: What was given by `--set`.
        asked: What was given by `--workers`.
        study: The folder of a study that is perhaps continued; None for a new one.
    """
    from scalesearch.cli.workers import number_of, workers_here

    if number_of(asked) is not None or (asked is None and is_set("workers", overrides)):
        return settings, ""
    stored = _stored(study) if study else None
    threads = settings.machine.threads or (stored.machine.threads if stored else 1)
    workers, why = workers_here(settings, threads=threads)
    return dataclasses.replace(settings, workers=workers), why


def default_folder(space: str, source: str, target: str) -> Path:
    """Return where a study goes by default: the same command gives the same folder, and so continues the study."""
    data = Path(source.removeprefix("builtin:")).stem or "data"
    return Path("results") / f"{space}-{data}-{target}"
