"""How well each latency estimator repeats in fresh processes: quiet, beside a busy core, beside a memory hog.

Each repeat is a new process that times one network in turn with the reference engine. Three numbers judge an
estimator: the coefficient of variation (CV) of its repeats, its shift from the quiet machine's mean, and both together
(root of the sum of squares) in the worst load. The best by the last should be `OBJECTIVE` in measurement/latency.py.

    python benchmarks/latency_repeatability.py [--network resnet_small] [--width 0.75] [--repeats 12] [--seconds 3]
"""

import argparse
import contextlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalesearch.deployment.backends import EngineOptions, get_backend
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.measurement.latency import (
    CALM_WINDOW_S,
    ESTIMATORS,
    OBJECTIVE,
    calm_s,
    measure_latency,
    play_duet,
    ratio_interval,
    warm_up,
)
from scalesearch.values.settings import LatencySettings

BACKEND, THREADS = "onnxruntime", 1
LOADS = {
    "quiet": "",
    "busy core": "while True: pass",
    "memory hog": "import numpy as np; a = np.ones(2**23); b = a.copy()\nwhile True: np.copyto(b, a)",
}
ALONE_S = 1.0
PRODUCT = "measure_latency"
"""What a trial really gets: the objective, stopped by its own rule."""

Estimates = dict[str, tuple[float, float, float]]
"""Value and interval (both ends equal to the value where the estimator has none)."""


def main() -> None:
    """Run the repeats, the loads in turn (so that no slow change of the machine looks like a load); print the table."""
    asked = read_arguments()
    if asked.child:
        print(json.dumps(measure_once(Path(asked.child), asked.seconds)))
        return
    started_s, load_average = time.monotonic(), os.getloadavg()[0]
    found: dict[str, list[Estimates]] = {load: [] for load in LOADS}
    with tempfile.TemporaryDirectory() as folder:
        export_both(Path(folder), asked.network, asked.width)
        for _ in range(asked.repeats):
            for load, code in LOADS.items():
                with background(code):
                    found[load].append(in_fresh_process(Path(folder), asked.seconds))
    device = get_backend(BACKEND).device(THREADS)
    print(f"{device.name} ({', '.join(device.features)}), {os.cpu_count()} cores, {platform.system()},", end=" ")
    print(f"{BACKEND} {device.backend_version} with {THREADS} thread; load average before: {load_average:.1f}")
    print(
        f"{asked.network} at width {asked.width:g} against width 1; per load {asked.repeats} fresh processes,", end=" "
    )
    print(f"{asked.seconds:g} s of duet each; {time.monotonic() - started_s:.0f} s in all\n")
    print_table(found)


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet_small", help="base network; multiplier 1 is the reference")
    parser.add_argument("--width", type=float, default=0.75, help="width multiplier of the network that is timed")
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each duet")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def export_both(folder: Path, network: str, width: float) -> None:
    """Write reference.onnx and candidate.onnx, with random weights, which cost the same time as trained ones."""
    # Here, and not at the top, because the timing processes load this file too and need no torch.
    from scalesearch.deployment.export import to_onnx
    from scalesearch.networks import base_spec
    from scalesearch.networks.build import build
    from scalesearch.networks.scaling import scale
    from scalesearch.values.candidate import Scaling
    from scalesearch.values.network import Network

    for name, multiplier in (("reference", 1.0), ("candidate", width)):
        base = base_spec(network)
        spec = scale(base, Scaling(width=multiplier), resolution_px=48, num_classes=43, channel_multiple=8)
        built = build(spec, seed=0)
        side = spec.resolution_px
        images = np.random.default_rng(0).normal(size=(8, 3, side, side)).astype(np.float32)
        to_onnx(Network(spec=spec, module=built.module.eval()), to=folder / f"{name}.onnx", check_images=images)


@contextlib.contextmanager
def background(code: str) -> Iterator[None]:
    """A child process that runs `code` (for ever) meanwhile; none for an empty text."""
    if not code:
        yield
        return
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        time.sleep(0.3)  # until it is past its imports
        yield
    finally:
        child.kill()
        child.wait()


