"""The GPU's clock: events and graphs, against the host's clock, and repeatability over fresh processes."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import torch

from gpu_steps import Day
from gpu_steps.torch_engine import TorchEngine
from scalesearch.measurement.latency import measure_latency
from scalesearch.networks import base_spec
from scalesearch.networks.scaling import scale
from scalesearch.tasks.classification.pieces import build
from scalesearch.values.candidate import Scaling
from scalesearch.values.settings import LatencySettings

_SIDE_PX: Final = 64
_HOST_RUNS: Final = 300
_GPU_KINDS: Final = (("fp32", torch.float32), ("fp16", torch.float16))


def run(day: Day) -> None:
    """Put down how clock and host agree in this process, then the spread over fresh processes."""
    for batch in (1, 64):
        for graph in (True, False) if day.device == "cuda" else (False,):
            _put_against_host(day, batch=batch, graph=graph)
    processes = 3 if day.quick else 12
    found = [_fresh_process(day) for _ in range(processes)]
    for kind in found[0]:
        for what in found[0][kind]:
            values = [each[kind][what] for each in found]
            mean = statistics.fmean(values)
            spread = 100 * statistics.stdev(values) / mean
            day.put(f"{kind}, {what}: CV over {processes} processes, %", spread, f"mean {mean:.5g}")


def engine(device: str, *, width: float, batch: int, graph: bool, kind: torch.dtype) -> TorchEngine:
    """The small ResNet at a width, as an engine."""
    spec = scale(base_spec("resnet_small"), Scaling(width=width), resolution_px=_SIDE_PX, num_classes=20)
    module = build(spec).module.eval()
    if kind is torch.float16:
        module = _Half(module)
    return TorchEngine(module, (3, _SIDE_PX, _SIDE_PX), device=device, batch=batch, graph=graph)


class _Half(torch.nn.Module):
    """A module in half precision that takes and gives float32."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.inner = module.half()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.inner(images.half()).float()
        return answers


def _put_against_host(day: Day, *, batch: int, graph: bool) -> None:
    """Sum of the device's times of queued runs over the host's seconds for all of them: 1 where the device is busy."""
    with engine(day.device, width=1.0, batch=batch, graph=graph, kind=torch.float32) as timed:
        timed.time_runs(50)
        started_s = time.perf_counter()
        times_s = timed.time_runs(_HOST_RUNS)
        host_s = time.perf_counter() - started_s
        notes = timed.timing_notes()
        what = f"batch {batch}, {'graph' if graph else 'no graph'}"
        day.put(f"{what}: median of a run, us", 1e6 * statistics.median(times_s), f"captured: {timed.captured}")
        day.put(f"{what}: device's sum over host's seconds", sum(times_s) / host_s)
        enqueue = "none" if notes.enqueue_p50_ms is None else f"{1e3 * notes.enqueue_p50_ms:.1f} us"
        day.put(f"{what}: doubts", "; ".join(notes.doubts) or "none", f"enqueue {enqueue}")


def _fresh_process(day: Day) -> dict[str, dict[str, float]]:
    code = f"from gpu_steps.clock import measure_once; measure_once({day.device!r}, {day.quick!r})"
    folder = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, cwd=folder)
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_once(device: str, quick: bool) -> None:
    """Print this process's ratio, raw median and raw minimum of each kind as JSON."""
    settings = LatencySettings(max_s=1.0 if quick else 3.0)
    found: dict[str, dict[str, float]] = {}
    for name, kind in _GPU_KINDS if device == "cuda" else _GPU_KINDS[:1]:
        graph = device == "cuda"
        candidate = engine(device, width=0.75, batch=1, graph=graph, kind=kind)
        reference = engine(device, width=1.0, batch=1, graph=graph, kind=torch.float32)
        with candidate, reference:
            latency = measure_latency(candidate, reference, settings=settings, reference_calm_ms=1.0)
        found[name] = {
            "ratio": latency.ratio,
            "raw median, ms": latency.raw_p50_ms,
            "raw minimum, ms": latency.raw_min_ms,
        }
    print(json.dumps(found))
