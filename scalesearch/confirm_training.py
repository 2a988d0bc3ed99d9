"""Full trainings of front members, each in a worker process: a crash costs one of them, and every end is on disk."""

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.deployment.export_cache import ExportCache
from scalesearch.records.confirmed import FOLDER, confirmed_model_path, write_confirmed
from scalesearch.search.worker import Evaluated, Failed, Fatal, Rejected
from scalesearch.search.workers import Report, WorkerPool
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.plan import Plan
from scalesearch.values.record import TrialRecord
from scalesearch.values.session import Session, model_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training that is asked for."""

    number: int
    """Unlike any other job's of the same confirmation: names its files while it runs."""
    record: TrialRecord
    """The front member."""
    seed: int
    seed_place: int
    """Counted from 1."""
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRun:
    """A training that gave nothing, and why."""

    trial: int
    seed: int
    reason: str


class ConfirmingEvaluator:
    """The chain for one job: train, deploy, score on validation and test images; its last act is the run's file."""

    def __init__(self, session: Session, study: Path, jobs: Sequence[Job]) -> None:
        self._session, self._study = session, study
        self._jobs = {job.number: job for job in jobs}
        self._evaluator = TrialEvaluator(session, exports=ExportCache(session.folder))

    def evaluate(self, plan: Plan, *, trial: int, report: Callable[[str], None]) -> TrialRecord:
        """The record of job number `trial`; its `ConfirmedRun` and model are on disk."""
        job, folder = self._jobs[trial], self._session.folder
        record = self._evaluator.evaluate(plan, trial=trial, report=report)
        report("test")
        test = self._evaluator.test_quality(record)
        kept = confirmed_model_path(self._study, job.record.trial, job.seed)
        kept.parent.mkdir(parents=True, exist_ok=True)
        model_path(folder, trial).replace(kept)
        training, quality, latency = record.training, record.quality, record.latency
        assert training and quality and latency and record.size_bytes and record.onnx_sha256 and record.network_sha256
        run = ConfirmedRun(
            trial=job.record.trial,
            seed=job.seed,
            steps=training.steps,
            train_s=training.train_s + training.retrain_s,
            float_top1=training.float_top1,
            validation=quality,
            test=test,
            latency=latency,
            size_bytes=record.size_bytes,
            onnx_sha256=record.onnx_sha256,
            network_sha256=record.network_sha256,
            key=plan.key,
        )
        write_confirmed(self._study, run)
        return record


def train_jobs(
    session: Session,
    study: Path,
    jobs: Sequence[Job],
    *,
    stopped: threading.Event,
    on_end: Callable[[Job, TrialRecord | LostRun], None],
) -> tuple[LostRun, ...]:
    """The jobs that were lost; `on_end` hears each one's end. Returns early once `stopped` is set.

    Raises:
        ScalesearchError: As a worker raised it (bad data, a missing backend), or if no worker starts.
        RuntimeError: On a bug, with its traceback.
    """
    waiting, lost = list(jobs), list[LostRun]()
    running: dict[int, Job] = {}
    longest = max((job.plan.candidate.recipe.steps / job.record.candidate.recipe.steps for job in jobs), default=1.0)
    limits = session.settings.stage_limits
    pool = WorkerPool(
        functools.partial(ConfirmingEvaluator, session, study, tuple(jobs)),
        workers=session.settings.workers,
        # The limit was set for brief training.
        limits=replace(limits, train_s=limits.train_s * max(1.0, longest)),
        log_folder=study / FOLDER / "logs",
    )
    with pool:
        while (waiting or running) and not stopped.is_set():
            while waiting and pool.free:
                job = waiting.pop(0)
                running[job.number] = job
                pool.submit(job.plan, job.number)
            for report in pool.wait():
                end = _end(report, running)
                if end is not None:
                    job = running.pop(report.trial)
                    lost += [end] if isinstance(end, LostRun) else []
                    on_end(job, end)
    return tuple(lost)


def _end(report: Report, running: dict[int, Job]) -> TrialRecord | LostRun | None:
    """What became of the job that the report is of; None where it goes on."""
    if isinstance(report, Fatal):
        raise report.error or RuntimeError(f"a bug stopped the confirmation:\n{report.trace}")
    if isinstance(report, Evaluated):
        return report.record
    if isinstance(report, Failed | Rejected):
        job = running[report.trial]
        where = f"{report.stage}: " if isinstance(report, Failed) else ""
        return LostRun(trial=job.record.trial, seed=job.seed, reason=f"{where}{report.reason}")
    return None
