"""Full trainings of front members, each in a worker process. A crash costs only one, and every result is on disk."""

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.deployment.export_cache import ExportCache
from scalesearch.execution.local_pool import Report, WorkerPool
from scalesearch.execution.worker import Evaluated, Failed, Fatal, Rejected, Rivals
from scalesearch.records.confirmed import FOLDER, confirmed_model_path, write_confirmed
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.plan import Plan
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session, model_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training that is asked for."""

    number: int
    """Different from every other job's of the same confirmation. It names the job's files while it runs."""
    record: MeasuredTrial
    """The front member."""
    seed: int
    seed_place: int
    """Which of the member's seeds it is, counted from 1."""
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRun:
    """A training that gave no result, and why."""

    trial: int
    seed: int
    reason: str


class ConfirmingEvaluator:
    """Runs one job: train, deploy, score on validation and test images, and last of all write the run's file."""

    def __init__(self, session: Session, study: Path, jobs: Sequence[Job]) -> None:
        self._session, self._study = session, study
        self._jobs = {job.number: job for job in jobs}
        self._evaluator = TrialEvaluator(session, exports=ExportCache(session.folder))

    def evaluate(self, plan: Plan, *, trial: int, report: Callable[[str], None], rivals: Rivals = ()) -> MeasuredTrial:
        """Evaluate job number `trial` and return its record; its `ConfirmedRun` and model are on disk then.

        All jobs are timed exactly, whatever the rivals are.
        """
        job, folder = self._jobs[trial], self._session.folder
        record = self._evaluator.evaluate(plan, trial=trial, report=report)
        report("test")
        test = self._evaluator.test_quality(record)
        kept = confirmed_model_path(self._study, job.record.trial, job.seed)
        kept.parent.mkdir(parents=True, exist_ok=True)
        model_path(folder, trial).replace(kept)
        training, quality, latency = record.training, record.quality, record.latency
        run = ConfirmedRun(
            trial=job.record.trial,
            seed=job.seed,
            steps=training.steps,
            train_s=training.train_s + training.retrain_s,
            float_score=training.float_score,
            validation=quality,
            test=test,
            latency=latency,
            size_bytes=record.size_bytes,
            onnx_sha256=record.onnx_sha256,
            network_sha256=record.network_sha256,
            cost=record.cost,
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
    on_end: Callable[[Job, MeasuredTrial | LostRun], None],
) -> tuple[LostRun, ...]:
    """Run the jobs in worker processes, and return those that were lost.

    `on_end` is called with each job's result. It returns early once `stopped` is set.

    Raises:
        ScalesearchError: A worker raised one (bad data, a missing backend), or no worker starts.
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


def _end(report: Report, running: dict[int, Job]) -> MeasuredTrial | LostRun | None:
    """Return the result of the job that the report is about; None while it goes on."""
    if isinstance(report, Fatal):
        raise report.error or RuntimeError(f"a bug stopped the confirmation:\n{report.trace}")
    if isinstance(report, Evaluated):
        return report.record.measured
    if isinstance(report, Failed | Rejected):
        job = running[report.trial]
        where = f"{report.stage}: " if isinstance(report, Failed) else ""
        return LostRun(trial=job.record.trial, seed=job.seed, reason=f"{where}{report.reason}")
    return None
