"""Confirming: the coordinator with made-up trainings, and (slow) the whole on tiny work, killed and resumed."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from colours import colour_file, colour_space
from confirm_fakes import FakePlanner, FakeTiming, FakeTraining, MakeRecord, use_fakes, write_study
from torch import nn

from scalesearch.chain.planner import Planner
from scalesearch.cli.export import export_trial
from scalesearch.config import load_run
from scalesearch.confirm import training as confirm_training
from scalesearch.confirm.front import confirm_front
from scalesearch.confirm.jobs import fresh_seeds, jobs_of
from scalesearch.confirm.request import ConfirmRequest
from scalesearch.confirm.timing import Entry, TimingLost, time_together
from scalesearch.confirm.training import Job, train_jobs
from scalesearch.data import Dataset
from scalesearch.errors import ConfigError, NoFeasibleTrialError, StageFailed
from scalesearch.execution.worker import Rivals
from scalesearch.folder_lock import hold_folder
from scalesearch.records.confirmed import (
    as_confirmed,
    confirmed_model_path,
    confirmed_path,
    first_runs,
    read_confirmed,
    work_folder,
    write_confirmed,
)
from scalesearch.records.run_file import read_run_file, stored_session, write_run_file
from scalesearch.records.store import RecordStore
from scalesearch.study.contents import read_contents
from scalesearch.study.run import run_search
from scalesearch.training.state import TrainingState
from scalesearch.training.weights import KeptTraining, WeightStore
from scalesearch.values.candidate import Candidate, Pruning, Recipe
from scalesearch.values.identity import content_hash
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.plan import Plan
from scalesearch.values.record import TrialRecord
from scalesearch.values.session import Session
from scalesearch.values.space import Limits
from scalesearch.values.training_length import FULL_LENGTH, FULL_LENGTH_OF_LENGTHS, full_length
from scalesearch.views.brief_bias import correction_lines


@pytest.fixture
def study(tmp_path: Path, session: Session, make_record: MakeRecord) -> Path:
    return write_study(tmp_path, session, make_record)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeTraining, FakeTiming]:
    return use_fakes(monkeypatch)


def everything(folder: Path) -> dict[str, bytes]:
    """Content of every file of the study itself."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if "confirmed" not in path.relative_to(folder).parts[0]}


def test_every_member_is_trained_from_every_seed_and_the_study_stays_as_it_is(
    study: Path, fakes: tuple[FakeTraining, FakeTiming]
) -> None:
    before = everything(study)
    outcome = confirm_front(study, ConfirmRequest(steps=30))
    training, timing = fakes
    session = read_run_file(study)
    assert session
    one, other = fresh_seeds(session, 2)
    assert training.asked == [(trial, seed) for seed in (one, other) for trial in (0, 1, 2)]
    assert timing.sessions == [(0, 1, 2)]
    assert (outcome.ended, outcome.done, outcome.asked, outcome.lost) == ("complete", 6, 6, ())
    assert outcome.confirmation
    assert [move.latency.p50_ms for move in outcome.confirmation.moves] == [0.5, 1.0, 2.0]
    assert all(move.timed_together and move.seeds == 2 for move in outcome.confirmation.moves)
    assert everything(study) == before


def test_a_member_is_confirmed_whatever_the_limits_of_the_search(
    study: Path, fakes: tuple[FakeTraining, FakeTiming]
) -> None:
    """With a limit of latency, each network would be timed untrained, and one near the limit might be rejected."""
    session = read_run_file(study)
    assert session
    limits = Limits(max_macs=1, max_size_bytes=1, max_latency_ms=4.0)
    write_run_file(replace(session, space=replace(session.space, limits=limits)))
    assert confirm_front(study, ConfirmRequest(steps=30)).done == 6
    assert [work.space for work in fakes[0].sessions] == [replace(session.space, limits=Limits())]
    kept = read_run_file(study)
    assert kept and kept.space.limits == limits


