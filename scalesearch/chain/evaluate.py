"""THE CHAIN: the one page that knows the order of a trial's stages.

Candidate -> spec -> network -> limits -> train -> prune, retrain -> fold -> ONNX -> quantize -> engine -> numbers.
"""

import contextlib
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
from scalesearch.chain.shrink import MEASURED_DEVICE, Shrinker, Shrunk
from scalesearch.chain.stages import StageClock
from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.qat import QatResult, quantization_aware
from scalesearch.compression.quantize import quantize
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.backends.base import Engine, EngineOptions
from scalesearch.deployment.export import to_onnx
from scalesearch.deployment.export_cache import ExportCache
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.errors import StageFailed
from scalesearch.measurement.cores import wandering
from scalesearch.measurement.cost import count_cost
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.measurement.latency import measure_latency
from scalesearch.measurement.quality import measure_quality, predict, refuse_not_finite
from scalesearch.records.report import precision_label, pruning_label
from scalesearch.records.stored_files import kept_model, kept_reference
from scalesearch.study_data import load_study_data
from scalesearch.training.augment import Batches
from scalesearch.training.datasets import Dataset, ImageSplit, to_input
from scalesearch.training.machine import torch_threads
from scalesearch.values.candidate import Pruning, Quantization
from scalesearch.values.identity import content_hash, seed_from
from scalesearch.values.network import Network
from scalesearch.values.onnx_model import OnnxModel
from scalesearch.values.plan import Plan
from scalesearch.values.record import (
    Acceptance,
    Cost,
    FrontScore,
    Gain,
    Latency,
    LimitUse,
    Quality,
    StepAccuracy,
    TrainingResult,
    TrialRecord,
)
from scalesearch.values.session import Session, model_path, reference_path
from scalesearch.values.settings import RunSettings

if TYPE_CHECKING:
    from scalesearch.deployment.acceptance import Gate

_UNPRUNED = Pruning()
_SCORE_BATCH = 64
_CHECK_IMAGES = 8
_STYLED = ("int8", "fp8")
"""Precisions whose files differ between the targets' styles of quantization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deployed:
    """A trial's network and file, and what was found on the way to it."""

    shrunk: Shrunk
    training: TrainingResult
    """Of all training: quantization-aware updates included."""
    float_model: OnnxModel
    """The same network in fp32: its file is a twin to compare with, and is removed at the end."""
    model: OnnxModel
    acceptance: Acceptance | None


