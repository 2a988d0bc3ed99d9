import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from scalesearch.analysis.baselines import (
    RANDOM_START,
    base_network,
    chance_ends,
    chance_front,
    distance_from_base,
    drawn_by_chance,
    hypervolume_over_trials,
    start_samplers,
)
from scalesearch.analysis.front import hypervolume, pareto_front, point
from scalesearch.values.candidate import Candidate, Quantization, Scaling, StageScaling
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.session import Session
from scalesearch.values.settings import SamplerName, SamplerSetting

MakeRecord = Callable[..., MeasuredTrial]


@pytest.fixture
def records(make_record: MakeRecord) -> list[TrialRecord]:
    return [make_record(trial, top1=0.5 + trial % 13 / 50, p50_ms=1 + trial * 5 % 17 / 10) for trial in range(40)]


def test_chance_is_the_start_without_the_cheapest_and_without_siblings(records: list[TrialRecord]) -> None:
    records[3] = replace(records[3], sibling_of=2)
    records[5] = replace(records[5], sibling_of=2)
    # Ten that the sampler was asked for, less the first; two siblings among them do not shorten the start.
    assert [record.trial for record in drawn_by_chance(records, ["tpe"])] == [1, 2, 4, 6, 7, 8, 9, 10, 11]
    assert chance_ends(records, ["tpe"]) == 12
    assert chance_ends([], ["tpe"]) == 0
    assert len(drawn_by_chance(records, ["nsga2"])) == 17


def test_a_study_that_went_on_with_another_sampler_has_the_start_of_both(records: list[TrialRecord]) -> None:
    assert [record.trial for record in drawn_by_chance(records, ["tpe", "random"])] == [*range(1, 10)]
    assert [record.trial for record in drawn_by_chance(records, ["tpe", "growth"])] == [*range(1, 6)]
    # Trial 22 is the tenth that is no sibling, but NSGA-II's first population ended before it.
    siblings = [replace(record, sibling_of=0) if 0 < record.trial < 14 else record for record in records]
    assert chance_ends(siblings, ["tpe"]) == 23 and chance_ends(siblings, ["nsga2", "tpe"]) == 20


@pytest.mark.parametrize("samplers", [["random"], []])
def test_a_random_search_or_an_unknown_one_has_no_random_start(
    samplers: list[SamplerName], records: list[TrialRecord]
) -> None:
    assert drawn_by_chance(records, samplers) == () and chance_ends(records, samplers) == 0


def test_the_samplers_of_a_study_are_those_of_its_runs_and_else_all_that_there_are(session: Session) -> None:
    def samplers(last: SamplerSetting, *runs: SamplerName, stored: bool = True) -> tuple[SamplerName, ...]:
        settings = replace(session.settings, sampler=last)
        return start_samplers(replace(session, settings=settings, samplers=runs if stored else None))

    assert samplers("random", "tpe", "random") == ("tpe", "random")
    assert samplers("tpe") == () == start_samplers(None)
    assert set(samplers("tpe", stored=False)) == set(RANDOM_START)
    assert samplers("random", stored=False) == (), "it may have been the only one"


def test_the_start_of_the_samplers_is_what_optuna_says() -> None:
    optuna = pytest.importorskip("optuna")
    from scalesearch.search.samplers import make_sampler

    tpe = make_sampler("tpe", seed=0, trial=0, workers=1)
    assert isinstance(tpe, optuna.samplers.TPESampler)
    assert tpe._n_startup_trials == RANDOM_START["tpe"]
    nsga2 = make_sampler("nsga2", seed=0, trial=0, workers=1)
    assert isinstance(nsga2, optuna.samplers.NSGAIISampler)
    assert nsga2.population_size == RANDOM_START["nsga2"]


def test_a_repeat_stands_for_what_it_repeats(records: list[TrialRecord]) -> None:
    best = replace(records[0], quality=replace(records[0].quality, score=0.99))  # type: ignore[type-var]
    repeat = replace(best, trial=4, same_as=0, state="cached")
    front = chance_front([best, *records[1:4], repeat], ["tpe"])
    assert best.trial in {record.trial for record in front}


def test_the_base_is_dense_fp32_and_nearest_to_one(make_record: MakeRecord) -> None:
    def at(trial: int, **changes: object) -> TrialRecord:
        return replace(make_record(trial), candidate=Candidate(**changes))  # type: ignore[arg-type]

    near, far = at(1, scaling=Scaling(width=1.25)), at(2, scaling=Scaling(width=0.5))
    quantized = at(3, quantization=Quantization(precision="int8"))
    found = base_network([far, near, quantized, make_record(4)])
    assert found is near
    assert distance_from_base(far) == 1.0
    assert distance_from_base(at(5, scaling=Scaling(stages=(StageScaling(width=2.0, depth=0.5),)))) == 2.0
    assert base_network([quantized]) is None


def test_another_neck_or_decoder_is_not_that_of_the_base(make_record: MakeRecord) -> None:
    def distance(scaling: Scaling) -> float:
        return distance_from_base(replace(make_record(0), candidate=Candidate(scaling=scaling)))

    assert distance(Scaling()) == 0
    assert distance(Scaling(neck_width=0.5)) == 1
    assert distance(Scaling(decoder="lraspp")) == 1
    assert distance(Scaling(depth=2.0, kernel=4.0)) == 3
    assert distance(Scaling(depth=2.0, kernel=4.0, neck_follows="width_depth")) == 4
    assert distance(Scaling(depth=2.0, kernel=4.0, neck_follows="all")) == 6
    # With multipliers of 1, it is the same network whatever the neck follows.
    assert distance(Scaling(neck_follows="all")) == 0


def test_hypervolume_grows_to_that_of_the_whole_front(records: list[TrialRecord]) -> None:
    grown = hypervolume_over_trials(records)
    values = [value for _, value in grown]
    assert values == sorted(values)
    assert grown[-1][0] == 39
    assert values[-1] == pytest.approx(hypervolume(point(record) for record in pareto_front(records)))
    half = [value for trial, value in grown if trial < 20][-1]
    assert half == pytest.approx(hypervolume(point(record) for record in pareto_front(records[:20])))


def test_hypervolume_of_slow_networks_grows_too(make_record: MakeRecord) -> None:
    slow = [make_record(0, top1=0.5, p50_ms=1500.0), make_record(1, top1=0.9, p50_ms=3000.0)]
    # Up to twice the slowest, 6 s: 0.5 ln(6000 / 1500), and 0.4 ln(6000 / 3000) more.
    grown = hypervolume_over_trials(slow)
    assert [trial for trial, _ in grown] == [0, 1]
    assert [value for _, value in grown] == pytest.approx([0.5 * math.log(4), 0.5 * math.log(4) + 0.4 * math.log(2)])
    # What breaks a limit is not on the front, however slow.
    assert hypervolume_over_trials([*slow, make_record(2, p50_ms=9e6, excess=0.5)])[0] == grown[0]


def test_short_trainings_are_no_baseline(make_record: MakeRecord, records: list[TrialRecord]) -> None:
    whole = replace(make_record(0), candidate=Candidate())
    short = replace(whole, trial=1, full_updates=10_000)
    assert base_network([short, whole]) == whole
    assert drawn_by_chance(records, ["growth"])
    assert drawn_by_chance([replace(record, full_updates=10_000) for record in records], ["growth"]) == ()
