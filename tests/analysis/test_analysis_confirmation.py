"""What is read off confirmed runs, against formulas, scipy and the search's own front."""

import csv
import io
import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import spearmanr

from scalesearch.analysis.confirmation import confirm_moves
from scalesearch.analysis.confirmed_latency import mean_latency
from scalesearch.analysis.front import pareto_front
from scalesearch.analysis.likely_members import correct
from scalesearch.confirm.files import write_confirmation
from scalesearch.errors import ConfigError
from scalesearch.records.confirmed import confirmed_hint, confirmed_path, read_confirmed, write_confirmed
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.quality import Quality
from scalesearch.values.record import FrontScore, MeasuredTrial
from scalesearch.values.session import Session

MakeRecord = Callable[..., MeasuredTrial]
MakeRun = Callable[..., ConfirmedRun]


@pytest.fixture
def make_run(make_record: MakeRecord) -> MakeRun:
    """A run of that trial and seed: validation top-1, test top-1 and latency are what is given."""

    def make(trial: int, seed: int, top1: float, *, test: float = 0.5, p50_ms: float = 1.0) -> ConfirmedRun:
        seen, unseen = make_record(trial, top1=top1, p50_ms=p50_ms), make_record(trial, top1=test)
        assert seen.quality and unseen.quality and seen.latency
        return ConfirmedRun(
            trial=trial,
            seed=seed,
            steps=2400,
            train_s=60.0,
            float_score=top1,
            validation=seen.quality,
            test=unseen.quality,
            latency=seen.latency,
            size_bytes=1000,
            onnx_sha256="0" * 64,
            network_sha256="1" * 64,
        )

    return make


def test_the_front_now_is_the_one_that_the_search_would_find(make_record: MakeRecord, make_run: MakeRun) -> None:
    rng = random.Random(3)
    front = [make_record(trial, top1=0.5 + 0.02 * trial, p50_ms=1.0 + trial) for trial in range(12)]
    now = {r.trial: (round(rng.uniform(0.6, 0.9), 3), round(rng.uniform(1, 9), 3)) for r in front}
    runs = [make_run(trial, 7, top1, p50_ms=p50_ms) for trial, (top1, p50_ms) in now.items()]
    found = confirm_moves(front, runs)
    assert found
    oracle = pareto_front(make_record(trial, top1=top1, p50_ms=p50_ms) for trial, (top1, p50_ms) in now.items())
    assert [move.record.trial for move in found.moves if move.on_front] == [record.trial for record in oracle]
    for move in found.fallen:
        for other in move.beaten_by:
            assert now[other][0] >= now[move.record.trial][0] and now[other][1] <= now[move.record.trial][1]
    assert [move.latency.p50_ms for move in found.moves] == sorted(p50_ms for _, p50_ms in now.values())


def test_rank_agreement_is_scipys(make_record: MakeRecord, make_run: MakeRun) -> None:
    brief, full = [0.5, 0.6, 0.6, 0.7, 0.8, 0.9], [0.71, 0.70, 0.74, 0.74, 0.85, 0.8]
    front = [make_record(trial, top1=top1, p50_ms=1.0 + trial) for trial, top1 in enumerate(brief)]
    found = confirm_moves(front, [make_run(trial, 1, top1) for trial, top1 in enumerate(full)])
    assert found and found.ranks
    assert found.ranks.spearman == pytest.approx(spearmanr(brief, full).statistic)
    assert found.ranks.low <= found.ranks.spearman <= found.ranks.high
    two = confirm_moves(front[:2], [make_run(trial, 1, full[trial]) for trial in range(2)])
    assert two and two.ranks is None


