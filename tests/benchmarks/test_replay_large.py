"""The large space: how it is sampled, what a fit tells of it, and searches on the fit."""

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
from replay.large import CUTS, Surrogate, drawn_trunks, known_of, sampled
from replay.large_compare import FIXED_S, AlikeReplay, LargeReplay, alike, by_stages, compare, searched
from replay.lines import Line
from replay.shapes import PRECISIONS, Shape, large_space, shape_of
from replay.table import shape_of_line

from scalesearch.networks import base_spec
from scalesearch.networks.scaling import scale
from scalesearch.search.ledger import FREE_IN_A_ROW
from scalesearch.spaces.suggest import random_candidates
from scalesearch.values.candidate import Candidate

SPACE = large_space()


def numbers(shape: Shape, precision: str) -> dict[str, float]:
    """Return made-up numbers of a network: smooth in its multipliers."""
    cost = sum(width * depth * kernel**1.5 for width, depth, kernel in shape.stages) * (1 - shape.cut) / 3
    macs = 8e6 * shape.resolution**2 * cost
    val = 0.5 + 0.08 * math.log2(shape.resolution) + 0.04 * math.log2(cost) + 0.01 * shape.stages[2][0]
    return {"macs": macs, "val": val - 0.01 * (precision == "int8"), "ms": 0.1 * (macs / 8e6) ** 0.7 + 0.01,
            "trunk_s": 5 + 2 * macs / 1e6, "branch_s": 2 + macs / 1e6}  # fmt: skip


def network(shape: Shape) -> Line:
    """Return the line of a network."""
    own = {name: getattr(shape, name) for name in ("resolution", "depth", "width", "kernel", "cut", "stages")}
    macs = numbers(shape, "fp32")["macs"]
    return {"kind": "network", "network": shape.name, **own, "macs": macs, "identity": shape.name, "rejected": ""}


@functools.cache
def lines() -> tuple[Line, ...]:
    """Return a made-up table of 30 trunks, each uncut and with one cut."""
    drawn = drawn_trunks(SPACE, 180)
    trunks = sampled(drawn, {shape.name: network(shape) for shape in drawn}, 30)
    shapes = [each for place, trunk in enumerate(trunks) for each in (trunk, cut_of(trunk, CUTS[place % 2]))]
    found = [network(shape) for shape in shapes]
    for shape in shapes:
        for precision in PRECISIONS:
            own = numbers(shape, precision)
            which = {"network": shape.name, "precision": precision}
            found.append({"kind": "latency", **which, "process": 0, "p50_ms": own["ms"]})
            spent = {
                "trunk_s": own["trunk_s"],
                "branch_s": own["branch_s"],
                "prune_s": 0,
                "export_s": 1,
                "cpu_share": 1,
            }
            found.append({"kind": "accuracy", **which, "steps": 240, "seed": 0, "val": own["val"], **spent})
    return tuple(found)


def cut_of(trunk: Shape, cut: float) -> Shape:
    """Return the trunk's network with this cut."""
    return Shape(resolution=trunk.resolution, depth=1, width=1, kernel=1, cut=cut, stages=trunk.stages)


@functools.cache
def surrogate() -> Surrogate:
    """Return the fit to that table."""
    return Surrogate(SPACE, known_of(lines(), 240))


def test_a_network_by_stages_comes_back_from_its_line_and_its_candidate() -> None:
    shape = cut_of(drawn_trunks(SPACE, 3)[2], 0.25)
    assert shape_of_line(network(shape)) == shape
    assert shape_of(shape.candidate(steps=240)) == shape
    assert shape.name.count("/") == 9


def test_the_sample_is_spread_over_the_macs_and_each_network_is_in_it_once() -> None:
    drawn = drawn_trunks(SPACE, 300)
    planned = {shape.name: network(shape) for shape in drawn}
    planned[drawn[7].name]["identity"] = planned[drawn[3].name]["identity"]
    chosen = sampled(drawn, planned, 80)
    assert len(set(chosen)) == 80
    assert all(not shape.cut for shape in chosen)
    assert drawn[7] not in sampled(drawn, planned, 300)
    logs = np.log([planned[shape.name]["macs"] for shape in drawn])
    counts = np.histogram(
        [math.log(planned[shape.name]["macs"]) for shape in chosen], np.linspace(logs.min(), logs.max(), 11)
    )[0]
    there = np.histogram(logs, np.linspace(logs.min(), logs.max(), 11))[0]
    assert (counts >= np.minimum(there, 8)).all() or counts.min() >= 5


def test_the_fit_tells_what_was_left_out() -> None:
    off = surrogate().held_out()
    assert off["val"] < 0.02
    assert off["log_ms"] < 0.2
    candidates = [each for each in random_candidates(SPACE, 40, seed=9)]
    told = surrogate().tell(candidates)["val"]
    true = [numbers(shape_of(each), each.quantization.precision)["val"] for each in candidates]
    assert np.abs(told - true).mean() < 0.015


