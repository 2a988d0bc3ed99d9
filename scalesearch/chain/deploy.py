"""From a plan to the files that are deployed: train, prune, fold, export, quantize, and let a compiler judge."""

import functools
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from scalesearch.chain.examples import tensors
from scalesearch.chain.planner import Planner
from scalesearch.chain.shrink import Shrinker, Shrunk
from scalesearch.chain.stages import StageClock
from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.qat import WEIGHT_RATE, Lessons, QatResult, quantization_aware
from scalesearch.compression.quantize import Calibration, Kept, layers_in_float, quantize
from scalesearch.compression.simulation import layer_weights
from scalesearch.compression.sparsity import masks_of_zeros
from scalesearch.data import Dataset, to_input
from scalesearch.deployment.export_cache import ExportCache
from scalesearch.deployment.to_onnx import to_onnx
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.networks.backbone import Backbone
from scalesearch.tasks.base import Task
from scalesearch.tasks.hooks import plain_loss, torch_divergence
from scalesearch.training.machine import on_cpu, torch_threads
from scalesearch.values.candidate import Quantization
from scalesearch.values.identity import seed_from
from scalesearch.values.network import Network, OnnxModel
from scalesearch.values.plan import Plan
from scalesearch.values.record import (
    Acceptance,
    TrainingResult,
)
from scalesearch.values.session import Session

if TYPE_CHECKING:
    from scalesearch.deployment.acceptance import Gate