def test_seeds_are_averaged_and_widen_the_interval(make_record: MakeRecord, make_run: MakeRun) -> None:
    front = [make_record(0, top1=0.6), make_record(1, top1=0.7, p50_ms=2.0)]
    runs = [make_run(0, 1, 0.80), make_run(0, 2, 0.84), make_run(1, 1, 0.90), make_run(1, 2, 0.90)]
    found = confirm_moves(front, runs)
    assert found
    first = next(move for move in found.moves if move.record.trial == 0)
    assert first.validation.score == pytest.approx(0.82)
    assert (first.validation.lowest, first.validation.highest) == (0.80, 0.84)
    # pooled over both members: two squares of 0.02 over two degrees of freedom; the images alone give 0.02
    seed_sd = math.sqrt(2 * 0.02**2 / 2)
    half = math.hypot(0.02, 1.959964 * seed_sd / math.sqrt(2))
    assert first.validation.high - first.validation.score == pytest.approx(half)
    one = confirm_moves(front, runs[::2])
    assert one and one.moves[0].validation.high - one.moves[0].validation.score == pytest.approx(0.02)


def test_the_winners_curse_is_what_the_splits_do_not_explain(make_record: MakeRecord, make_run: MakeRun) -> None:
    front = [make_record(trial, top1=0.7, p50_ms=1.0 + trial) for trial in range(3)]
    # in the search 10 points better than on test; trained anew 2, within the error of none;
    # the third has no test score of its brief file
    runs = [make_run(trial, 1, 0.8, test=0.78) for trial in range(3)]
    unseen = make_record(9, top1=0.6)
    assert unseen.quality and unseen.latency
    scores = [FrontScore(trial=trial, test=unseen.quality, latency=unseen.latency) for trial in (0, 1)]
    found = confirm_moves(front, runs, scores)
    assert found and found.brief_gap and found.full_gap and found.winners_curse is not None
    assert found.brief_gap.mean == pytest.approx(0.10) and found.brief_gap.members == 2
    assert found.full_gap.mean == pytest.approx(0.02) and found.full_gap.members == 3
    assert found.winners_curse == pytest.approx(0.08) and not found.splits_differ
    # 1000 images in either split
    assert found.brief_gap.half == pytest.approx(1.959964 * math.sqrt((0.7 * 0.3 + 0.6 * 0.4) / 1000))
    without = confirm_moves(front, runs)
    assert without and without.brief_gap is None and without.winners_curse is None and without.full_gap


def test_a_score_that_is_no_proportion_brings_its_own_error(make_record: MakeRecord, make_run: MakeRun) -> None:
    def own(quality: Quality, half: float) -> Quality:
        low, high = quality.score - half, quality.score + half
        return replace(quality, metric="closeness", score_low=low, score_high=high)

    front = [make_record(trial, top1=0.7, p50_ms=1.0 + trial) for trial in range(2)]
    runs = [make_run(trial, 1, 0.8, test=0.78) for trial in range(2)]
    binomial = confirm_moves(front, runs)
    runs = [replace(run, validation=own(run.validation, 0.003), test=own(run.test, 0.004)) for run in runs]
    found = confirm_moves(front, runs)
    assert binomial and binomial.full_gap and found and found.full_gap
    assert not binomial.splits_differ and found.splits_differ
    assert found.full_gap.half == pytest.approx(0.005)


def test_splits_that_differ_by_themselves_hide_the_curse(make_record: MakeRecord, make_run: MakeRun) -> None:
    front = [make_record(trial, top1=0.7, p50_ms=1.0 + trial) for trial in range(3)]
    unseen = make_record(9, top1=0.6)
    assert unseen.quality and unseen.latency
    scores = [FrontScore(trial=trial, test=unseen.quality, latency=unseen.latency) for trial in range(3)]
    found = confirm_moves(front, [make_run(trial, 1, 0.85, test=0.55) for trial in range(3)], scores)
    assert found and found.splits_differ and found.winners_curse is None
    assert found.brief_gap and found.brief_gap.mean == pytest.approx(0.1)


