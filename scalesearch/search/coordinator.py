"""The coordinator: the only process that asks Optuna for candidates and tells it their results."""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import optuna

from scalesearch.analysis.baselines import DRAWS_ITS_START, by_chance
from scalesearch.analysis.front import hypervolume, pareto_front, point
from scalesearch.errors import CandidateRejected, StageFailed
from scalesearch.execution.local_pool import Report, WorkerPool
from scalesearch.execution.stopping import stop_signals
from scalesearch.execution.worker import NO_TRIAL, Entered, Evaluator, Fatal
from scalesearch.records.store import RecordStore
from scalesearch.search.events import (
    Ending,
    Event,
    Narrowed,
    RunStarted,
    RunStopped,
    StageEntered,
    StudyOutcome,
    TrialFinished,
    TrialStarted,
)
from scalesearch.search.fates import given_up_on, record_of, rejected, repeat, unplanned
from scalesearch.search.listener import NoListener, StudyListener
from scalesearch.search.narrowing import given_up, reason
from scalesearch.search.resume import catch_up
from scalesearch.search.samplers import LEARNS_FROM_REJECTED, calm_threads, make_sampler
from scalesearch.search.siblings import SIBLING_OF, near_front, siblings_of
from scalesearch.search.storage import OpenStudy, only_coordinator, opened_study, sync_study
from scalesearch.search.telling import tell
from scalesearch.spaces.suggest import cheapest, suggest, trial_parameters
from scalesearch.values.candidate import Candidate, Precision
from scalesearch.values.plan import Plan
from scalesearch.values.quality import DEFAULT_METRIC
from scalesearch.values.record import StageTime, TrialRecord
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace

FREE_IN_A_ROW = 20
"""The run ends after this many candidates in a row that cost no training."""
BY_CHANCE_AFTER = 4
"""After this many candidates in a row that teach the sampler nothing, candidates are drawn at random until a new one
comes. If a sampler is told the same values for the same candidate again, it only grows surer of it."""
STATISTICS_EVERY = 10
"""Number of trials between two updates of the dashboard's statistics. With many trials it is larger, since the update
then takes longer."""

_log = logging.getLogger(__name__)


