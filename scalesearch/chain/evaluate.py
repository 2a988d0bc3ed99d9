"""THE CHAIN: the order of a trial's stages, which is known only in this module.

Candidate -> spec -> network -> limits -> train -> prune, retrain -> fold -> ONNX -> quantize -> engine -> numbers.
"""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from scalesearch.chain.gains import TwinStore, gain
from scalesearch.chain.planner import layer_shapes, limit_use
from scalesearch.chain.shrink import Shrinker, Shrunk, tensors
from scalesearch.chain.stages import StageClock
from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.qat import WEIGHT_RATE, QatResult, quantization_aware
from scalesearch.compression.quantize import quantize
from scalesearch.data import Dataset, ImageSplit, to_input
from scalesearch.data.finding import load_study_data
from scalesearch.data.mapped import MappedImages
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.backends.base import Engine, EngineOptions
from scalesearch.deployment.export_cache import ExportCache
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.deployment.to_onnx import to_onnx
from scalesearch.errors import StageFailed
from scalesearch.measurement.cores import wandering
from scalesearch.measurement.cost import count_cost
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.measurement.latency import measure_latency
from scalesearch.measurement.metric import Metric
from scalesearch.measurement.quality import answer_all, measure_quality
from scalesearch.networks.backbone import Backbone
from scalesearch.records.stored_files import kept_model, kept_reference
from scalesearch.tasks.hooks import plain_loss, torch_divergence
from scalesearch.tasks.registry import get_task
from scalesearch.training.machine import torch_threads
from scalesearch.values.candidate import Pruning, Quantization
from scalesearch.values.identity import content_hash, seed_from
from scalesearch.values.network import Network, OnnxModel
from scalesearch.values.plan import Plan
from scalesearch.values.quality import Quality
from scalesearch.values.record import (
    Acceptance,
    Cost,
    FrontScore,
    Gain,
    Latency,
    LimitUse,
    MeasuredTrial,
    StepScore,
    TrainingResult,
)
from scalesearch.values.session import Session, model_path, reference_path
from scalesearch.values.settings import RunSettings

if TYPE_CHECKING:
    from scalesearch.deployment.acceptance import Gate

_UNPRUNED = Pruning()
_SCORE_BATCH = 64
_CHECK_IMAGES = 8
_STYLED = ("int8", "fp8")
"""Precisions whose files differ between the styles of quantization of the targets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deployed:
    """A trial's network and file, with everything that was found on the way."""

    shrunk: Shrunk
    training: TrainingResult
    """The numbers of all training, quantization-aware updates included."""
    float_model: OnnxModel
    """The same network in fp32. Its file is a twin to compare with and is removed at the end."""
    model: OnnxModel
    acceptance: Acceptance | None


