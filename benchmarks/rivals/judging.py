"""Time all members of one seed's fronts in turn in one process, and score the scripts' networks on the test images."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from rivals.comparing import Member, Share
from rivals.fronts import Handed, share_of
from scalesearch.analysis.confirmed_latency import mean_latency
from scalesearch.deployment.backends import EngineOptions, get_backend
from scalesearch.deployment.backends.base import Engine
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.files import replace_file
from scalesearch.measurement.calm_time import calm_time
from scalesearch.measurement.cores import wandering
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.measurement.latency import measure_latency
from scalesearch.records.stored_files import file_sha256
from scalesearch.values.latency import Latency
from scalesearch.values.settings import LatencySettings

BACKEND, ROUNDS = "onnxruntime", 2
OPTIONS = EngineOptions(threads=1, batch=1)
SETTINGS = LatencySettings()
REFERENCE, CALM = "reference.onnx", "reference_calm_ms.json"
"""The engine that all latencies are relative to, and its calm time: one of each for the whole comparison."""
_MEMBERS = TypeAdapter(tuple[Member, ...])


def write_reference(data: Path, to: Path, classes: int) -> None:
    """Write the untrained base network as ONNX, checked with a few validation images."""
    from rivals.plain_script import SplitFolder, shown_as
    from rivals.shapes import SIDE_PX, Shape
    from scalesearch.tasks.classification.pieces import build, to_onnx

    images = SplitFolder(data, "val", shown_as(SIDE_PX, flip=False))
    few = np.stack([np.asarray(images[place][0]) for place in range(0, len(images), max(1, len(images) // 8))])
    network = build(Shape().spec(classes))
    network.module.eval()
    to_onnx(network, to=to, check_images=few)


def judged(handed: Sequence[Handed], folder: Path, seed: int, *, say: Callable[[str], None] = print) -> list[Member]:
    """Return the members of one seed, timed together and tested; they are kept and not judged again.

    Args:
        handed: What the searches of this seed hand over.
        folder: The folder of the comparison, with its data and its reference engine.
        seed: The seed.
        say: Is called with a line for each step that takes time.
    """
    kept = folder / f"judged-{seed}.json"
    files = sorted(f"{one.arm} {one.name} {file_sha256(one.file)}" for one in handed)
    if kept.exists() and (stored := json.loads(kept.read_text(encoding="utf-8")))["files"] == files:
        return list(_MEMBERS.validate_python(stored["members"]))
    say(f"seed {seed}: scoring the scripts' networks on the test images")
    tests = [one.test or tested(one, folder) for one in handed]
    say(f"seed {seed}: timing {len(handed)} engines in turn, {ROUNDS} rounds, in one process")
    latencies = timed_together(handed, folder)
    if any(latency.unit_too_slow for latency in latencies):
        say(
            f"warning: the reference ran faster than ever before: remove {folder / CALM} and judged-*.json to time anew"
        )
    members = [_member(*each) for each in zip(handed, tests, latencies, strict=True)]
    replace_file(kept, json.dumps({"files": files, "members": [asdict(each) for each in members]}).encode())
    return members


def tested(one: Handed, folder: Path) -> Share:
    """Return the share of the test images that a script's network answers right, prepared as the script does it."""
    from torch.utils.data import DataLoader

    from rivals.plain_script import SplitFolder, shown_as

    images = SplitFolder(folder / "data", "test", shown_as(one.side_px, flip=False))
    correct = 0
    with get_backend(BACKEND).compile(onnx_model(one.file), OPTIONS) as engine:
        for pixels, labels in DataLoader(images, 64):
            correct += int((_logits(engine, pixels.numpy()).argmax(1) == labels.numpy()).sum())
    return share_of(correct, len(images))


def _logits(engine: Engine, images: NDArray[np.float32]) -> NDArray[np.float32]:
    return next(iter(engine.run(images).values()))


def timed_together(handed: Sequence[Handed], folder: Path) -> list[Latency]:
    """Return each network's latency; all engines are open, and are timed in turn with the reference engine."""
    order, lock = list(in_turn(handed)), DeviceLock(MEASURED_DEVICE)
    rounds: dict[Path, list[Latency]] = {one.file: [] for one in handed}
    with ExitStack() as opened:

        def engine_of(file: Path) -> Engine:
            return opened.enter_context(get_backend(BACKEND).compile(onnx_model(file), OPTIONS))

        reference = engine_of(folder / REFERENCE)
        engines = {one.file: engine_of(one.file) for one in order}
        calm_ms = calmest_ms = _calm_ms(reference, folder / CALM)
        for number in range(ROUNDS):
            # Forwards and backwards, so that no network is always first, or always after the same one.
            for one in order[:: 1 if number % 2 == 0 else -1]:
                with lock.quiet(), wandering(OPTIONS.threads) as move:
                    latency = measure_latency(
                        engines[one.file],
                        reference,
                        settings=SETTINGS,
                        reference_calm_ms=calm_ms,
                        calmest_ms=calmest_ms,
                        move=move,
                    )
                calmest_ms = min(calmest_ms, latency.reference_lowest_ms or calmest_ms)
                rounds[one.file].append(latency)
    return [mean_latency(rounds[one.file]) for one in handed]


def in_turn(handed: Iterable[Handed]) -> Iterator[Handed]:
    """Yield the members so that the arms alternate: one of each, then the next of each."""
    arms: dict[str, list[Handed]] = {}
    for one in handed:
        arms.setdefault(one.arm, []).append(one)
    for several in zip_longest(*arms.values()):
        yield from (one for one in several if one is not None)


def _calm_ms(reference: Engine, kept: Path) -> float:
    if not kept.exists():
        with DeviceLock(MEASURED_DEVICE).quiet(), wandering(OPTIONS.threads) as move:
            replace_file(kept, json.dumps(calm_time(reference, settings=SETTINGS, move=move)).encode())
    return float(json.loads(kept.read_text(encoding="utf-8")))


def _member(one: Handed, test: Share, latency: Latency) -> Member:
    return Member(
        arm=one.arm,
        seed=one.seed,
        name=one.name,
        val=one.val,
        test=test,
        told_ms=one.told_ms,
        ms=latency.p50_ms,
        ms_low=latency.p50_low_ms,
        ms_high=latency.p50_high_ms,
        stable=latency.stable,
    )
