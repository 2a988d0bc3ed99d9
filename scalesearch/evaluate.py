"""THE CHAIN: the one page that knows the order of a trial's stages.

Candidate -> spec -> network -> limits -> train -> prune, retrain -> fold -> ONNX -> quantize -> engine -> numbers.
"""

import contextlib
import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.prune import prune
from scalesearch.compression.quantize import quantize
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.backends.base import Engine, EngineOptions
from scalesearch.deployment.export import to_onnx
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.errors import StageFailed
from scalesearch.measurement.cost import count_cost
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.measurement.latency import measure_latency
from scalesearch.measurement.quality import measure_quality
from scalesearch.networks.build import build
from scalesearch.planner import layer_shapes, limit_use
from scalesearch.training.datasets import Dataset, ImageSplit, load_dataset, to_input
from scalesearch.training.train import score, train
from scalesearch.training.weights import KeptTraining, WeightStore
from scalesearch.values.candidate import Quantization, Recipe
from scalesearch.values.identity import content_hash, seed_from
from scalesearch.values.network import Network
from scalesearch.values.onnx_model import OnnxModel
from scalesearch.values.plan import Plan
from scalesearch.values.record import (
    Acceptance,
    Cost,
    FrontScore,
    Latency,
    LimitUse,
    Quality,
    StageTime,
    StepAccuracy,
    TrainingResult,
    TrialRecord,
)
from scalesearch.values.session import Session
from scalesearch.values.settings import RunSettings

if TYPE_CHECKING:
    from scalesearch.deployment.acceptance import Gate

_SCORE_BATCH = 64
_CHECK_IMAGES = 8
_STYLED = ("int8", "fp8")
"""Precisions whose files differ between the targets' styles of quantization."""
MEASURED_DEVICE = "cpu"
"""The lock that training and measuring meet at, whatever they run on: training on a GPU keeps the CPU busy as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deployed:
    """A trial's network and file, and what was found on the way to it."""

    network: Network
    training: TrainingResult
    model: OnnxModel
    acceptance: Acceptance | None
    path: tuple[StepAccuracy, ...]


