"""Optuna's samplers on a table are asked as a run asks them, and their comparison counts as its rule says."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_table import made_up_table
from optuna.trial import TrialState
from replay import compare_samplers
from replay.ask_seconds import growth_seconds, proposed, shipped_space, stored_candidates, stored_observations
from replay.compare_samplers import quartiles, reached, report, search, targets_of
from replay.samplers import LIMIT, SEARCHES, OptunaSearch, Search, missing
from replay.session import InARow, Observed, Replay
from replay.shapes import every_shape, shape_of, table_space, thinned, values_of
from replay.stand_ins import StandIns
from replay.strategy import GROWTH_START
from replay.synthetic import synthetic_lines
from replay.table import Table, table_of

from scalesearch.search.growth import propose
from scalesearch.search.ledger import FREE_IN_A_ROW
from scalesearch.spaces.suggest import cheapest, trial_parameters
from scalesearch.values.candidate import Candidate


@pytest.fixture
def made_up() -> Table:
    """The made-up table of the whole space."""
    return made_up_table()


def thinned_table() -> Table:
    """Return a made-up table of 20 trunks with all their cuts, which also tells what is above the limit of MACs."""
    space, whole = table_space(), made_up_table()
    kept = thinned(tuple(dict.fromkeys(point.shape.trunk for point in whole.points)), 20, values_of(space))
    shapes = [each for each in every_shape(space) if each.trunk in kept or each in whole.rejected]
    return table_of(synthetic_lines((240,), shapes=shapes), 240)


def steps(made: Search, replay: Replay, count: int) -> list[int]:
    """Make steps of a search and return the places."""
    found = []
    for _ in range(count):
        place = made.ask(replay)
        assert place is not None
        made.tell(place, replay.evaluate(place))
        found.append(place)
    return found


@pytest.mark.parametrize("name", ["random", "nsga2", "tpe"])
def test_equal_seeds_give_equal_searches_and_start_with_the_cheapest(made_up: Table, name: str) -> None:
    runs = [steps(OptunaSearch(made_up, 3, name=name), Replay(made_up, 3), 15) for _ in range(2)]
    assert runs[0] == runs[1]
    assert made_up.points[runs[0][0]].macs == min(point.macs for point in made_up.points if not point.shape.cut)
    assert steps(OptunaSearch(made_up, 4, name=name), Replay(made_up, 4), 15) != runs[0]


def test_a_combination_above_the_limit_is_told_and_costs_nothing(made_up: Table) -> None:
    made, replay = OptunaSearch(made_up, 0, name="random"), Replay(made_up, 0)
    steps(made, replay, 60)
    pruned = [trial for trial in made.study.trials if trial.state == TrialState.PRUNED]
    complete = [trial for trial in made.study.trials if trial.state == TrialState.COMPLETE]
    assert pruned
    assert all(trial.constraints[LIMIT] > 0 for trial in pruned)
    assert all(trial.constraints[LIMIT] <= 0 for trial in complete)
    assert len(complete) == 60


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_in_a_thinned_table_the_nearest_network_is_told(name: str) -> None:
    space, table = table_space(), thinned_table()
    made, replay = OptunaSearch(table, 0, name=name), Replay(table, 0)
    places = steps(made, replay, 30)
    told = [trial for trial in made.study.trials if trial.state == TrialState.COMPLETE]
    assert any(trial.state == TrialState.FAIL for trial in made.study.trials)
    assert len(told) == 30
    for trial, place in zip(told, places, strict=True):
        point = table.points[place]
        assert trial.params == trial_parameters(point.shape.candidate(steps=240, precision=point.precision), space)


@pytest.mark.parametrize("name", ["random", "growth"])
def test_a_search_ends_when_nothing_needs_training_any_more(name: str) -> None:
    shape = made_up_table().points[0].shape
    table = table_of(synthetic_lines((240,), shapes=[shape]), 240)
    made, replay = SEARCHES[name](table, 0), Replay(table, 0)
    asked = 0
    while (place := made.ask(replay)) is not None:
        made.tell(place, replay.evaluate(place))
        asked += 1
    assert asked == len(replay.observed) + FREE_IN_A_ROW
    assert replay.trainings == 1


def test_what_is_not_installed_says_so() -> None:
    assert missing("tpe") == ""
    assert missing("botorch") in ("", "not installed: botorch, optuna_integration", "not installed: botorch")


def run(name: str, seed: int, shares: list[float]) -> compare_samplers.Run:
    """Make a line of a search with one training and two minutes for each value."""
    numbers = range(1, len(shares) + 1)
    return {
        "sampler": name,
        "seed": seed,
        "trainings": list(numbers),
        "minutes": [2.0 * number for number in numbers],
        "share": shares,
        "handed_over": shares[-1],
        "ask_s": 0.1,
    }


def test_a_target_is_reached_at_the_first_training_with_it() -> None:
    mine = run("tpe", 0, [0.5, 0.9, 0.96])
    assert reached(mine, 0.9) == (2, 4.0)
    assert reached(mine, 0.97) == (math.inf, math.inf)
    assert quartiles([3, 1, 2, math.inf]) == (2, 1, 3)


def test_the_report_gives_medians_and_says_never() -> None:
    runs = [run("tpe", seed, [0.5, 0.9, end]) for seed, end in enumerate((0.92, 0.94, 0.96))]
    runs += [run("growth", seed, [0.95, 0.96, 0.96]) for seed in range(3)]
    assert targets_of({"tpe": runs[:3]})["tpe at its end"] == 0.94
    lines = list(report(runs))
    trainings = lines[next(place for place, line in enumerate(lines) if line.startswith("trainings to")) :]
    assert trainings[2].split()[:2] == ["tpe", "3"]
    assert trainings[3].split()[:2] == ["growth", "1"]
    assert trainings[3].rstrip().endswith("never (never-never)")


def test_a_search_is_replayed_to_its_last_training(made_up: Table) -> None:
    found = search(made_up, "random", 0, 12)
    assert found["trainings"][-1] == 12
    assert found["share"] == sorted(found["share"])
    assert found["minutes"] == sorted(found["minutes"])
    assert set(SEARCHES) >= {"random", "nsga2", "tpe", "gp", "botorch", "growth"}


def test_a_start_is_spread_over_the_macs(made_up: Table) -> None:
    points, replay = made_up.points, Replay(made_up, 0)
    made = SEARCHES["growth-spread"](made_up, 0)
    places = [made.ask(replay) for _ in range(GROWTH_START)]
    macs = [points[place].macs for place in places if place is not None]
    uncut = sorted(point.macs for point in points if not point.shape.cut)
    assert macs[0] == uncut[0]
    parts = np.array_split(uncut[1:], GROWTH_START - 1)
    for part, found in zip(parts, sorted(macs[1:]), strict=True):
        assert part[0] <= found <= part[-1]


def test_the_command_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, to = tmp_path / "table.jsonl", tmp_path / "compared.jsonl"
    table.write_text("".join(json.dumps(line) + "\n" for line in synthetic_lines((240,))))
    command = ["compare_samplers", str(table), "--to", str(to), "--trainings", "8", "--samplers", "random", "tpe"]
    for seeds in ("1", "2"):
        monkeypatch.setattr("sys.argv", [*command, "--seeds", seeds])
        compare_samplers.main()
    lines = [json.loads(line) for line in to.read_text().splitlines()]
    assert [(line["sampler"], line["seed"]) for line in lines[1:]] == [
        ("random", 0),
        ("tpe", 0),
        ("random", 1),
        ("tpe", 1),
    ]
    assert "tpe at its end" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*command, "--trainings", "9"])
    with pytest.raises(SystemExit, match="was begun with"):
        compare_samplers.main()


def test_what_is_stored_for_timing_lies_in_the_space() -> None:
    candidates = stored_candidates(30)
    assert len(candidates) == 30
    assert (
        trial_parameters(cheapest(table_space()), table_space()).keys()
        >= trial_parameters(candidates[0], table_space()).keys()
    )


def test_growth_is_timed_as_a_run_asks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    space = shipped_space()
    *observed, running = stored_observations(space, 31)
    assert {each.candidate.recipe.steps for each in observed} == set(space.lengths) == {240, 480, 960}
    found = proposed(space, observed, running.candidate, 0)
    assert found
    assert found not in {running.candidate, *(each.candidate for each in observed)}
    asked = list[dict[str, Any]]()

    def note(*given: Any, **named: Any) -> Candidate | None:
        asked.append(named | {"observed": len(given[1])})
        return propose(*given, **named)

    monkeypatch.setattr("replay.ask_seconds.propose", note)
    assert all(each > 0 for each in growth_seconds(20, 2))
    assert [each["observed"] for each in asked] == [20, 21]
    for each in asked:
        assert each["lengths"] == space.lengths
        assert len(each["running"]) == 1
        assert each["room"]


def test_candidates_in_a_row_that_cost_no_training_are_counted_as_in_a_run() -> None:
    trained = Observed(score=0.5, p50_ms=1.0, charged=True)
    sibling, again = (Observed(score=0.5, p50_ms=1.0, charged=False, repeated=each) for each in (False, True))
    row = InARow()
    for _ in range(19):
        row.add(sibling)
    assert not row.by_chance("growth"), "another precision counts a fifth of a candidate"
    for _ in range(2):
        row.add(sibling)
    assert row.by_chance("growth")
    assert not row.by_chance("tpe"), "another precision teaches it something"
    for _ in range(4):
        row.add(again)
    assert row.by_chance("tpe")
    row.add_rejected()
    assert not row.by_chance("tpe"), "it learns from what is rejected"
    assert not row.ended
    for _ in range(11):
        row.add_rejected()
    assert row.ended
    row.add(trained)
    assert not row.ended
    assert not row.by_chance("growth")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of every proposal of `growth` by name, each with the candidate that was proposed."""
    found = list[dict[str, Any]]()

    def note(*given: Any, **named: Any) -> Candidate | None:
        chosen = propose(*given, **named)
        found.append(named | {"chosen": chosen})
        return chosen

    monkeypatch.setattr("replay.strategy.propose", note)
    return found


