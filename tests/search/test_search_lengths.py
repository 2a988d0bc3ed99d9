"""Trainings of unlike lengths: what they cost, how a search begins and ends, and what Optuna is told of short ones."""

import fcntl
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from fake_evaluators import FakePlanner, TrunkPlanner, good_record, make_space
from optuna.trial import FixedTrial, create_trial
from study_runs import run, told

from scalesearch.analysis.baselines import RANDOM_START
from scalesearch.analysis.belief import Belief, Observation, at_length
from scalesearch.analysis.front import pareto_front
from scalesearch.errors import StageFailed
from scalesearch.execution.worker import Evaluator, Failed, Rivals
from scalesearch.records.store import RecordStore
from scalesearch.search.costs import FIXED_COST, in_seconds, in_trainings
from scalesearch.search.events import Event, SamplerChanged, TrialFinished
from scalesearch.search.fates import record_of
from scalesearch.search.growth import propose, unfinished
from scalesearch.search.ledger import Asked, Ledger
from scalesearch.search.lengths import MEMBERS_SHARE, Lengths, RunRoom
from scalesearch.search.storage import opened_study
from scalesearch.search.time_limit import TimeLimit
from scalesearch.spaces.moves import drawn
from scalesearch.spaces.suggest import cheapest, suggest, trial_parameters
from scalesearch.values.candidate import Candidate, Pruning, Recipe, Scaling
from scalesearch.values.plan import Plan
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.space import Choice, NamedAxis

STEPS = (240, 480, 960)
FULL = STEPS[-1]
WIDEST = 2.0  # of `make_space`
FIXED = FIXED_COST * 480 / FULL  # of a brief training, in full ones
SPACE = replace(
    make_space(),
    axes=(*make_space().axes[2:], NamedAxis(name="training.steps", axis=Choice(values=STEPS))),
)


@dataclass
class Learns:
    """Scores grow with the size of a network, and with the logarithm of its updates the more the larger it is.

    All workers know each other's trunks, as those of a study do, by a file.
    """

    trunks: Path
    s_per_update: float = 0.0

    def evaluate(self, plan: Plan, *, trial: int, report: Callable[[str], None], rivals: Rivals = ()) -> TrialRecord:
        report("train")
        candidate, record = plan.candidate, good_record(plan, trial)
        assert isinstance(record, MeasuredTrial)
        steps, whole = candidate.recipe.steps, record.quality.score
        size = candidate.scaling.width * candidate.scaling.resolution
        trunk = self._reached(candidate.scaling, steps)
        score = whole - 0.02 * (1 + size) * math.log2(FULL / steps)
        made = round(2 / 3 * (steps - trunk) + steps / 3)
        time.sleep(self.s_per_update * made)
        took_s = max(0.01, self.s_per_update * steps)
        training = replace(record.training, steps=steps, new_steps=made, train_s=took_s)
        quality = replace(record.quality, score=score, score_low=score - 0.01, score_high=score + 0.01)
        return replace(record, quality=quality, training=training, full_updates=plan.full_updates)

    def _reached(self, scaling: Scaling, steps: int) -> int:
        """Return how far a trunk of the network reaches, at most so far; from now on there is one of these steps."""
        name = f"{scaling!r}: "
        with self.trunks.open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            reached = [int(line.removeprefix(name)) for line in file if line.startswith(name)]
            file.write(f"{name}{steps}\n")
        return max((each for each in reached if each <= steps), default=0)


@dataclass(frozen=True)
class MakeLearns:
    folder: Path
    s_per_update: float = 0.0

    def __call__(self) -> Learns:
        return Learns(self.folder / "trunks.txt", self.s_per_update)


@dataclass
class Fails(Learns):
    """No network of the largest width can be trained."""

    def evaluate(self, plan: Plan, *, trial: int, report: Callable[[str], None], rivals: Rivals = ()) -> TrialRecord:
        report("train")
        if plan.candidate.scaling.width == WIDEST:
            raise StageFailed(stage="train", reason="out of memory")
        return super().evaluate(plan, trial=trial, report=report, rivals=rivals)