class TrialEvaluator:
    """Runs the chain for one plan at a time; lives in a worker process and keeps data and reference engine open."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = DeviceLock(MEASURED_DEVICE)
        self._backend = get_backend(session.target.backend)
        self._weights = WeightStore(session.folder / "weights")
        self._gate = None if session.settings.accept == "off" else _gate(session)
        self._dataset = load_dataset(session.settings.data, storage_px=session.storage_px)
        self._reference = self._compile(onnx_model(reference_path(session.folder)))

    def evaluate(self, plan: Plan, *, trial: int, report: Callable[[str], None]) -> TrialRecord:
        """The complete record of one trial; `report` hears the name of each stage as it begins.

        Raises:
            StageFailed: a stage could not do its work; the reason is for the record.
        """
        session, warnings = self._session, list[str]()
        stages = _StageClock(report)
        with _held(self._lock.busy(), stages):
            with stages("resize"):
                data = self._dataset.at(plan.spec.resolution_px)
            work = self._deployed(plan, data, model_path(session.folder, trial), stages)
            with stages("cost"):
                cost = count_cost(work.network)
            with stages("compile"):
                engine = self._compile(work.model)
        with engine:
            with _held(self._lock.quiet(), stages), stages("latency"):
                latency = self._latency(engine)
                warnings += engine.timing_notes().doubts
            with _held(self._lock.busy(), stages), stages("quality"):
                quality = self._quality(engine, data.val, warnings)
        return TrialRecord(
            trial=trial,
            key=plan.key,
            state="complete",
            charged=not work.training.weights_reused,
            candidate=plan.candidate,
            spec=plan.spec,
            cost=cost,
            dense_macs=plan.dense_cost.macs,
            training=work.training,
            latency=latency,
            quality=quality,
            accuracy_path=(*work.path, StepAccuracy(step="engine", top1=quality.top1)),
            acceptance=work.acceptance,
            size_bytes=work.model.size_bytes,
            onnx_sha256=work.model.sha256,
            network_sha256=content_hash(layer_shapes(work.network)),
            device=session.device,
            limits=limits_after(session, cost, work.model.size_bytes, latency.p50_ms),
            stages=stages.times,
            warnings=(*warnings, *_doubts(work.training, latency)),
        )

    def score_on_test(self, record: TrialRecord) -> FrontScore:
        """Quality on the test images, and latency once more, of the kept model file of a finished trial."""
        session = self._session
        assert record.spec is not None  # a front member is complete
        with self._lock.busy():
            data = self._dataset.at(record.spec.resolution_px)
        with self._compile(onnx_model(model_path(session.folder, record.trial))) as engine:
            with self._lock.quiet():
                latency = self._latency(engine)
            with self._lock.busy():
                test = self._quality(engine, data.test, [])
        return FrontScore(trial=record.trial, test=test, latency=latency)

    def rebuild(self, plan: Plan, *, to: Path) -> OnnxModel:
        """The deployed file of a plan again, at `to`; training comes from the weight store where it is kept."""
        with self._lock.busy():
            data = self._dataset.at(plan.spec.resolution_px)
            return self._deployed(plan, data, to, _StageClock(lambda _: None)).model

    def _deployed(self, plan: Plan, data: Dataset, path: Path, stages: "_StageClock") -> "_Deployed":
        """Trained, pruned, folded, exported, quantized and judged: the network, and its file at `path`."""
        quantization, profile = plan.candidate.quantization, self._session.target.quantization_profile
        network, training = self._trained(plan, data, stages)
        calibration = self._input(data.calibration.images[: quantization.calibration_images])
        float_path = path.with_suffix(".fp32.onnx")
        try:
            with stages("export"):
                folded = fold_batchnorm(network)
                float_model = to_onnx(folded, to=float_path, check_images=calibration[:_CHECK_IMAGES])
            with stages("quantize"):
                model = quantize(float_model, quantization, calibration=calibration, profile=profile, to=path)
            with stages("accept"):
                acceptance = self._accepted(float_model, model, quantization, calibration)
            with stages("quality"):
                steps = self._accuracy_steps(training, float_model, model, data)
        finally:
            float_path.unlink(missing_ok=True)
        return _Deployed(network=network, training=training, model=model, acceptance=acceptance, path=steps)

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

    def _accuracy_steps(
        self, training: TrainingResult, float_model: OnnxModel, model: OnnxModel, data: Dataset
    ) -> tuple[StepAccuracy, ...]:
        """Top-1 of the network in torch, then of the fp32 and of the deployed file, both run by ONNX Runtime.

        Left out is what would only say the same again: the deployed file where it is the fp32 one, or where the engine
        is ONNX Runtime's own session of it; and a file that ONNX Runtime's CPU kernels cannot run (bf16).
        """
        steps = [StepAccuracy(step="float", top1=training.float_top1)]
        steps.append(StepAccuracy(step="onnx_fp32", top1=self._top1(float_model, data.val)))
        same = model.sha256 == float_model.sha256 or self._backend.name == "onnxruntime"
        if not same:
            with contextlib.suppress(StageFailed):
                steps.append(StepAccuracy(step="onnx", top1=self._top1(model, data.val)))
        return tuple(steps)

    def _top1(self, model: OnnxModel, split: ImageSplit) -> float:
        threads = self._session.settings.latency.threads
        with get_backend("onnxruntime").compile(model, EngineOptions(threads=threads)) as engine:
            answers = [engine.run(images).argmax(axis=1) for images in self._batches(split.images)]
        return float((np.concatenate(answers) == split.labels).mean())

    def _trained(self, plan: Plan, data: Dataset, stages: "_StageClock") -> tuple[Network, TrainingResult]:
        """Dense training, then pruning and its retrain; each half comes from the weight store where it can."""
        recipe = plan.candidate.recipe
        with stages("train"):
            dense = build(plan.spec, dropout=recipe.dropout, seed=seed_from("init", plan.weights_key))
            trained, kept, reused = self._stored_or_trained(plan.weights_key, dense, data, recipe, steps=recipe.steps)
        if plan.cost == plan.dense_cost:
            return trained, _training_result(kept, None, reused=reused)
        with stages("prune"):
            multiple = self._session.target.channel_multiple
            pruned = prune(trained, plan.candidate.pruning, channel_multiple=multiple)
        with stages("retrain"):
            retrained, kept_again, reused_again = self._stored_or_trained(
                plan.shape_key, pruned, data, recipe, steps=recipe.retrain_steps
            )
        return retrained, _training_result(kept, kept_again, reused=reused and reused_again)

    def _stored_or_trained(
        self, key: str, network: Network, data: Dataset, recipe: Recipe, *, steps: int
    ) -> tuple[Network, KeptTraining, bool]:
        """The network with the weights kept under `key`, else trained now and kept; and whether they were kept.

        The retrain after pruning (`steps` 0 leaves it out) uses the whole recipe again, warm-up and full rate: so few
        updates recover more that way than at a third of the rate.
        """
        module = copy.deepcopy(network.module)
        kept = self._weights.load(key, module)
        if kept is not None:
            return Network(spec=network.spec, module=module.eval()), kept, True
        machine, loss, train_s, safe = self._session.machine, 0.0, 0.0, False
        if steps:
            trained = train(
                network,
                *self._tensors(data.train),
                recipe,
                machine,
                mean=data.mean,
                std=data.std,
                seed=seed_from("train", key),
                steps=steps,
                breathe=self._lock.breathe,
            )
            network, loss, train_s = trained.network, trained.final_loss, trained.seconds
            safe = trained.safe_recipe_used
        kept = KeptTraining(
            float_top1=score(network, *self._tensors(data.val), machine, mean=data.mean, std=data.std),
            train_s=train_s,
            final_loss=loss,
            steps=steps,
            safe_recipe_used=safe,
        )
        self._weights.save(key, network.module, kept)
        return network, kept, False

    def _latency(self, engine: Engine) -> Latency:
        session = self._session
        return measure_latency(
            engine,
            self._reference,
            settings=session.settings.latency,
            reference_calm_ms=session.reference_calm_ms,
        )

    def _quality(self, engine: Engine, split: ImageSplit, warnings: list[str]) -> Quality:
        names = self._session.data.class_names
        return measure_quality(engine.run, self._batches(split.images), split.labels, names, warn=warnings.append)

    def _compile(self, model: OnnxModel) -> Engine:
        return self._backend.compile(model, engine_options(self._session.settings))

    def _input(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return to_input(images, mean=self._session.data.mean, std=self._session.data.std)

    def _batches(self, images: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(images), _SCORE_BATCH):
            yield self._input(images[start : start + _SCORE_BATCH])

    @staticmethod
    def _tensors(split: ImageSplit) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(split.images).permute(0, 3, 1, 2), torch.from_numpy(split.labels)


@contextlib.contextmanager
def _held(lock: contextlib.AbstractContextManager[None], stages: "_StageClock") -> Iterator[None]:
    """Holds the lock; the time until it is had is a stage of its own, since others' work may be long."""
    with contextlib.ExitStack() as stack:
        with stages("wait"):
            stack.enter_context(lock)
        yield


