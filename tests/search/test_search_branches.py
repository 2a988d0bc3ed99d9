"""Branches of stored trunks: which of them a search trains by itself, and who pays for them."""

from dataclasses import replace
from pathlib import Path

import pytest
from fake_evaluators import FakePlanner, TrunkPlanner, make_space
from study_runs import assert_sound, run, told

from scalesearch.analysis.front import pareto_front
from scalesearch.records.store import RecordStore
from scalesearch.search.branches import Branches
from scalesearch.search.ledger import Ledger
from scalesearch.search.siblings import SIBLING_OF
from scalesearch.search.storage import opened_study
from scalesearch.spaces.suggest import suggest, trial_parameters
from scalesearch.values.record import TrialRecord
from scalesearch.values.space import Choice, NamedAxis

SHARES = (0.0, 0.25, 0.5)
CUTS = NamedAxis(name="pruning.channel_fraction", axis=Choice(values=SHARES))
SPACE = replace(make_space(), axes=(CUTS, *make_space().axes))


def branches_in(records: tuple[TrialRecord, ...]) -> list[TrialRecord]:
    return [record for record in records if record.sibling_of is not None and record.charged]


def test_a_network_near_the_front_is_tried_with_the_next_cuts_at_the_cost_of_their_branches(tmp_path: Path) -> None:
    run(tmp_path, 8, space=SPACE, plan=TrunkPlanner(), siblings=True, branches=True)
    records = assert_sound(tmp_path, 8)
    branches = branches_in(records)
    assert branches
    for record in branches:
        origin = records[record.sibling_of or 0]
        assert origin.charged
        assert replace(record.candidate, pruning=origin.candidate.pruning) == origin.candidate
        places = [SHARES.index(each.candidate.pruning.channel_fraction) for each in (record, origin)]
        assert abs(places[0] - places[1]) == 1
    # Free are the other precisions alone, those of branches too.
    free = [record for record in records if record.sibling_of is not None and record.same_as is None]
    free = [record for record in free if not record.charged]
    assert all(record.candidate.pruning == records[record.sibling_of or 0].candidate.pruning for record in free)
    assert {record.sibling_of for record in free} & {record.trial for record in branches}
    assert all(told(tmp_path)[each.trial].user_attrs[SIBLING_OF] == each.sibling_of for each in branches)
    assert {record.other_cut for record in branches} == {True} and {record.other_cut for record in free} == {False}
    assert {record.other_cut for record in records if record.sibling_of is None} == {None}


def test_a_branch_is_one_where_it_is_rejected_too(tmp_path: Path) -> None:
    run(tmp_path / "whole", 8, space=SPACE, plan=TrunkPlanner(), branches=True)
    number = branches_in(RecordStore(tmp_path / "whole").all())[0].trial
    run(tmp_path / "other", 8, space=SPACE, plan=TrunkPlanner(), branches=True, fates={number: "too large"})
    record = assert_sound(tmp_path / "other", 8)[number]
    assert (record.state, record.charged) == ("rejected", False)
    assert record.sibling_of is not None and record.other_cut and record.is_branch


def test_the_first_half_of_a_small_budget_is_drawn_uncut(tmp_path: Path) -> None:
    run(tmp_path, 12, space=SPACE, plan=TrunkPlanner(), siblings=True, branches=True)
    records = assert_sound(tmp_path, 12)
    asked = [record.trial for record in records if record.sibling_of is None]
    assert len(asked) >= 6
    assert {records[trial].candidate.pruning.channel_fraction for trial in asked[:6]} == {0.0}
    assert len({records[trial].candidate.scaling for trial in asked[:6]}) > 3
    assert min(record.trial for record in branches_in(records)) > asked[5], "branches follow the uncut start"


def test_only_networks_still_near_the_front_are_branched(tmp_path: Path) -> None:
    run(tmp_path, 4, space=SPACE, plan=TrunkPlanner())
    ledger = Ledger(tmp_path, budget=8)
    branches = Branches(ledger, SPACE, TrunkPlanner(), allowed=True)
    (first, *_) = pareto_front([ledger.records[0]])
    branches.want(first)
    branches.keep_near((first,))
    assert branches.wanted
    faster = replace(first.latency, p50_ms=first.latency.p50_ms / 100)
    branches.keep_near((replace(first, trial=99, latency=faster, quality=replace(first.quality, score=1.0)),))
    assert not branches.wanted


@pytest.mark.parametrize(
    ("plan", "allowed"), [(TrunkPlanner(), False), (FakePlanner(), True)], ids=["not allowed", "no shared trunk"]
)
def test_otherwise_the_sampler_alone_asks_for_cuts(tmp_path: Path, plan: FakePlanner, allowed: bool) -> None:
    run(tmp_path, 4, space=SPACE, plan=plan, branches=allowed)
    assert not branches_in(assert_sound(tmp_path, 4))


def test_a_continued_run_trains_the_branches_of_its_front(tmp_path: Path) -> None:
    run(tmp_path, 2, space=SPACE, plan=TrunkPlanner())
    assert not branches_in(RecordStore(tmp_path).all())
    run(tmp_path, 6, space=SPACE, plan=TrunkPlanner(), branches=True)
    records = assert_sound(tmp_path, 6)
    assert {record.sibling_of for record in branches_in(records)} & {0, 1}


def test_a_branch_that_a_killed_run_left_waits_for_room_in_the_budget(tmp_path: Path) -> None:
    run(tmp_path, 2, space=SPACE, plan=TrunkPlanner())
    first = RecordStore(tmp_path).all()[0].candidate
    share = next(share for share in SHARES if share != first.pruning.channel_fraction)
    branch = replace(first, pruning=replace(first.pruning, channel_fraction=share))
    with opened_study(tmp_path, url="") as opened:
        opened.study.enqueue_trial(trial_parameters(branch, SPACE), user_attrs={SIBLING_OF: 0})
        suggest(opened.study.ask(), SPACE)
    number = len(told(tmp_path)) - 1
    run(tmp_path, 3, space=SPACE, plan=TrunkPlanner())
    record = assert_sound(tmp_path, 3)[number]
    assert (record.charged, record.sibling_of, record.candidate) == (True, 0, branch)