def test_overlapping_intervals_are_ties(make_record: MakeRecord, make_run: MakeRun) -> None:
    front = [make_record(trial, top1=0.6 + 0.1 * trial, p50_ms=1.0 + trial) for trial in range(3)]
    runs = [
        make_run(0, 1, 0.80, p50_ms=1.0),
        make_run(1, 1, 0.81, p50_ms=1.01),
        make_run(2, 1, 0.81, p50_ms=2.0),
    ]
    found = confirm_moves(front, runs)
    assert found
    assert {move.record.trial: move.ties for move in found.moves} == {0: (1,), 1: (0,), 2: ()}
    assert [move.record.trial for move in found.fallen] == [2]


def test_rounds_are_averaged_and_their_intervals_joined(make_record: MakeRecord) -> None:
    one, other = make_record(0, p50_ms=1.0).latency, make_record(0, p50_ms=1.2).latency
    assert one and other
    both = mean_latency([one, replace(other, stable=False)])
    assert both.p50_ms == pytest.approx(1.1)
    assert both.p50_low_ms == pytest.approx(0.99) and both.p50_high_ms == pytest.approx(1.2 * 1.01)
    assert both.runs == 800 and not both.stable and both.raw_min_ms == one.raw_min_ms


def test_a_member_without_a_run_is_left_out_and_strangers_are_passed_over(
    make_record: MakeRecord, make_run: MakeRun
) -> None:
    front = [make_record(0), make_record(1, p50_ms=2.0)]
    found = confirm_moves(front, [make_run(1, 1, 0.9), make_run(55, 1, 0.9)])
    assert found and [move.record.trial for move in found.moves] == [1]
    assert confirm_moves(front, [make_run(55, 1, 0.9)]) is None


def test_the_files_say_the_same_and_cannot_run_as_formulas(
    make_record: MakeRecord, make_run: MakeRun, session: Session
) -> None:
    front = [make_record(trial, top1=0.5 + 0.1 * trial, p50_ms=1.0 + trial) for trial in range(4)]
    runs = [make_run(trial, seed, 0.9 - 0.1 * trial, p50_ms=1.0 + trial) for trial in range(4) for seed in (1, 2)]
    found = confirm_moves(front, runs)
    assert found
    assert confirmed_hint(session.folder) == ""
    correction = correct(found, front, front)
    write_confirmation(session.folder, session, found, correction, runs=runs, lost=[(3, 9, "train: killed")])
    folder = session.folder / "confirmed"
    rows = list(csv.DictReader(io.StringIO((folder / "confirmed.csv").read_text())))
    document = json.loads((folder / "confirmed.json").read_text())
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"] == [str(m["trial"]) for m in document["members"]]
    assert [row["on_front"] for row in rows] == ["True", "False", "False", "False"]
    assert [row["added"] for row in rows] == ["False"] * 4
    assert document["brief_bias"] is None and document["likely_on_front"] == []  # all are of one network
    assert rows[3]["beaten_by"] == "0 1 2"
    assert float(rows[1]["val_top1"]) == pytest.approx(0.8)
    assert document["spearman"]["spearman"] == pytest.approx(-1)
    assert document["lost"] == [{"trial": 3, "seed": 9, "reason": "train: killed"}]
    assert len(document["runs"]) == 8
    assert (folder / "confirmed.png").read_bytes().startswith(b"\x89PNG")
    assert "confirmed.csv" in confirmed_hint(session.folder)


def test_runs_come_back_as_they_were_and_a_torn_one_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(3, 2, 0.7), make_run(3, 1, 0.8), make_run(1, 9, 0.6)]
    for run in runs:
        write_confirmed(tmp_path, replace(run, timed_together=(1, 3), latency_rounds=(run.latency, run.latency)))
    again = read_confirmed(tmp_path)
    assert [(run.trial, run.seed) for run in again] == [(1, 9), (3, 1), (3, 2)]
    assert again[0].timed_together == (1, 3) and again[0].latency_rounds[1] == runs[2].latency
    confirmed_path(tmp_path, 3, 1).write_text("{")
    with pytest.raises(ConfigError, match="trial_000003_seed_1"):
        read_confirmed(tmp_path)