def test_the_same_call_adds_nothing_and_more_seeds_add_theirs(
    study: Path, fakes: tuple[FakeTraining, FakeTiming]
) -> None:
    training, timing = fakes
    first = confirm_front(study, ConfirmRequest(steps=30))
    again = confirm_front(study, ConfirmRequest(steps=30))
    assert len(training.asked) == 6 and len(timing.sessions) == 1
    assert again.confirmation == first.confirmation
    confirm_front(study, ConfirmRequest(steps=30, seeds=3))
    assert len(training.asked) == 9 and len(timing.sessions) == 1
    confirmed_model_path(study, *training.asked[0]).unlink()
    confirm_front(study, ConfirmRequest(steps=30))
    assert training.asked[9:] == training.asked[:1]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("inside", ["", "confirmed"])
def test_beside_a_run_or_another_confirmation_it_is_refused_and_nothing_is_touched(
    study: Path, fakes: tuple[FakeTraining, FakeTiming], fresh: bool, inside: str
) -> None:
    confirm_front(study, ConfirmRequest(steps=30))
    with hold_folder(study / inside, "run"):
        before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
        with pytest.raises(ConfigError, match=rf"(?s)another run \(process {os.getpid()}\) works on .*Wait"):
            confirm_front(study, ConfirmRequest(steps=30), fresh=fresh)
        assert {path: path.read_bytes() for path in study.rglob("*") if path.is_file()} == before
    assert confirm_front(study, ConfirmRequest(steps=30), fresh=fresh).done == 6
    assert (study / "confirmed.old1").is_dir() == fresh


def test_a_stopped_one_goes_on(study: Path, fakes: tuple[FakeTraining, FakeTiming]) -> None:
    training, timing = fakes
    training.stop_after = 2
    outcome = confirm_front(study, ConfirmRequest(steps=30))
    assert (outcome.ended, outcome.done, outcome.confirmation) == ("interrupted", 2, None)
    assert timing.sessions == []
    training.stop_after = 1000
    assert confirm_front(study, ConfirmRequest(steps=30)).done == 6
    assert len(training.asked) == len(set(training.asked)) == 6


def test_a_lost_run_costs_itself_and_is_tried_again(study: Path, fakes: tuple[FakeTraining, FakeTiming]) -> None:
    training, timing = fakes
    training.lose = {1}
    said = list[str]()
    outcome = confirm_front(study, ConfirmRequest(steps=30), say=said.append)
    assert [(lost.trial, lost.reason) for lost in outcome.lost] == [(1, "train: killed")] * 2
    assert any("trial 1, seed 1 of 2: lost, train: killed" in line for line in said)
    assert outcome.confirmation and [move.record.trial for move in outcome.confirmation.moves] == [0, 2]
    document = json.loads((study / "confirmed" / "confirmed.json").read_text())
    assert [each["trial"] for each in document["lost"]] == [1, 1]
    training.lose = set()
    whole = confirm_front(study, ConfirmRequest(steps=30))
    assert whole.done == 6 and not whole.lost
    assert timing.sessions == [(0, 2), (0, 1, 2)]  # one session for all that are compared


def test_nothing_confirmed_is_no_table(study: Path, fakes: tuple[FakeTraining, FakeTiming]) -> None:
    fakes[0].lose = {0, 1, 2}
    outcome = confirm_front(study, ConfirmRequest(steps=30))
    assert outcome.ended == "complete" and outcome.confirmation is None and len(outcome.lost) == 6
    assert not (study / "confirmed" / "confirmed.csv").exists()


def test_without_the_timing_session_the_latencies_of_each_alone_remain(
    study: Path, fakes: tuple[FakeTraining, FakeTiming]
) -> None:
    fakes[1].lost = "its process died (code -11)"
    outcome = confirm_front(study, ConfirmRequest(steps=30))
    assert outcome.timing_lost == "its process died (code -11)"
    assert outcome.confirmation
    assert [(move.latency.p50_ms, move.timed_together) for move in outcome.confirmation.moves] == [
        (1.0, False), (2.0, False), (4.0, False),
    ]  # fmt: skip


def test_another_length_is_refused_unless_started_anew(study: Path, fakes: tuple[FakeTraining, FakeTiming]) -> None:
    confirm_front(study, ConfirmRequest(steps=30))
    kept = read_confirmed(study)
    with pytest.raises(ConfigError, match="trained for 30 steps") as caught:
        confirm_front(study, ConfirmRequest(steps=40))
    assert "--fresh" in str(caught.value) and len(str(caught.value).splitlines()) <= 3
    assert read_confirmed(study) == kept
    confirm_front(study, ConfirmRequest(steps=40), fresh=True)
    assert {run.steps for run in read_confirmed(study)} == {40}
    assert len(list((study / "confirmed.old1").glob("trial_*.json"))) == 6