class TrialEvaluator:
    """Runs the chain for one plan at a time; lives in a worker process and keeps data and reference engine open.

    Args:
        session: What it is evaluated with.
        exports: Where exported files are kept for the candidates that follow; None: nothing of the kind is left behind.
        measures: False where it is only to `rebuild`, which takes no reference engine.

    Raises:
        ConfigError: The data are gone or others, or the reference engine's file is another one.
    """

    def __init__(self, session: Session, *, exports: ExportCache | None = None, measures: bool = True) -> None:
        self._session = session
        self._lock = DeviceLock(MEASURED_DEVICE)
        self._backend = get_backend(session.target.backend)
        self._shrink = Shrinker(session, self._lock)
        self._twins = TwinStore(session.folder)
        self._to_onnx = exports.to_onnx if exports else to_onnx
        self._gate = None if session.settings.accept == "off" else _gate(session)
        self.dataset = load_study_data(session)
        """The study's images, at the size they are stored in."""
        if measures:
            kept_reference(session)
            self._reference = self._compile(onnx_model(reference_path(session.folder)))
        self._calmest_ms = session.reference_calm_ms

    def evaluate(self, plan: Plan, *, trial: int, report: Callable[[str], None]) -> TrialRecord:
        """The complete record of one trial; `report` hears the name of each stage as it begins.

        Raises:
            StageFailed: a stage could not do its work; the reason is for the record.
        """
        session, warnings = self._session, list[str]()
        stages = StageClock(report, lambda: self._lock.paused_s)
        path = model_path(session.folder, trial)
        with contextlib.ExitStack() as scratch:
            with stages.held(self._lock.busy()):
                with stages("resize"):
                    data = self.dataset.at(plan.spec.resolution_px)
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
                steps = (*self._accuracy_steps(work, data), StepAccuracy(step="engine", top1=quality.top1))
            gains = self._gains(plan, work, latency, steps, stages) if session.settings.twins else ()
        training = work.training
        return TrialRecord(
            trial=trial,
            key=plan.key,
            state="complete",
            charged=not training.weights_reused,
            candidate=plan.candidate,
            spec=plan.spec,  # what it was cut from: rebuilding cuts it again
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

    def score_on_test(self, record: TrialRecord) -> FrontScore:
        """Quality on the test images, and latency once more, of the kept model file of a finished trial."""
        with self._kept_engine(record) as engine:
            with self._lock.quiet():
                latency = self._latency(engine)
            return FrontScore(trial=record.trial, test=self._test(engine, record), latency=latency)

    def test_quality(self, record: TrialRecord) -> Quality:
        """Quality on the test images of the kept model file of a finished trial."""
        with self._kept_engine(record) as engine:
            return self._test(engine, record)

    def _kept_engine(self, record: TrialRecord) -> Engine:
        path = kept_model(self._session.folder, record) or model_path(self._session.folder, record.trial)
        return self._compile(onnx_model(path), record.candidate.pruning)

    def _test(self, engine: Engine, record: TrialRecord) -> Quality:
        assert record.spec is not None  # it is complete
        with self._lock.busy():
            return self._quality(engine, self.dataset.at(record.spec.resolution_px).test, [])

    def rebuild(self, plan: Plan, *, to: Path) -> OnnxModel:
        """The deployed file of a plan again, at `to`; training comes from the weight store where it is kept."""
        with self._lock.busy():
            data = self.dataset.at(plan.spec.resolution_px)
            work = self._deployed(plan, data, to, StageClock())
            work.float_model.path.unlink(missing_ok=True)
            return work.model

    def _deployed(self, plan: Plan, data: Dataset, path: Path, stages: StageClock) -> "_Deployed":
        """Trained, pruned, folded, exported, quantized and judged: the network, and its file at `path`."""
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
            with stages("export"):
                float_model = self._to_onnx(folded, to=float_path, check_images=calibration[:_CHECK_IMAGES])
            with stages("quantize"):
                model = quantize(
                    float_model, quantization, calibration=calibration, profile=profile, to=path, input_ranges=ranges
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
        images = torch.from_numpy(data.train.images).permute(0, 3, 1, 2)
        labels = torch.from_numpy(data.train.labels)
        batches = Batches(images, labels, plan.candidate.recipe, mean=data.mean, std=data.std, device="cpu", seed=seed)
        with torch_threads(self._session.machine):
            return quantization_aware(
                folded,
                plan.candidate.quantization,
                batches=batches.next,
                calibration=torch.from_numpy(calibration),
                profile=self._session.target.quantization_profile,
                seed=seed,
                breathe=self._lock.breathe,
            )

    def _gains(
        self, plan: Plan, work: "_Deployed", latency: Latency, steps: tuple[StepAccuracy, ...], stages: StageClock
    ) -> tuple[Gain, ...]:
        """Each step against the same network without it: pruned against dense in fp32, then the precision."""
        precision, found = plan.candidate.quantization.precision, []
        as_fp32 = latency
        if precision != "fp32":
            as_fp32 = self._twin(work.float_model.sha256, lambda: work.float_model, stages)
        else:
            self._twins.latency(work.float_model.sha256, lambda: latency)
        if plan.pruning.any:
            dense = self._twin(plan.weights_key, lambda: self._dense_file(plan, work), stages)
            change = work.shrunk.training.float_top1 - work.shrunk.dense_top1
            what = pruning_label(plan.pruning)
            found.append(gain("pruning", what, without=dense, having=as_fp32, top1_change=change))
        if precision != "fp32":
            before = next(step.top1 for step in steps if step.step == "onnx_fp32")
            what = precision_label(plan.candidate.quantization)
            change = steps[-1].top1 - before
            found.append(gain("precision", what, without=as_fp32, having=latency, top1_change=change))
        return tuple(found)

    def _twin(self, key: str, file: Callable[[], OnnxModel], stages: StageClock) -> Latency:
        """Latency of a yardstick in fp32, measured now unless this study has measured it before."""

        def measure() -> Latency:
            with stages.held(self._lock.busy()), stages("twin"):
                engine = self._compile(file())
            with engine, stages.held(self._lock.quiet()), stages("twin"):
                return self._latency(engine)

        return self._twins.latency(key, measure)

    def _dense_file(self, plan: Plan, work: "_Deployed") -> OnnxModel:
        data = self.dataset.at(plan.spec.resolution_px)
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
        """NVIDIA's compiler on the deployed graph, or on its twin in TensorRT's style where the target's is another."""
        if self._gate is None:
            return None
        batch = self._session.settings.latency.batch
        if self._session.target.quantization_profile == "tensorrt" or quantization.precision not in _STYLED:
            return self._gate.judge(model, batch=batch)
        twin_path = model.path.with_suffix(".tensorrt.onnx")
        try:
            twin = quantize(float_model, quantization, calibration=calibration, profile="tensorrt", to=twin_path)
            return self._gate.judge(twin, batch=batch)
        finally:
            twin_path.unlink(missing_ok=True)

    def _accuracy_steps(self, work: "_Deployed", data: Dataset) -> tuple[StepAccuracy, ...]:
        """Top-1 of the network in torch, then of the fp32 and of the deployed file, both run by ONNX Runtime.

        Left out is what would only say the same again: the deployed file where it is the fp32 one, or where the engine
        is ONNX Runtime's own session of it; and a file that ONNX Runtime's CPU kernels cannot run (bf16).
        """
        steps = [StepAccuracy(step="float", top1=work.training.float_top1)]
        steps.append(StepAccuracy(step="onnx_fp32", top1=self._top1(work.float_model, data.val)))
        same = work.model.sha256 == work.float_model.sha256 or self._backend.name == "onnxruntime"
        if not same:
            with contextlib.suppress(StageFailed):
                steps.append(StepAccuracy(step="onnx", top1=self._top1(work.model, data.val)))
        return tuple(steps)

    def _top1(self, model: OnnxModel, split: ImageSplit) -> float:
        threads = self._session.settings.latency.threads
        with get_backend("onnxruntime").compile(model, EngineOptions(threads=threads)) as engine:
            logits = predict(engine.run, self._batches(split.images), batch=_SCORE_BATCH)
        refuse_not_finite(logits)
        return float((logits.argmax(axis=1) == split.labels).mean())

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
        names = self._session.data.class_names
        return measure_quality(engine.run, self._batches(split.images), split.labels, names, warn=warnings.append)

    def _compile(self, model: OnnxModel, pruning: Pruning = _UNPRUNED) -> Engine:
        return self._backend.compile(model, engine_options(self._session.settings, pruning))

    def _input(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return to_input(images, mean=self._session.data.mean, std=self._session.data.std)

    def _batches(self, images: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(images), _SCORE_BATCH):
            yield self._input(images[start : start + _SCORE_BATCH])


def engine_options(settings: RunSettings, pruning: Pruning = _UNPRUNED) -> EngineOptions:
    """How every engine of a run is built and timed."""
    tensorrt = settings.tensorrt
    if pruning.sparsity == "2:4":  # its kernels are asked for where they can serve
        tensorrt = replace(tensorrt, sparse_weights=True)
    return EngineOptions(threads=settings.latency.threads, batch=settings.latency.batch, tensorrt=tensorrt)


def _gate(session: Session) -> "Gate":
    from scalesearch.deployment.acceptance import Gate  # loads a native library that only the gate needs

    return Gate(session.target.compute_capability, session.settings.tensorrt)


def _dense_path(model: Path) -> Path:
    return model.with_suffix(".dense.onnx")


def limits_after(session: Session, cost: Cost, size_bytes: int, p50_ms: float) -> tuple[LimitUse, ...]:
    """How far a finished trial uses up its limits, by the real file and the measured latency."""
    limits = session.space.limits
    return (
        *limit_use("max_macs", cost.macs, limits.max_macs),
        *limit_use("max_size_bytes", size_bytes, limits.max_size_bytes),
        *limit_use("max_latency_ms", p50_ms, limits.max_latency_ms),
    )


def _doubts(training: TrainingResult, latency: Latency) -> tuple[str, ...]:
    """What a reader of the record should know before believing it."""
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
