"""Times every network of the table untrained, in a process of its own: the lines of latency.

Latency does not depend on the weights, so nothing has to be trained for it. The machine must do nothing else.
"""

import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from worker_processes import end_with_parent

from replay.lines import Line
from replay.shapes import PRECISIONS, Shape
from scalesearch.chain.deploy import Deployer
from scalesearch.chain.planner import Planner
from scalesearch.chain.timer import Timer
from scalesearch.data import Dataset
from scalesearch.data.finding import load_study_data
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.records.stored_files import kept_reference
from scalesearch.tasks.registry import get_task
from scalesearch.values.candidate import Precision
from scalesearch.values.session import Session

Wanted = tuple[Shape, Precision]

_held: list["_Bench"] = []
"""One entry in a timing process, made once by `load`."""


class _Bench:
    """What a timing process needs for every network."""

    def __init__(self, session: Session, process: int) -> None:
        task = get_task(session.settings.task)
        self.process, self.lock = process, DeviceLock(MEASURED_DEVICE)
        self.planner, self.timer = Planner(session), Timer(session)
        self.deploy = Deployer(session, task, self.lock, None)
        self.dataset: Dataset = load_study_data(session, task.sources())
        kept_reference(session)
        self.timer.open_reference()


def load(session: Session, process: int) -> None:
    """Open the reference engine: the initializer of a timing process."""
    end_with_parent()
    _held.append(_Bench(session, process))


def in_order(shapes: Sequence[Shape], process: int) -> Iterator[Wanted]:
    """Yield every network and precision, shuffled anew for each process, so that a drift spreads over all of them."""
    wanted = [(shape, precision) for shape in shapes for precision in PRECISIONS]
    random.Random(process).shuffle(wanted)
    yield from wanted


def time_network(shape: Shape, precision: Precision) -> Line:
    """Return the line of one network: its latency in milliseconds with the interval, and the seconds that it took."""
    bench = _held[0]
    plan = bench.planner(shape.candidate(steps=240, precision=precision))
    started_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        network = bench.deploy.untrained(plan)
        data = bench.dataset.at(plan.spec.input_size)
        model = bench.deploy.untrained_file(network, plan.candidate.quantization, data, Path(scratch) / "m.onnx")
        made_s = time.perf_counter() - started_s
        with bench.timer.compile(model) as engine, bench.lock.quiet():
            latency = bench.timer.time(engine)
    return {
        "kind": "latency",
        "network": shape.name,
        "precision": precision,
        "process": bench.process,
        "p50_ms": latency.p50_ms,
        "p50_low_ms": latency.p50_low_ms,
        "p50_high_ms": latency.p50_high_ms,
        "stable": latency.stable,
        "calm_fraction": latency.calm_fraction,
        "make_s": round(made_s, 3),
        "time_s": round(time.perf_counter() - started_s - made_s, 3),
    }
