"""Functions to call from a program instead of the command line: load a space, evaluate a candidate, run a search."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.chain.planner import Planner
from scalesearch.config import load_run, parse_override
from scalesearch.config.checks import fail, require_branch, require_teacher
from scalesearch.config.spaces import SPACE_NUMBERS, SPACE_SECTIONS
from scalesearch.deployment.targets import AUTO, choose_target
from scalesearch.errors import ConfigError
from scalesearch.folder_lock import hold_folder
from scalesearch.records.store import RecordStore
from scalesearch.search.events import Event, StudyOutcome
from scalesearch.search.storage import is_searched
from scalesearch.study.run import run_search as _run_search
from scalesearch.study.session import open_session
from scalesearch.values.candidate import Candidate
from scalesearch.values.record import TrialRecord
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace


def load_space(name: str | Path, overrides: Iterable[str] = ()) -> SearchSpace:
    """Load and check the search space of that name (`scalesearch spaces`) or .toml file.

    Args:
        name: Name of a space, or path of a .toml file.
        overrides: `key=value` texts that replace values of the space.

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
    """Begin or continue a search in `folder`, write its tables, pictures and models, and return the outcome.

    `settings.network`, if given, replaces the space's base network.

    Trials run in child processes, which do not import the caller's script. Ctrl-C ends the search cleanly
    (`outcome.ended`).

    Raises:
        ConfigError: Something given is wrong, or the study there was made with other settings.
        MissingBackendError: The target's backend is not installed.
    """
    return _run_search(_with_chip(settings), _on_network(space, settings), Path(folder), on_event=on_event, say=say)


def evaluate(
    candidate: Candidate,
    space: SearchSpace,
    settings: RunSettings | None = None,
    *,
    folder: Path | str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> TrialRecord:
    """Train, deploy and measure one given candidate in this process, and return its record.

    Args:
        candidate: What is to be evaluated, recipe included. Its values need not lie on the space's axes.
        space: Gives the base network (unless `settings.network` does), its resolution, and the limits that decide
            `record.feasible`. A candidate beyond them is trained and measured all the same.
        settings: Data, chip and so on; None takes the defaults.
        folder: Keeps records, models (`models/`), weights and the reference engine, so that latencies of several calls
            can be compared and equal work is answered from its record; None uses a temporary folder.
        report: Is called with the name of each stage as it begins.

    Raises:
        ConfigError: Something given is wrong (a branch too short for its updates with simulated rounding, say); or the
            folder is the study of a search, was made with other settings, or is in use by another process.
        StageFailed: A stage could not do its work.
    """
    settings = _with_chip(settings or RunSettings())
    space = _on_network(space, settings)
    require_teacher(candidate.recipe.distill_weight, settings.parent)
    require_branch(candidate.recipe, candidate.quantization, origin="candidate", flag="Recipe(steps={})")
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="scalesearch-") as temporary:
            return _evaluate(candidate, space, settings, Path(temporary), report)
    with hold_folder(Path(folder), "evaluation", way_out="Wait until it ends, or give another folder."):
        return _evaluate(candidate, space, settings, Path(folder), report)


def _evaluate(
    candidate: Candidate, space: SearchSpace, settings: RunSettings, folder: Path, report: Callable[[str], None]
) -> TrialRecord:
    if is_searched(folder):
        message = f"{folder} is the study of a search, whose sampler must know every trial: give another folder."
        raise ConfigError(message)
    folder.mkdir(parents=True, exist_ok=True)
    way_out = "Give the settings and the space of the evaluations that are there, or another folder."
    session = open_session(dataclasses.replace(settings, lengths="off"), space, folder, way_out=way_out)
    plan = Planner(session)(candidate)
    store = RecordStore(folder)
    known = store.all()
    same = next((record for record in known if record.key == plan.key), None)
    if same is not None:
        return same
    trial = 1 + max((record.trial for record in known), default=-1)
    record = TrialEvaluator(session, rejects=False).evaluate(plan, trial=trial, report=report)
    store.save(record)
    return record


def _on_network(space: SearchSpace, settings: RunSettings) -> SearchSpace:
    """Return the space with the base network that the settings name, if they name one."""
    return dataclasses.replace(space, network=settings.network or space.network)


def _with_chip(settings: RunSettings) -> RunSettings:
    """Return settings that name their chip."""
    return dataclasses.replace(settings, target=choose_target()[0].name) if settings.target == AUTO else settings
