"""What a program calls instead of the command line: a space, one candidate, a whole search."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.chain.planner import Planner
from scalesearch.config import load_run, parse_override
from scalesearch.config.checks import fail
from scalesearch.config.spaces import SPACE_NUMBERS, SPACE_SECTIONS
from scalesearch.deployment.targets import AUTO, choose_target
from scalesearch.errors import ConfigError
from scalesearch.folder_lock import hold_folder
from scalesearch.records.store import RecordStore
from scalesearch.run import run_search as _run_search
from scalesearch.search.events import Event, StudyOutcome
from scalesearch.session import open_session
from scalesearch.values.candidate import Candidate
from scalesearch.values.record import TrialRecord
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace

_STUDY_MARK = "study.sqlite3"


def load_space(name: str | Path, overrides: Iterable[str] = ()) -> SearchSpace:
    """The search space of that name (`scalesearch spaces`) or .toml file, checked, with `key=value` overrides in it.

    Raises:
        ConfigError: No such space, an unknown key (with a suggestion), or a value out of its bounds.
    """
    texts = tuple(overrides)
    for text in texts:
        key, _ = parse_override(text)
        if key.split(".")[0] not in SPACE_SECTIONS and key not in SPACE_NUMBERS:
            fail(
                f"{key!r} is no part of a search space: those begin with {', '.join(SPACE_SECTIONS)}.",
                "Settings of a run go into RunSettings; load_run takes both kinds.",
            )
    return load_run(space=str(name), overrides=texts)[1]


def run_search(
    settings: RunSettings,
    space: SearchSpace,
    folder: Path | str,
    *,
    on_event: Callable[[Event], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> StudyOutcome:
    """The outcome of a search in `folder`, begun or continued, with its tables, pictures and models written.

    Trials run in child processes. A script that calls this does so under `if __name__ == "__main__":`, since children
    import it again. Ctrl-C ends it cleanly (`outcome.ended`).

    Raises:
        ConfigError: Something given is wrong, or the study there was made from other things.
        MissingBackendError: The target's backend is not installed.
    """
    return _run_search(_with_chip(settings), space, Path(folder), on_event=on_event, say=say)


def evaluate(
    candidate: Candidate,
    space: SearchSpace,
    settings: RunSettings | None = None,
    *,
    folder: Path | str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> TrialRecord:
    """The record of one candidate that was not sampled but given: trained, deployed and measured in this process.

    Args:
        candidate: What is to be evaluated, recipe included; the space's axes need not hold its values.
        space: Gives the base network, its resolution, and the limits that `record.feasible` goes by.
        settings: Data, chip and so on; None takes the defaults.
        folder: Keeps records, models (`models/`), weights and reference engine, so that latencies of several calls
            compare, and equal work is answered from its record; None: a temporary one.
        report: Hears the name of each stage as it begins.

    Raises:
        ConfigError: Something given is wrong; the folder is a search's study, was made from other things, or another
            process works in it.
        StageFailed: A stage could not do its work.
    """
    settings = _with_chip(settings or RunSettings())
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="scalesearch-") as temporary:
            return _evaluate(candidate, space, settings, Path(temporary), report)
    with hold_folder(Path(folder), "evaluation", way_out="Wait until it ends, or give another folder."):
        return _evaluate(candidate, space, settings, Path(folder), report)


def _evaluate(
    candidate: Candidate, space: SearchSpace, settings: RunSettings, folder: Path, report: Callable[[str], None]
) -> TrialRecord:
    if (folder / _STUDY_MARK).exists():
        message = f"{folder} is the study of a search, whose sampler must know every trial: give another folder."
        raise ConfigError(message)
    folder.mkdir(parents=True, exist_ok=True)
    session = open_session(settings, space, folder)
    plan = Planner(session)(candidate)
    store = RecordStore(folder)
    known = store.all()
    same = next((record for record in known if record.key == plan.key), None)
    if same is not None:
        return same
    trial = 1 + max((record.trial for record in known), default=-1)
    record = TrialEvaluator(session).evaluate(plan, trial=trial, report=report)
    store.save(record)
    return record


def _with_chip(settings: RunSettings) -> RunSettings:
    """Settings that name their chip."""
    return dataclasses.replace(settings, target=choose_target()[0].name) if settings.target == AUTO else settings
