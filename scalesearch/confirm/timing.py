"""Times the engines of all confirmed members in turn in one fresh process: points of a front must share a session."""

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from scalesearch.chain.timer import Timer
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.errors import ScalesearchError
from scalesearch.execution.child_process import ChildLost, ChildStopped, run_apart
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.values.candidate import Pruning
from scalesearch.values.latency import Latency, Postprocessing
from scalesearch.values.session import Session

ROUNDS = 2
_OVERHEAD_S = 10.0
"""Seconds for each measurement to warm up and to wait until other work of this program pauses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One engine to be timed."""

    trial: int
    model: Path
    pruning: Pruning
    postprocessing: Postprocessing | None = None
    """Its post-processing time as measured before; it is not timed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingLost:
    """The session gave no result, and why."""

    reason: str


Rounds = dict[int, tuple[Latency, ...]]
"""The latency of each trial in each round, by trial."""


def time_together(
    session: Session, entries: Sequence[Entry], *, stopped: threading.Event
) -> Rounds | TimingLost | None:
    """Time all entries in a process of their own that opens every engine.

    Native code may crash or hang. Then the process is lost, and the reason is returned.

    Returns:
        The latencies of each trial; or the reason why there are none; None if `stopped` was set first.
    """
    limit_s = session.settings.stage_limits.other_s
    limit_s += ROUNDS * len(entries) * (session.settings.latency.max_s + _OVERHEAD_S)
    log = session.folder.parent / "logs" / "timing.log"
    try:
        return run_apart(_time_all, session, tuple(entries), log=log, limit_s=limit_s, stopped=stopped)
    except ChildStopped:
        return None
    except ChildLost as lost:
        return TimingLost(reason=f"its process was lost: {lost}")
    except ScalesearchError as error:
        return TimingLost(reason=str(error))
    except RuntimeError as error:  # whatever a backend raises on a model: members keep the latencies they have
        return TimingLost(reason=str(error).strip().rpartition("\n")[2])


def _time_all(session: Session, entries: tuple[Entry, ...]) -> Rounds:
    timer, lock = Timer(session), DeviceLock(MEASURED_DEVICE)
    after = {entry.trial: entry.postprocessing for entry in entries}
    found: dict[int, list[Latency]] = {entry.trial: [] for entry in entries}
    with ExitStack() as opened:
        with lock.busy():
            opened.enter_context(timer.open_reference())
            engines = {
                entry.trial: opened.enter_context(timer.compile(onnx_model(entry.model), entry.pruning))
                for entry in entries
            }
        for number in range(ROUNDS):
            # Forwards and backwards, so that no member is always first, or always after the same one.
            for trial in list(engines)[:: 1 if number % 2 == 0 else -1]:
                # Locked for each measurement, not for all: another run on this machine must get its turn in time.
                with lock.quiet():
                    latency = timer.time(engines[trial])
                enqueue_ms = engines[trial].timing_notes().enqueue_p50_ms
                latency = replace(latency, enqueue_p50_ms=enqueue_ms)
                found[trial].append(latency.beside(after[trial], session.settings.latency.objective))
    return {trial: tuple(rounds) for trial, rounds in found.items()}
