"""Time GPU work as trtexec does.

Times are taken between two events on the GPU's own clock, a captured graph is replayed, and copies are left out.
"""

import statistics
import time
from collections.abc import Callable
from typing import Final

import torch

from scalesearch.deployment.backends.base import TimingNotes
from scalesearch.errors import StageFailed
from scalesearch.plain_text import one_line

_QUEUED: Final = 64
"""Number of runs that are queued before the host waits: enough to keep the GPU busy, but not so many that a queue
overflows."""
_ENQUEUE_BOUND: Final = 0.8
_LARGEST_VARIATION: Final = 0.025
"""Both thresholds are taken from trtexec's reporting code, which warns above them."""


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's own signature lacks types


class CudaClock:
    """A clock that runs `enqueue` on a stream of its own and times it there.

    It can time any work that only launches kernels on the current stream: TensorRT's engines as well as torch modules.
    """

    def __init__(self, enqueue: Callable[[], None], *, stream: "torch.cuda.Stream", graph: bool) -> None:
        """Run the work once as it is, then capture it in a CUDA graph if `graph` is true and that is possible.

        If the capture fails, that is not an error but a doubt in `notes`.
        """
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
        """Whether the runs are replays of a captured graph."""
        return self._graph is not None

    _graph: "torch.cuda.CUDAGraph | None" = None

    def time_runs(self, count: int) -> tuple[float, ...]:
        """Return the GPU seconds of each of `count` runs."""
        times: list[float] = []
        while len(times) < count:
            times += self._queue(min(_QUEUED, count - len(times)))
        self._gpu_s += times
        return tuple(times)

    def notes(self) -> TimingNotes:
        """Return the median enqueue time and trtexec's two warnings, over all runs so far."""
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
        except (RuntimeError, StageFailed) as error:  # an allocation or a host function cannot be captured
            self._doubts.append(f"no CUDA graph: {one_line(str(error), 120)}")
            torch.cuda.synchronize()
            return
        self._graph, self._launch = graph, graph.replay
