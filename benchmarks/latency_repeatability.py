"""How well a latency repeats in fresh processes, for five kinds of kernels: quiet, and beside three loads.

Each repeat is a new process that times one network in turn with its study's fp32 reference. Every run's time is kept in
the folder `--to`, which makes the measuring resumable, and lets `--replay` try estimators and rules on the same data
(see latency_replay.py for the tables). Measuring takes about 8 s a process: 240 of them by default, 33 minutes.

    python benchmarks/latency_repeatability.py --to FOLDER [--kinds int8 fp16] [--repeats 12] [--seconds 4.5]
    python benchmarks/latency_repeatability.py --replay FOLDER
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from latency_recording import Recorder, Recording, save
from latency_replay import print_tables

from scalesearch.deployment.backends import EngineOptions, get_backend
from scalesearch.deployment.backends.base import Engine
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.files import replace_file
from scalesearch.measurement.calm_time import calm_time
from scalesearch.measurement.cores import wandering
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.measurement.latency import play_duet
from scalesearch.values.settings import LatencySettings

BACKEND, THREADS = "onnxruntime", 1
LOADS = {
    "quiet": "",
    "busy core": "while True: pass",
    "memory hog": "import numpy as np; a = np.ones(2**23); b = a.copy()\nwhile True: np.copyto(b, a)",
    # Sums and products of small integers in the caches: the vector units' integer ports, which int8 kernels use.
    "integer loop": "import numpy as np; a = np.ones(2**14, np.int32); b = a.copy()\n"
    "while True: np.multiply(a, 3, out=b); np.add(b, a, out=a)",
}
SOLO_ROUNDS, SOLO_S = 5, 0.04
"""Each engine also runs alone, for so long and so often: a duet must find what standing alone finds."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A network that is timed against multiplier 1 of its base, in fp32."""

    network: str = "resnet_small"
    width: float = 1.0
    pruned: float = 0.0
    precision: str = "fp32"

    @property
    def reference(self) -> str:
        """Stem of the reference's file."""
        return f"reference_{self.network}"


KINDS = {
    "fp32": Kind(width=0.75),
    "int8": Kind(precision="int8"),
    "fp16": Kind(precision="fp16"),
    "depthwise": Kind(network="mobilenet_small", width=0.75),
    "pruned": Kind(pruned=0.25),
}


def main() -> None:
    """Measure what the folder lacks, the loads in turn (so that no slow change of the machine looks like a load)."""
    asked = read_arguments()
    if asked.replay:
        print_tables(asked.replay)
        return
    if asked.child:
        measure_once(asked.to, asked.child, asked.kinds[0], asked.seconds)
        return
    started_s, load_average = time.monotonic(), os.getloadavg()[0]
    asked.to.mkdir(parents=True, exist_ok=True)
    prepare(asked.to, asked.kinds)
    todo = [
        (f"{kind}.{load.replace(' ', '_')}.{repeat:02d}.npz", kind, load)
        for repeat in range(asked.repeats)
        for kind in asked.kinds
        for load in LOADS
    ]
    missing = [each for each in todo if not (asked.to / each[0]).exists()]
    print(f"{len(missing)} of {len(todo)} processes to go, about {len(missing) * (asked.seconds + 3.7) / 60:.0f} min")
    for name, kind, load in missing:
        with background(LOADS[load]):
            in_fresh_process(asked.to, name, kind, asked.seconds)
    device = get_backend(BACKEND).device(THREADS)
    print(f"{device.name} ({', '.join(device.features)}), {os.cpu_count()} cores, {platform.system()},", end=" ")
    print(
        f"{BACKEND} {device.backend_version} with {THREADS} thread; load average before: {load_average:.1f};", end=" "
    )
    print(f"{time.monotonic() - started_s:.0f} s in all\n")
    print_tables(asked.to)


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--to", type=Path, help="folder of the recordings; what it holds is not measured again")
    what.add_argument("--replay", type=Path, help="only print the tables of that folder")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=4.5, help="length of each duet")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(folder: Path, kinds: list[str]) -> None:
    """Write the networks, and the references' calm times as a study would find them, unless they are there."""
    missing = [kind for kind in kinds if not (folder / f"{kind}.onnx").exists()]
    if missing:
        export(folder, missing)
    calm_path = folder / "calm_ms.json"
    calm_ms = json.loads(calm_path.read_text()) if calm_path.exists() else {}
    for name in sorted({KINDS[kind].reference for kind in kinds} - set(calm_ms)):
        with opened(folder / f"{name}.onnx") as engine, DeviceLock("cpu").quiet(), wandering(THREADS) as move:
            calm_ms[name] = calm_time(engine, settings=LatencySettings(), move=move)
    replace_file(calm_path, json.dumps(calm_ms).encode())