class TrunkPlanner(FakePlanner):
    """The planner, with one trunk for each seed."""

    def plan_spec(self, spec: NetworkSpec, candidate: Candidate, *, cut_from: NetworkSpec | None) -> Plan:
        plan = super().plan_spec(spec, candidate, cut_from=cut_from)
        return replace(plan, trunk_key=content_hash("trunk", self._seed))


def test_started_anew_in_another_length_it_goes_on_from_the_trunks_of_its_seeds(
    study: Path, fakes: tuple[FakeTraining, FakeTiming], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalesearch.confirm.jobs.Planner", TrunkPlanner)
    first, _ = fresh_seeds(stored_session(study), 2)
    key, work, said = content_hash("trunk", first), work_folder(study), list[str]()
    kept = KeptTraining(float_score=0.0, train_s=1.0, final_loss=0.5, losses=(), steps=20, safe_recipe_used=False)
    state = TrainingState(moments={}, batches={"order": torch.arange(3)}, random={})
    confirm_front(study, ConfirmRequest(steps=30))
    for steps in (20, 200):
        WeightStore(work / "weights").save_trunk(key, nn.Linear(2, 2), replace(kept, steps=steps), state)
    confirm_front(study, ConfirmRequest(steps=60), fresh=True, say=said.append)
    assert "trunks: 1 of 2 go on from those of the same seeds in confirmed.old1" in said
    laid = [path.name for path in (work / "weights").iterdir()]
    assert laid == [f"{key}-20.safetensors"], "of 60 updates, 40 are the trunk's"
    assert len(list((study / "confirmed.old1" / "work" / "weights").iterdir())) == 2


def test_another_length_than_that_of_a_trial_that_is_not_asked_for_is_refused(
    study: Path, fakes: tuple[FakeTraining, FakeTiming], make_record: MakeRecord
) -> None:
    store = RecordStore(study)
    confirm_front(study, ConfirmRequest(top=1, steps=30))
    assert {run.trial for run in read_confirmed(study)} == {1}
    device = store.load(0).device
    for trial, p50_ms in ((4, 0.1), (5, 0.2)):  # the run goes on, and the knee moves
        store.save(make_record(trial, top1=0.79 + 0.001 * trial, p50_ms=p50_ms, device=device))
    asked = len(fakes[0].asked)
    with pytest.raises(ConfigError, match="trial 1 trained for 30 steps, and 40 are asked for") as caught:
        confirm_front(study, ConfirmRequest(top=1, steps=40))
    assert "Give --steps 30 to go on with it, or give --fresh" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3 and len(fakes[0].asked) == asked
    assert confirm_front(study, ConfirmRequest(top=1, steps=30)).ended == "complete"
    assert {run.trial for run in read_confirmed(study)} > {1}


def test_unlike_lengths_of_an_earlier_version_are_not_compared_and_can_be_parted(
    study: Path, fakes: tuple[FakeTraining, FakeTiming]
) -> None:
    confirm_front(study, ConfirmRequest(steps=40))
    shorter = [replace(run, steps=30) for run in read_confirmed(study) if run.trial == 0]
    for run in shorter:
        write_confirmed(study, run)
    contents = read_contents(study)
    assert contents.confirmation and [move.record.trial for move in contents.confirmation.moves] == [1, 2]
    assert contents.confirmation.left_out == tuple(shorter)
    assert contents.correction
    lines = [*correction_lines(contents.confirmation, contents.correction, command="")]
    assert lines[0].startswith("left out of the confirmed front: trial 0 trained for 30 steps, unlike most members")
    with pytest.raises(ConfigError, match=r"trial 0 trained for 30 steps, and 40 are .*\nRemove those files") as caught:
        confirm_front(study, ConfirmRequest(steps=40))
    assert confirmed_path(study, 0, shorter[0].seed).name in str(caught.value)
    for run in shorter:
        confirmed_path(study, run.trial, run.seed).unlink()
    outcome = confirm_front(study, ConfirmRequest(steps=40))
    assert outcome.done == 6 and outcome.confirmation and not outcome.confirmation.left_out


def test_two_timing_sessions_are_told_and_one_that_held_more_is_enough(
    study: Path, fakes: tuple[FakeTraining, FakeTiming]
) -> None:
    _, timing = fakes
    confirm_front(study, ConfirmRequest(steps=30))
    confirm_front(study, ConfirmRequest(steps=30, top=2))
    assert timing.sessions == [(0, 1, 2)]
    for run in read_confirmed(study):  # as earlier versions timed the two anew
        if run.timed_together and run.trial in (1, 2):
            write_confirmed(study, replace(run, timed_together=(1, 2)))
    found = read_contents(study).confirmation
    assert found and {move.record.trial: move.timed_together for move in found.moves} == {0: False, 1: True, 2: True}
    confirm_front(study, ConfirmRequest(steps=30))
    assert timing.sessions == [(0, 1, 2)] * 2
    found = read_contents(study).confirmation
    assert found and all(move.timed_together for move in found.moves)


def test_another_device_other_images_and_no_place_are_refused(
    study: Path, fakes: tuple[FakeTraining, FakeTiming]
) -> None:
    session = read_run_file(study)
    assert session
    write_run_file(replace(session, device=replace(session.device, backend_version="0.1")))
    with pytest.raises(ConfigError, match=r"measured on .*0\.1"):
        confirm_front(study)
    write_run_file(replace(session, data=replace(session.data, fingerprint="f" * 64)))
    with pytest.raises(ConfigError, match="fingerprint was ffffffffffff, is"):
        confirm_front(study)
    write_run_file(session)
    (study / "confirmed").rename(study / "away")
    (study / "confirmed").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match="Cannot write to"):
        confirm_front(study)
    assert fakes[0].asked == []