def in_fresh_process(folder: Path, seconds: float) -> Estimates:
    """One repeat."""
    command = [sys.executable, __file__, "--child", str(folder), "--seconds", str(seconds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {name: (value, low, high) for name, (value, low, high) in json.loads(done.stdout).items()}


def measure_once(folder: Path, seconds: float) -> Estimates:
    """Every estimate of this process: of the duet, of the reference alone, and as a trial would get it."""
    backend = get_backend(BACKEND)
    files = (onnx_model(folder / f"{name}.onnx") for name in ("candidate", "reference"))
    engine, reference = (backend.compile(file, EngineOptions(threads=THREADS, batch=1)) for file in files)
    settings = LatencySettings()
    with engine, reference, DeviceLock("cpu").quiet():
        run_s = warm_up(reference, settings.warmup_s)
        runs = max(1, round(CALM_WINDOW_S / run_s))
        alone = np.asarray([reference.time_runs(runs) for _ in range(max(1, round(ALONE_S / (runs * run_s))))])
        duet = play_duet(engine, reference, settings=LatencySettings(max_s=seconds, half_width=0.0))
        latency = measure_latency(engine, reference, settings=settings, reference_calm_ms=1.0)
    return {
        **absolute("candidate", duet.candidate_s),
        **absolute("reference alone", alone),
        "reference alone, calm windows": exactly(1e6 * calm_s(alone)),
        **{name: (estimate(duet), *ratio_interval(duet, name)) for name, estimate in ESTIMATORS.items()},
        PRODUCT: (latency.ratio, latency.p50_low_ms, latency.p50_high_ms),
    }


def absolute(whose: str, seconds: NDArray[np.float64]) -> Estimates:
    """Plain median, lower decile and minimum, in us."""
    quantiles = {"median": 0.5, "p10": 0.1, "minimum": 0.0}
    return {f"{whose}, {name}": exactly(1e6 * float(np.quantile(seconds, q))) for name, q in quantiles.items()}


def exactly(value: float) -> tuple[float, float, float]:
    """A value without an interval."""
    return value, value, value


def print_table(found: dict[str, list[Estimates]]) -> None:
    """One line per estimator, the best first within ratios, the candidate's clock and the reference's clock alone."""
    names = list(found["quiet"][0])
    table = pd.DataFrame([row_of(name, found) for name in names], index=names)
    best = table.loc[list(ESTIMATORS), "worst %"].idxmin()
    table["kind"] = [2 if "alone" in name else 1 if "," in name else 0 for name in names]
    table = table.sort_values(["kind", "worst %"]).drop(columns="kind")
    with pd.option_context("display.width", 200, "display.max_columns", None):
        print(table.rename(index={OBJECTIVE: f"{OBJECTIVE} *"}).to_string(float_format="{:.3g}".format, na_rep=""))
    print(f"\n* the objective now; the best here is {best}. `{PRODUCT}`: the objective stopped by its own rule, as")
    print(
        "in a trial, its interval with PROCESS_SPREAD in it. mean: a ratio, or us. processes: what the CVs have beyond"
    )
    print("the sessions' own intervals (PROCESS_SPREAD). covered: intervals, of all loads, that hold the quiet mean.")


def row_of(name: str, found: dict[str, list[Estimates]]) -> dict[str, float]:
    """The numbers of one estimator, by the table's columns."""
    values = {load: np.array([each[name][0] for each in repeats]) for load, repeats in found.items()}
    center = float(values["quiet"].mean())
    cvs = {load: 100 * float(each.std(ddof=1) / each.mean()) for load, each in values.items()}
    shifts = {load: 100 * float(each.mean() / center - 1) for load, each in values.items()}
    row = {"mean": center}
    row |= {f"CV % {load}": cv for load, cv in cvs.items()}
    row |= {f"shift % {load}": shift for load, shift in shifts.items() if load != "quiet"}
    row["worst %"] = max(math.hypot(cvs[load], shifts[load]) for load in values)
    ends = np.array([each[name][1:] for repeats in found.values() for each in repeats])
    if (ends[:, 0] < ends[:, 1]).any():
        row["half width %"] = half_width = 50 * float((ends[:, 1] - ends[:, 0]).mean()) / center
        if name != PRODUCT:  # whose interval holds PROCESS_SPREAD already
            between = float(np.mean([cv**2 for cv in cvs.values()])) - (half_width / 1.96) ** 2
            row["processes %"] = math.sqrt(max(0.0, between))
        row["covered %"] = 100 * float(((ends[:, 0] <= center) & (center <= ends[:, 1])).mean())
    return row


if __name__ == "__main__":
    main()
