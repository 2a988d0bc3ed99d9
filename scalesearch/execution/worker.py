"""The inside of a worker process: make one evaluator, then answer plans until the coordinator closes or dies."""

import contextlib
import errno
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeGuard

from scalesearch.errors import CandidateRejected, ScalesearchError, StageFailed
from scalesearch.execution.child_process import be_a_child
from scalesearch.values.plan import Plan
from scalesearch.values.record import LimitUse, TrialRecord

NO_TRIAL = -1
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""Errors caused by the disk, not by the program. The run stops with a message; the finished trials are kept, and the
same command continues the run."""


Rivals = Sequence[tuple[float, float]]
"""Score (a fraction) and latency (p50 in milliseconds) of the members of the front so far."""


class Evaluator(Protocol):
    """An object that runs the chain of stages for one plan."""

    def evaluate(self, plan: Plan, *, trial: int, report: Callable[[str], None], rivals: Rivals = ()) -> TrialRecord:
        """Return the record of the trial; `report` is called with the name of each stage as it begins.

        `rivals` tell what need not be measured exactly.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The evaluator has been made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """A stage begins."""

    trial: int
    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The trial has finished."""

    trial: int
    record: TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The trial is lost, but the run goes on."""

    trial: int
    stage: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The candidate was found to break a limit."""

    trial: int
    reason: str
    limits: tuple[LimitUse, ...] = ()
    """The use of the limit that it breaks, if that was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fatal:
    """The run must stop: for an error meant for the user, or for a bug (`error` is None, `trace` is its traceback)."""

    trial: int
    """The trial, or `NO_TRIAL` if no evaluator could be made."""
    error: ScalesearchError | None
    trace: str


Message = Ready | Entered | Evaluated | Failed | Rejected | Fatal


def serve(channel_fd: int, lifeline_fd: int) -> None:
    """Answer plans until the coordinator closes the channel."""
    be_a_child(lifeline_fd)
    channel: Connection[Any, Any] = Connection(channel_fd)
    try:
        evaluator: Evaluator = channel.recv()()
    except Exception as error:
        channel.send(_fatal(NO_TRIAL, error))
        return
    channel.send(Ready())
    # The work ends when the coordinator closes the channel.
    with contextlib.suppress(EOFError, ConnectionResetError):
        while True:
            plan, trial, rivals = channel.recv()
            _send(channel, _answer(evaluator, plan, trial, rivals, channel), trial)


def _answer(evaluator: Evaluator, plan: Plan, trial: int, rivals: Rivals, channel: "Connection[Any, Any]") -> Message:
    stage = "begin"

    def report(name: str) -> None:
        nonlocal stage
        stage = name
        channel.send(Entered(trial=trial, stage=name))

    try:
        return Evaluated(trial=trial, record=evaluator.evaluate(plan, trial=trial, report=report, rivals=rivals))
    except StageFailed as failure:
        if _is_the_disk(failure.__cause__):
            return _fatal(trial, failure.__cause__)
        return Failed(trial=trial, stage=failure.stage, reason=failure.reason)
    except CandidateRejected as verdict:
        limits = (LimitUse(limit=verdict.limit, excess=verdict.excess),) if verdict.limit else ()
        return Rejected(trial=trial, reason=str(verdict), limits=limits)
    except MemoryError as error:
        return Failed(trial=trial, stage=stage, reason=f"out of memory {error}".strip())
    except Exception as error:
        return _fatal(trial, error)


def _send(channel: "Connection[Any, Any]", message: Message, trial: int) -> None:
    try:
        channel.send(message)
    except (ConnectionResetError, BrokenPipeError):
        raise EOFError from None
    except Exception as error:  # whatever pickle raises on what it cannot send
        reason = f"the result cannot be sent to the coordinator: {type(error).__name__}: {error}"
        channel.send(Failed(trial=trial, stage="result", reason=reason))


def _is_the_disk(error: BaseException | None) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


def _fatal(trial: int, error: Exception) -> Fatal:
    # Only our own errors are sent as they are, since others may not survive pickling.
    known = error if isinstance(error, ScalesearchError) else None
    if _is_the_disk(error):
        where = f" ({error.filename})" if error.filename else ""
        known = ScalesearchError(
            f"The disk refused a worker's file: {error.strerror}{where}.\n"
            "Finished trials are on disk: mend the cause and type the same command again to go on."
        )
    return Fatal(trial=trial, error=known, trace="".join(traceback.format_exception(error)))