class TrialEvaluator:
    """Runs the chain for one plan at a time; lives in a worker process and keeps data and reference engine open.

    Args:
        session: The settings, data and reference of the study.
        exports: Where exported files are kept for later candidates; None: exported files are not kept.
        measures: False if it is used only to `rebuild`, which needs no reference engine.

    Raises:
        ConfigError: The data are gone or have changed, or the reference engine's file has changed.
    """

    def __init__(self, session: Session, *, exports: ExportCache | None = None, measures: bool = True) -> None:
        self._session = session
        self._lock = DeviceLock(MEASURED_DEVICE)
        self._backend = get_backend(session.target.backend)
        self._shrink = Shrinker(session, self._lock)
        self._twins = TwinStore(session.folder)
        self._to_onnx = functools.partial(
            exports.to_onnx if exports else to_onnx, output_names=get_task(session.settings.task).output_names
        )
        self._task = get_task(session.settings.task)
        self._gate = None if session.settings.accept == "off" else _gate(session)
        self.dataset = load_study_data(session, self._task.sources())
        """The study's images, at the size in which they are stored."""
        if measures:
            kept_reference(session)
            self._reference = self._compile(onnx_model(reference_path(session.folder)))
        self._calmest_ms = session.reference_calm_ms

    def evaluate(self, plan: Plan, *, trial: int, report: Callable[[str], None]) -> MeasuredTrial:
        """Run all stages for a plan and return the complete record of the trial.

        Args:
            plan: The plan of the trial's candidate.
            trial: Number of the trial.
            report: Called with the name of each stage as it begins.

        Raises:
            StageFailed: A stage failed; the reason belongs into the record.
        """
        session, warnings = self._session, list[str]()
        stages = StageClock(report, lambda: self._lock.paused_s)
        path = model_path(session.folder, trial)
        with contextlib.ExitStack() as scratch:
            with stages.held(self._lock.busy()):
                with stages("resize"):
                    data = self.dataset.at(plan.spec.input_size)
                work = self._deployed(plan, data, path, stages)
                scratch.callback(work.float_model.path.unlink, missing_ok=True)
                scratch.callback(_dense_path(path).unlink, missing_ok=True)
                with stages("cost"):
                    cost = count_cost(work.shrunk.network)
                with stages("compile"):
                    engine = scratch.enter_context(self._compile(work.model, plan.pruning))
            with stages.held(self._lock.quiet()), stages("latency"):
                latency = self._latency(engine)
                notes = engine.timing_notes()
                latency = replace(latency, enqueue_p50_ms=notes.enqueue_p50_ms)
                warnings += notes.doubts
            with stages.held(self._lock.busy()), stages("quality"):
                quality = self._quality(engine, data.val, warnings)
                steps = (*self._accuracy_steps(work, data), StepScore(step="engine", score=quality.score))
            gains = self._gains(plan, work, latency, steps, stages) if session.settings.twins else ()
        training = work.training
        return MeasuredTrial(
            trial=trial,
            key=plan.key,
            state="complete",
            charged=not training.weights_reused,
            candidate=plan.candidate,
            spec=plan.spec,  # the spec before pruning: rebuilding prunes it again
            cut_from=plan.cut_from,
            cost=cost,
            dense_macs=plan.dense_cost.macs,
            training=training,
            latency=latency,
            quality=quality,
            accuracy_path=steps,
            gains=gains,
            acceptance=work.acceptance,
            size_bytes=work.model.size_bytes,
            onnx_sha256=work.model.sha256,
            network_sha256=content_hash(layer_shapes(work.shrunk.network)),
            device=session.device,
            limits=limits_after(session, cost, work.model.size_bytes, latency.p50_ms),
            stages=stages.times,
            warnings=(*warnings, *_doubts(training, latency)),
        )

    def score_on_test(self, record: MeasuredTrial) -> FrontScore:
        """Measure quality on the test images, and latency once more, of a finished trial's stored model file."""
        with self._kept_engine(record) as engine:
            with self._lock.quiet():
                latency = self._latency(engine)
            return FrontScore(trial=record.trial, test=self._test(engine, record), latency=latency)

    def test_quality(self, record: MeasuredTrial) -> Quality:
        """Measure quality on the test images of a finished trial's stored model file."""
        with self._kept_engine(record) as engine:
            return self._test(engine, record)

    def _kept_engine(self, record: MeasuredTrial) -> Engine:
        path = kept_model(self._session.folder, record) or model_path(self._session.folder, record.trial)
        return self._compile(onnx_model(path), record.candidate.pruning)

    def _test(self, engine: Engine, record: MeasuredTrial) -> Quality:
        with self._lock.busy():
            return self._quality(engine, self.dataset.at(record.spec.input_size).test, [])

    def rebuild(self, plan: Plan, *, to: Path) -> OnnxModel:
        """Make the deployed file of a plan again, at `to`.

        Trained weights are taken from the weight store if they are there; otherwise the network is trained again.
        """
        with self._lock.busy():
            data = self.dataset.at(plan.spec.input_size)
            work = self._deployed(plan, data, to, StageClock())
            work.float_model.path.unlink(missing_ok=True)
            return work.model

    def _deployed(self, plan: Plan, data: Dataset, path: Path, stages: StageClock) -> "_Deployed":
        """Train, prune, fold, export, quantize and judge the plan's network, and write its file to `path`."""
        quantization, profile = plan.candidate.quantization, self._session.target.quantization_profile
        shrunk = self._shrink(plan, data, stages)
        training, ranges = shrunk.training, None
        calibration = self._input(data.calibration.images[: quantization.calibration_images])
        float_path = path.with_suffix(".fp32.onnx")
        try:
            with stages("export"):
                folded = fold_batchnorm(shrunk.network)
            if quantization.qat_steps and quantization.precision == "int8":
                with stages("retrain"):
                    started = time.perf_counter() - self._lock.paused_s
                    tuned = self._quantization_aware(folded, plan, data, calibration)
                    folded, ranges = tuned.network, tuned.ranges
                    spent_s = training.retrain_s + time.perf_counter() - self._lock.paused_s - started
                    training = replace(training, retrain_s=spent_s, weights_reused=False)
                    if plan.trunk_key:
                        made = (training.new_steps or 0) + quantization.qat_steps
                        training = replace(training, steps=training.steps + quantization.qat_steps, new_steps=made)
            with stages("export"):
                float_model = self._to_onnx(folded, to=float_path, check_images=calibration[:_CHECK_IMAGES])
            with stages("quantize"):
                model = quantize(
                    float_model,
                    quantization,
                    calibration=calibration,
                    profile=profile,
                    to=path,
                    input_ranges=ranges,
                    divergence=self._task.divergence,
                )
            with stages("accept"):
                acceptance = self._accepted(float_model, model, quantization, calibration)
        except BaseException:
            float_path.unlink(missing_ok=True)
            raise
        return _Deployed(shrunk=shrunk, training=training, float_model=float_model, model=model, acceptance=acceptance)

    def _quantization_aware(
        self, folded: Network, plan: Plan, data: Dataset, calibration: NDArray[np.float32]
    ) -> QatResult:
        seed = seed_from("qat", plan.key)
        images, targets = tensors(data.train)
        batches = self._task.make_batches(
            images, targets, plan.candidate.recipe, mean=data.mean, std=data.std, device="cpu", seed=seed
        )
        with torch_threads(self._session.machine):
            return quantization_aware(
                folded,
                plan.candidate.quantization,
                batches=batches.next,
                loss=plain_loss(self._task),
                divergence=torch_divergence(self._task),
                calibration=torch.from_numpy(calibration),
                profile=self._session.target.quantization_profile,
                seed=seed,
                rate=_rounding_rate(folded),
                breathe=self._lock.breathe,
            )

    def _gains(
        self, plan: Plan, work: "_Deployed", latency: Latency, steps: tuple[StepScore, ...], stages: StageClock
    ) -> tuple[Gain, ...]:
        """Compare each step with the same network without it.

        The pruned network is compared with the dense one, both in fp32, then the precision with fp32.
        """
        precision, found = plan.candidate.quantization.precision, []
        as_fp32 = latency
        if precision != "fp32":
            as_fp32 = self._twin(work.float_model.sha256, lambda: work.float_model, stages)
        else:
            self._twins.latency(work.float_model.sha256, lambda: latency)
        if plan.pruning.any:
            dense = self._twin(plan.weights_key, lambda: self._dense_file(plan, work), stages)
            score, before = work.shrunk.training.float_score, work.shrunk.dense_score
            change = None if before is None else score - before
            what = plan.pruning.label
            found.append(gain("pruning", what, without=dense, having=as_fp32, score_change=change))
        if precision != "fp32":
            before = next(step.score for step in steps if step.step == "onnx_fp32")
            what = plan.candidate.quantization.label
            change = steps[-1].score - before
            found.append(gain("precision", what, without=as_fp32, having=latency, score_change=change))
        return tuple(found)

    def _twin(self, key: str, file: Callable[[], OnnxModel], stages: StageClock) -> Latency:
        """Return the fp32 latency of a network to compare with, measured now unless this study has done so before."""

        def measure() -> Latency:
            with stages.held(self._lock.busy()), stages("twin"):
                engine = self._compile(file())
            with engine, stages.held(self._lock.quiet()), stages("twin"):
                return self._latency(engine)

        return self._twins.latency(key, measure)

    def _dense_file(self, plan: Plan, work: "_Deployed") -> OnnxModel:
        data = self.dataset.at(plan.spec.input_size)
        images = self._input(data.calibration.images[:_CHECK_IMAGES])
        dense = fold_batchnorm(work.shrunk.dense)
        return self._to_onnx(dense, to=_dense_path(work.model.path), check_images=images)

    def _accepted(
        self,
        float_model: OnnxModel,
        model: OnnxModel,
        quantization: Quantization,
        calibration: NDArray[np.float32],
    ) -> Acceptance | None:
        """Let NVIDIA's compiler judge the deployed graph, or a twin in TensorRT's style if the target's differs."""
        if self._gate is None:
            return None
        batch = self._session.settings.latency.batch
        if self._session.target.quantization_profile == "tensorrt" or quantization.precision not in _STYLED:
            return self._gate.judge(model, batch=batch)
        twin_path = model.path.with_suffix(".tensorrt.onnx")
        try:
            twin = quantize(
                float_model,
                quantization,
                calibration=calibration,
                profile="tensorrt",
                to=twin_path,
                divergence=self._task.divergence,
            )
            return self._gate.judge(twin, batch=batch)
        finally:
            twin_path.unlink(missing_ok=True)

    def _accuracy_steps(self, work: "_Deployed", data: Dataset) -> tuple[StepScore, ...]:
        """Return the scores of the network in torch, of the fp32 file and of the deployed file.

        ONNX Runtime runs both files.

        The deployed file is left out where its score would say nothing new: if it is the fp32 file, or if the engine is
        ONNX Runtime's own session of it. It is also left out if ONNX Runtime's CPU kernels cannot run it (bf16).
        """
        steps = [StepScore(step="float", score=work.training.float_score)]
        steps.append(StepScore(step="onnx_fp32", score=self._score(work.float_model, data.val)))
        same = work.model.sha256 == work.float_model.sha256 or self._backend.name == "onnxruntime"
        if not same:
            with contextlib.suppress(StageFailed):
                steps.append(StepScore(step="onnx", score=self._score(work.model, data.val)))
        return tuple(steps)

    def _score(self, model: OnnxModel, split: ImageSplit) -> float:
        threads, metric = self._session.settings.latency.threads, self._metric()
        with get_backend("onnxruntime").compile(model, EngineOptions(threads=threads)) as engine:
            answer_all(engine.run, self._batches(split.images), split.targets, metric)
        return metric.score()

    def _metric(self) -> Metric:
        return self._task.make_metric(self._session.data.class_names)

    def _latency(self, engine: Engine) -> Latency:
        session = self._session
        with wandering(session.settings.latency.threads) as move:
            latency = measure_latency(
                engine,
                self._reference,
                settings=session.settings.latency,
                reference_calm_ms=session.reference_calm_ms,
                calmest_ms=self._calmest_ms,
                move=move,
            )
        self._calmest_ms = min(self._calmest_ms, latency.reference_lowest_ms or math.inf)
        return latency

    def _quality(self, engine: Engine, split: ImageSplit, warnings: list[str]) -> Quality:
        batches = self._batches(split.images)
        return measure_quality(engine.run, batches, split.targets, self._metric(), warn=warnings.append)

    def _compile(self, model: OnnxModel, pruning: Pruning = _UNPRUNED) -> Engine:
        return self._backend.compile(model, engine_options(self._session.settings, pruning))

    def _input(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return to_input(images, mean=self._session.data.mean, std=self._session.data.std)

    def _batches(self, images: NDArray[np.uint8] | MappedImages) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(images), _SCORE_BATCH):
            yield self._input(images[start : start + _SCORE_BATCH])