def test_a_reference_that_was_replaced_is_refused_and_a_lost_one_is_built_again(
    study: Path, fakes: tuple[FakeTraining, FakeTiming], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study's latencies are relative to it: twice as slow a reference halves every later one."""
    session = read_run_file(study)
    assert session
    known = hashlib.sha256(b"reference").hexdigest()
    write_run_file(replace(session, reference_sha256=known))
    (study / "reference.onnx").write_bytes(b"another")
    with pytest.raises(ConfigError, match=r"reference\.onnx is not the file .* was expected") as caught:
        confirm_front(study, ConfirmRequest(steps=30))
    assert "delete this one" in str(caught.value) and len(str(caught.value).splitlines()) <= 3
    assert not (study / "confirmed").exists() and fakes[0].asked == []

    def build(session: Session, dataset: Dataset, *, to: Path) -> Path:
        to.write_bytes(b"reference")
        return to

    monkeypatch.setattr("scalesearch.confirm.setup.rebuild_reference", build)
    (study / "reference.onnx").unlink()
    assert confirm_front(study, ConfirmRequest(steps=30)).ended == "complete"
    assert (study / "confirmed" / "work" / "reference.onnx").read_bytes() == b"reference"
    assert not (study / "reference.onnx").exists(), "nothing of the study itself is written"


def test_a_copy_of_a_run_under_another_name_is_no_further_seed(
    study: Path, fakes: tuple[FakeTraining, FakeTiming]
) -> None:
    confirm_front(study, ConfirmRequest(steps=30))
    run = read_confirmed(study)[0]
    path, copy = (confirmed_path(study, run.trial, seed) for seed in (run.seed, 1))
    copy.write_bytes(path.read_bytes())
    with pytest.raises(ConfigError, match=f"{copy.name} holds trial {run.trial}, seed {run.seed}: its name says"):
        read_confirmed(study)
    copy.unlink()
    assert run in read_confirmed(study)


def test_a_confirmed_model_that_was_replaced_is_refused_and_a_deleted_one_is_trained_again(
    study: Path, fakes: tuple[FakeTraining, FakeTiming]
) -> None:
    first = confirm_front(study, ConfirmRequest(steps=30))
    kept = read_confirmed(study)[0]
    model = confirmed_model_path(study, kept.trial, kept.seed)
    model.write_bytes(b"a model of somebody else")
    with pytest.raises(ConfigError, match=f"{model.name} is not the file that was confirmed"):
        confirm_front(study, ConfirmRequest(steps=30))
    asked = len(fakes[0].asked)
    model.unlink()
    assert confirm_front(study, ConfirmRequest(steps=30)).done == first.done
    assert fakes[0].asked[asked:] == [(kept.trial, kept.seed)]


def test_a_moved_data_set_is_found_by_its_fingerprint(
    study: Path, fakes: tuple[FakeTraining, FakeTiming], tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere.npz"
    (tmp_path / "colours.npz").rename(moved)
    with pytest.raises(ConfigError, match=r"are gone: it was run with --data '.*colours\.npz'.*\n.*--data PATH"):
        confirm_front(study, ConfirmRequest(steps=30))
    assert fakes[0].asked == []
    assert confirm_front(study, ConfirmRequest(steps=30), data=str(moved)).ended == "complete"


def test_bad_numbers_are_told_before_anything_is_made(study: Path) -> None:
    with pytest.raises(ConfigError, match="--seeds 0"):
        confirm_front(study, ConfirmRequest(seeds=0))
    assert not (study / "confirmed").exists()


def test_no_front_is_told(study: Path, make_record: MakeRecord) -> None:
    for trial in range(4):
        RecordStore(study).save(make_record(trial, top1=None))
    with pytest.raises(NoFeasibleTrialError, match="no feasible trial"):
        confirm_front(study)


def test_seeds_are_fresh_and_always_the_same(session: Session) -> None:
    seeds = fresh_seeds(session, 20)
    assert len(set(seeds)) == 20 and session.settings.seed not in seeds
    assert fresh_seeds(session, 5) == seeds[:5]
    # even where the rule would hit on the search's own seed
    hit = replace(session, settings=replace(session.settings, seed=seeds[0]))
    assert hit.settings.seed not in fresh_seeds(hit, 20)
    other = replace(session, settings=replace(session.settings, seed=1))
    assert not set(fresh_seeds(other, 20)) & set(seeds)


def test_what_was_cut_from_a_larger_trunk_is_cut_from_it_at_full_length(
    session: Session, make_record: MakeRecord, fakes: tuple[FakeTraining, FakeTiming]
) -> None:
    record = make_record(1)
    wide = replace(record.spec, stem=replace(record.spec.stem, channels=32))
    jobs = jobs_of(session, (record, replace(record, cut_from=wide)), ConfirmRequest(seeds=2))
    assert [job.plan.cut_from for job in jobs] == [None, wide, None, wide]


def test_where_lengths_were_unlike_full_length_is_four_times_the_greatest(
    study: Path, fakes: tuple[FakeTraining, FakeTiming]
) -> None:
    store = RecordStore(study)
    for record in store.all():
        store.save(replace(record, full_updates=record.candidate.recipe.steps))
    off_front = 3
    confirm_front(study, ConfirmRequest(seeds=1, also=(off_front,)))
    steps = FULL_LENGTH_OF_LENGTHS * Recipe().steps
    assert {run.steps for run in read_confirmed(study)} == {steps}
    # The one that was added stays without being named again: the length is still the default.
    asked = len(fakes[0].asked)
    outcome = confirm_front(study, ConfirmRequest(seeds=1))
    assert len(fakes[0].asked) == asked
    assert outcome.confirmation
    assert [move.record.trial for move in outcome.confirmation.moves if move.added] == [off_front]


def test_full_length_is_a_multiple_steps_or_passes() -> None:
    brief = Recipe(steps=100, retrain_steps=20, batch_size=64)
    full, asked = full_length(brief, full_updates=0), full_length(brief, full_updates=0, steps=50)
    assert (full.steps, full.retrain_steps) == (100 * FULL_LENGTH, 20 * FULL_LENGTH)
    assert (asked.steps, asked.retrain_steps) == (50, 10)
    # three passes over 1000 images in batches of 64: 46.9 updates
    assert full_length(brief, full_updates=0, epochs=3, train_images=1000).steps == 47


class DyingEvaluator:
    """Trial 0 fails in a stage, trial 1 takes its process along, the others are their own result."""

    def __init__(self, session: Session, study: Path, jobs: Sequence[Job]) -> None:
        self._jobs = jobs

    def evaluate(self, plan: Plan, *, trial: int, report: Callable[[str], None], rivals: Rivals = ()) -> TrialRecord:
        record = next(job.record for job in self._jobs if job.number == trial)
        report("train")
        if record.trial == 0:
            raise StageFailed("train", "loss is not finite")
        if record.trial == 1:
            os._exit(7)
        return record


@pytest.mark.slow
def test_a_dead_worker_costs_its_own_job(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirm_training, "ConfirmingEvaluator", DyingEvaluator)
    session = read_run_file(study)
    assert session
    planner = Planner(session)
    jobs = [
        Job(
            number=n,
            record=record,
            seed=5,
            seed_place=1,
            plan=planner.plan_spec(record.spec, record.candidate, cut_from=None),
        )
        for n, record in enumerate(each.measured for each in RecordStore(study).all())
        if record
    ]
    ends: dict[int, object] = {}
    stopped = threading.Event()
    lost = train_jobs(
        session, study, jobs, stopped=stopped, on_end=lambda job, end: ends.update({job.record.trial: end})
    )
    assert {each.trial: each.reason.partition(";")[0] for each in lost} == {
        0: "train: loss is not finite",
        1: "train: worker process exited with code 7",
    }
    assert [ends[2], ends[3]] == [jobs[2].record, jobs[3].record]
    stopped.set()
    assert train_jobs(session, study, jobs, stopped=stopped, on_end=lambda *_: pytest.fail("nothing was begun")) == ()


@pytest.mark.slow
def test_a_timing_process_that_cannot_open_its_engines_says_why(study: Path) -> None:
    session = read_run_file(study)
    assert session
    entries = [Entry(trial=0, model=study / "reference.onnx", pruning=Pruning())]
    answer = time_together(session, entries, stopped=threading.Event())
    assert isinstance(answer, TimingLost) and "reference.onnx" in answer.reason
    stopped = threading.Event()
    stopped.set()
    assert time_together(session, entries, stopped=stopped) is None


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_a_confirmed_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = tmp_path / "tiny.toml"
    space.write_text(colour_space("[0.25, 0.5, 1.0]"))
    folder = tmp_path / "tiny"
    settings, search_space = load_run(
        space=str(space),
        overrides=("latency.max_s=0.3", "latency.warmup_s=0.02", "machine.threads=1", "machine.bf16=off"),
        flags={"data.source": str(colour_file(tmp_path / "colours.npz")), "budget": 3, "siblings": False},
    )
    front = run_search(settings, search_space, folder).front
    before = everything(folder)
    command = (sys.executable, "-m", "scalesearch", "confirm", str(folder), "--steps", "40", "--seeds", "2")
    for number in (signal.SIGKILL, signal.SIGINT):
        done = len(read_confirmed(folder))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        until = time.monotonic() + 120
        while len(read_confirmed(folder)) == done and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(number)
        out, _ = process.communicate(timeout=120)
        if number == signal.SIGINT and process.returncode != 0:  # 0: it was done before the signal came
            assert process.returncode == 130, out
            assert "the same command goes on" in out
    kept = {run.seed: run.onnx_sha256 for run in read_confirmed(folder) if run.trial == front[0].trial}
    last = subprocess.run(command, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    runs = read_confirmed(folder)
    assert len(runs) == 2 * len(front)
    assert {run.seed: run.onnx_sha256 for run in runs if run.trial == front[0].trial} | kept == {
        run.seed: run.onnx_sha256 for run in runs if run.trial == front[0].trial
    }
    for record in front:
        own = [run for run in runs if run.trial == record.trial]
        assert own[0].onnx_sha256 != own[1].onnx_sha256  # another seed is another network, of the same shape
        assert {run.network_sha256 for run in own} == {record.network_sha256}
        assert {run.cost for run in own} == {record.cost}
        assert all(run.test.images == 60 and run.validation.images == 90 for run in own)
        together = [run for run in own if run.timed_together]
        assert len(together) == 1 and len(together[0].latency_rounds) == 2
    assert {run.timed_together for run in runs if run.timed_together} == {tuple(r.trial for r in front)}
    for name in ("confirmed.csv", "confirmed.json", "confirmed.png"):
        assert (folder / "confirmed" / name).stat().st_size > 0
    assert "written:" in last.stdout and everything(folder) == before
    monkeypatch.setattr("scalesearch.chain.trainer.train", lambda *_, **__: pytest.fail("the weights are kept"))
    session = stored_session(folder)
    for record in front:
        run = first_runs(folder)[record.trial]
        notes = export_trial(as_confirmed(record, run), session, tmp_path / f"best{record.trial}", run=run)
        assert notes == (), "weights.safetensors are those that the confirmed file was quantized from"