@dataclass(frozen=True)
class MakeFails:
    folder: Path

    def __call__(self) -> Fails:
        return Fails(self.folder / "trunks.txt")


def at(candidate: Candidate, steps: int) -> Candidate:
    return replace(candidate, recipe=replace(candidate.recipe, steps=steps))


def search(
    folder: Path, budget: int, workers: int = 1, make: Callable[[], Evaluator] | None = None
) -> tuple[TrialRecord, ...]:
    plan, make = FakePlanner(full_updates=FULL), make or MakeLearns(folder)
    run(folder, budget, space=SPACE, plan=plan, make=make, sampler="growth", workers=workers, full_updates=FULL)
    return RecordStore(folder).all()


def observed(count: int, steps: tuple[int, ...] = STEPS) -> list[Observation]:
    random, found = np.random.default_rng(0), dict[Candidate, Observation]()
    while len(found) < count:
        candidate = drawn(SPACE, random)
        candidate = at(candidate, steps[len(found) % len(steps)])
        scaling = candidate.scaling
        size = scaling.width * scaling.resolution
        score = 0.9 - 0.3 / (1 + 2 * size) - 0.03 * math.log2(FULL / candidate.recipe.steps)
        found[candidate] = Observation(candidate=candidate, score=score, p50_ms=0.2 + size**2)
    return list(found.values())


def test_a_longer_training_costs_what_it_adds() -> None:
    short = Candidate(scaling=Scaling(width=0.5), recipe=Recipe(steps=240, branch_fraction=1 / 3))
    cut = replace(short, pruning=Pruning(channel_fraction=0.25))
    none = in_trainings(SPACE, [], lengths=STEPS)
    assert none(short) == pytest.approx(FIXED + 240 / 960)
    assert none(at(short, FULL)) == pytest.approx(FIXED + 1)
    known = in_trainings(SPACE, [short], lengths=STEPS)
    assert known(short) == pytest.approx(FIXED)
    assert known(cut) == pytest.approx(FIXED + 80 / 960)
    # Of the 640 updates of the longer trunk, 160 are there; the 320 of its branch are not.
    assert known(at(short, FULL)) == pytest.approx(FIXED + (640 - 160 + 320) / 960)
    # A shorter training cannot begin from a longer trunk.
    assert in_trainings(SPACE, [at(short, FULL)], lengths=STEPS)(short) == pytest.approx(FIXED + 240 / 960)
    cosine = replace(short, recipe=replace(short.recipe, schedule="cosine"))
    assert in_trainings(SPACE, [cosine], lengths=STEPS)(at(cosine, FULL)) == pytest.approx(FIXED + 1)


def test_what_several_candidates_cost_counts_what_they_share_once() -> None:
    short = Candidate(scaling=Scaling(width=0.5), recipe=Recipe(steps=240, branch_fraction=1 / 3))
    cut = replace(short, pruning=Pruning(channel_fraction=0.25))
    costs = in_trainings(SPACE, [], lengths=STEPS)
    assert costs.of_all([short, short, cut]) == pytest.approx((240 + 80) / 960)
    assert costs.of_all([short, at(short, FULL), at(cut, FULL)]) == pytest.approx((240 + 800 + 320) / 960)
    assert costs.of_all([short]) == pytest.approx(240 / 960), "nothing is remembered of the question before"


def test_seconds_are_those_of_a_training_in_full(make_record: Callable[..., MeasuredTrial]) -> None:
    records = []
    for trial, each in enumerate(observed(12)):
        record = make_record(trial)
        steps, width = each.candidate.recipe.steps, each.candidate.scaling.width
        took = replace(record.training, train_s=width**2 * steps / 10, retrain_s=0.0, steps=steps, new_steps=steps)
        records.append(replace(record, candidate=each.candidate, training=took, charged=True))
    costs = in_seconds(SPACE, records, {}, full_updates=FULL)
    assert costs
    new = Candidate(scaling=Scaling(width=0.7), recipe=Recipe(steps=480))
    assert costs(new) - costs.fixed == pytest.approx(0.7**2 * 48, rel=0.05)


