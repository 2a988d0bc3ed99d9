"""Which metric scores the trials of a study, even before the first of them has a score."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from scalesearch.errors import ConfigError
from scalesearch.records.run_file import read_run_file
from scalesearch.values.quality import DEFAULT_METRIC
from scalesearch.values.record import TrialRecord
from scalesearch.values.session import Session


def study_metric(records: Iterable[TrialRecord], session: Session | None) -> str:
    """Return the name of the metric that scored the records; if none has a score, that of the session's task.

    It is the default metric where there is no session, or where its task is not known here.
    """
    found = next((record.quality.metric for record in records if record.quality), None)
    if found is None and session is not None:
        from scalesearch.tasks.registry import task_for  # may load torch, which a study with scores does not need

        with contextlib.suppress(ConfigError):
            return task_for(session.settings).metric
    return found or DEFAULT_METRIC


def stored_metric(folder: Path, records: Iterable[TrialRecord]) -> str:
    """Return `study_metric` of the study in that folder, whose run.toml is read only if no record has a score."""
    every = tuple(records)
    if any(record.quality for record in every):
        return study_metric(every, None)
    with contextlib.suppress(ConfigError):
        return study_metric(every, read_run_file(folder))
    return DEFAULT_METRIC
