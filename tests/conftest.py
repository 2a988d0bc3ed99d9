"""Records made up for tests of what is kept and shown: whole, plausible, and quick to vary."""

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scalesearch.records.stored_files import file_sha256
from scalesearch.values.candidate import Candidate, Pruning, Quantization, Scaling
from scalesearch.values.latency import Latency
from scalesearch.values.network_spec import HeadSpec, NetworkSpec, StageSpec, StemSpec
from scalesearch.values.quality import ClassDetail, ClassQuality, Quality
from scalesearch.values.record import (
    Cost,
    Gain,
    LimitUse,
    MeasuredTrial,
    StageTime,
    StepScore,
    TrainingResult,
    TrialRecord,
)
from scalesearch.values.session import DataSummary, Session, reference_path
from scalesearch.values.settings import Machine, RunSettings
from scalesearch.values.space import Choice, NamedAxis, Range, SearchSpace
from scalesearch.values.target import Device, Target

# Before any test loads torch: two test processes of two OpenMP threads each wait for one another more than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is collected stays to the end: looking at it again and again for garbage would nearly double the time it takes.
gc.disable()


def pytest_collection_finish() -> None:
    """Let the garbage collector work from here on."""
    gc.enable()


RecordFactory = Callable[..., MeasuredTrial]


@pytest.fixture(scope="session", autouse=True)
def migrations_are_read_once() -> Iterator[None]:
    """Let Optuna read its database migrations once, not for each of the hundreds of studies: they never change."""
    from optuna.storages._rdb.storage import _VersionManager

    with pytest.MonkeyPatch.context() as patch:
        if read := getattr(_VersionManager, "_create_alembic_script", None):  # private: another version may lack it
            scripts: list[object] = []

            def once(manager: _VersionManager) -> object:
                if not scripts:
                    scripts.append(read(manager))
                return scripts[0]

            patch.setattr(_VersionManager, "_create_alembic_script", once)
        yield


def _latency(p50_ms: float) -> Latency:
    return Latency(
        p50_ms=p50_ms,
        p50_low_ms=0.99 * p50_ms,
        p50_high_ms=1.01 * p50_ms,
        raw_p50_ms=1.05 * p50_ms,
        raw_p90_ms=1.2 * p50_ms,
        raw_p99_ms=1.6 * p50_ms,
        raw_min_ms=0.98 * p50_ms,
        reference_p50_ms=2.0,
        ratio=p50_ms / 2,
        runs=400,
        batch=1,
        stable=True,
    )


def _quality(top1: float, names: tuple[str, ...]) -> Quality:
    classes = tuple(
        ClassQuality(
            name=name,
            support=100,
            precision=max(0.0, top1 - 0.02 * place),
            recall=max(0.0, top1 - 0.03 * place),
            average_precision=top1,
            curve=((0.0, 1.0), (1.0, 0.5)),
        )
        for place, name in enumerate(names)
    )
    return Quality(
        score=top1,
        score_low=max(0.0, top1 - 0.02),
        score_high=min(1.0, top1 + 0.02),
        images=1000,
        detail=ClassDetail(macro_precision=max(0.0, top1 - 0.01), macro_recall=top1, classes=classes),
    )


def _spec(resolution_px: int) -> NetworkSpec:
    stage = StageSpec(block="basic", depth=2, channels=24, kernel=3, stride=2)
    return NetworkSpec(
        name="resnet_small",
        resolution_px=resolution_px,
        num_classes=4,
        stem=StemSpec(channels=16, kernel=3, stride=1),
        stages=(stage, replace(stage, depth=3, channels=48)),
        head=HeadSpec(),
    )


def _way(top1: float) -> tuple[StepScore, ...]:
    return (
        StepScore(step="float", score=min(1.0, top1 + 0.01)),
        StepScore(step="onnx_fp32", score=min(1.0, top1 + 0.01)),
        StepScore(step="engine", score=top1),
    )


def _gains(precision: str) -> tuple[Gain, ...]:
    pruning = Gain(
        step="pruning", what="channels 25 %", speedup=1.2, speedup_low=1.1, speedup_high=1.3, score_change=-0.02
    )
    step = Gain(step="precision", what=precision, speedup=0.95, speedup_low=0.9, speedup_high=1.0, score_change=-0.01)
    return (pruning,) if precision == "fp32" else (pruning, step)


