"""The sections on what was found: which doubts are told, and in how many lines."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scalesearch.records.run_file import write_run_file
from scalesearch.records.store import RecordStore
from scalesearch.report.front_sections import answer, warning_lines
from scalesearch.search.fates import given_up_on, repeat
from scalesearch.search.storage import STUDY_FILE
from scalesearch.study.contents import read_contents
from scalesearch.values.candidate import Pruning
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.settings import SamplerName
from scalesearch.values.space import Choice, NamedAxis

MakeRecord = Callable[..., MeasuredTrial]


def test_unsettled_latencies_are_one_line_that_names_the_trials_and_hide_no_other_warning(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    store = RecordStore(tmp_path)
    store.save(make_record(0, top1=0.9, p50_ms=1.0))
    for trial in range(1, 26):  # each with numbers of its own
        record = make_record(trial, top1=0.5, p50_ms=1.0 + trial)
        latency = replace(record.latency, stable=False, calm_fraction=trial / 100)
        store.save(replace(record, latency=latency, warnings=(latency.why_unstable,)))
    store.save(make_record(26, top1=0.5, p50_ms=30.0, warnings=("the kernel is not the one that was asked for",)))
    lines = list(warning_lines(read_contents(tmp_path)))
    told = [line for line in lines if "did not settle" in line]
    named = ", ".join(map(str, range(1, 21)))
    assert len(told) == 1
    assert "Unstable latency: 25 trials did not settle" in told[0]
    assert told[0].endswith(f"disturbed): {named} and 5 more; none of them on the front.")
    assert "the kernel is not the one that was asked for (1 trial)" in lines
    assert not any("more kinds of warning" in line for line in lines)


def test_what_repeats_another_trial_is_not_counted_with_it(tmp_path: Path, make_record: MakeRecord) -> None:
    store, one = RecordStore(tmp_path), make_record(5)
    latency = replace(one.latency, stable=False, calm_fraction=0.5)
    one = replace(one, latency=latency, warnings=(latency.why_unstable, "few images"))
    for trial, same_as in ((5, None), (9, 5), (12, 5)):
        store.save(replace(one, trial=trial, same_as=same_as, state="cached" if same_as else "complete"))
    lines = list(warning_lines(read_contents(tmp_path)))
    assert [line for line in lines if "1 trial did not settle" in line and "disturbed): 5; on the front" in line]
    assert "few images (1 trial)" in lines


def test_failures_are_told_by_stage_whatever_their_reasons_begin_with(tmp_path: Path, make_record: MakeRecord) -> None:
    store, failed = RecordStore(tmp_path), make_record(0, top1=None, reason="train: the loss is not finite")
    again = repeat(failed, 1, failed.candidate)
    left, bug = given_up_on(3, failed.candidate), replace(failed, trial=4, reason="bug: KeyError")
    for record in (failed, again, repeat(again, 2, failed.candidate), left, bug):
        store.save(record)
    told = [line for line in warning_lines(read_contents(tmp_path)) if "failed" in line]
    assert told == ["5 of 5 trials failed (3 in train, 1 not gone on with after a kill, 1 by a bug)."]


def test_an_unsettled_member_of_the_front_is_named_as_one(tmp_path: Path, make_record: MakeRecord) -> None:
    member = make_record(3)
    RecordStore(tmp_path).save(replace(member, latency=replace(member.latency, stable=False)))
    told = next(line for line in warning_lines(read_contents(tmp_path)) if "did not settle" in line)
    assert told.endswith(
        "1 trial did not settle in time (too wide an interval, or the machine was disturbed): 3; on the front: 3."
    )


@pytest.mark.parametrize(
    ("sampler", "branches", "why"),
    [("growth", False, "With the sampler growth,"), ("tpe", True, "With branches = true,"), ("tpe", False, "")],
)
def test_a_start_drawn_uncut_is_no_random_search_of_the_whole_space(
    sampler: SamplerName, branches: bool, why: str, tmp_path: Path, session: Session, make_record: MakeRecord
) -> None:
    cuts = NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.0, 0.25)))
    settings = replace(session.settings, sampler=sampler, branches=branches)
    space = replace(session.space, axes=(cuts,))
    write_run_file(replace(session, settings=settings, space=space, samplers=(sampler,)))
    (tmp_path / STUDY_FILE).touch()
    store = RecordStore(tmp_path)
    for trial in range(7):
        record = make_record(trial, top1=0.4 + trial / 50, p50_ms=1.0 + trial)
        cut = Pruning(channel_fraction=0.25 if trial > 3 else 0.0)
        store.save(replace(record, candidate=replace(record.candidate, pruning=cut)))
    told = answer(read_contents(tmp_path))
    assert "drawn by chance" in told
    if why:
        assert why in told
        drawn = "3 of the 5 have none" if sampler == "growth" else "3 of the 6 have none"
        assert drawn in told
    else:
        assert "without cut channels" not in told
    for stored in store.all():  # drawn by another sampler, before this one was asked for
        store.save(replace(stored, candidate=replace(stored.candidate, pruning=Pruning(channel_fraction=0.25))))
    assert "without cut channels" not in answer(read_contents(tmp_path))


@pytest.mark.parametrize(
    ("samplers", "drawn"), [(("tpe",), 9), (("tpe", "random"), 9), (("tpe", "growth"), 5), (("random",), 0), ((), 0)]
)
def test_the_line_of_chance_is_drawn_where_it_is_known_who_chose_the_candidates(
    samplers: tuple[SamplerName, ...], drawn: int, tmp_path: Path, session: Session, make_record: MakeRecord
) -> None:
    last = replace(session.settings, sampler=samplers[-1] if samplers else "tpe")
    write_run_file(replace(session, settings=last, samplers=samplers, space=replace(session.space, axes=())))
    (tmp_path / STUDY_FILE).touch()
    for trial in range(15):
        RecordStore(tmp_path).save(make_record(trial, top1=0.4 + trial / 50, p50_ms=1.0 + trial))
    study = read_contents(tmp_path)
    told = answer(study)
    assert study.chance_trials == drawn and bool(study.chance) == (drawn > 0)
    assert (f"front of the {drawn} candidates that were drawn by chance before" in told) == (drawn > 0)
    assert ("the whole study was drawn by chance" in told) == (samplers == ("random",))
    (tmp_path / STUDY_FILE).unlink()  # as after evaluations by hand: no sampler chose anything
    assert "chance" not in answer(read_contents(tmp_path))
