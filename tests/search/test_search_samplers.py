import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
from fake_evaluators import make_space
from study_runs import assert_sound, run

from scalesearch.search import asking
from scalesearch.search.events import Event, SamplerChanged
from scalesearch.search.samplers import LEARNS_FROM_REJECTED, SAMPLERS, make_sampler
from scalesearch.spaces.suggest import suggest
from scalesearch.values.candidate import Candidate
from scalesearch.values.settings import SamplerName

SPACE = make_space()


def study_with(trials: int) -> optuna.Study:
    """A study in memory with that many told trials, the same ones each time."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(trials):
        trial = study.ask()
        size = suggest(trial, SPACE).scaling.width
        trial.set_constraint("max_macs", -0.1)
        study.tell(trial, (1 - 1 / (1 + size), size))
    return study


def next_candidate(name: SamplerName, *, seed: int = 3, told: int = 12, workers: int = 1) -> Candidate:
    study = study_with(told)
    study.sampler = make_sampler(name, seed=seed, trial=told, workers=workers)
    return suggest(study.ask(), SPACE)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_sampler_is_a_function_of_seed_trial_and_study(name: SamplerName) -> None:
    # So a continued run, whose samplers are all new, asks what an uninterrupted one asks.
    asked = [next_candidate(name) for _ in range(2)]
    assert asked[0] == asked[1]


@pytest.mark.parametrize("name", ["tpe", "random", "nsga2"])
def test_seed_and_trial_both_matter(name: SamplerName) -> None:
    assert len({next_candidate(name, seed=seed) for seed in range(6)}) > 1
    sampler = [make_sampler(name, seed=0, trial=trial, workers=1) for trial in range(6)]
    drawn = set()
    for each in sampler:
        study = study_with(0)
        study.sampler = each
        drawn.add(suggest(study.ask(), SPACE))
    assert len(drawn) > 1


def rejected_share(name: SamplerName) -> float:
    """How many of 20 next candidates break a limit (width at most 1) that the history of 40 had pruned."""
    study = study_with(0)
    for _ in range(40):
        trial = study.ask()
        width = suggest(trial, SPACE).scaling.width
        trial.set_constraint("max_macs", width - 1)
        if width > 1:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, (width, width))
    asked = []
    for number in range(20):
        study.sampler = make_sampler(name, seed=0, trial=number, workers=1)
        asked.append(suggest(study.ask(), SPACE).scaling.width)
    return sum(width > 1 for width in asked) / len(asked)


def test_tpe_keeps_away_from_what_was_rejected_and_chance_does_not() -> None:
    # Half of the widths are above 1.
    assert "tpe" in LEARNS_FROM_REJECTED and "random" not in LEARNS_FROM_REJECTED
    assert rejected_share("tpe") <= 0.2 < 0.3 <= rejected_share("random")


def test_the_constant_liar_is_for_several_workers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone, crowd = (make_sampler("tpe", seed=0, trial=0, workers=workers) for workers in (1, 2))
    assert isinstance(alone, optuna.samplers.TPESampler) and isinstance(crowd, optuna.samplers.TPESampler)
    assert (alone._constant_liar, crowd._constant_liar) == (False, True)


def test_beyond_many_trials_another_sampler_goes_on_and_is_told_once_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalesearch.values.settings.MANY_TRIALS", 14)
    made, told = list[tuple[int, SamplerName]](), list[Event]()

    def noted(name: SamplerName, *, trial: int, **named: Any) -> optuna.samplers.BaseSampler:
        made.append((trial, name))
        return make_sampler(name, trial=trial, **named)

    def hear(event: Event) -> None:
        told.extend([event] if isinstance(event, SamplerChanged) else [])

    monkeypatch.setattr(asking, "make_sampler", noted)
    for budget, events in ((18, 1), (20, 2)):  # also in a run that goes on
        run(tmp_path, budget, sampler="growth", gives_way=True, on_event=hear)
        assert [event.sampler for event in told if isinstance(event, SamplerChanged)] == ["tpe"] * events
    assert_sound(tmp_path, 20)
    assert told[0] == SamplerChanged(sampler="tpe", trials=15)
    before, after = ({name for trial, name in made if (trial >= 15) == late} for late in (False, True))
    assert "growth" in before and "tpe" not in before
    assert "tpe" in after and "growth" not in after


def test_a_sampler_that_was_asked_for_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalesearch.values.settings.MANY_TRIALS", 4)
    told = list[Event]()
    assert len(run(tmp_path, 8, sampler="growth", on_event=told.append).records) > 5
    assert not any(isinstance(event, SamplerChanged) for event in told)
