"""A table gives back what its lines say, leaves out what is not complete, and a replayed search pays what it costs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from made_up_table import made_up_table
from replay.earlier_results import shape_named, table_lines
from replay.lines import Line, Lines, pack, read_lines
from replay.session import Replay
from replay.shapes import Shape
from replay.synthetic import synthetic_lines
from replay.table import Table, read_table, shape_of_line, summary, table_of, trunk_cpu_seconds

from scalesearch.analysis.front import hypervolume

SHAPE = Shape(resolution=1.0, depth=1.0, width=0.5, kernel=1.0)
OTHER = Shape(resolution=1.0, depth=1.0, width=0.5, kernel=1.0, cut=0.5)
ABOUT: Line = {"data": "d", "val_images": 1, "test_images": 2, "space": "s"}
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "rank_fidelity_wsd_grocery42.jsonl"


@pytest.fixture
def made_up() -> Table:
    """The made-up table of the whole space."""
    return made_up_table()


def by_hand() -> list[Line]:
    """Two networks of one trunk, with numbers that are easily added."""
    lines = synthetic_lines((240,), shapes=(SHAPE, OTHER))
    for line in lines:
        if line["kind"] == "accuracy":
            line["val"] = line["test"] = 0.5 + 0.1 * line["seed"] - 0.2 * ("%" in line["network"])
            line |= {"trunk_s": 20.0, "branch_s": 8.0, "cpu_share": 0.5, "prune_s": 2.0, "export_s": 2.0}
            line |= {"quantize_s": 4.0, "score_s": 6.0}
        if line["kind"] == "latency":
            line["p50_ms"] = math.exp(0.02 * line["process"]) * (1 if "%" in line["network"] else 2)
            line |= {"make_s": 3.0, "time_s": 5.0}
    return lines


def test_truth_is_the_mean_over_seeds_and_processes() -> None:
    table = table_of(by_hand(), 240)
    assert len(table.points) == 4
    place = table.places[SHAPE, "fp32"]
    score, ms = table.truth[place]
    assert score == pytest.approx(0.55)
    assert ms == pytest.approx(1 + math.exp(0.02))
    assert table.accuracy_noise_points() == pytest.approx(10 / math.sqrt(2))  # of two values 10 points apart
    assert table.latency_noise() == pytest.approx(0.02 / math.sqrt(2))


def test_points_without_a_seed_or_a_process_are_left_out() -> None:
    lines = by_hand()
    lines = [
        line
        for line in lines
        if not (line["kind"] == "accuracy" and line["precision"] == "int8" and "%" in line["network"])
        and not (line["kind"] == "latency" and line["precision"] == "int8" and line["process"] == 1)
    ]
    assert {(point.shape, point.precision) for point in table_of(lines, 240).points} == {
        (SHAPE, "fp32"),
        (OTHER, "fp32"),
    }
    with pytest.raises(SystemExit, match="no point has all seeds of 480 updates"):
        table_of(lines, 480)


def test_networks_that_round_to_one_stand_for_each_other() -> None:
    lines = by_hand()
    twin: Line = {**next(line for line in lines if line["kind"] == "network"), "network": "twin", "kernel": 1.67}
    table = table_of([*lines, twin], 240)
    assert table.equal[Shape(resolution=1.0, depth=1.0, width=0.5, kernel=1.67)] == SHAPE


def test_the_best_front_is_the_whole_share(made_up: Table) -> None:
    assert made_up.share(range(len(made_up.points))) == pytest.approx(1)
    assert made_up.share(made_up.front) == pytest.approx(1)
    assert made_up.share(made_up.front[:-1]) < 1
    assert made_up.best == pytest.approx(hypervolume(made_up.truth, made_up.reference))
    lines = "\n".join(summary(made_up))
    assert f"{len(made_up.points)} points of {made_up.networks} networks" in lines


def test_a_search_pays_a_trunk_once_and_a_repeat_not_at_all() -> None:
    table = table_of(by_hand(), 240)
    replay = Replay(table, 0)
    dense, cut, cut_int8 = (table.places[key] for key in ((SHAPE, "fp32"), (OTHER, "fp32"), (OTHER, "int8")))
    spent = [0.0]
    for place in (dense, cut, cut_int8, cut):
        replay.evaluate(place)
        spent.append(replay.seconds)
    # Half of the seconds of training counts: the worker had a core for half of the time.
    branch_s, score_s, timing_s = 0.5 * (8 + 2 + 2), 0.5 * 6, 5.0
    assert np.diff(spent).tolist() == pytest.approx(
        [10 + branch_s + score_s + timing_s, branch_s + score_s + timing_s, 2 + score_s + timing_s, 0]
    )
    assert replay.trainings == 2
    assert [each.trainings for each in replay.grown] == [1, 2, 2]
    assert not replay.evaluate(cut_int8).charged


def test_networks_of_a_trunk_share_the_luck_of_one_seed() -> None:
    table = table_of(by_hand(), 240)
    found = set()
    for seed in range(12):
        replay = Replay(table, seed)
        scores = [replay.evaluate(table.places[shape, "fp32"]).score for shape in (SHAPE, OTHER)]
        assert scores[0] - scores[1] == pytest.approx(0.2)
        found.add(round(scores[0], 6))
    assert found == {0.5, 0.6}


def test_timing_an_untrained_network_costs_once() -> None:
    table = table_of(by_hand(), 240)
    replay = Replay(table, 0)
    first_ms = replay.time_untrained(0)
    assert replay.seconds == 3 + 5
    assert replay.time_untrained(0) == first_ms == replay.evaluate(0).p50_ms
    assert replay.handed_over() == table.share([0])


def test_a_stopped_file_goes_on_and_packs_to_the_same(tmp_path: Path) -> None:
    path, packed = tmp_path / "t.jsonl", tmp_path / "t.jsonl.gz"
    lines = Lines(path, ABOUT)
    own = by_hand()[1:]
    lines.add(own[:5])
    with path.open("a") as file:
        file.write('{"kind": "latency", "netw')  # a kill in the middle of a line
    again = Lines(path, ABOUT)
    assert len(again.all) == 6
    again.add(own[5:])
    again.add(own[5:6])  # written twice
    assert again.has("accuracy", SHAPE.name, "fp32", 240, 1)
    assert not again.has("accuracy", SHAPE.name, "fp32", 480, 1)
    assert pack(path, packed) == packed.stat().st_size
    first = packed.read_bytes()
    pack(path, packed)
    assert packed.read_bytes() == first
    assert read_lines(packed) == read_lines(path) == [{"kind": "about", **ABOUT}, *own]
    assert read_table(packed, 240).truth == table_of(by_hand(), 240).truth
    with pytest.raises(SystemExit, match="another data"):
        Lines(path, {**ABOUT, "data": "other"})


def test_earlier_results_become_a_table() -> None:
    assert shape_named("48px w0.5 d2 k1.67 -25%") == Shape(resolution=0.75, depth=2, width=0.5, kernel=1.67, cut=0.25)
    table = table_of(table_lines(RESULTS, 240), 240)
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    asked = ("64px w1 d1 k1", "wsd 240", 0)
    row = next(row for row in rows if tuple(map(row.get, ("network", "way", "seed"))) == asked)
    base = Shape(resolution=1.0, depth=1.0, width=1.0, kernel=1.0)
    place = table.places[base, "fp32"]
    assert table.truth[place][0] == row["test"]
    assert table.seconds[place].trunk + table.seconds[place].branch == pytest.approx(row["cpu_s"])
    assert len(table.points) == 20


def test_a_trunk_takes_the_core_share_of_the_training_that_made_it_length_by_length() -> None:
    shape = {"resolution": 1.0, "depth": 1.0, "width": 1.25, "kernel": 1.0}
    networks = [{"kind": "network", "network": name, "cut": cut, **shape} for name, cut in (("d", 0.0), ("c", 0.5))]
    told = ((240, "c", 20.96, 0.712), (240, "d", 20.96, 0.995), (480, "c", 46.19, 0.562), (480, "d", 46.19, 0.991))
    trained = [
        {"kind": "accuracy", "network": name, "seed": 0, "steps": steps, "trunk_s": trunk_s, "cpu_share": share}
        for steps, name, trunk_s, share in told
    ]
    found = trunk_cpu_seconds([*networks, *trained])
    trunk = shape_of_line(networks[0]).trunk.name
    short_s = 20.96 * 0.712
    assert found == {
        (trunk, 0, 240): pytest.approx(short_s),
        (trunk, 0, 480): pytest.approx(short_s + 25.23 * 0.562),
    }