def test_the_front_that_is_believed_is_that_of_full_length() -> None:
    known = observed(24)
    belief = Belief(SPACE, known, full_updates=FULL)
    believed = belief.believed()
    assert {each.recipe.steps for each in believed} == {FULL}
    for each in known:
        score, p50_ms = believed[at_length(each.candidate, FULL)]
        size = each.candidate.scaling.width * each.candidate.scaling.resolution
        assert p50_ms == each.p50_ms
        assert score == pytest.approx(0.9 - 0.3 / (1 + 2 * size), abs=0.02)
    members = unfinished(belief, {each.candidate for each in known})
    assert members
    assert not {*members} & {each.candidate for each in known}


def test_a_short_training_promises_no_more_than_the_full_one() -> None:
    belief = Belief(SPACE, observed(24), full_updates=FULL)
    random = np.random.default_rng(3)
    pool = [at(drawn(SPACE, random), FULL) for _ in range(40)]
    growth = [belief.growth([at(each, steps) for each in pool]) for steps in STEPS]
    assert np.all(growth[0] <= growth[1] + 1e-12)
    assert np.all(growth[1] <= growth[2] + 1e-12)
    assert growth[0].max() > 0.3 * growth[2].max(), "it tells something about the full one"


def test_the_last_room_is_for_the_believed_front() -> None:
    known = observed(20, steps=(240,))
    costs = in_trainings(SPACE, [each.candidate for each in known], lengths=STEPS)
    members = unfinished(Belief(SPACE, known, full_updates=FULL), {each.candidate for each in known})
    all_of_it = costs.of_all(members)

    def next_with(left: float) -> Candidate | None:
        return propose(
            SPACE, known, running=(), cost=costs, is_open=lambda _: True, seed=5, lengths=STEPS,
            room=RunRoom(left, math.inf, 1, costs, None, ()),
        )  # fmt: skip

    plenty, little = next_with(100.0), next_with(all_of_it + 0.01)
    assert plenty
    assert plenty.recipe.steps < FULL, "there is time to look further"
    assert little in members
    assert next_with(costs.of_all([little]) + 0.01) in members
    assert next_with(0.0) is None


def test_a_member_comes_first_where_too_little_was_spent_on_members() -> None:
    known = observed(20, steps=(240,))
    costs = in_trainings(SPACE, [each.candidate for each in known], lengths=STEPS)
    members = unfinished(Belief(SPACE, known, full_updates=FULL), {each.candidate for each in known})

    def next_with(left_s: float) -> Candidate | None:
        seconds = replace(costs, training=lambda _: 10.0)
        room = RunRoom(100.0, left_s, 100, costs, seconds, (), wants_members=True)
        return propose(SPACE, known, running=(), cost=costs, is_open=lambda _: True, seed=5, lengths=STEPS, room=room)

    assert next_with(math.inf) in members
    brief = next_with(5.0)  # half of a full training, in which none of the members would end
    assert brief
    assert brief.recipe.steps < FULL


def test_a_quarter_of_what_is_spent_goes_into_members_all_the_time(tmp_path: Path) -> None:
    records = search(tmp_path, 12)
    spent = on_members = 0.0
    for record in records:
        if record.trial > 2 + RANDOM_START["growth"] and record.sibling_of is None:
            assert on_members >= MEMBERS_SHARE * spent or not record.short, f"trial {record.trial}"
        spent += record.charge
        on_members += record.charge * (not record.short)


def test_with_every_member_in_full_no_short_training_is_begun_that_cannot_be_finished() -> None:
    known = observed(20, steps=(FULL,))
    costs = in_trainings(SPACE, [each.candidate for each in known], lengths=STEPS)
    rooms = [RunRoom(left, math.inf, 1, costs, None, ()) for left in (1.0, 0.3, 0.2)]
    whole, branch, nothing = (
        propose(SPACE, known, running=(), cost=costs, is_open=lambda _: True, seed=5, lengths=STEPS, room=room)
        for room in rooms
    )
    assert whole
    assert whole.recipe.steps == FULL
    assert branch is None or costs.of_all([branch]) <= 0.3
    assert nothing is None, "a branch costs a third of a training"
    assert rooms[2].too_little and not rooms[2].too_late


