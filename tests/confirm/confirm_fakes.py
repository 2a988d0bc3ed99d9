"""Made-up trainings, timing and planner of a confirmation, and a small study to confirm."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from colours import colour_file

from scalesearch.confirm import front as confirming
from scalesearch.confirm import jobs as confirm_jobs
from scalesearch.confirm.timing import Entry, Rounds, TimingLost
from scalesearch.confirm.training import Job, LostRun
from scalesearch.data import LABEL_SOURCES, load_dataset
from scalesearch.deployment.backends import get_backend
from scalesearch.records.confirmed import (
    confirmed_model_path,
    read_confirmed,
    write_confirmed,
)
from scalesearch.records.run_file import write_run_file
from scalesearch.records.store import RecordStore
from scalesearch.values.candidate import Candidate
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.identity import content_hash
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.plan import Plan
from scalesearch.values.record import Cost, MeasuredTrial
from scalesearch.values.session import Session

MakeRecord = Callable[..., MeasuredTrial]


def write_study(tmp_path: Path, session: Session, make_record: MakeRecord) -> Path:
    """Write a study of three front members and one dominated trial, as a run leaves it, and return its folder."""
    data = replace(session.settings.data, source=str(colour_file(tmp_path / "colours.npz")), calibration_images=16)
    folder = tmp_path / "study"
    loaded = load_dataset(data, LABEL_SOURCES, storage_px=16)
    own = replace(
        session,
        folder=folder,
        settings=replace(session.settings, data=data),
        storage_px=16,
        device=get_backend("onnxruntime").device(1),
        data=replace(session.data, fingerprint=loaded.fingerprint, train_images=len(loaded.train)),
    )
    write_run_file(own)
    (folder / "reference.onnx").write_bytes(b"reference")
    for trial, (top1, p50_ms) in enumerate(((0.5, 1.0), (0.8, 2.0), (0.85, 4.0), (0.4, 3.0))):
        RecordStore(folder).save(make_record(trial, top1=top1, p50_ms=p50_ms, device=own.device))
    return folder


class FakeTraining:
    """Stands for the workers: writes the files that they write; loses the jobs that it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.sessions: list[Session] = []
        self.lose: set[int] = set()
        self.stop_after = 1000

    def __call__(
        self, session: Session, study: Path, jobs: Sequence[Job], *, stopped: threading.Event, on_end: Any
    ) -> tuple[LostRun, ...]:
        lost = []
        self.sessions.append(session)
        for job in jobs:
            trial = job.record.trial
            self.asked.append((trial, job.seed))
            if trial in self.lose:
                lost.append(LostRun(trial=trial, seed=job.seed, reason="train: killed"))
                on_end(job, lost[-1])
                continue
            quality, latency, training = job.record.quality, job.record.latency, job.record.training
            assert quality and latency and training
            path = confirmed_model_path(study, trial, job.seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"model")
            run = ConfirmedRun(
                trial=trial, seed=job.seed, steps=job.plan.candidate.recipe.steps, train_s=1.0, float_score=0.9,
                validation=quality, test=quality, latency=latency, size_bytes=5,
                onnx_sha256=hashlib.sha256(b"model").hexdigest(), network_sha256="",
                key=job.plan.key,
            )  # fmt: skip
            write_confirmed(study, run)
            on_end(job, job.record)
            if len(self.asked) >= self.stop_after:
                stopped.set()
                break
        return tuple(lost)


class FakeTiming:
    """Stands for the timing process: half the latency that the search saw, or lost."""

    def __init__(self) -> None:
        self.sessions: list[tuple[int, ...]] = []
        self.lost = ""

    def __call__(
        self, session: Session, entries: Sequence[Entry], *, stopped: threading.Event
    ) -> Rounds | TimingLost | None:
        self.sessions.append(tuple(entry.trial for entry in entries))
        if self.lost:
            return TimingLost(reason=self.lost)
        runs = {run.trial: run for run in read_confirmed(session.folder.parents[1])}
        return {
            e.trial: (replace(runs[e.trial].latency, p50_ms=runs[e.trial].latency.p50_ms / 2),) * 2 for e in entries
        }


class FakePlanner:
    """Stands for the planner, which builds and prunes every network: the identity alone."""

    def __init__(self, session: Session) -> None:
        self._seed = session.settings.seed

    def plan_spec(self, spec: NetworkSpec, candidate: Candidate, *, cut_from: NetworkSpec | None) -> Plan:
        cost, key = Cost(macs=1, params=1), content_hash(spec, candidate, self._seed)
        return Plan(
            candidate=candidate, spec=spec, dense_cost=cost, cost=cost, key=key, weights_key=key, shape_key=key,
            pruning=candidate.pruning, limits=(), cut_from=cut_from,
        )  # fmt: skip


def use_fakes(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeTraining, FakeTiming]:
    """Put them in place of trainings, timing, planner and drawing."""
    training, timing = FakeTraining(), FakeTiming()
    monkeypatch.setattr(confirm_jobs, "Planner", FakePlanner)
    monkeypatch.setattr(confirming, "train_jobs", training)
    monkeypatch.setattr(confirming, "time_together", timing)
    # drawing takes a second, and is tested beside the other files
    monkeypatch.setattr("scalesearch.confirm.files.confirmation_figure", lambda *_, **__: None)
    monkeypatch.setattr("scalesearch.confirm.files.png", lambda _: b"")
    return training, timing
