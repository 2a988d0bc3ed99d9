"""The inside of a worker process: it makes one evaluator, then answers plans until its coordinator closes or dies."""

import contextlib
import errno
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeGuard

from scalesearch.child_process import be_a_child
from scalesearch.errors import CandidateRejected, ScalesearchError, StageFailed
from scalesearch.values.plan import Plan
from scalesearch.values.record import TrialRecord

NO_TRIAL = -1
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""The place is at fault, not the program: the run stops with words, and its trials are gone on with."""


class Evaluator(Protocol):
    """What runs the chain for one plan."""

    def evaluate(self, plan: Plan, *, trial: int, report: Callable[[str], None]) -> TrialRecord:
        """The record of the trial; `report` is told the name of each stage as it is entered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The evaluator is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """A stage begins."""

    trial: int
    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The trial came to its end."""

    trial: int
    record: TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The trial is lost, the run goes on."""

    trial: int
    stage: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A limit turned out to be broken."""

    trial: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fatal:
    """The run must stop: an error meant for the user, or a bug with its traceback (`error` is None)."""

    trial: int
    """`NO_TRIAL` where no evaluator could be made."""
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
    # The coordinator closing the channel is the end of the work.
    with contextlib.suppress(EOFError, ConnectionResetError):
        while True:
            plan, trial = channel.recv()
            _send(channel, _answer(evaluator, plan, trial, channel), trial)


def _answer(evaluator: Evaluator, plan: Plan, trial: int, channel: "Connection[Any, Any]") -> Message:
    stage = "begin"

    def report(name: str) -> None:
        nonlocal stage
        stage = name
        channel.send(Entered(trial=trial, stage=name))

    try:
        return Evaluated(trial=trial, record=evaluator.evaluate(plan, trial=trial, report=report))
    except StageFailed as failure:
        if _is_the_disk(failure.__cause__):
            return _fatal(trial, failure.__cause__)
        return Failed(trial=trial, stage=failure.stage, reason=failure.reason)
    except CandidateRejected as verdict:
        return Rejected(trial=trial, reason=str(verdict))
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
    # Only our own errors travel as they are: others need not survive pickling.
    known = error if isinstance(error, ScalesearchError) else None
    if _is_the_disk(error):
        where = f" ({error.filename})" if error.filename else ""
        known = ScalesearchError(
            f"The disk refused a worker's file: {error.strerror}{where}.\n"
            "Finished trials are on disk: mend the cause and type the same command again to go on."
        )
    return Fatal(trial=trial, error=known, trace="".join(traceback.format_exception(error)))