def test_a_member_whose_trunk_is_trained_at_this_moment_comes_after_what_need_not_wait() -> None:
    known = observed(20, steps=(240,))
    full = [each.candidate for each in known]
    costs = replace(in_trainings(SPACE, full, lengths=STEPS), training=lambda _: 10.0, fixed_counts=True)
    believed = unfinished(Belief(SPACE, known, full_updates=FULL), {*full})

    def next_with(running_s: dict[Candidate, float], left_s: float = math.inf) -> Candidate | None:
        waiting = replace(costs, running_s=running_s)
        room = RunRoom(99.0, left_s, 1, in_trainings(SPACE, full, lengths=STEPS), costs, (), wants_members=True)
        return propose(
            SPACE, known, running=(), cost=waiting, is_open=lambda _: True, seed=5, lengths=STEPS, room=room
        )  # fmt: skip

    first = next_with({})
    assert first in believed, "too little was spent on full length"
    assert first
    trained = {at(first, 480): 1.0}
    second = next_with(trained)
    assert second in believed and second != first
    every = {at(each, 480): 1.0 for each in believed}
    assert next_with(every) not in believed, "with all members to be waited for, the search goes on"
    # In the last seconds there is nothing else to do.
    assert next_with(every, left_s=11.0) in believed


def test_alike_lengths_end_with_what_the_budget_suffices_for() -> None:
    known = observed(20, steps=(FULL,))
    costs = in_trainings(SPACE, [each.candidate for each in known])

    def next_with(left: float, left_s: float = math.inf) -> tuple[Candidate | None, RunRoom]:
        seconds = replace(costs, training=lambda _: 10.0, fixed_counts=True)
        room = RunRoom(left, left_s, 1, costs, seconds, ())
        return propose(SPACE, known, running=(), cost=costs, is_open=lambda _: True, seed=5, room=room), room

    assert next_with(1.0)[0]
    for left in (0.9, 0.4, 0.1):
        found, room = next_with(left)
        assert costs.of_all([found]) <= left if found else room.too_little
    found, room = next_with(9.0, left_s=0.05)
    assert found is None and room.too_late, "not even a timing would end in time"


def test_a_candidate_that_fits_the_workers_together_must_end_in_time_itself() -> None:
    known = observed(20, steps=(240,))
    costs = in_trainings(SPACE, [each.candidate for each in known], lengths=STEPS)
    seconds = replace(costs, training=lambda _: 100.0, fixed=0.5, fixed_counts=True)
    room = RunRoom(99.0, 20.0, 100, costs, seconds, ())
    found = propose(SPACE, known, running=(), cost=seconds, is_open=lambda _: True, seed=5, lengths=STEPS, room=room)
    assert found is None or seconds(found) <= 20.0


