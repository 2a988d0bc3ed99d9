"""Whole runs of made-up evaluators, and what must hold of every study afterwards."""

from collections.abc import Callable
from pathlib import Path

import optuna
import psutil
from fake_evaluators import FakePlanner, MakeFake, make_space

from scalesearch.execution.worker import Evaluator
from scalesearch.records.store import RecordStore
from scalesearch.search.coordinator import run_study
from scalesearch.search.events import (
    Event,
    StudyOutcome,
)
from scalesearch.search.listener import NoListener, StudyListener
from scalesearch.search.problem import Problem
from scalesearch.search.showing import Watchers
from scalesearch.search.storage import STUDY_FILE, STUDY_NAME, open_storage
from scalesearch.values.candidate import Candidate
from scalesearch.values.plan import Plan
from scalesearch.values.record import TrialRecord
from scalesearch.values.settings import RunSettings, SamplerName, StageLimits
from scalesearch.values.space import SearchSpace

STATES = {"complete": "COMPLETE", "cached": "COMPLETE", "failed": "FAIL", "rejected": "PRUNED"}


def run(
    folder: Path,
    budget: int,
    *,
    fates: dict[int, str] | None = None,
    space: SearchSpace | None = None,
    plan: Callable[[Candidate], Plan] | None = None,
    make: Callable[[], Evaluator] | None = None,
    on_event: Callable[[Event], None] = lambda _: None,
    workers: int = 1,
    sampler: SamplerName = "tpe",
    limits: StageLimits | None = None,
    siblings: bool = False,
    branches: bool = False,
    adaptive: bool = False,
    listener: StudyListener | None = None,
    max_time_s: float = 0.0,
    full_updates: int = 0,
    gives_way: bool = False,
) -> StudyOutcome:
    space = space or make_space()
    problem = Problem(
        space=space,
        plan=plan or FakePlanner(space.limits.max_macs),
        make_evaluator=make or MakeFake(fates=tuple((fates or {}).items())),
        full_updates=full_updates,
    )
    settings = RunSettings(
        budget=budget,
        workers=workers,
        seed=7,
        sampler=sampler,
        stage_limits=limits or StageLimits(),
        siblings=siblings,
        branches=branches,
        adaptive=adaptive,
        max_time_s=max_time_s,
    )
    watchers = Watchers(on_event=on_event, listener=listener or NoListener())
    return run_study(folder, problem, settings, watchers=watchers, gives_way=gives_way)


def told(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = open_storage(folder / STUDY_FILE)
    try:
        return optuna.load_study(study_name=STUDY_NAME, storage=storage).get_trials()
    finally:
        storage.remove_session()
        storage.engine.dispose()


def assert_sound(folder: Path, budget: int) -> tuple[TrialRecord, ...]:
    """Charged records = charged told trials = budget; none lost, none doubled, none left running."""
    records, trials = RecordStore(folder).all(), told(folder)
    assert [record.trial for record in records] == [trial.number for trial in trials] == list(range(len(trials)))
    assert [STATES[record.state] for record in records] == [trial.state.name for trial in trials]
    assert sum(record.charged for record in records) == budget
    assert sum(trial.user_attrs["charged"] for trial in trials) == budget
    charged_keys = [record.key for record in records if record.charged]
    assert len(set(charged_keys)) == len(charged_keys)
    for record, trial in zip(records, trials, strict=True):
        if record.quality and record.latency and record.state != "failed":
            assert trial.values == [record.quality.score, record.latency.p50_ms]
    return records


def running(*command: str) -> list[psutil.Process]:
    """Living processes with that command line."""
    living = psutil.process_iter(["cmdline", "status"])
    return [p for p in living if p.info["cmdline"] == [*command] and p.info["status"] != psutil.STATUS_ZOMBIE]
