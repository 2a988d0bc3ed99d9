"""Time the parts of a run on this machine: training steps of several sizes, an export, and a quantization."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.quantize import Calibration, quantize
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.backends.base import EngineOptions
from scalesearch.deployment.to_onnx import to_onnx
from scalesearch.errors import StageFailed
from scalesearch.networks.build import build, settle_norms
from scalesearch.tasks.base import Task
from scalesearch.tasks.hooks import Objective
from scalesearch.tasks.registry import get_task
from scalesearch.training.fit import Course
from scalesearch.training.machine import probe_machine, torch_threads
from scalesearch.training.train import Examples, train
from scalesearch.values.plan import Plan
from scalesearch.values.settings import Machine, MachineSettings

PROBED_NETWORKS, PROBE_S, PROBE_STEPS = 4, 1.5, 10
PROBES_S = 8.0
"""After this many seconds no further network is probed."""
PROBE_MACS = 5e9
"""MACs of one probed training step, roughly, backward pass included. Larger batches are probed with fewer images."""
FILE_MACS = 30_000_000
"""The export is timed on the most expensive network up to this many MACs, or else on the cheapest network."""
LARGEST_PARAMS, LARGEST_MACS = 100_000_000, 2_000_000_000
"""Networks beyond these are not built for a probe. Their times are derived from those of smaller ones."""
PROBE_IMAGES = 32

_STAGE = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """Times of the parts of a run on this machine."""

    steps: tuple[tuple[int, float], ...]
    """(MACs of one image, seconds of a training step at the recipe's batch size), ascending by MACs."""
    export_s: float
    quantize_s: float
    image_s_per_mac: float
    """Seconds per image and MAC of the engine that scores, with one thread."""

    def step_s(self, macs: int) -> float:
        """Return the seconds of one training step of a network with `macs` MACs.

        Between the timed networks the time is interpolated linearly. Above the largest it grows in proportion to the
        MACs, and below the smallest it stays the same.
        """
        if len(self.steps) == 1 or macs > self.steps[-1][0]:
            known, seconds = self.steps[-1]
            return seconds * max(1.0, macs / known)
        return float(np.interp(macs, [each for each, _ in self.steps], [seconds for _, seconds in self.steps]))


def measure_pieces(plans: Sequence[Plan], *, task: str, settings: MachineSettings, workers: int = 1) -> Pieces:
    """Time a few training steps of networks between the cheapest and the most expensive plan, and one export.

    This takes some ten seconds for any plans: expensive steps are timed with fewer images, and the largest
    networks not at all.

    Args:
        plans: Plans of the candidates that a run may train.
        task: Name of the run's task.
        settings: What training uses of the machine.
        workers: Number of the run's workers, which share the machine.

    Raises:
        StageFailed: Not one step could be timed.
    """
    machine, trained = probe_machine(settings, workers=workers), get_task(task)
    ordered = sorted([*plans, *_trunks(plans)], key=lambda plan: plan.dense_cost.macs)
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
            points[plan.dense_cost.macs] = _step_s(plan, machine, trained)
        except StageFailed as failed:  # a run would record the failure and go on
            failure = failed.reason
    if not points:
        raise StageFailed(_STAGE, failure)
    small = [plan for plan in buildable if plan.dense_cost.macs <= FILE_MACS]
    export_s, quantize_s, image_s_per_mac = _file_pieces(small[-1] if small else buildable[0], trained)
    return Pieces(
        steps=tuple(sorted(points.items())),
        export_s=export_s,
        quantize_s=quantize_s,
        image_s_per_mac=image_s_per_mac,
    )


def _trunks(plans: Sequence[Plan]) -> list[Plan]:
    """Return a plan for each larger network whose trunk is trained and then cut."""
    larger = {plan.trunk_key: plan for plan in plans if plan.cut_from}
    return [
        replace(plan, spec=spec, dense_cost=cost, cut_from=None)
        for plan in larger.values()
        for spec, cost in (plan.begun,)
    ]


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
    targets = task.made_up_targets(spec, batch, random)
    recipe = replace(plan.candidate.recipe, batch_size=batch)
    try:
        network = build(spec, task.make_module)
        examples = Examples(images=images, targets=targets, mean=(0.5,) * shape[1], std=(0.25,) * shape[1])
        course = Course(seed=0, rates=(1.0,) * (PROBE_STEPS + 1), breathe=breathe)
        train(network, examples, recipe, machine, course, objective=Objective(task=task))
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
        known, to = Calibration(images=images), Path(scratch) / "int8.onnx"
        quantize(model, quantization, calibration=known, profile="onnxruntime_cpu", to=to)
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