_CHECK_IMAGES = 8
_STYLED = ("int8", "fp8")
"""Precisions whose files depend on the target's style of quantization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """The network and the file of a trial, with the results of the steps that made them."""

    shrunk: Shrunk
    training: TrainingResult
    """The numbers of all training, quantization-aware updates included."""
    float_model: OnnxModel
    """The same network in fp32. Its file is a twin to compare with and is removed at the end."""
    model: OnnxModel
    acceptance: Acceptance | None


class Deployer:
    """Makes the files of one plan at a time.

    Args:
        session: The settings and target of the study.
        task: What the network is for.
        lock: The device's lock; training pauses between two updates while another process measures.
        exports: Where exported files are kept for later candidates; None: exported files are not kept.
    """

    def __init__(self, session: Session, task: Task, lock: DeviceLock, exports: ExportCache | None) -> None:
        self._task, self._lock = task, lock
        self._plan = Planner(session)
        self._shrink = Shrinker(session, lock)
        self._to_onnx = functools.partial(exports.to_onnx if exports else to_onnx, output_names=task.output_names)
        self._gate = None if session.settings.accept == "off" else _gate(session)
        self._profile = session.target.quantization_profile
        # Updates with simulated rounding run on the CPU, beside a GPU as well.
        self._machine = on_cpu(session.machine, session.settings.machine, workers=session.settings.workers)
        self._batch = session.settings.latency.batch

    def __call__(self, plan: Plan, data: Dataset, path: Path, stages: StageClock) -> Deployed:
        """Train, prune, fold, export, quantize and judge the plan's network, and write its file to `path`."""
        quantization = plan.candidate.quantization
        shrunk = self._shrink(plan, data, stages)
        training, ranges, weights, kept = shrunk.training, None, None, None
        calibration = _inputs(data, quantization.calibration_images)
        float_path = path.with_suffix(".fp32.onnx")
        try:
            with stages("export"):
                folded = fold_batchnorm(shrunk.network)
            if quantization.aware_steps:
                if quantization.keep_float:
                    kept = self._kept_float(folded, quantization, data, calibration, path, stages)
                with stages("retrain"):
                    started = time.perf_counter() - self._lock.paused_s
                    tuned = self._quantization_aware(folded, plan, data, calibration, kept)
                    folded, ranges, weights = tuned.network, tuned.ranges, tuned.weights
                    spent_s = training.retrain_s + time.perf_counter() - self._lock.paused_s - started
                    made = (training.new_steps or 0) + quantization.qat_steps
                    training = replace(training, retrain_s=spent_s, weights_reused=False, new_steps=made)
                    if plan.trunk_key:  # with `cosine` these updates are beside the schedule's, and not counted here
                        training = replace(training, steps=training.steps + quantization.qat_steps)
            with stages("export"):
                check_images = _inputs(data, _CHECK_IMAGES)  # not `calibration`, which may be a single image
                float_model = self._to_onnx(folded, to=float_path, check_images=check_images)
            with stages("quantize"):
                known = Calibration(
                    images=calibration,
                    input_ranges=ranges,
                    weights=weights,
                    divergence=self._task.divergence,
                    kept=kept,
                )
                model = quantize(float_model, quantization, calibration=known, profile=self._profile, to=path)
            with stages("accept"):
                acceptance = self._accepted(float_model, model, quantization, known)
        except BaseException:
            float_path.unlink(missing_ok=True)
            raise
        return Deployed(shrunk=shrunk, training=training, float_model=float_model, model=model, acceptance=acceptance)

    def is_trained(self, plan: Plan) -> bool:
        """Tell whether the weights of the plan's network are stored."""
        return self._shrink.is_stored(plan)

    def float_score(self, plan: Plan) -> float | None:
        """Return the score of the plan's network after as many updates, none of which simulated rounding.

        None if no candidate has trained it so; with `cosine` none can, since updates with rounding are further ones.
        """
        if not plan.trunk_key:
            return None
        quantization = replace(plan.candidate.quantization, qat_steps=0)
        candidate = replace(plan.candidate, quantization=quantization)
        return self._shrink.score(self._plan.plan_spec(plan.spec, candidate, cut_from=plan.cut_from))

    def untrained(self, plan: Plan) -> Network:
        """Return a network of the plan's shape with random weights, folded."""
        return fold_batchnorm(self._shrink.untrained(plan))

    def untrained_file(self, network: Network, quantization: Quantization, data: Dataset, to: Path) -> OnnxModel:
        """Write the file of an untrained network in the requested precision, with ranges measured on a few images."""
        plain = Quantization(precision=quantization.precision, weights=quantization.weights, calibration="minmax")
        images = _inputs(data, _CHECK_IMAGES)
        float_path = to.with_suffix(".fp32.onnx")
        try:
            float_model = self._to_onnx(network, to=float_path, check_images=images)
            known = Calibration(images=images)
            return quantize(float_model, plain, calibration=known, profile=self._profile, to=to)
        finally:
            float_path.unlink(missing_ok=True)

    def _kept_float(
        self,
        folded: Network,
        quantization: Quantization,
        data: Dataset,
        calibration: NDArray[np.float32],
        path: Path,
        stages: StageClock,
    ) -> Kept:
        """Choose the layers that stay in float before the updates with rounding, which must not round them either."""
        ranked_path = path.with_suffix(".ranked.onnx")
        try:
            with stages("export"):
                model = self._to_onnx(folded, to=ranked_path, check_images=_inputs(data, _CHECK_IMAGES))
            with stages("quantize"):
                return layers_in_float(
                    model,
                    quantization,
                    calibration=Calibration(images=calibration, divergence=self._task.divergence),
                    profile=self._profile,
                    weights=layer_weights(folded.module),
                )
        finally:
            ranked_path.unlink(missing_ok=True)

    def _quantization_aware(
        self, folded: Network, plan: Plan, data: Dataset, calibration: NDArray[np.float32], kept: Kept | None = None
    ) -> QatResult:
        seed = seed_from("qat", plan.key)
        images, targets = tensors(data.train)
        batches = self._task.make_batches(
            images, targets, plan.candidate.recipe, mean=data.mean, std=data.std, device=self._machine.device, seed=seed
        )
        lessons = Lessons(
            batches=batches.next,
            loss=plain_loss(self._task, plan.candidate.recipe),
            divergence=torch_divergence(self._task),
            rate=_rounding_rate(folded),
            masks=masks_of_zeros(folded.module) if plan.pruning.sparsity != "none" else {},
            breathe=self._lock.breathe,
        )
        with torch_threads(self._machine):
            return quantization_aware(
                folded,
                plan.candidate.quantization,
                lessons,
                profile=self._profile,
                calibration=torch.from_numpy(calibration),
                seed=seed,
                skip=kept.weights if kept else frozenset(),
            )

    def _accepted(
        self,
        float_model: OnnxModel,
        model: OnnxModel,
        quantization: Quantization,
        known: Calibration,
    ) -> Acceptance | None:
        """Let NVIDIA's compiler judge the deployed graph, or a twin in TensorRT's style if the target's differs."""
        if self._gate is None:
            return None
        if self._profile == "tensorrt" or quantization.precision not in _STYLED:
            return self._gate.judge(model, batch=self._batch)
        twin_path = model.path.with_suffix(".tensorrt.onnx")
        try:
            twin = quantize(float_model, quantization, calibration=known, profile="tensorrt", to=twin_path)
            return self._gate.judge(twin, batch=self._batch)
        finally:
            twin_path.unlink(missing_ok=True)

    def dense_file(self, work: Deployed, data: Dataset) -> OnnxModel:
        """Write the dense (unpruned) network in fp32, next to the trial's file."""
        images = _inputs(data, _CHECK_IMAGES)
        dense = fold_batchnorm(work.shrunk.dense)
        return self._to_onnx(dense, to=dense_path(work.model.path), check_images=images)


def _inputs(data: Dataset, images: int) -> NDArray[np.float32]:
    """Return the first calibration images as input of the network, normalised (N, C, H, W)."""
    return to_input(data.calibration.images[:images], mean=data.mean, std=data.std)


def _rounding_rate(network: Network) -> float:
    """Return the learning rate of training with simulated rounding that suits the network's task."""
    asked = network.module.rounding_rate if isinstance(network.module, Backbone) else None
    return WEIGHT_RATE if asked is None else asked


def _gate(session: Session) -> "Gate":
    from scalesearch.deployment.acceptance import Gate  # here, since it loads a native library that only the gate needs

    return Gate(session.target.compute_capability, session.settings.tensorrt)


def dense_path(model: Path) -> Path:
    """Return where `dense_file` writes, for a trial's file at `model`."""
    return model.with_suffix(".dense.onnx")