def test_a_known_candidate_is_proposed_in_greater_lengths_alone() -> None:
    known = observed(20, steps=(480,))
    costs = in_trainings(SPACE, [each.candidate for each in known], lengths=STEPS)
    asked = list[Candidate]()

    def is_open(candidate: Candidate) -> bool:
        asked.append(candidate)
        return False

    assert propose(SPACE, known, running=(), cost=costs, is_open=is_open, seed=5, lengths=STEPS) is None
    again = [each for each in asked if at(each, 480) in {one.candidate for one in known}]
    assert again
    assert {each.recipe.steps for each in again} == {FULL}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_front_of_a_search_is_of_full_length_alone(tmp_path: Path, workers: int) -> None:
    budget = 8
    records = search(tmp_path, budget, workers)
    # One worker may make several trials of the start while the other trains the cheapest in full length.
    cheapest = [record.trial for record in records if record.candidate.scaling == records[0].candidate.scaling]
    assert [records[trial].candidate.recipe.steps for trial in cheapest[:3]] == [240, 960, 480], "in every length"
    start = [record for record in records[:8] if record.trial not in cheapest[1:3]]
    assert {record.candidate.recipe.steps for record in start} == {STEPS[0]}, "the start is short"
    if workers == 1:
        assert cheapest[:3] == [0, 1, 2]
    front = pareto_front(records)
    assert len(front) > 2
    assert {member.candidate.recipe.steps for member in front} == {FULL}
    assert budget - 1 < sum(record.charge for record in records) <= budget + 1e-6
    short = [record for record in records if record.short]
    assert short
    assert not any(record.feasible for record in short)
    # Nothing that the model believes to be on the front was left short, unless the budget ended first.
    whole = [record for record in records if not record.short]
    assert len(whole) < len(records) - 5, "most candidates cost less than a full training"


def test_optuna_is_told_no_point_of_a_short_training(tmp_path: Path) -> None:
    records = search(tmp_path, 4)
    trials = told(tmp_path)
    for record, trial in zip(records, trials, strict=True):
        assert record.quality
        assert record.latency
        if record.short:
            assert trial.state.name == "PRUNED"
            assert trial.user_attrs["updates"] == f"{record.candidate.recipe.steps} of {FULL}"
            assert trial.user_attrs["brief_top1"] == record.quality.score
            assert trial.user_attrs["p50_ms"] == record.latency.p50_ms
        else:
            assert trial.state.name == "COMPLETE"
            assert trial.values == [record.quality.score, record.latency.p50_ms]


def test_a_search_goes_on_to_a_larger_budget(tmp_path: Path) -> None:
    begun = search(tmp_path, 4)
    ended = search(tmp_path, 7)
    assert ended[: len(begun)] == begun
    assert 6 < sum(record.charge for record in ended) <= 7 + 1e-6
    assert len(pareto_front(ended)) >= len(pareto_front(begun))
    assert all(trial.state.is_finished() for trial in told(tmp_path))


def test_time_counts_for_all_workers_and_what_runs_is_taken_off() -> None:
    first, second = (Candidate(scaling=Scaling(width=width), recipe=Recipe(steps=FULL)) for width in (0.5, 0.75))
    trainings = in_trainings(SPACE, [], lengths=STEPS)
    seconds = replace(trainings, training=lambda _: 10.0, fixed=2.0, fixed_counts=True)

    def fits(left_s: float, *, workers: int = 1, running: Sequence[Candidate] = (), left: float = 9.0) -> bool:
        return RunRoom(left, left_s, workers, trainings, seconds, running).fits([first])

    assert not fits(11.9)
    assert fits(12.1)
    assert fits(6.1, workers=2)
    assert not fits(23.9, running=[second])
    assert fits(24.1, running=[second])
    assert not fits(99.0, left=0.9)
    room = RunRoom(9.0, 11.0, 4, trainings, seconds, ())
    assert room.fits([first]) and not room.in_time(first) and room.too_late, "one training takes one worker"


def test_nothing_is_begun_that_would_end_too_late() -> None:
    known = observed(20, steps=(240,))
    trainings = in_trainings(SPACE, [each.candidate for each in known], lengths=STEPS)
    seconds = replace(trainings, training=lambda each: 40 * each.scaling.width, fixed=1.0, fixed_counts=True)

    def next_with(left_s: float) -> tuple[Candidate | None, bool]:
        room = RunRoom(99.0, left_s, 1, trainings, seconds, ())
        found = propose(
            SPACE, known, running=(), cost=seconds, is_open=lambda _: True, seed=5, lengths=STEPS, room=room
        )
        return found, room.too_late

    members = unfinished(Belief(SPACE, known, full_updates=FULL), {each.candidate for each in known})
    small, late = next_with(12.0)
    assert small in members
    assert late, "others take longer"
    assert seconds.of_all([small]) <= 12.0
    assert next_with(2.0) == (None, True)


