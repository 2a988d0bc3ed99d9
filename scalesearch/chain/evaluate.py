"""THE CHAIN: the order of a trial's stages; what lies between plan and deployed file is in `deploy`.

Candidate -> spec -> network -> limits -> train -> prune, retrain -> fold -> ONNX -> quantize -> engine -> numbers.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from scalesearch.analysis.front import Point, beaten_above_ms, far_above_ms
from scalesearch.chain.deploy import Deployed, Deployer, dense_path
from scalesearch.chain.outlook import Outlook
from scalesearch.chain.planner import layer_shapes, limit_use
from scalesearch.chain.scorer import Scored, Scorer
from scalesearch.chain.stages import StageClock
from scalesearch.chain.timer import Timer
from scalesearch.chain.twins import Twins
from scalesearch.data import Dataset
from scalesearch.data.finding import load_study_data
from scalesearch.deployment.backends.base import Engine
from scalesearch.deployment.export_cache import ExportCache
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.errors import StageFailed
from scalesearch.host import computing_threads
from scalesearch.measurement.cost import count_cost
from scalesearch.measurement.device_lock import DEFAULT_TIMEOUT_S, MEASURED_DEVICE, DeviceLock
from scalesearch.measurement.postprocessing import time_postprocessing
from scalesearch.records.stored_files import kept_model, kept_reference
from scalesearch.tasks.registry import task_for
from scalesearch.values.identity import content_hash
from scalesearch.values.latency import Latency
from scalesearch.values.network import OnnxModel
from scalesearch.values.plan import Plan
from scalesearch.values.quality import Quality
from scalesearch.values.record import Cost, FrontScore, LimitUse, MeasuredTrial, StepScore, TrainingResult
from scalesearch.values.session import Session, model_path
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import LATENCY_LIMIT

_SHARE_OF_LIMIT: Final = 0.8
"""Part of the limit of a stage `wait` for which a worker waits for the device."""


class TrialEvaluator:
    """Runs the chain for one plan at a time; lives in a worker process and keeps data and reference engine open.

    Args:
        session: The settings, data and reference of the study.
        exports: Where exported files are kept for later candidates; None: exported files are not kept.
        measures: False if it is used only to `rebuild`, which needs no reference engine.
        rejects: False if a network is trained though it is surely slower than the space allows; its record says so.

    Raises:
        ConfigError: The data are gone or have changed, or the reference engine's file has changed.
    """

    def __init__(
        self, session: Session, *, exports: ExportCache | None = None, measures: bool = True, rejects: bool = True
    ) -> None:
        self._session = session
        self._lock = DeviceLock(MEASURED_DEVICE, timeout_s=_patience_s(session.settings))
        task = task_for(session.settings)
        self._timer = Timer(session)
        self._score = Scorer(task, session.data, threads=session.settings.latency.threads)
        self._deploy = Deployer(session, task, self._lock, exports)
        self._twins = Twins(session, self._lock, self._deploy, self._timer)
        self._outlook = Outlook(session, self._lock, self._deploy, self._timer) if rejects else None
        self.dataset = load_study_data(session, task.sources())
        """The study's images, at the size in which they are stored."""
        if measures:
            kept_reference(session)
            self._timer.open_reference()

    def evaluate(
        self, plan: Plan, *, trial: int, report: Callable[[str], None], rivals: Sequence[Point] = ()
    ) -> MeasuredTrial:
        """Run all stages for a plan and return the complete record of the trial.

        Args:
            plan: The plan of the trial's candidate.
            trial: Number of the trial.
            report: Called with the name of each stage as it begins.
            rivals: Points of the front so far. A candidate that is surely off the front is timed less exactly. One that
                is surely far from it is compared only with twins whose latency is known already. One that is trained in
                less than full length is timed less exactly, too, and compared with none.

        Raises:
            StageFailed: A stage failed; its reason is to be put into the record.
            CandidateRejected: The untrained network is surely slower than the space allows.
        """
        with self._own_threads():
            return self._evaluated(plan, trial=trial, report=report, rivals=rivals)

    def _own_threads(self) -> contextlib.AbstractContextManager[None]:
        """Leave the other cores to other workers, between the trainings as well; beside a GPU they are free."""
        machine = self._session.machine
        return computing_threads(machine.threads) if machine.device == "cpu" else contextlib.nullcontext()

    def _evaluated(
        self, plan: Plan, *, trial: int, report: Callable[[str], None], rivals: Sequence[Point]
    ) -> MeasuredTrial:
        session, warnings = self._session, list[str]()
        stages = StageClock(report, lambda: self._lock.paused_s)
        path = model_path(session.folder, trial)
        with contextlib.ExitStack() as scratch:
            with stages.held(self._lock.busy()):
                with stages("resize"):
                    data = self.dataset.at(plan.spec.input_size)
                if self._outlook:
                    self._outlook.check(plan, data, path, stages)
                work = self._deploy(plan, data, path, stages)
                scratch.callback(work.float_model.path.unlink, missing_ok=True)
                scratch.callback(dense_path(path).unlink, missing_ok=True)
                with stages("cost"):
                    cost = count_cost(work.shrunk.network)
                with stages("compile"):
                    engine = scratch.enter_context(self._timer.compile(work.model, plan.pruning))
                with stages("quality"):
                    scored = self._score.quality(engine, data.val, warnings)
                    quality = scored.quality
                    steps = (*self._accuracy_steps(work, data), StepScore(step="engine", score=quality.score))
            with stages.held(self._lock.quiet()), stages("latency"):
                beaten_ms = 0.0 if plan.short else beaten_above_ms(quality.score_high, rivals)
                latency = self._timed(engine, scored, beaten_ms, warnings)
            near = latency.p50_low_ms <= far_above_ms(quality.score_high, rivals)
            measured, compared = (latency.of_engine, steps), session.settings.twins and not plan.short
            gains = self._twins.gains(plan, work, measured, data, stages, near=near) if compared else ()
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
            full_updates=plan.full_updates,
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

    def _timed(self, engine: Engine, scored: Scored, beaten_ms: float, warnings: list[str]) -> Latency:
        """Return the latency, less exact above `beaten_ms`; add the engine's own doubts to the warnings."""
        settings = self._session.settings.latency
        after = time_postprocessing(scored.postprocessing, batch=settings.batch)
        if after and settings.objective == "end_to_end":
            beaten_ms = max(0.0, beaten_ms - after.p50_ms)
        latency, notes = self._timer.time(engine, exact_ms=(0.0, beaten_ms), brief=True), engine.timing_notes()
        warnings += notes.doubts
        return replace(latency, enqueue_p50_ms=notes.enqueue_p50_ms).beside(after, settings.objective)

    def score_on_test(self, record: MeasuredTrial) -> FrontScore:
        """Measure a finished trial's stored model file: quality on the test images, and latency once more.

        Post-processing is not timed again: it was timed with the exported threshold, found on validation images.
        """
        with self._kept_engine(record) as engine:
            with self._lock.quiet():
                latency = self._timer.time(engine).beside(record.latency.postprocessing, record.latency.objective)
            return FrontScore(trial=record.trial, test=self._test(engine, record), latency=latency)

    def test_quality(self, record: MeasuredTrial) -> Quality:
        """Measure the quality of a finished trial's stored model file on the test images."""
        with self._kept_engine(record) as engine:
            return self._test(engine, record)

    def _kept_engine(self, record: MeasuredTrial) -> Engine:
        path = kept_model(self._session.folder, record) or model_path(self._session.folder, record.trial)
        return self._timer.compile(onnx_model(path), record.candidate.pruning)

    def _test(self, engine: Engine, record: MeasuredTrial) -> Quality:
        with self._lock.busy():
            return self._score.quality(engine, self.dataset.at(record.spec.input_size).test, []).quality

    def rebuild(self, plan: Plan, *, to: Path) -> OnnxModel:
        """Make the deployed file of a plan again, at `to`.

        Trained weights are taken from the weight store if they are there; otherwise the network is trained again.
        """
        with self._lock.busy():
            data = self.dataset.at(plan.spec.input_size)
            work = self._deploy(plan, data, to, StageClock())
            work.float_model.path.unlink(missing_ok=True)
            return work.model

    def _accuracy_steps(self, work: Deployed, data: Dataset) -> tuple[StepScore, ...]:
        """Return the scores of the network in torch, of the fp32 file and of the deployed file.

        ONNX Runtime runs both files.

        The deployed file is left out where its score would say nothing new: if it is the fp32 file, or if the engine is
        ONNX Runtime's own session of it. It is also left out if ONNX Runtime's CPU kernels cannot run it (bf16).
        """
        steps = [StepScore(step="float", score=work.training.float_score)]
        steps.append(StepScore(step="onnx_fp32", score=self._score.onnx_score(work.float_model, data.val)))
        same = work.model.sha256 == work.float_model.sha256 or self._timer.backend.name == "onnxruntime"
        if not same:
            with contextlib.suppress(StageFailed):
                steps.append(StepScore(step="onnx", score=self._score.onnx_score(work.model, data.val)))
        return tuple(steps)


