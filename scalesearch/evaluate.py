"""THE CHAIN: the one page that knows the order of a trial's stages.

Candidate -> spec -> network -> limits -> train -> prune, retrain -> fold -> ONNX -> quantize -> engine -> numbers.
"""

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.prune import prune
from scalesearch.compression.quantize import quantize
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.backends.base import Engine
from scalesearch.deployment.export import to_onnx
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.measurement.cost import count_cost, formula_cost
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.measurement.latency import measure_latency
from scalesearch.measurement.quality import measure_quality
from scalesearch.networks.build import build
from scalesearch.networks.scaling import scale
from scalesearch.training.datasets import Dataset, ImageSplit, load_dataset, to_input
from scalesearch.training.train import score, train
from scalesearch.training.weights import KeptTraining, WeightStore, weights_key
from scalesearch.values.candidate import Candidate, Precision, Recipe, Scaling, StageScaling
from scalesearch.values.identity import content_hash, seed_from
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.onnx_model import OnnxModel
from scalesearch.values.plan import Plan
from scalesearch.values.record import (
    Cost,
    FrontScore,
    Latency,
    LimitUse,
    Quality,
    StageTime,
    TrainingResult,
    TrialRecord,
)
from scalesearch.values.session import Session

# A lower bound of the file's size before it exists: weights alone, at the width of their type.
_WEIGHT_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}
_SCORE_BATCH = 64
_CHECK_IMAGES = 8
MEASURED_DEVICE = "cpu"
"""The lock that training and measuring meet at. Every backend so far runs on the CPU, and training keeps it busy even
where it runs on a GPU."""


class Planner:
    """Turns candidates into plans: rounding, cost, limits and identity, without any training."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, candidate: Candidate) -> Plan:
        """The plan of a candidate; a fraction of a second, most of it for the pruned shape."""
        session = self._session
        spec = scale(
            session.base,
            _every_stage(candidate.scaling, len(session.base.stages)),
            resolution_px=session.space.resolution_px,
            num_classes=len(session.data.class_names),
            channel_multiple=session.target.channel_multiple,
            resolution_multiple=session.space.resolution_multiple,
        )
        return self.plan_spec(spec, candidate)

    def plan_spec(self, spec: NetworkSpec, candidate: Candidate) -> Plan:
        """The plan of a spec that is scaled already; the candidate's multipliers are not looked at."""
        session = self._session
        dense = build(spec)
        pruned = prune(dense, candidate.pruning, channel_multiple=session.target.channel_multiple)
        dense_cost, cost = formula_cost(dense), formula_cost(pruned)
        seed = session.settings.seed
        dense_key = weights_key(spec, candidate.recipe, session.data.fingerprint, seed)
        # Retraining is part of the work only where something was pruned.
        retrain_steps = candidate.recipe.retrain_steps if cost != dense_cost else 0
        shape_key = content_hash(dense_key, retrain_steps, layer_shapes(pruned))
        return Plan(
            candidate=candidate,
            spec=spec,
            dense_cost=dense_cost,
            cost=cost,
            weights_key=dense_key,
            shape_key=shape_key,
            key=content_hash(shape_key, candidate.quantization, session.target.name),
            limits=limits_before_training(session, cost, candidate.quantization.precision),
        )


def layer_shapes(network: Network) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Name and shape of every tensor: what pruning left, and the proof that a rebuilt network is the same one."""
    return tuple((name, tuple(tensor.shape)) for name, tensor in network.module.state_dict().items())


class TrialEvaluator:
    """Runs the chain for one plan at a time; lives in a worker process and keeps data and reference engine open."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = DeviceLock(MEASURED_DEVICE)
        self._backend = get_backend(session.target.backend)
        self._weights = WeightStore(session.folder / "weights")
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
            network, training, model = self._deployed(plan, data, model_path(session.folder, trial), stages)
            with stages("cost"):
                cost = count_cost(network)
            with stages("compile"):
                engine = self._compile(model)
        with engine:
            with _held(self._lock.quiet(), stages), stages("latency"):
                latency = self._latency(engine)
            with _held(self._lock.busy(), stages), stages("quality"):
                quality = self._quality(engine, data.val, warnings)
        return TrialRecord(
            trial=trial,
            key=plan.key,
            state="complete",
            charged=not training.weights_reused,
            candidate=plan.candidate,
            spec=plan.spec,
            cost=cost,
            dense_macs=plan.dense_cost.macs,
            training=training,
            latency=latency,
            quality=quality,
            size_bytes=model.size_bytes,
            onnx_sha256=model.sha256,
            network_sha256=content_hash(layer_shapes(network)),
            device=session.device,
            limits=limits_after(session, cost, model.size_bytes, latency.p50_ms),
            stages=stages.times,
            warnings=(*warnings, *_doubts(training, latency)),
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
            return self._deployed(plan, data, to, _StageClock(lambda _: None))[2]

    def _deployed(
        self, plan: Plan, data: Dataset, path: Path, stages: "_StageClock"
    ) -> tuple[Network, TrainingResult, OnnxModel]:
        """Trained, pruned, folded, exported and quantized: the network, what training gave, and the file at `path`."""
        quantization = plan.candidate.quantization
        network, training = self._trained(plan, data, stages)
        path.parent.mkdir(parents=True, exist_ok=True)
        with stages("export"):
            folded = fold_batchnorm(network)
            calibration = self._input(data.calibration.images[: quantization.calibration_images])
            float_model = to_onnx(folded, to=path.with_suffix(".fp32.onnx"), check_images=calibration[:_CHECK_IMAGES])
        with stages("quantize"):
            profile = self._session.target.quantization_profile
            model = quantize(float_model, quantization, calibration=calibration, profile=profile, to=path)
            float_model.path.unlink(missing_ok=True)
        return network, training, model

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
        latency = self._session.settings.latency
        return self._backend.compile(model, threads=latency.threads, batch=latency.batch)

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


def reference_path(folder: Path) -> Path:
    """The reference engine's ONNX file in a study's folder."""
    return folder / "reference.onnx"


def model_path(folder: Path, trial: int) -> Path:
    """The deployed ONNX file of a trial in a study's folder."""
    return folder / "models" / f"trial_{trial:06d}.onnx"


def limits_before_training(session: Session, cost: Cost, precision: Precision) -> tuple[LimitUse, ...]:
    """How far MACs and weights alone use up their limits; weights alone are a lower bound of the file's size."""
    limits = session.space.limits
    return (
        *_use("max_macs", cost.macs, limits.max_macs),
        *_use("max_size_bytes", cost.params * _WEIGHT_BYTES[precision], limits.max_size_bytes),
    )


def limits_after(session: Session, cost: Cost, size_bytes: int, p50_ms: float) -> tuple[LimitUse, ...]:
    """How far a finished trial uses up its limits, by the real file and the measured latency."""
    limits = session.space.limits
    return (
        *_use("max_macs", cost.macs, limits.max_macs),
        *_use("max_size_bytes", size_bytes, limits.max_size_bytes),
        *_use("max_latency_ms", p50_ms, limits.max_latency_ms),
    )


def _use(name: str, value: float, limit: float | None) -> tuple[LimitUse, ...]:
    return () if limit is None else (LimitUse(limit=name, excess=value / limit - 1),)


def _every_stage(scaling: Scaling, stages: int) -> Scaling:
    """Per-stage multipliers for all stages: a space names only those that it scales apart."""
    if not scaling.stages:
        return scaling
    missing = stages - len(scaling.stages)
    return dataclasses.replace(scaling, stages=(*scaling.stages, *(StageScaling(),) * missing))


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