@pytest.fixture(scope="session")
def make_record() -> RecordFactory:
    """A complete, feasible record; `top1=None` gives one that never got so far, other keywords replace its fields."""

    def make(
        trial: int,
        *,
        top1: float | None = 0.8,
        p50_ms: float = 1.0,
        precision: Any = "fp32",
        excess: float = -0.5,
        classes: tuple[str, ...] = ("stop", "yield", "priority", "speed 30"),
        **changes: Any,
    ) -> Any:
        reached = top1 is not None
        record = TrialRecord(
            trial=trial,
            key=f"key{trial}",
            state="complete" if reached else "failed",
            candidate=Candidate(
                scaling=Scaling(resolution=0.5, width=0.75),
                pruning=Pruning(channel_fraction=0.25),
                quantization=Quantization(precision=precision, calibration="percentile"),
            ),
            charged=True,
            reason="" if reached else "train: loss is not finite",
            spec=_spec(32),
            cost=Cost(macs=20_000_000, params=310_000),
            dense_macs=31_000_000,
            training=TrainingResult(
                float_score=min(1.0, (top1 or 0) + 0.01),
                train_s=12.5,
                retrain_s=2.5,
                steps=300,
                safe_recipe_used=False,
                weights_reused=False,
                final_loss=0.7,
            )
            if reached
            else None,
            latency=_latency(p50_ms) if reached else None,
            quality=_quality(top1, classes) if top1 is not None else None,
            accuracy_path=_way(top1) if top1 is not None else (),
            gains=_gains(precision) if reached else (),
            size_bytes=1_250_000 if reached else None,
            onnx_sha256="0" * 64 if reached else None,
            network_sha256="1" * 64 if reached else None,
            device=Device(name="AMD EPYC (2 cores)", backend="onnxruntime", backend_version="1.32.0", threads=1),
            limits=(LimitUse(limit="max_latency_ms", excess=excess),) if reached else (),
            stages=(StageTime(stage="train", seconds=12.5), StageTime(stage="latency", seconds=1.5)),
        )
        changed = replace(record, **changes)
        return changed.measured or changed

    return make


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A session as a run writes it down; its folder is the test's own."""
    spec = _spec(64)
    return Session(
        folder=tmp_path,
        settings=RunSettings(),
        space=SearchSpace(
            name="made_up",
            network="resnet_small",
            resolution_px=64,
            axes=(
                NamedAxis(name="scaling.width", axis=Choice(values=(0.5, 1.0))),
                NamedAxis(name="training.learning_rate", axis=Range(low=0.001, high=0.1, log=True)),
                NamedAxis(name="quantization.precision", axis=Choice(values=("fp32", "int8"))),
                NamedAxis(name="training.schedule", axis=Choice(values=("wsd",))),
            ),
        ),
        base=spec,
        target=Target(name="cpu", backend="onnxruntime", precisions=("fp32", "fp16", "int8")),
        machine=Machine(device="cpu", threads=2, bf16=False, channels_last=True),
        device=Device(name="AMD EPYC", backend="onnxruntime", backend_version="1.32.0", threads=1, features=("avx2",)),
        data=DataSummary(
            name="pictures",
            fingerprint="f" * 64,
            class_names=("stop", "yield", "priority", "speed 30"),
            mean=(0.4, 0.5, 0.6),
            std=(0.2, 0.25, 0.3),
            train_images=800,
            val_images=300,
            calibration_images=100,
            test_images=200,
            val_standard_error_points=2.6,
            warnings=(),
        ),
        storage_px=64,
        reference_calm_ms=0.5,
    )


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The system's Chromium without a window; the test is skipped where it, or playwright, is absent."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra dev)")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs a Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        # No sandbox: CI runs as root in a container, where Chromium refuses to start with one.
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def no_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without the extra: loading plotly and drawing at every trial would take most of the time of whole runs."""
    monkeypatch.setattr("scalesearch.dashboard.publisher.installed", lambda: False)


@pytest.fixture(scope="module")
def stand_in_reference() -> Iterator[None]:
    """A file in place of the reference engine, for sessions in which no latency is measured: it costs seconds."""

    def make(session: Session, dataset: object) -> Session:
        path = reference_path(session.folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"stands in for the reference engine")
        return replace(session, reference_sha256=file_sha256(path), reference_calm_ms=1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scalesearch.study.session.make_reference", make)
        yield


@pytest.fixture(scope="module")
def brief_calm() -> Iterator[None]:
    """The search for the calm time of a session's reference engine takes a tenth of a second, not three."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scalesearch.measurement.calm_time.CALM_S", 0.1)
        yield