def run_study(
    *,
    folder: Path,
    space: SearchSpace,
    plan: Callable[[Candidate], Plan],
    make_evaluator: Callable[[], Evaluator],
    settings: RunSettings,
    on_event: Callable[[Event], None] = lambda _: None,
    listener: StudyListener | None = None,
    metric: str = DEFAULT_METRIC,
    held: bool = False,
) -> StudyOutcome:
    """Begin or continue the study in `folder`, run it to `settings.budget`, and return all its records.

    Ctrl-C and SIGTERM end the run cleanly: the next call continues the trials that were running.

    Args:
        folder: The study's folder; it is made if absent.
        space: What may be asked for.
        plan: Returns the plan of a candidate: rounded, with its cost.
        make_evaluator: Is pickled and called once in each worker process.
        settings: Settings of the run.
        on_event: Is called with each event.
        listener: Shows the study to others, for example in the dashboard.
        metric: Name of the score, which is the first objective.
        held: Whether the caller holds the folder already.

    Raises:
        ConfigError: If another process runs this study, a record cannot be read, or the database is unfit.
        ScalesearchError: Any such error of an evaluator (except StageFailed and CandidateRejected), or if no worker
            starts.
        RuntimeError: On a bug in an evaluator, with its traceback. The trial's record holds it too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (
        contextlib.nullcontext() if held else only_coordinator(folder),
        opened_study(folder, url=settings.storage, metric=metric) as opened,
        stop_signals() as stopped,
    ):
        pool = WorkerPool(
            make_evaluator, workers=settings.workers, limits=settings.stage_limits, log_folder=folder / "logs"
        )
        try:
            run = _Run(
                folder=folder,
                space=space,
                plan=plan,
                settings=settings,
                on_event=on_event,
                listener=listener or NoListener(),
                opened=opened,
                pool=pool,
            )
            return run.to_the_end(stopped)
        except BaseException as error:
            on_event(RunStopped(ended="error", message=str(error).strip().rpartition("\n")[2]))
            raise


@dataclass(slots=True, kw_only=True)
class _Asked:
    """A trial that has its candidate and plan, but no record yet."""

    trial: optuna.Trial
    plan: Plan
    sibling_of: int | None = None
    stages: list[StageTime] = field(default_factory=list)
    stage: str = "start"
    stage_since: float = 0.0

    def enter(self, stage: str) -> None:
        """Enter a stage, and note the wall time of the stage that ends with it."""
        now = time.monotonic()
        if self.stage_since:
            self.stages.append(StageTime(stage=self.stage, seconds=now - self.stage_since))
        self.stage, self.stage_since = stage, now


class _Run:
    """One run of one study. All of its state is derived from the records and the study, so any later run has it too."""

    def __init__(
        self,
        *,
        folder: Path,
        space: SearchSpace,
        plan: Callable[[Candidate], Plan],
        settings: RunSettings,
        on_event: Callable[[Event], None],
        listener: StudyListener,
        opened: OpenStudy,
        pool: WorkerPool,
    ) -> None:
        self._folder, self._space, self._plan, self._settings = folder, space, plan, settings
        self._on_event, self._listener = on_event, listener
        self._opened, self._study, self._pool = opened, opened.study, pool
        self._store = RecordStore(folder)
        self._records = {record.trial: record for record in self._store.all()}
        self._running: dict[int, _Asked] = {}
        self._parked: list[_Asked] = []  # equal to a running one: answered when that one ends
        self._left_behind: deque[int] = deque()  # RUNNING in the study, left by a run that was killed
        self._postponed: list[int] = []  # those of `_left_behind` that the budget has no room for now
        self._continued: frozenset[int] = frozenset()  # all that were left behind, also once they are asked again
        self._finished: dict[str, TrialRecord] = {}  # by key: repeated candidates are answered from these
        for record in sorted(self._records.values(), key=lambda each: each.trial):
            if record.key and record.same_as is None:
                self._finished.setdefault(record.key, record)
        self._wanted: dict[str, tuple[Candidate, int]] = {}  # by key: siblings to evaluate, and whose they are
        self._narrowed: dict[Precision, int] = {}
        self._figure: set[int] = set()  # front members that the dashboard's figure shows
        self._next_number = 0
        self._free_in_a_row = self._repeats_in_a_row = 0
        self._search_s = 0.0

    # ---- the run -------------------------------------------------------------------------------------------------

    def to_the_end(self, stopped: threading.Event) -> StudyOutcome:
        """Run until the budget is used up, candidates run out, or `stopped` is set; return the outcome."""
        began = time.monotonic()
        with self._timed():
            self._left_behind.extend(catch_up(self._opened, self._records, self._space, self._listener))
            self._continued = frozenset(self._left_behind)
            self._next_number = len(self._study.get_trials(deepcopy=False))
            if self._next_number == 0:  # a first result within seconds, and the fast end of the front
                self._study.enqueue_trial(trial_parameters(cheapest(self._space), self._space))
            for number in sorted(self._records):
                self._count(self._records[number])
            for member in pareto_front(self._records.values()):
                self._want_siblings(member)
            self._narrow()
            self._listener.study_opened(self._study)
            if self._records:  # what the dashboard lacks: after a kill, or in a database that was deleted
                self._show_front(pareto_front(self._records.values()))
        self._on_event(
            RunStarted(
                budget=self._settings.budget,
                charged_done=self._charged,
                records=len(self._records),
                continued=len(self._left_behind),
            )
        )
        with self._pool:
            while not stopped.is_set():
                with self._timed():
                    while self._may_ask() and not stopped.is_set():
                        self._ask()
                if not self._running:
                    break
                reports = self._pool.wait()
                with self._timed():
                    for report in reports:
                        self._hear(report)
            if not stopped.is_set():
                self._give_up_postponed()
        ended, message = self._ending(interrupted=stopped.is_set())
        self._listener.statistics_due(self._study, self._records.values())
        self._on_event(RunStopped(ended=ended, message=message))
        records = tuple(self._records[number] for number in sorted(self._records))
        return StudyOutcome(
            records=records,
            front=pareto_front(records),
            ended=ended,
            message=message,
            charged=self._charged,
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

    @property
    def _charged(self) -> int:
        return sum(record.charged for record in self._records.values())

    def _may_ask(self) -> bool:
        """Tell whether one more candidate fits into a worker and (except for siblings) into the budget."""
        if not self._pool.free:
            return False
        if self._wanted:
            return True
        if self._left_behind:  # whatever the budget: a sibling or a repeat is not charged to it
            return True
        if not self._budget_has_room:
            return False
        if self._postponed:
            self._left_behind.extend(self._postponed)
            self._postponed.clear()
            return True
        return self._free_in_a_row < FREE_IN_A_ROW

    @property
    def _budget_has_room(self) -> bool:
        training = sum(asked.sibling_of is None for asked in self._running.values())
        return self._charged + training < self._settings.budget

    def _ending(self, *, interrupted: bool) -> tuple[Ending, str]:
        owed = len(self._running) + len(self._wanted) + len(self._left_behind)
        if self._charged >= self._settings.budget and not (interrupted and owed):
            return "budget", f"{self._charged} candidates trained"
        if interrupted:
            return "interrupted", f"stopped at {self._charged} of {self._settings.budget}; run again to continue"
        last = sorted(self._records)[-FREE_IN_A_ROW:]
        rejected = sum(self._records[number].state == "rejected" for number in last)
        cause = "the limits are too tight" if 2 * rejected > len(last) else "the space is exhausted"
        return "exhausted", (
            f"{cause}: of the last {len(last)} candidates none needed training ({rejected} broke a limit, "
            f"{len(last) - rejected} repeated an earlier one or used its weights)"
        )

    # ---- ask -----------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Ask for one more trial, which is then running, parked, or finished without training."""
        number = self._left_behind.popleft() if self._left_behind else self._next_number
        if number == self._next_number and self._wanted:
            candidate, origin = self._wanted.pop(next(iter(self._wanted)))
            parameters = trial_parameters(candidate, self._space)
            self._study.enqueue_trial(parameters, user_attrs={SIBLING_OF: origin})
        trial = self._trial(number)
        sibling_of = trial.user_attrs.get(SIBLING_OF)
        with calm_threads(self._settings.sampler):
            candidate = suggest(trial, self._space)
        sync_study(self._folder)
        try:
            plan = self._plan(candidate)
        except (CandidateRejected, StageFailed) as verdict:
            self._answer(trial, unplanned(number, candidate, verdict))
            return
        record = self._answer_without_training(number, plan)
        if record:
            self._answer(trial, replace(record, sibling_of=sibling_of))
        elif self._is_running(plan.key):
            self._parked.append(_Asked(trial=trial, plan=plan, sibling_of=sibling_of))
            if sibling_of is None:
                self._free_in_a_row += 1
                self._repeats_in_a_row += 1
        elif number in self._continued and sibling_of is None and not self._budget_has_room:
            self._postponed.append(number)
        else:
            self._running[number] = _Asked(trial=trial, plan=plan, sibling_of=sibling_of)
            self._pool.submit(plan, number)
            self._on_event(TrialStarted(trial=number, candidate=candidate))

    def _give_up_postponed(self) -> None:
        """Finish the trials that a killed run had begun and that this run's smaller budget has no room for.

        If the budget is never raised again, no later run would finish them, and they would be shown as running for
        ever.
        """
        for number in self._postponed:
            trial = self._trial(number)
            self._answer(trial, given_up_on(number, suggest(trial, self._space)))
        self._postponed.clear()

    def _trial(self, number: int) -> optuna.Trial:
        """Return the trial of that number: a new one, or one that was left behind."""
        name = self._settings.sampler
        idle = self._repeats_in_a_row if name in LEARNS_FROM_REJECTED else self._free_in_a_row
        start = name not in DRAWS_ITS_START and by_chance(number, self._unlike_siblings(), name)
        if start or idle >= BY_CHANCE_AFTER:
            name = "random"
        self._study.sampler = make_sampler(name, seed=self._settings.seed, trial=number, workers=self._settings.workers)
        if number < self._next_number:
            return self._opened.live_trial(number)
        self._next_number += 1
        trial = self._study.ask()
        assert trial.number == number  # the lock keeps every other writer out
        return trial

    def _unlike_siblings(self) -> Iterator[int]:
        """Yield the numbers of the trials that the sampler was asked for, finished or not."""
        yield from (record.trial for record in self._records.values() if record.sibling_of is None)
        for asked in (*self._running.values(), *self._parked):
            if asked.sibling_of is None:
                yield asked.trial.number

    def _answer(self, trial: optuna.Trial, record: TrialRecord) -> None:
        self._count(record)
        self._finish(trial, record)

    def _answer_without_training(self, number: int, plan: Plan) -> TrialRecord | None:
        earlier = self._finished.get(plan.key)
        if earlier:
            return repeat(earlier, number, plan.candidate)
        if plan.rejected_because:
            return rejected(number, plan, plan.rejected_because)
        precision = plan.candidate.quantization.precision
        if precision in self._narrowed:
            return rejected(number, plan, reason(precision, self._narrowed[precision]))
        return None

    def _is_running(self, key: str) -> bool:
        return any(key == asked.plan.key for asked in self._running.values())

    def _count(self, record: TrialRecord) -> None:
        """Update the two counts of candidates in a row that cost no training: of all kinds, and of trained networks.

        Siblings are not counted: this program asks for them, not the sampler, so they do not show how much of the space
        is left.
        """
        if record.sibling_of is not None:
            return
        self._free_in_a_row = 0 if record.charged else self._free_in_a_row + 1
        again = not record.charged and record.state != "rejected"
        self._repeats_in_a_row = self._repeats_in_a_row + 1 if again else 0

    # ---- hear and tell -------------------------------------------------------------------------------------------

    def _hear(self, report: Report) -> None:
        if isinstance(report, Entered):
            self._running[report.trial].enter(report.stage)
            self._on_event(StageEntered(trial=report.trial, stage=report.stage))
            return
        if report.trial == NO_TRIAL:  # the evaluator could not be made: not the fault of a trial
            raise _error_of(report)
        asked = self._running[report.trial]
        asked.enter("")
        if isinstance(report, Fatal) and report.error:
            raise report.error  # the trial stays RUNNING: the next run continues it
        record = record_of(report, asked.plan, tuple(asked.stages))
        if report.trial in self._continued:
            # Weights of the killed run may be on disk already: the training was started in any case.
            record = replace(record, charged=True)
        if asked.sibling_of is not None:
            record = replace(record, charged=False, sibling_of=asked.sibling_of)
        del self._running[report.trial]
        self._answer(asked.trial, record)
        if isinstance(report, Fatal):
            raise _error_of(report)

    def _finish(self, trial: optuna.Trial, record: TrialRecord) -> None:
        """Store the record, then tell Optuna, then show it; do the same for every parked trial that waited for it."""
        self._store.save(record)
        tell(self._study, trial, record, self._space, self._listener)
        self._records[record.trial] = record
        if record.key and record.same_as is None:
            self._finished.setdefault(record.key, record)
        front = pareto_front(self._records.values())
        if record.charged and near_front(record, front):
            self._want_siblings(record)
        self._narrow()
        self._show_front(front)
        if len(self._records) % max(STATISTICS_EVERY, len(self._records) // STATISTICS_EVERY) == 0:
            self._listener.statistics_due(self._study, self._records.values())
        self._on_event(
            TrialFinished(
                record=record,
                charged_done=self._charged,
                budget=self._settings.budget,
                front_size=len(front),
                hypervolume=hypervolume(point(member) for member in front),
            )
        )
        waiting = [asked for asked in self._parked if asked.plan.key == record.key]
        self._parked = [asked for asked in self._parked if asked.plan.key != record.key]
        for asked in waiting:
            again = repeat(record, asked.trial.number, asked.plan.candidate)
            self._finish(asked.trial, replace(again, sibling_of=asked.sibling_of))

    def _show_front(self, front: Sequence[TrialRecord]) -> None:
        members = {member.trial for member in front}
        if members and members != self._figure:
            self._figure = members
            self._listener.front_changed(self._study, self._records.values())

    # ---- siblings and narrowing ----------------------------------------------------------------------------------

    def _want_siblings(self, record: TrialRecord) -> None:
        """List the record's network for evaluation in its other precisions, where their results are not known yet."""
        if not self._settings.siblings or record.sibling_of is not None:
            return
        for candidate in siblings_of(record.candidate, self._space):
            with contextlib.suppress(CandidateRejected, StageFailed):
                plan = self._plan(candidate)
                known = plan.key in self._finished or self._is_running(plan.key) or plan.rejected_because
                if not known and candidate.quantization.precision not in self._narrowed:
                    self._wanted.setdefault(plan.key, (candidate, record.trial))

    def _narrow(self) -> None:
        """Give up the precisions that never paid, and report each of them once."""
        if not self._settings.adaptive:
            return
        for precision, tries in given_up(self._records.values()).items():
            if precision not in self._narrowed:
                self._narrowed[precision] = tries
                self._on_event(Narrowed(precision=precision, tries=tries))
        self._wanted = {
            key: (candidate, origin)
            for key, (candidate, origin) in self._wanted.items()
            if candidate.quantization.precision not in self._narrowed
        }


def _error_of(report: Report) -> Exception:
    """Return the error that a Fatal report stops the run with."""
    assert isinstance(report, Fatal)
    return report.error or RuntimeError(f"a bug stopped the run (trial {report.trial}):\n{report.trace}")
