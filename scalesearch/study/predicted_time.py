"""Predicts how long a run will take, as a range, from the cost of one candidate, which is derived from a few timings.

What cannot be known in advance is in the width of the range: how calm the machine is while latencies are measured, how
many siblings are evaluated, and which candidates the sampler turns to.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.quantize import quantize
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.backends.base import EngineOptions
from scalesearch.deployment.to_onnx import to_onnx
from scalesearch.errors import StageFailed
from scalesearch.measurement.latency import FIRST_LOOK_PAIRS, MIN_S, WARMUP_WINDOWS
from scalesearch.networks.build import build, settle_norms
from scalesearch.tasks.base import Task
from scalesearch.tasks.hooks import Objective
from scalesearch.tasks.registry import get_task
from scalesearch.training.machine import probe_machine, torch_threads
from scalesearch.training.schedule import trunk_steps
from scalesearch.training.train import train
from scalesearch.values.candidate import Quantization
from scalesearch.values.plan import Plan
from scalesearch.values.settings import Machine, RunSettings
from scalesearch.values.space import Choice, SearchSpace

PROBED_NETWORKS, PROBE_S, PROBE_STEPS = 4, 1.5, 10
PROBES_S = 8.0
"""After this many seconds no further network is probed."""
PROBE_MACS = 5e9
"""Multiplications of one probed step, roughly. Larger batches are probed with fewer images."""
FILE_MACS = 30_000_000
"""The export is timed on the most expensive network up to this many MACs, or else on the cheapest network."""
LARGEST_PARAMS, LARGEST_MACS = 100_000_000, 2_000_000_000
"""Networks beyond these are not built for a probe. Their times are derived from those of smaller ones."""
PROBE_IMAGES = 32
USUAL_VAL_IMAGES = 1500
"""Used where no data set is loaded: as many as the built-in signs have."""

_STAGE = "train"

Bounds = tuple[float, float]
"""The smallest and the largest value of something."""

# Seconds on a calm and on a busy machine with two cores; every run needs them once. Opening: data from the cache,
# probe, reference, start of a worker. Ending: two processes that load torch, tables and pictures.
OPENING_S: Bounds = (8.0, 40.0)
ENDING_S: Bounds = (5.0, 30.0)
AROUND_S: Bounds = (0.6, 3.0)
"""Around every evaluated file: loading weights, counting, tables, pictures, the dashboard's notes."""
FRONT_S: Bounds = (1.0, 5.0)
"""For each front member at the end, without its latency: test images and histograms."""
FRONT_MEMBERS: Bounds = (2, 12)
BUILD_S = {"tensorrt": (4.0, 40.0), "tensorrt_rtx": (1.0, 10.0), "openvino": (0.2, 1.5)}
"""Seconds to build an engine. Those of ONNX Runtime are there at once."""
GATE_S: Bounds = (0.3, 5.0)
NEAR_FRONT: Bounds = (0.4, 1.0)
"""Fraction of the trained candidates whose siblings are evaluated: 33 of the 60 in results/example, all of the first
8."""
TRAINING_SPREAD: Bounds = (0.85, 1.25)
"""Time of a whole training relative to the probed steps. They differ by weights that come back from the store, and by
other work on the machine."""
SHARED_CORES = 1.25
"""Workers that run at the same time slow each other down by up to this factor."""
PIECES_SPREAD: Bounds = (0.7, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """What was timed on this machine."""

    steps: tuple[tuple[int, float], ...]
    """(MACs of one image, seconds of a training step at the recipe's batch size), ascending by MACs."""
    export_s: float
    quantize_s: float
    image_s_per_mac: float
    """Seconds per image and MAC of the engine that scores, with one thread."""

    def step_s(self, macs: int) -> float:
        """Return the seconds of one training step of a network with `macs` MACs.

        Between the timed networks this follows straight lines; beyond them, it grows in proportion to the MACs.
        """
        if len(self.steps) == 1 or macs > self.steps[-1][0]:
            known, seconds = self.steps[-1]
            return seconds * max(1.0, macs / known)
        return float(np.interp(macs, [each for each, _ in self.steps], [seconds for _, seconds in self.steps]))


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedTime:
    """Seconds of a whole run, as a range, and what its candidates take on average in training and otherwise."""

    low_s: float
    high_s: float
    trained: int
    """Number of trained candidates: the budget, or fewer where the space holds fewer."""
    training_s: float
    other_s: Bounds

    @property
    def words(self) -> str:
        """The range and its parts as a sentence."""
        low, high = self.other_s
        return (
            f"takes about {_span(self.low_s, self.high_s)} here: {self.trained} candidates of {self.training_s:.0f} s "
            f"training each, and {low:.0f} to {high:.0f} s for the rest (export, timing, scoring, twins, siblings)"
        )


def measure_pieces(settings: RunSettings, plans: Sequence[Plan]) -> Pieces:
    """Time a few training steps of networks between the cheapest and the most expensive plan, and one export.

    This takes some ten seconds, whatever is asked for: expensive steps are timed with fewer images, and the largest
    networks not at all.

    Raises:
        StageFailed: Not one step could be timed.
    """
    machine, task = probe_machine(settings.machine, workers=settings.workers), get_task(settings.task)
    ordered = sorted(plans, key=lambda plan: plan.dense_cost.macs)
    buildable = [plan for plan in ordered if _is_buildable(plan)] or ordered[:1]
    places = np.linspace(0, len(buildable) - 1, PROBED_NETWORKS).round().astype(int)
    points: dict[int, float] = {}
    failure = ""
    until = time.monotonic() + PROBES_S
    # The ends first: values in between can be derived from both.
    for place in sorted(set(places.tolist()), key=lambda place: min(place, 2 * (len(buildable) - 1 - place) + 1)):
        plan = buildable[place]
        if points and time.monotonic() > until:
            break
        try:
            points[plan.dense_cost.macs] = _step_s(plan, machine, task)
        except StageFailed as failed:  # a run would record it and go on
            failure = failed.reason
    if not points:
        raise StageFailed(_STAGE, failure)
    small = [plan for plan in buildable if plan.dense_cost.macs <= FILE_MACS]
    export_s, quantize_s, image_s_per_mac = _file_pieces(small[-1] if small else buildable[0], task)
    return Pieces(
        steps=tuple(sorted(points.items())),
        export_s=export_s,
        quantize_s=quantize_s,
        image_s_per_mac=image_s_per_mac,
    )


def predict(
    settings: RunSettings,
    space: SearchSpace,
    backend: str,
    plans: Sequence[Plan],
    pieces: Pieces,
    *,
    first: Plan | None = None,
    val_images: int = USUAL_VAL_IMAGES,
) -> PredictedTime:
    """Predict the time of a run whose candidates are like `plans`, which are within the limits.

    Args:
        settings: Settings of the run.
        space: Search space of the run, fitted to its target.
        backend: Backend of the target.
        plans: Plans of randomly drawn candidates.
        pieces: The times that were measured.
        first: The plan of the run's first trial, the cheapest candidate.
        val_images: Number of validation images in the data set.
    """
    trained = int(min(settings.budget, distinct_trainings(space)))
    ends = []
    for end in (0, 1):
        costs = [_seconds(plan, settings, space, backend, pieces, val_images, end) for plan in plans]
        mean = statistics.fmean(costs)
        if len(costs) > 1:  # the mean of so few candidates is itself random
            mean += (-1, 1)[end] * statistics.stdev(costs) / math.sqrt(trained)
        mean = max(mean, min(costs))
        begin = _seconds(first, settings, space, backend, pieces, val_images, end) if first else mean
        members = min(FRONT_MEMBERS[end], trained * len(_precisions(space)))
        ending = ENDING_S[end] + members * (FRONT_S[end] + _latency_s(plans[0], settings, pieces)[end])
        ends.append(OPENING_S[end] + begin + (trained - 1) * mean + ending)
    training = statistics.fmean(_training_s(plan, pieces) for plan in plans)
    low, high = (
        statistics.fmean(
            _seconds(plan, settings, space, backend, pieces, val_images, end, training=False) for plan in plans
        )
        for end in (0, 1)
    )
    return PredictedTime(
        low_s=ends[0], high_s=ends[1], trained=trained, training_s=training, other_s=(low, max(low, high))
    )


def distinct_trainings(space: SearchSpace) -> float:
    """Count the combinations of values that training depends on; infinite where an axis is a range without steps."""
    count = 1.0
    for named in space.axes:
        if named.name.startswith("quantization."):
            continue
        axis = named.axis
        if isinstance(axis, Choice):
            count *= len(axis.values)
        elif axis.step:
            count *= axis.steps + 1
        else:
            return math.inf
    return count


def _seconds(
    plan: Plan,
    settings: RunSettings,
    space: SearchSpace,
    backend: str,
    pieces: Pieces,
    val_images: int,
    end: int,
    *,
    training: bool = True,
) -> float:
    """Return the seconds that a trained candidate adds to the run, siblings included.

    Latencies are measured one after the other, whatever the number of workers. All other work is shared between them.
    `end` is the end of the range: 0 for a calm machine, 1 for a busy one.
    """
    precisions = _precisions(space)
    pruned, quantized = plan.pruning.any, plan.candidate.quantization.precision != "fp32"
    latencies = 1.0 + (quantized + pruned if settings.twins else 0)
    around = AROUND_S[end] + BUILD_S.get(backend, (0.0, 0.0))[end] + (GATE_S[end] if settings.accept != "off" else 0)
    passes = 2 if backend == "onnxruntime" else 3
    scoring = passes * val_images * plan.cost.macs * pieces.image_s_per_mac
    file = PIECES_SPREAD[end] * (pieces.quantize_s + scoring) + around
    exports = PIECES_SPREAD[end] * pieces.export_s * (1 + (pruned and settings.twins))
    shared = exports + file
    if training:
        slower = SHARED_CORES if end and settings.workers > 1 else 1.0
        shared += TRAINING_SPREAD[end] * slower * _training_s(plan, pieces)
    if settings.siblings:
        siblings = NEAR_FRONT[end] * (len(precisions) - 1)
        latencies += siblings
        shared += siblings * file
    return latencies * _latency_s(plan, settings, pieces)[end] + shared / settings.workers


def _training_s(plan: Plan, pieces: Pieces) -> float:
    recipe, quantization = plan.candidate.recipe, plan.candidate.quantization
    if plan.trunk_key:
        seconds = trunk_steps(recipe) * pieces.step_s(plan.dense_cost.macs)
        seconds += plan.branch_updates * pieces.step_s(plan.cost.macs)
    else:
        seconds = recipe.steps * pieces.step_s(plan.dense_cost.macs)
        if plan.pruning.any:
            seconds += recipe.retrain_steps * pieces.step_s(plan.cost.macs)
    if quantization.precision == "int8":  # rounding in the forward pass about doubles a step
        seconds += 2 * quantization.qat_steps * pieces.step_s(plan.cost.macs)
    return seconds


def _latency_s(plan: Plan, settings: RunSettings, pieces: Pieces) -> Bounds:
    """Return the shortest and longest time in seconds that one latency measurement takes.

    Candidate and reference are warmed up, then run in turn.
    """
    latency = settings.latency
    run_s = latency.batch * plan.cost.macs * pieces.image_s_per_mac
    first_look_s = 2 * FIRST_LOOK_PAIRS * run_s
    warm_s = latency.warmup_s + run_s
    least = 2 * warm_s + min(max(MIN_S, first_look_s), latency.max_s)
    return least, WARMUP_WINDOWS / 2 * warm_s + max(latency.max_s, 12 * run_s)


def _precisions(space: SearchSpace) -> tuple[object, ...]:
    axis = next((named.axis for named in space.axes if named.name == "quantization.precision"), None)
    return axis.values if isinstance(axis, Choice) else (Quantization().precision,)


def _is_buildable(plan: Plan) -> bool:
    return plan.dense_cost.params <= LARGEST_PARAMS and plan.dense_cost.macs <= LARGEST_MACS


def _step_s(plan: Plan, machine: Machine, task: Task) -> float:
    """Return the seconds of a training step at the recipe's batch size.

    Where such a step is expensive, the time is derived from two smaller batches.
    """
    batch = plan.candidate.recipe.batch_size
    fits = max(8, int(PROBE_MACS / (3 * max(1, plan.dense_cost.macs))))
    if batch <= fits:
        return _timed_step_s(plan, machine, task, batch)
    few = fits // 4
    whole, least = _timed_step_s(plan, machine, task, fits), _timed_step_s(plan, machine, task, few)
    # What a step costs besides its images (the optimizer's work) does not grow with the batch size.
    image_s = max((whole - least) / (fits - few), whole / fits / 10)
    return whole + (batch - fits) * image_s


class _EnoughError(Exception):
    """Enough steps were timed."""


def _timed_step_s(plan: Plan, machine: Machine, task: Task, batch: int) -> float:
    spec, moments = plan.spec, list[float]()

    def breathe() -> None:
        if machine.device != "cpu":
            torch.cuda.synchronize()
        moments.append(time.perf_counter())
        if len(moments) > PROBE_STEPS or (len(moments) > 2 and moments[-1] - moments[1] > PROBE_S):
            raise _EnoughError

    shape = (batch, spec.image_channels, *spec.input_size.sides)
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    labels = torch.randint(0, spec.num_classes, (batch,), generator=random)
    recipe = replace(plan.candidate.recipe, batch_size=batch)
    try:
        network = build(spec, task.make_module)
        train(
            network, images, labels, recipe, machine, objective=Objective(task=task),
            mean=(0.5,) * shape[1], std=(0.25,) * shape[1], seed=0, rates=(1.0,) * (PROBE_STEPS + 1), breathe=breathe,
        )  # fmt: skip
    except _EnoughError:
        pass
    except MemoryError as error:
        reason = "out of memory"
        raise StageFailed(_STAGE, reason) from error
    if len(moments) < 3:
        reason = "no step could be timed"
        raise StageFailed(_STAGE, reason)
    return (moments[-1] - moments[1]) / (len(moments) - 2)  # the first step pays one-time costs


def _file_pieces(plan: Plan, task: Task) -> tuple[float, float, float]:
    """Return the seconds of an export, of a quantization to int8, and per image and MAC of the engine that scores."""
    spec = plan.spec
    if not _is_buildable(plan):
        return 10.0, 10.0, 1e-10
    count = max(4, min(PROBE_IMAGES, int(PROBE_MACS / 10 / max(1, plan.dense_cost.macs))))
    images = np.random.default_rng(0).standard_normal(
        (count, spec.image_channels, *spec.input_size.sides), dtype=np.float32
    )
    with tempfile.TemporaryDirectory() as scratch, torch_threads(_ONE_THREAD):
        network = settle_norms(build(spec, task.make_module), images[:8])
        times = [time.perf_counter()]
        model = to_onnx(
            fold_batchnorm(network),
            to=Path(scratch) / "model.onnx",
            check_images=images[:8],
            output_names=task.output_names,
        )
        times.append(time.perf_counter())
        quantization = replace(plan.candidate.quantization, precision="int8", keep_float=0, bias_correction=False)
        quantize(
            model, quantization, calibration=images, profile="onnxruntime_cpu", to=Path(scratch) / "int8.onnx"
        )  # fmt: skip
        times.append(time.perf_counter())
        with get_backend("onnxruntime").compile(model, EngineOptions(threads=1)) as engine:
            engine.run(images[:1])
            times.append(time.perf_counter())
            engine.run(images)
            times.append(time.perf_counter())
    image_s = (times[4] - times[3]) / count
    more_images = max(0, quantization.calibration_images - count)
    quantize_s = times[2] - times[1] + more_images * 2 * image_s
    return times[1] - times[0], quantize_s, image_s / max(1, plan.dense_cost.macs)


_ONE_THREAD = Machine(device="cpu", threads=1, bf16=False, channels_last=True)


def _span(low_s: float, high_s: float) -> str:
    for size_s, unit in ((3600, "h"), (60, "min")):
        if high_s >= 1.5 * size_s:
            return f"{_number(low_s / size_s)} to {_number(high_s / size_s)} {unit}"
    return f"{low_s:.0f} to {high_s:.0f} s"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