def test_a_run_ends_with_its_time_and_not_after_it(tmp_path: Path) -> None:
    plan = FakePlanner(full_updates=FULL)
    records: tuple[TrialRecord, ...] = ()
    for _ in range(2):  # the time of a second run is its own
        outcome = run(
            tmp_path, 1000, space=SPACE, plan=plan, make=MakeLearns(tmp_path, s_per_update=0.5 / FULL),
            sampler="growth", full_updates=FULL, max_time_s=5.0,
        )  # fmt: skip
        assert outcome.ended == "time"
        assert len(outcome.records) > len(records)
        records = outcome.records
    assert {member.candidate.recipe.steps for member in pareto_front(records)} == {FULL}
    assert any(record.short for record in records)


def test_a_failed_short_training_is_charged_its_own_length(tmp_path: Path) -> None:
    plan = FakePlanner(full_updates=FULL)(at(Candidate(), 240))
    failed = record_of(Failed(trial=0, stage="train", reason="no"), plan, ())
    assert failed.charge == 0.25


def test_longer_trainings_of_the_cheapest_wait_for_the_trunk_that_they_continue(tmp_path: Path) -> None:
    ledger, plan = Ledger(tmp_path, budget=8), FakePlanner(full_updates=FULL)
    lengths = Lengths(SPACE, ledger, full_updates=FULL, workers=2, time=TimeLimit(0.0))
    first = cheapest(SPACE)
    steps_asked = list[int]()
    for trial in range(3):
        wanted = lengths.beginning() if trial else first
        assert wanted
        asked = suggest(FixedTrial(lengths.take_beginning(wanted)), SPACE) if trial else first
        assert asked == wanted
        steps_asked.append(asked.recipe.steps)
        work = plan(asked)
        ledger.running[trial] = Asked(trial=create_trial(values=[0.0]), plan=work)  # type: ignore[arg-type]
        assert lengths.beginning() is None, "its trunk is being trained"
        del ledger.running[trial]
        ledger.enter(good_record(work, trial))
    assert steps_asked == [240, 960, 480]
    assert lengths.beginning() is None


def test_a_beginning_is_asked_for_once_and_not_of_a_network_that_fails(tmp_path: Path) -> None:
    ledger, plan = Ledger(tmp_path, budget=8), FakePlanner(full_updates=FULL)
    lengths = Lengths(SPACE, ledger, full_updates=FULL, workers=2, time=TimeLimit(0.0))
    first = cheapest(SPACE)
    ledger.enter(record_of(Failed(trial=0, stage="train", reason="out of memory"), plan(first), ()))
    again = lengths.beginning()
    assert again and again.recipe.steps == FULL, "once may be chance"
    lengths.take_beginning(again)
    assert lengths.beginning() == at(first, 480), "the other one may wait for an equal trial, and has no record yet"
    ledger.enter(record_of(Failed(trial=1, stage="train", reason="out of memory"), plan(again), ()))
    assert lengths.beginning() is None


def test_a_network_that_fails_twice_is_not_tried_in_its_other_length(tmp_path: Path) -> None:
    records = search(tmp_path, 8, make=MakeFails(tmp_path))
    failed = [record.candidate for record in records if record.state == "failed"]
    assert failed
    for network in {each.scaling for each in failed}:
        assert sum(each.scaling == network for each in failed) <= 2


def test_branches_that_are_wanted_but_no_longer_taken_do_not_keep_an_exhausted_search_going(tmp_path: Path) -> None:
    axes = (
        NamedAxis(name="scaling.resolution", axis=Choice(values=(0.5, 1.0))),
        NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.0, 0.25, 0.5))),
        NamedAxis(name="training.steps", axis=Choice(values=STEPS)),
    )
    budget, networks = 6, 2 * 3

    def hear(event: Event) -> None:
        assert not isinstance(event, TrialFinished) or event.record.trial < 10 * networks * len(STEPS), "it never ends"

    outcome = run(
        tmp_path, budget, space=replace(SPACE, axes=axes), plan=TrunkPlanner(full_updates=FULL),
        make=MakeLearns(tmp_path), sampler="growth", branches=True, full_updates=FULL, on_event=hear,
    )  # fmt: skip
    assert outcome.ended == "exhausted"
    assert outcome.charged > budget / 2, "over half of the budget, after which branches are left alone"
    assert {record.trial for record in outcome.records if record.sibling_of is not None}, "some were taken"