def engine_options(settings: RunSettings, pruning: Pruning = _UNPRUNED) -> EngineOptions:
    """Return how every engine of a run is built and timed."""
    tensorrt = settings.tensorrt
    if pruning.sparsity == "2:4":  # sparse kernels are allowed where they can be used
        tensorrt = replace(tensorrt, sparse_weights=True)
    return EngineOptions(threads=settings.latency.threads, batch=settings.latency.batch, tensorrt=tensorrt)


def _rounding_rate(network: Network) -> float:
    """Return the learning rate of training with simulated rounding that suits the network's task."""
    asked = network.module.rounding_rate if isinstance(network.module, Backbone) else None
    return WEIGHT_RATE if asked is None else asked


def _gate(session: Session) -> "Gate":
    from scalesearch.deployment.acceptance import Gate  # here, since it loads a native library that only the gate needs

    return Gate(session.target.compute_capability, session.settings.tensorrt)


def _dense_path(model: Path) -> Path:
    return model.with_suffix(".dense.onnx")


def limits_after(session: Session, cost: Cost, size_bytes: int, p50_ms: float) -> tuple[LimitUse, ...]:
    """Return how far a finished trial uses up its limits, by its real file and its measured latency."""
    limits = session.space.limits
    return (
        *limit_use("max_macs", cost.macs, limits.max_macs),
        *limit_use("max_size_bytes", size_bytes, limits.max_size_bytes),
        *limit_use("max_latency_ms", p50_ms, limits.max_latency_ms),
    )


def _doubts(training: TrainingResult, latency: Latency) -> tuple[str, ...]:
    """Return what a reader of the record should know before trusting it."""
    doubts = []
    if training.safe_recipe_used:
        doubts.append("training diverged once; this is the result of the safe recipe (AdamW at a third of the rate)")
    if not latency.stable:
        doubts.append(latency.why_unstable)
    if latency.unit_too_slow:
        doubts.append(
            "the reference engine runs faster than in the calm time found at the study's start, which was a disturbed "
            "moment: latencies called stable before may be wrong, and all milliseconds are too large alike; "
            "--fresh finds a new calm time"
        )
    return tuple(doubts)
