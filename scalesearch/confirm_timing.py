"""Engines of all confirmed members timed in turn by one fresh process: what a front compares must share its session."""

import logging
import multiprocessing
import signal
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from scalesearch.chain.evaluate import engine_options
from scalesearch.chain.shrink import MEASURED_DEVICE
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.errors import ScalesearchError
from scalesearch.measurement.cores import wandering
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.measurement.latency import measure_latency
from scalesearch.values.candidate import Pruning
from scalesearch.values.record import Latency
from scalesearch.values.session import Session, reference_path

ROUNDS = 2
_TICK_S = 0.2
_OVERHEAD_S = 10.0
"""Warming up, and waiting for work of ours to pause, for each measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One engine to be timed."""

    trial: int
    model: Path
    pruning: Pruning


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingLost:
    """The session gave nothing, and why."""

    reason: str


Rounds = dict[int, tuple[Latency, ...]]
"""By trial: its latency in each round."""


def time_together(
    session: Session, entries: Sequence[Entry], *, stopped: threading.Event
) -> Rounds | TimingLost | None:
    """Latencies of all entries, from a process of its own that opens every engine; None if `stopped` came first.

    Native code may crash or hang: then the process is lost, and the reason is told.
    """
    limit_s = session.settings.stage_limits.other_s
    limit_s += ROUNDS * len(entries) * (session.settings.latency.max_s + _OVERHEAD_S)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(session, tuple(entries), theirs), daemon=True)
    # Ctrl-C reaches the whole group: blocked here, it stays so in the child, and this process hears it right after.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    try:
        for _ in range(round(limit_s / _TICK_S)):
            if ours.poll(_TICK_S):
                answer: Rounds | TimingLost = ours.recv()
                return answer
            if stopped.is_set():
                return None
        return TimingLost(reason=f"no end after {limit_s:g} s, killed")
    except EOFError:
        process.join(5.0)
        return TimingLost(reason=f"its process died (code {process.exitcode})")
    finally:
        process.kill()
        process.join()
        ours.close()


def _work(session: Session, entries: tuple[Entry, ...], channel: "Connection[Any, Any]") -> None:
    logging.disable(logging.WARNING)  # stdout and stderr are the coordinator's
    try:
        channel.send(_time_all(session, entries))
    except ScalesearchError as error:
        channel.send(TimingLost(reason=str(error)))
    except Exception as error:  # whatever a backend raises on a model: members keep the latencies they have
        channel.send(TimingLost(reason=f"{type(error).__name__}: {error}"))


def _time_all(session: Session, entries: tuple[Entry, ...]) -> Rounds:
    backend, lock = get_backend(session.target.backend), DeviceLock(MEASURED_DEVICE)
    found: dict[int, list[Latency]] = {entry.trial: [] for entry in entries}
    calmest_ms = session.reference_calm_ms
    with ExitStack() as opened:
        with lock.busy():
            reference = opened.enter_context(
                backend.compile(onnx_model(reference_path(session.folder)), engine_options(session.settings))
            )
            engines = {
                entry.trial: opened.enter_context(
                    backend.compile(onnx_model(entry.model), engine_options(session.settings, entry.pruning))
                )
                for entry in entries
            }
        for number in range(ROUNDS):
            # To and fro, so that no member is always first, or always after the same one.
            for trial in list(engines)[:: 1 if number % 2 == 0 else -1]:
                # Alone for each, not for all: another run on this machine must get its turn in time.
                with lock.quiet(), wandering(session.settings.latency.threads) as move:
                    latency = measure_latency(
                        engines[trial],
                        reference,
                        settings=session.settings.latency,
                        reference_calm_ms=session.reference_calm_ms,
                        calmest_ms=calmest_ms,
                        move=move,
                    )
                calmest_ms = min(calmest_ms, latency.reference_lowest_ms or calmest_ms)
                enqueue_ms = engines[trial].timing_notes().enqueue_p50_ms
                found[trial].append(replace(latency, enqueue_p50_ms=enqueue_ms))
    return {trial: tuple(rounds) for trial, rounds in found.items()}
