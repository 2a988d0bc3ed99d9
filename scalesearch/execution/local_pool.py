"""Worker processes as the coordinator sees them: it submits plans and gets reports, even if a worker dies."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from scalesearch.errors import ScalesearchError
from scalesearch.execution.child_process import ChildProcess
from scalesearch.execution.worker import (
    Entered,
    Evaluated,
    Evaluator,
    Failed,
    Fatal,
    Message,
    Ready,
    Rejected,
    Rivals,
)
from scalesearch.values.plan import Plan
from scalesearch.values.settings import StageLimits

Report = Entered | Evaluated | Failed | Rejected | Fatal

_TRAINING_STAGES = frozenset({"train", "retrain"})
_WAITING_STAGE = "wait"
_START = "start"
_START_ATTEMPTS = 3
_TICK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    plan: Plan
    trial: int
    rivals: Rivals


class WorkerPool:
    """Up to `workers` processes, started when needed and kept running; use it as a context manager."""

    def __init__(
        self, make_evaluator: Callable[[], Evaluator], *, workers: int, limits: StageLimits, log_folder: Path
    ) -> None:
        self._make_evaluator = make_evaluator
        self._limits = limits
        self._log_folder = log_folder
        self._slots: list[_Worker | None] = [None] * workers
        self._start_failures = 0

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in filter(None, self._slots):
            worker.close()
        self._slots = [None] * len(self._slots)

    @property
    def free(self) -> int:
        """Number of plans that can be submitted now."""
        return sum(worker is None or worker.task is None for worker in self._slots)

    def submit(self, plan: Plan, trial: int, *, rivals: Rivals = ()) -> None:
        """Hand the plan to an idle worker, or start a new one if none is idle."""
        idle = [i for i, worker in enumerate(self._slots) if worker is not None and worker.task is None]
        slot = idle[0] if idle else self._slots.index(None)
        self._give(slot, _Task(plan=plan, trial=trial, rivals=rivals))

    def wait(self, timeout_s: float = _TICK_S) -> tuple[Report, ...]:
        """Return what the workers reported within the time; a dead or hung worker is reported as a failed trial.

        Args:
            timeout_s: Longest time to wait, in seconds.

        Raises:
            ScalesearchError: If workers repeatedly die or hang before they are ready for a plan.
        """
        channels = [worker.channel for worker in self._slots if worker]
        if channels:
            wait(channels, timeout=timeout_s)
        else:
            time.sleep(timeout_s)
        return tuple(report for slot in range(len(self._slots)) for report in self._reports(slot))

    def _reports(self, slot: int) -> list[Report]:
        worker = self._slots[slot]
        if worker is None:
            return []
        messages, lost = worker.read()
        if Ready() in messages:
            self._start_failures = 0
        reports: list[Report] = [message for message in messages if not isinstance(message, Ready)]
        lost = lost or self._overdue(worker)
        if lost:
            self._slots[slot] = None
            reports += self._mourn(slot, worker, worker.bury(lost))
        return reports

    def _overdue(self, worker: "_Worker") -> str:
        limit_s = self._limit_s(worker.stage)
        if worker.stage and time.monotonic() - worker.stage_since > limit_s:
            return f"no end after {limit_s:g} s, killed (limit: stage_limits)"
        return ""

    def _limit_s(self, stage: str) -> float:
        if stage == _WAITING_STAGE:  # for a device that the other workers use in turn, each within its own limit
            return self._limits.train_s * len(self._slots)
        return self._limits.train_s if stage in _TRAINING_STAGES else self._limits.other_s

    def _mourn(self, slot: int, worker: "_Worker", reason: str) -> list[Report]:
        task = worker.task
        if worker.stage != _START:
            return [Failed(trial=task.trial, stage=worker.stage, reason=reason)] if task else []
        # The trial did not cause this, so it is given to the next process.
        self._start_failures += 1
        if self._start_failures >= _START_ATTEMPTS:
            msg = f"worker processes do not start ({self._start_failures} times): {reason}. Their log: {worker.log}"
            raise ScalesearchError(msg)
        if task:
            self._give(slot, task)
        return []

    def _give(self, slot: int, task: _Task) -> None:
        worker = self._slots[slot]
        if worker is not None and worker.is_dead():  # it died while idle, so this trial must not fail for it
            worker.bury("died")
            worker = None
        if worker is None:
            log = self._log_folder / f"worker-{slot + 1}.log"
            worker = self._slots[slot] = _Worker(self._make_evaluator, log)
        worker.give(task)


class _Worker:
    """One worker process, its channel, and what it is doing."""

    def __init__(self, make_evaluator: Callable[[], Evaluator], log: Path) -> None:
        self.log = log
        self.task: _Task | None = None
        self.stage = _START
        self.stage_since = time.monotonic()
        self._process = ChildProcess("scalesearch.execution.worker", "serve", log=log)
        self.channel = self._process.channel
        self._process.send(make_evaluator)

    def give(self, task: _Task) -> None:
        """Send the task; a worker that is already dead is noticed at the next `read`."""
        self.task = task
        if self.stage != _START:
            self._enter("begin")
            self._process.forget_words()
        self._process.send((task.plan, task.trial, task.rivals))

    def _enter(self, stage: str) -> None:
        self.stage, self.stage_since = stage, time.monotonic()

    def read(self) -> tuple[list[Message], str]:
        """Read the messages that are waiting in the channel.

        Returns:
            The messages, and how the worker was lost (empty if it is alive).
        """
        dead = self.is_dead()  # checked before reading, so that its last messages are still read
        messages: list[Message] = []
        try:
            while self.channel.poll():
                messages.append(self.channel.recv())
                self._note(messages[-1])
        except (EOFError, ConnectionResetError):
            return messages, "died"
        except Exception as error:  # whatever unpickling raises
            return messages, f"sent what cannot be read: {type(error).__name__}: {error}"
        return messages, "died" if dead else ""

    def _note(self, message: Message) -> None:
        if isinstance(message, Ready):
            self._enter("begin" if self.task else "")
        elif isinstance(message, Entered):
            self._enter(message.stage)
        else:
            self.task = None
            self._enter("")

    def is_dead(self) -> bool:
        """Tell whether the process has ended."""
        return self._process.is_dead()

    def bury(self, lost: str) -> str:
        """End the process and its children, and return in words why it was lost."""
        return self._process.bury(lost)

    def close(self) -> None:
        """End the worker: let an idle one finish by itself, and kill a busy one."""
        if self.task is None and self.stage != _START:
            self.channel.close()
            self._process.dies_within(2.0)
        self._process.kill()