def _patience_s(settings: RunSettings) -> float:
    """Return how long to wait for the device, which the other workers use in turn, each for as long as it is set to.

    It is less than the time after which a worker that waits counts as hung, so that the trial fails with the lock's
    reason and its process is not killed.
    """
    return max(DEFAULT_TIMEOUT_S, _SHARE_OF_LIMIT * settings.stage_limits.train_s * settings.workers)


def limits_after(session: Session, cost: Cost, size_bytes: int, p50_ms: float) -> tuple[LimitUse, ...]:
    """Return how far a finished trial uses up its limits, by its real file and its measured latency."""
    limits = session.space.limits
    return (
        *limit_use("max_macs", cost.macs, limits.max_macs),
        *limit_use("max_size_bytes", size_bytes, limits.max_size_bytes),
        *limit_use(LATENCY_LIMIT, p50_ms, limits.max_latency_ms),
    )


def _doubts(training: TrainingResult, latency: Latency) -> tuple[str, ...]:
    """Return what a reader of the record should know before trusting it."""
    doubts = []
    if training.safe_recipe_used:
        doubts.append("training diverged once; this is the result of the safe recipe (AdamW at a third of the rate)")
    if latency.unsettled:
        doubts.append(latency.why_unstable)
    if latency.unit_too_slow:
        doubts.append(
            "the reference engine runs faster than in the calm time found at the study's start, which was a disturbed "
            "moment: latencies called stable before may be wrong, and all milliseconds are too large alike; "
            "--fresh finds a new calm time"
        )
    return tuple(doubts)
