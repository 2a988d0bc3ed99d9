"""Kills itself -9 at MOMENT of TRIAL or later: `killed_coordinator.py FOLDER BUDGET MOMENT TRIAL SIBLINGS SAMPLER`."""

import os
import signal
import sys
from pathlib import Path
from typing import cast

import optuna
from fake_evaluators import FakePlanner, MakeFake, make_space

from scalesearch.records.store import RecordStore
from scalesearch.search import coordinator as study_module
from scalesearch.search.events import Event, StageEntered, TrialFinished, TrialStarted
from scalesearch.search.listener import StudyListener
from scalesearch.search.problem import Problem
from scalesearch.search.showing import Watchers
from scalesearch.search.telling import tell
from scalesearch.values.candidate import Candidate
from scalesearch.values.plan import Plan
from scalesearch.values.record import TrialRecord
from scalesearch.values.settings import RunSettings, SamplerName
from scalesearch.values.space import SearchSpace

SPACE = make_space(6, max_macs=2000)
EVENTS = {"started": TrialStarted, "in a stage": StageEntered, "finished": TrialFinished}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    folder, budget, moment, number = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    sampler = cast("SamplerName", sys.argv[6])
    asked = len(RecordStore(folder).all())
    planner = FakePlanner(2000)

    def plan(candidate: Candidate) -> Plan:
        nonlocal asked
        if moment == "asked" and asked >= number:
            die()
        asked += 1
        return planner(candidate)

    def on_event(event: Event) -> None:
        trial = event.record.trial if isinstance(event, TrialFinished) else getattr(event, "trial", None)
        if isinstance(trial, int) and trial >= number and isinstance(event, EVENTS.get(moment, ())):
            die()

    def tell_or_die(
        study: optuna.Study, trial: optuna.Trial, record: TrialRecord, space: SearchSpace, listener: StudyListener
    ) -> None:
        if moment == "saved" and record.trial >= number:
            die()
        tell(study, trial, record, space, listener)

    setattr(study_module, "tell", tell_or_die)  # noqa: B010  (mypy: not exported)
    study_module.run_study(
        folder,
        Problem(space=SPACE, plan=plan, make_evaluator=MakeFake(journal=folder / "journal.txt", seconds=0.05)),
        RunSettings(budget=budget, seed=7, siblings=sys.argv[5] == "1", sampler=sampler),
        watchers=Watchers(on_event=on_event),
    )


if __name__ == "__main__":
    main()
