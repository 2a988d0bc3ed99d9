"""Times GPU work as trtexec does: event to event on the GPU's own clock, a captured graph replayed, copies left out."""

import statistics
import time
from collections.abc import Callable
from typing import Final

import torch

from scalesearch.deployment.backends.base import TimingNotes
from scalesearch.errors import StageFailed

_QUEUED: Final = 64
"""Runs handed over before the host waits: enough to keep the GPU busy, few enough that nothing overflows."""
_ENQUEUE_BOUND: Final = 0.8
_LARGEST_VARIATION: Final = 0.025
"""Both thresholds are trtexec's own (its reporting code): above them it warns."""


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's own signature lacks types


class CudaClock:
    """Runs `enqueue` on a stream of its own and times it there.

    Any work that only launches kernels on the current stream will do; TensorRT's engines and torch modules alike.
    """

    def __init__(self, enqueue: Callable[[], None], *, stream: "torch.cuda.Stream", graph: bool) -> None:
        """Run once as it is, then capture where asked and possible (a failed capture is a doubt, not an error)."""
        self._stream = stream
        self._launch = enqueue
        self._doubts: list[str] = []
        self._gpu_s: list[float] = []
        self._enqueue_s: list[float] = []
        with torch.cuda.stream(stream):
            enqueue()
        stream.synchronize()
        if graph:
            self._capture(enqueue)

    @property
    def captured(self) -> bool:
        """Whether runs are replays of a captured graph."""
        return self._graph is not None

    _graph: "torch.cuda.CUDAGraph | None" = None

    def time_runs(self, count: int) -> tuple[float, ...]:
        """GPU seconds of each of `count` runs."""
        times: list[float] = []
        while len(times) < count:
            times += self._queue(min(_QUEUED, count - len(times)))
        self._gpu_s += times
        return tuple(times)

    def notes(self) -> TimingNotes:
        """Median enqueue time and trtexec's two warnings, over all runs so far."""
        if len(self._gpu_s) < 2:
            return TimingNotes(doubts=tuple(self._doubts))
        gpu_s, enqueue_s = statistics.median(self._gpu_s), statistics.median(self._enqueue_s)
        doubts = list(self._doubts)
        if enqueue_s > _ENQUEUE_BOUND * gpu_s:
            doubts.append(
                f"enqueue-bound: handing over a run takes {1e3 * enqueue_s:.3f} ms, running it {1e3 * gpu_s:.3f} ms"
            )
        variation = statistics.pstdev(self._gpu_s) / statistics.fmean(self._gpu_s)
        if variation > _LARGEST_VARIATION:
            doubts.append(f"GPU times vary by {100 * variation:.1f} % (lock the clocks, or let nothing else run there)")
        return TimingNotes(enqueue_p50_ms=1e3 * enqueue_s, doubts=tuple(doubts))

    def _queue(self, count: int) -> list[float]:
        events = [(_event(), _event()) for _ in range(count)]
        with torch.cuda.stream(self._stream):
            for begin, end in events:
                begin.record(self._stream)
                started = time.perf_counter()
                self._launch()
                self._enqueue_s.append(time.perf_counter() - started)
                end.record(self._stream)
        self._stream.synchronize()
        return [begin.elapsed_time(end) / 1e3 for begin, end in events]

    def _capture(self, enqueue: Callable[[], None]) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                enqueue()
        except (RuntimeError, StageFailed) as error:  # what cannot be captured: an allocation, a host function
            self._doubts.append(f"no CUDA graph: {' '.join(str(error).split())[:120]}")
            torch.cuda.synchronize()
            return
        self._graph, self._launch = graph, graph.replay