def test_too_few_points_are_refused() -> None:
    with pytest.raises(SystemExit, match="expected at least 50 points"):
        known_of(lines()[:70], 240)


def test_stages_scaled_alike_are_the_same_networks() -> None:
    for candidate in random_candidates(alike(SPACE), 12, seed=4):
        assert not candidate.scaling.stages
        same = by_stages(candidate)
        specs = [
            scale(base_spec("resnet_small"), each.scaling, resolution_px=64, num_classes=9)
            for each in (candidate, same)
        ]
        assert replace(specs[0], stem=specs[1].stem) == specs[1]
        assert (same.pruning, same.quantization) == (candidate.pruning, candidate.quantization)


def test_a_replay_charges_trunks_and_networks_once() -> None:
    replay = LargeReplay(surrogate(), math.inf, 0)
    shape = drawn_trunks(SPACE, 1)[0]
    ways: list[Candidate] = [shape.candidate(steps=240, precision=each) for each in PRECISIONS]
    cut = cut_of(shape, 0.5).candidate(steps=240)
    first, sibling, branch, again = (replay.evaluate(each) for each in (*ways, cut, ways[0]))
    assert [first.charged, sibling.charged, branch.charged, again.charged] == [True, False, True, False]
    assert [first.repeated, sibling.repeated, branch.repeated, again.repeated] == [False, False, False, True]
    assert replay.trainings == 2
    spent = np.diff([0.0, *(seconds for _, seconds in replay.at)])
    own = {name: float(np.exp(values[0])) for name, values in surrogate().tell([ways[0]]).items()}
    assert spent[0] == pytest.approx(own["log_trunk_s"] + own["log_branch_s"] + FIXED_S)
    assert spent[1] == pytest.approx(FIXED_S)
    assert LargeReplay(surrogate(), math.inf, 0).evaluate(ways[0]).score == first.score
    assert LargeReplay(surrogate(), math.inf, 1).evaluate(ways[0]).score != first.score


@pytest.mark.parametrize("name", ["random", "tpe", "growth"])
def test_every_sampler_searches_it(name: str) -> None:
    replay = LargeReplay(surrogate(), 2e7, 0)
    searched(replay, SPACE, name, seed=0, trainings=9)  # type: ignore[arg-type]
    assert replay.trainings == 9
    assert all(replay.excess(candidate) <= 0 for candidate in replay.observed)


def test_stages_scaled_alike_are_searched_on_the_same_fit() -> None:
    replay = AlikeReplay(surrogate(), 2e7, 0)
    searched(replay, alike(SPACE), "growth", seed=0, trainings=8)
    assert replay.trainings == 8
    assert all(not candidate.scaling.stages for candidate in replay.observed)


def test_a_candidate_with_stages_alike_is_observed_once() -> None:
    replay, candidate = AlikeReplay(surrogate(), math.inf, 0), random_candidates(alike(SPACE), 1, seed=4)[0]
    first, again = replay.evaluate(candidate), replay.evaluate(candidate)
    assert (first.charged, first.repeated, again.charged, again.repeated) == (True, False, False, True)
    assert (again.score, again.p50_ms) == (first.score, first.p50_ms)
    assert len(replay.at) == len(replay.truth) == len(replay.observed) == 1


def test_a_candidate_above_the_limit_is_told_by_how_much() -> None:
    shape = drawn_trunks(SPACE, 1)[0]
    candidate = shape.candidate(steps=240)
    macs = float(np.exp(surrogate().tell([candidate])["log_macs"][0]))
    assert LargeReplay(surrogate(), macs / 2, 0).excess(candidate) == pytest.approx(1.0)
    assert LargeReplay(surrogate(), macs * 2, 0).excess(candidate) == pytest.approx(-0.5)
    assert LargeReplay(surrogate(), math.inf, 0).excess(candidate) == -1.0


def test_a_search_that_finds_only_what_is_refused_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Candidate]()

    def excess(_replay: LargeReplay, candidate: Candidate) -> float:
        asked.append(candidate)
        return 1.0

    monkeypatch.setattr(LargeReplay, "excess", excess)
    searched(LargeReplay(surrogate(), 2e7, 0), SPACE, "tpe", seed=0, trainings=9)
    assert len(asked) == FREE_IN_A_ROW


def test_the_comparison_has_a_line_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.large_compare.FRONT_DRAWS", 300)
    told = list(compare(surrogate(), SPACE, ("random", "global"), seeds=2, trainings=7))
    assert told[0].startswith("best possible front: ")
    assert [line.split()[0] for line in told[2:]] == ["random", "global"]
