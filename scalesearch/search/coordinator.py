"""The coordinator: the only process that asks Optuna for candidates and tells it their results."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna

from scalesearch.analysis.front import Point, near_front, pareto_front, point
from scalesearch.errors import CandidateRejected, StageFailed
from scalesearch.execution.local_pool import Report, WorkerPool
from scalesearch.execution.stopping import stop_signals
from scalesearch.execution.worker import NO_TRIAL, Entered, Fatal
from scalesearch.host import computing_threads
from scalesearch.search.asking import Asker, Sampling
from scalesearch.search.branches import Branches
from scalesearch.search.events import RunStopped, SamplerChanged, StageEntered, StudyOutcome, TrialStarted
from scalesearch.search.fates import (
    because_of,
    charged_at_most,
    error_of,
    given_up_on,
    gone_on_with,
    paid_for_trunk,
    record_of,
    rejected,
    repeat,
    unplanned,
)
from scalesearch.search.ledger import Asked, Ledger
from scalesearch.search.lengths import Lengths
from scalesearch.search.precisions import Precisions
from scalesearch.search.problem import Problem
from scalesearch.search.resume import catch_up
from scalesearch.search.showing import Showing, Watchers
from scalesearch.search.storage import OpenStudy, only_coordinator, opened_study, sync_study
from scalesearch.search.telling import tell
from scalesearch.search.time_limit import TimeLimit
from scalesearch.values.plan import Plan
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.settings import RunSettings
from scalesearch.values.training_length import trunk_steps


def run_study(
    folder: Path,
    problem: Problem,
    settings: RunSettings,
    *,
    watchers: Watchers | None = None,
    held: bool = False,
    prepared_s: float = 0.0,
    gives_way: bool = False,
) -> StudyOutcome:
    """Begin or continue the study in `folder`, run it to `settings.budget`, and return all its records.

    Ctrl-C and SIGTERM end the run cleanly: the next call continues the trials that were running.

    Args:
        folder: The study's folder; it is made if absent.
        problem: What is searched.
        settings: Settings of the run.
        watchers: Receivers of news during the run.
        held: Whether the caller holds the folder already.
        prepared_s: Seconds of `settings.max_time_s` that trainings before the search have taken.
        gives_way: Whether another sampler takes the place of that of the settings once trials are many.

    Raises:
        ConfigError: If another process runs this study, a record cannot be read, or the database is unfit.
        ScalesearchError: Any such error of an evaluator (except StageFailed and CandidateRejected), or if no worker
            starts.
        RuntimeError: On a bug in an evaluator, with its traceback. The trial's record holds it too.
    """
    watchers = watchers or Watchers()
    folder.mkdir(parents=True, exist_ok=True)
    with (
        contextlib.nullcontext() if held else only_coordinator(folder),
        opened_study(folder, url=settings.storage, metric=problem.metric, latency=problem.latency) as opened,
        stop_signals() as stopped,
    ):
        logs = folder / "logs"
        pool = WorkerPool(
            problem.make_evaluator, workers=settings.workers, limits=settings.stage_limits, log_folder=logs
        )
        try:
            limit = TimeLimit(settings.max_time_s, spent_s=prepared_s)
            run = _Run(
                folder, problem, settings, watchers=watchers, opened=opened, pool=pool, limit=limit, gives_way=gives_way
            )
            return run.to_the_end(stopped)
        except BaseException as error:
            watchers.on_event(RunStopped(ended="error", message=str(error).strip().rpartition("\n")[2]))
            raise


class _Run:
    """One run of one study: candidates go from the asker to the pool, results from the pool to disk, then to Optuna."""

    def __init__(
        self,
        folder: Path,
        problem: Problem,
        settings: RunSettings,
        *,
        watchers: Watchers,
        opened: OpenStudy,
        pool: WorkerPool,
        limit: TimeLimit,
        gives_way: bool,
    ) -> None:
        self._folder, self._problem, self._opened, self._pool = folder, problem, opened, pool
        self._listener, self._workers = watchers.listener, settings.workers
        self._ledger = Ledger(folder, budget=settings.budget)
        self._precisions = Precisions(
            self._ledger, problem.space, problem.plan, siblings=settings.siblings, adaptive=settings.adaptive
        )
        sampling = Sampling(
            sampler=settings.sampler_name,
            seed=settings.seed,
            workers=settings.workers,
            by_time=settings.max_time_s > 0,
            gives_way=gives_way,
        )
        self._branches = branches = Branches(self._ledger, problem.space, problem.plan, allowed=settings.branches)
        self._limit = limit
        lengths = Lengths(
            problem.space,
            self._ledger,
            full_updates=problem.full_updates,
            workers=settings.workers,
            time=self._limit,
        )
        self._asker = Asker(
            opened,
            problem.space,
            sampling,
            self._ledger,
            precisions=self._precisions,
            branches=branches,
            lengths=lengths,
            plan=problem.plan,
        )
        self._showing = Showing(watchers, opened.study, self._ledger, settings, metric=problem.metric)
        self._sampler = settings.sampler_name  # as the watchers know it
        self._rivals: tuple[Point, ...] = ()
        self._search_s = 0.0

    def to_the_end(self, stopped: threading.Event) -> StudyOutcome:
        """Run until budget, time or candidates run out, or `stopped` is set; return the outcome.

        The cores are the workers': this process computes with one thread.
        """
        with computing_threads(1):
            return self._to_the_end(stopped)

    def _to_the_end(self, stopped: threading.Event) -> StudyOutcome:
        began = time.monotonic()
        with self._timed():
            self._open()
        self._showing.started(continued=self._asker.left_behind, prepared_s=self._limit.spent_s)
        refused: frozenset[int] | None = None  # what ran when there was no room for any other candidate
        with self._pool:
            while not stopped.is_set():
                with self._timed():
                    while self._pool.free and self._asker.may_ask() and not (stopped.is_set() or self._time_is_up()):
                        running = frozenset(self._ledger.running)
                        if running == refused:
                            break
                        if not self._ask():
                            refused = running
                            break
                if not self._ledger.running:
                    break
                reports = self._pool.wait()
                with self._timed():
                    for report in reports:
                        self._hear(report)
            early = self._asker.may_ask() and not stopped.is_set()
            if not (early or stopped.is_set()):
                self._give_up_postponed()
        owed = len(self._ledger.running) + self._precisions.wanted + self._asker.left_behind
        short_of = ("time" if self._time_is_up() else self._asker.short_of) if early else ""
        ended, message = self._ledger.ending(interrupted=stopped.is_set(), short_of=short_of, owed=owed)
        self._showing.statistics()
        self._showing.tell((RunStopped(ended=ended, message=message),))
        records = tuple(record for _, record in sorted(self._ledger.records.items()))
        return StudyOutcome(
            records=records,
            front=pareto_front(records),
            ended=ended,
            message=message,
            charged=self._ledger.charged,
            wall_s=time.monotonic() - began,
            search_s=self._search_s,
        )

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._search_s += time.monotonic() - began

    def _front(self) -> tuple[MeasuredTrial, ...]:
        """Return the front of all records, and use its members as rivals of later candidates."""
        front = pareto_front(self._ledger.records.values())
        self._rivals = tuple(point(member) for member in front)
        return front

    def _time_is_up(self) -> bool:
        if not self._limit.is_set:
            return False
        return self._limit.is_up(self._ledger.records.values(), trained=not self._asker.chooses_by_room)

    def _open(self) -> None:
        """Bring study and records into agreement, and derive from the records where the search stands."""
        records = self._ledger.records
        self._asker.begin(catch_up(self._opened, records, self._problem.space, self._listener))
        for number in sorted(records):
            self._ledger.count(records[number])
        self._ledger.go_on()
        front = self._front()
        members = {member.trial for member in front}
        # What the newest ones wanted may have been queued when the run before was stopped: siblings come first.
        newest = [records[number] for number in sorted(records) if records[number].charged][-self._workers :]
        near = [each for each in newest if each.trial not in members and near_front(each, front)]
        for record in (*front, *near):
            self._precisions.want_siblings(record)
            self._branches.want(record)
        self._showing.tell(self._precisions.narrow())
        self._showing.opened(front)

    def _ask(self) -> bool:
        """Ask for one more trial, which is then running, parked, or finished without training.

        Returns:
            False if there is no time for any.
        """
        if self._sampler != (now := self._asker.sampler):
            self._sampler = now
            self._showing.tell((SamplerChanged(sampler=now, trials=len(self._ledger.records)),))
        asked = self._asker.ask()
        if asked is None:
            return False
        number, sibling_of, pays = asked.trial.number, asked.sibling_of, asked.pays
        sync_study(self._folder)
        try:
            plan = self._problem.plan(asked.candidate)
        except (CandidateRejected, StageFailed) as verdict:
            self._answer(asked.trial, unplanned(number, asked.candidate, verdict))
            return True
        record = self._answer_without_training(number, plan)
        if record:
            self._answer(asked.trial, because_of(record, sibling_of, other_cut=pays))
        elif self._ledger.is_running(plan.key):
            self._ledger.park(Asked(trial=asked.trial, plan=plan, sibling_of=sibling_of, pays=pays))
        elif asked.continued and pays and not self._ledger.has_room:
            self._asker.postpone(number)
        else:
            self._ledger.running[number] = Asked(
                trial=asked.trial,
                plan=plan,
                sibling_of=sibling_of,
                pays=pays,
                shared_updates=self._shared_updates(plan),
            )
            self._pool.submit(plan, number, rivals=self._rivals)
            self._showing.tell((TrialStarted(trial=number, candidate=asked.candidate),))
        return True

    def _answer_without_training(self, number: int, plan: Plan) -> TrialRecord | None:
        earlier = self._ledger.finished(plan.key)
        if earlier:
            return repeat(earlier, number, plan.candidate)
        refusal = plan.rejected_because or self._precisions.refusal(plan.candidate.quantization.precision)
        return rejected(number, plan, refusal) if refusal else None

    def _shared_updates(self, plan: Plan) -> int:
        """Return how many updates of the plan's trunk finished trials have made, in trunks that are not longer."""
        same = (record for record in self._sharing(plan) if record.state == "complete")
        return max((trunk_steps(record.candidate.recipe) for record in same), default=0)

    def _paid_updates(self, asked: Asked, *, again: bool) -> int:
        """Return how many updates of a trial's trunk other trials have made and were charged for.

        A trial that waited for the trunk is charged its branch alone, and may end before the one that trained it.

        Args:
            asked: The trial.
            again: Whether an earlier run had begun it. Otherwise, trunks that were there when it began are not its own.
        """
        paid = (record for record in self._sharing(asked.plan) if paid_for_trunk(record))
        made = max((trunk_steps(record.candidate.recipe) for record in paid), default=0)
        return made if again else max(made, asked.shared_updates)

    def _sharing(self, plan: Plan) -> Iterator[TrialRecord]:
        """Yield the charged records of the plan's trunk whose own is not longer."""
        for record in self._ledger.records.values():
            if not (record.charged and plan.trunk_key and (record.cut_from or record.spec) == plan.begun[0]):
                continue
            own = self._plan_of(record)
            shorter = trunk_steps(record.candidate.recipe) <= trunk_steps(plan.candidate.recipe)
            if own and own.trunk_key == plan.trunk_key and shorter:
                yield record

    def _weights_stored(self, plan: Plan) -> bool:
        """Tell whether a finished trial has trained the plan's weights."""
        return any(
            record.state == "complete"
            and record.spec == plan.spec
            and (own := self._plan_of(record)) is not None
            and own.shape_key == plan.shape_key
            for record in self._ledger.records.values()
        )

    def _plan_of(self, record: TrialRecord) -> Plan | None:
        """Return the plan of a finished trial; None for one of an earlier version, whose rules were others."""
        try:
            return self._problem.plan(record.candidate)
        except (CandidateRejected, StageFailed):
            return None

    def _give_up_postponed(self) -> None:
        """Finish the trials that a killed run had begun and for which this run's smaller budget has no room.

        Otherwise they would be shown as running forever, unless a later run has a larger budget.
        """
        for asked in self._asker.take_postponed():
            self._answer(asked.trial, given_up_on(asked.trial.number, asked.candidate))

    def _hear(self, report: Report) -> None:
        if isinstance(report, Entered):
            self._ledger.running[report.trial].enter(report.stage)
            self._showing.tell((StageEntered(trial=report.trial, stage=report.stage),))
            return
        # NO_TRIAL: the evaluator could not be made, which is not the fault of a trial.
        if isinstance(report, Fatal) and report.trial == NO_TRIAL:
            raise error_of(report)
        asked = self._ledger.running[report.trial]
        asked.enter("")
        if isinstance(report, Fatal) and report.error:
            raise report.error  # the trial stays RUNNING: the next run continues it
        record, again = record_of(report, asked.plan, tuple(asked.stages)), self._asker.was_begun_before(report.trial)
        if again or record.state == "failed":
            shared, stored = self._paid_updates(asked, again=again), self._weights_stored(asked.plan)
            if again and not stored:
                record = gone_on_with(record, asked.plan, shared_updates=shared)
            record = charged_at_most(record, asked.plan, shared_updates=shared, stored=stored)
        if asked.sibling_of is not None:
            record = replace(record, charged=record.charged and asked.pays)
            record = because_of(record, asked.sibling_of, other_cut=asked.pays)
        del self._ledger.running[report.trial]
        self._answer(asked.trial, record)
        if isinstance(report, Fatal):
            raise error_of(report)

    def _answer(self, trial: optuna.Trial, record: TrialRecord) -> None:
        self._ledger.count(record)
        self._finish(trial, record)

    def _finish(self, trial: optuna.Trial, record: TrialRecord) -> None:
        """Store the record, then tell Optuna, then show it; do the same for every parked trial that waited for it."""
        self._ledger.save(record)
        tell(self._opened.study, trial, record, self._problem.space, self._listener)
        self._ledger.enter(record)
        front = self._front()
        if record.charged and near_front(record, front):
            self._precisions.want_siblings(record)
            self._branches.want(record)
        self._branches.keep_near(front)
        self._showing.tell(self._precisions.narrow())
        self._showing.finished(record, front)
        for asked in self._ledger.take_parked(record.key):
            again = repeat(record, asked.trial.number, asked.plan.candidate)
            self._finish(asked.trial, because_of(again, asked.sibling_of, other_cut=asked.pays))