def test_in_a_thinned_table_growth_chooses_from_the_whole_space(asked: list[dict[str, Any]]) -> None:
    table = thinned_table()
    made, replay, stand_ins = SEARCHES["growth"](table, 0), Replay(table, 0), StandIns(table)
    places = steps(made, replay, 30)
    assert not any(each["pool"] for each in asked), "it makes its pool, as in a run"
    chosen = [each["chosen"] for each in asked if each["chosen"]]
    assert len(set(chosen)) == len(chosen) > 15
    assert not any(stand_ins.is_rejected(each) for each in chosen)
    absent = [each for each in chosen if stand_ins.own(each) is None]
    assert 3 < len(absent) < len(chosen)
    assert {stand_ins.nearest(each) for each in absent} <= set(places)
    assert set(replay.observed) == set(places)


def test_growth_among_the_networks_of_the_table_needs_no_other_to_stand_in(asked: list[dict[str, Any]]) -> None:
    table = thinned_table()
    steps(SEARCHES["growth-table-only"](table, 0), Replay(table, 0), 20)
    assert len(asked) > 10
    assert all(StandIns(table).own(each["chosen"]) is not None for each in asked)


def test_growth_asks_a_whole_table_for_nothing_twice(made_up: Table, asked: list[dict[str, Any]]) -> None:
    replay = Replay(made_up, 1)
    places = steps(SEARCHES["growth"](made_up, 1), replay, 20)
    start, later = places[: -len(asked)], places[-len(asked) :]
    assert made_up.points[start[0]].shape == shape_of(cheapest(table_space()))
    assert not any(made_up.points[place].shape.cut for place in start)
    assert len(set(later) - set(start)) == len(later)


def test_the_nearest_network_stands_in() -> None:
    table, whole = thinned_table(), made_up_table()
    stand_ins = StandIns(table)
    absent = [each for each in whole.points if (each.shape, each.precision) not in table.places]
    assert absent
    for point in absent[::9]:
        candidate = point.shape.candidate(steps=480, precision=point.precision)
        assert stand_ins.own(candidate) is None
        assert table.points[stand_ins.nearest(candidate)].precision == point.precision
    own = table.points[7].shape.candidate(steps=480, precision=table.points[7].precision)
    assert stand_ins.own(own) == stand_ins.nearest(own) == 7