class _StageClock:
    """Announces and times the stages; a stage entered twice counts twice."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self.times: tuple[StageTime, ...] = ()

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self._report(stage)
        start = time.perf_counter()
        yield
        self.times = (*self.times, StageTime(stage=stage, seconds=time.perf_counter() - start))


def engine_options(settings: RunSettings) -> EngineOptions:
    """How every engine of a run is built and timed."""
    return EngineOptions(threads=settings.latency.threads, batch=settings.latency.batch, tensorrt=settings.tensorrt)


def _gate(session: Session) -> "Gate":
    from scalesearch.deployment.acceptance import Gate  # loads a native library that only the gate needs

    return Gate(session.target.compute_capability, session.settings.tensorrt)


def reference_path(folder: Path) -> Path:
    """The reference engine's ONNX file in a study's folder."""
    return folder / "reference.onnx"


def model_path(folder: Path, trial: int) -> Path:
    """The deployed ONNX file of a trial in a study's folder."""
    return folder / "models" / f"trial_{trial:06d}.onnx"


def limits_after(session: Session, cost: Cost, size_bytes: int, p50_ms: float) -> tuple[LimitUse, ...]:
    """How far a finished trial uses up its limits, by the real file and the measured latency."""
    limits = session.space.limits
    return (
        *limit_use("max_macs", cost.macs, limits.max_macs),
        *limit_use("max_size_bytes", size_bytes, limits.max_size_bytes),
        *limit_use("max_latency_ms", p50_ms, limits.max_latency_ms),
    )


def _training_result(dense: KeptTraining, retrained: KeptTraining | None, *, reused: bool) -> TrainingResult:
    last = retrained or dense
    return TrainingResult(
        float_top1=last.float_top1,
        train_s=dense.train_s,
        retrain_s=retrained.train_s if retrained else 0.0,
        steps=dense.steps + (retrained.steps if retrained else 0),
        safe_recipe_used=dense.safe_recipe_used or bool(retrained and retrained.safe_recipe_used),
        weights_reused=reused,
        final_loss=last.final_loss,
    )


def _doubts(training: TrainingResult, latency: Latency) -> tuple[str, ...]:
    """What a reader of the record should know before believing it."""
    doubts = []
    if training.safe_recipe_used:
        doubts.append("training diverged once; this is the result of the safe recipe (AdamW at a third of the rate)")
    if not latency.stable:
        doubts.append("the latency's interval did not become narrow enough in the time given (latency.max_s)")
    return tuple(doubts)
