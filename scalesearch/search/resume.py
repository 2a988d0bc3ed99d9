"""Brings a study and its records into agreement before a run goes on, whenever and however the last run ended."""

import logging
from collections.abc import Mapping

from optuna.trial import TrialState

from scalesearch.search.listener import StudyListener
from scalesearch.search.storage import OpenStudy
from scalesearch.search.telling import tell
from scalesearch.spaces.suggest import suggest, trial_parameters
from scalesearch.values.record import TrialRecord
from scalesearch.values.space import SearchSpace

_log = logging.getLogger(__name__)


def catch_up(
    opened: OpenStudy, records: Mapping[int, TrialRecord], space: SearchSpace, listener: StudyListener
) -> tuple[int, ...]:
    """Tell the study every record that it lacks, and return the numbers of the trials to be continued.

    A trial that was RUNNING is continued under its number and with its parameters, so that a killed run asks for the
    same candidates as an uninterrupted one. Where study and records differ, the records count: the study's missing
    trials are made again from them.
    """
    study = opened.study
    trials = study.get_trials(deepcopy=False)
    for _ in range(sum(trial.state == TrialState.WAITING for trial in trials)):
        study.ask()  # enqueued below, by a run that was killed before it asked
    left_behind = []
    for number in range(max(len(trials), max(records, default=-1) + 1)):
        record = records.get(number)
        if number >= len(trials):
            if record:
                study.enqueue_trial(trial_parameters(record.candidate, space))
            study.ask()
        elif trials[number].state.is_finished():
            if record is None:
                _log.warning("trial %d was told to Optuna but has no record: left out of the count", number)
            continue
        if record is None:
            left_behind.append(number)
        else:
            trial = opened.live_trial(number)
            suggest(trial, space)
            tell(study, trial, record, space, listener)
    return tuple(left_behind)