def export(folder: Path, kinds: list[str]) -> None:
    """Write the kinds' files and their references', with random weights, which cost the same time as trained ones."""
    # Here, and not at the top, because the timing processes load this file too and need no torch.
    from scalesearch.compression.fold import fold_batchnorm
    from scalesearch.compression.prune import prune
    from scalesearch.networks import base_spec
    from scalesearch.networks.scaling import scale
    from scalesearch.tasks.classification.pieces import build, quantize, to_onnx
    from scalesearch.values.candidate import Pruning, Quantization, Scaling
    from scalesearch.values.network import OnnxModel

    images = np.random.default_rng(0).normal(size=(64, 3, 64, 64)).astype(np.float32)

    def write(kind: Kind, to: Path) -> OnnxModel:
        base = base_spec(kind.network)
        spec = scale(base, Scaling(width=kind.width), resolution_px=64, num_classes=43, channel_multiple=8)
        network = build(spec, seed=0)
        network.module.eval()
        network = prune(network, Pruning(channel_fraction=kind.pruned), channel_multiple=8)
        return to_onnx(fold_batchnorm(network), to=to, check_images=images[:8])

    for name in kinds:
        kind = KINDS[name]
        write(Kind(network=kind.network), folder / f"{kind.reference}.onnx")
        fp32 = write(kind, folder / f"{name}.fp32.onnx")
        wanted = Quantization(precision=kind.precision)  # type: ignore[arg-type]
        quantize(fp32, wanted, calibration=images, profile="onnxruntime_cpu", to=folder / f"{name}.onnx")
        fp32.path.unlink()


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


def in_fresh_process(folder: Path, name: str, kind: str, seconds: float) -> None:
    """One repeat."""
    options = ["--to", str(folder), "--child", name, "--kinds", kind, "--seconds", str(seconds)]
    subprocess.run([sys.executable, __file__, *options], check=True)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Engine]:
    """The engine of a file, as a study builds it."""
    with get_backend(BACKEND).compile(onnx_model(path), EngineOptions(threads=THREADS, batch=1)) as engine:
        yield engine


def measure_once(folder: Path, name: str, kind: str, seconds: float) -> None:
    """Record both engines alone and a duet that never stops early; the replay stops where a trial would."""
    reference_name = KINDS[kind].reference
    calm_ms = json.loads((folder / "calm_ms.json").read_text())[reference_name]
    settings = LatencySettings(max_s=seconds, half_width=0.0)
    with (
        opened(folder / f"{kind}.onnx") as engine,
        opened(folder / f"{reference_name}.onnx") as reference,
        DeviceLock("cpu").quiet(),
        wandering(THREADS) as move,
    ):
        alone = [(alone_s(engine), alone_s(reference)) for _ in range(SOLO_ROUNDS)]
        players = Recorder(engine), Recorder(reference)
        play_duet(*players, settings=settings, calm_s=calm_ms / 1e3, move=move)
    save(folder / name, Recording(players=players, alone_s=np.array(alone), seconds=seconds, calm_ms=calm_ms))


def alone_s(engine: Engine) -> float:
    """Typical run of an engine that has the caches to itself."""
    times = list(engine.time_runs(3))
    while sum(times) < SOLO_S:
        times += engine.time_runs(20)
    return float(np.median(times[3:] or times))


if __name__ == "__main__":
    main()