def test_a_study_that_is_made_longer_trains_on_what_it_has(tmp_path: Path) -> None:
    alike = replace(SPACE, axes=(*SPACE.axes[:-1], NamedAxis(name="training.steps", axis=Choice(values=(240,)))))
    run(tmp_path, 6, space=alike, plan=FakePlanner(), make=MakeLearns(tmp_path), sampler="growth")
    brief = RecordStore(tmp_path).all()
    assert {record.candidate.recipe.steps for record in brief} == {240} and pareto_front(brief)
    left = replace(brief[-1].candidate, scaling=replace(brief[-1].candidate.scaling, width=WIDEST, resolution=1.5))
    with opened_study(tmp_path, url="") as opened:
        opened.study.enqueue_trial(trial_parameters(left, alike))
        suggest(opened.study.ask(), alike)
    RecordStore(tmp_path).make_longer(FULL)
    records = search(tmp_path, 4)
    assert records[len(brief)].candidate == left, "a trial that was left behind has the length that it had"
    assert [record.candidate for record in records[: len(brief)]] == [record.candidate for record in brief]
    assert all(record.trained_in_part for record in records[: len(brief)] if record.state == "complete")
    assert sum(record.charge for record in records) == pytest.approx(4, abs=0.5)
    known = {at(record.candidate, FULL) for record in brief}
    longer = [record for record in records[len(brief) :] if record.candidate in known and record.charged]
    assert longer and all(record.charge < 1 for record in longer), "their trunks are trained on"
    front = pareto_front(records)
    assert front and all(record.candidate.recipe.steps == FULL for record in front)


def test_a_trial_left_behind_keeps_its_length_where_it_is_asked_otherwise_by_now(tmp_path: Path) -> None:
    def lengths(*steps: int) -> Lengths:
        space = replace(SPACE, axes=(*SPACE.axes[:-1], NamedAxis(name="training.steps", axis=Choice(values=steps))))
        ledger = Ledger(tmp_path, budget=2)
        return Lengths(space, ledger, full_updates=steps[-1], workers=1, time=TimeLimit(0.0))

    assert lengths(240, 960).left({"training.steps": 960}) == {"training.steps": 240}, "its own value comes first"
    assert lengths(240, 960).left({}) == {"training.steps": 240}, "from before there were several"
    assert lengths(240, 960, 1920).left({"training.steps": 960}) == {"training.steps.index": 1}
    assert lengths(240, 960, 1920).left({"scaling.width": 1.0}) == {"training.steps.index": 0}
    assert lengths(240, 960, 1680).left({"training.steps.index": 1}) == {"training.steps": 960}


def test_without_lengths_nothing_is_given(tmp_path: Path) -> None:
    alike = Lengths(SPACE, Ledger(tmp_path, budget=8), full_updates=0, workers=1, time=TimeLimit(1.0))
    assert (alike.all, alike.full_updates, alike.given, alike.shortest) == ((), 0, 0, {})
    assert alike.beginning() is None
    assert alike.trials(8) == 8
    assert not alike.half_spent


def test_no_other_sampler_takes_over_for_none_chooses_among_lengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalesearch.values.settings.MANY_TRIALS", 4)
    heard = list[Event]()
    outcome = run(
        tmp_path, 4, space=SPACE, plan=FakePlanner(full_updates=FULL), make=MakeLearns(tmp_path), sampler="growth",
        full_updates=FULL, gives_way=True, on_event=heard.append,
    )  # fmt: skip
    assert len(outcome.records) > 5
    assert not any(isinstance(event, SamplerChanged) for event in heard)
