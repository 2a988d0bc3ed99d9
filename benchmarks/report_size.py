"""How long a report of many trials takes to write, how large it is, and how soon and smoothly a browser shows it.

    python benchmarks/report_size.py [--trials 100 1000 5000] [--classes 20] [--to FOLDER]

Records are made up: a cloud of trials whose front has some fifty members, every one with curves of 50 points a class.
With playwright and a Chromium it also opens the page: seconds until every figure stands, and of a zoom in the front and
of another member's curves, until the next frame is painted. FOLDER keeps the reports.
"""

import argparse
import datetime
import random
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from scalesearch.records.run_file import write_run_file
from scalesearch.records.store import RecordStore
from scalesearch.report.page import write_page
from scalesearch.study.contents import read_contents
from scalesearch.values.candidate import Candidate, Precision, Pruning, Quantization, Recipe, Scaling
from scalesearch.values.latency import Latency
from scalesearch.values.network_spec import HeadSpec, NetworkSpec, StageSpec, StemSpec
from scalesearch.values.quality import ClassDetail, ClassQuality, Quality
from scalesearch.values.record import Cost, Gain, StepScore, TrainingResult, TrialRecord
from scalesearch.values.session import DataSummary, Session
from scalesearch.values.settings import Machine, RunSettings
from scalesearch.values.space import Choice, NamedAxis, Range, SearchSpace
from scalesearch.values.target import Device, Target

_DEVICE = Device(name="made up", backend="onnxruntime", backend_version="1.32.0", threads=1)
_WIDTHS, _RESOLUTIONS, _PRECISIONS = (0.5, 0.75, 1.0, 1.25), (0.5, 0.75, 1.0), ("fp32", "fp16", "int8")
_SPEC = NetworkSpec(
    name="resnet_small",
    resolution_px=64,
    num_classes=20,
    stem=StemSpec(channels=16, kernel=3, stride=2),
    stages=(StageSpec(block="basic", depth=2, channels=32, kernel=3, stride=2),),
    head=HeadSpec(),
)


def main() -> None:
    """Print a line for each number of trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--to", type=Path)
    arguments = parser.parse_args()
    print("trials  front  read s  write s    MB  | shown s  zoom s  member s")
    for trials in arguments.trials:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / f"study_{trials}"
            _make(folder, trials, arguments.classes)
            began = time.perf_counter()
            study = read_contents(folder)
            read_s = time.perf_counter() - began
            began = time.perf_counter()
            file = folder / "report.html"
            size_bytes = write_page(study, file, written=datetime.datetime.now(datetime.UTC))
            write_s = time.perf_counter() - began
            seen = "  ".join(f"{seconds:6.2f}" for seconds in _look(file)) or "no browser here"
            numbers = f"{trials:6d} {len(study.front):6d} {read_s:7.1f} {write_s:8.1f} {size_bytes / 1e6:5.2f}"
            print(f"{numbers}  | {seen}", flush=True)
            if arguments.to:
                arguments.to.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, arguments.to / f"report_{trials}.html")


def _make(folder: Path, trials: int, classes: int) -> None:
    chance = random.Random(0)
    session = _session(folder, classes)
    folder.mkdir(parents=True)
    write_run_file(session)
    store = RecordStore(folder)
    for trial in range(trials):
        store.save(_record(trial, chance, session.data.class_names))


def _session(folder: Path, classes: int) -> Session:
    return Session(
        folder=folder,
        settings=RunSettings(budget=5000),
        space=SearchSpace(
            name="made_up",
            network="resnet_small",
            resolution_px=64,
            axes=(
                NamedAxis(name="scaling.width", axis=Choice(values=_WIDTHS)),
                NamedAxis(name="scaling.resolution", axis=Choice(values=_RESOLUTIONS)),
                NamedAxis(name="training.learning_rate", axis=Range(low=0.001, high=0.1, log=True)),
                NamedAxis(name="quantization.precision", axis=Choice(values=_PRECISIONS)),
            ),
        ),
        base=_SPEC,
        target=Target(name="cpu", backend="onnxruntime", precisions=("fp32", "fp16", "int8")),
        machine=Machine(device="cpu", threads=1, bf16=False, channels_last=True),
        device=_DEVICE,
        data=DataSummary(
            name="made up",
            fingerprint="0" * 64,
            class_names=tuple(f"class {number}" for number in range(classes)),
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
            train_images=1000,
            val_images=1500,
            calibration_images=100,
            test_images=1500,
            val_standard_error_points=1.0,
            warnings=(),
        ),
        storage_px=64,
        reference_calm_ms=0.5,
    )


def _record(trial: int, chance: random.Random, names: tuple[str, ...]) -> TrialRecord:
    width, resolution = chance.choice(_WIDTHS), chance.choice(_RESOLUTIONS)
    precision: Precision = chance.choice(("fp32", "fp16", "int8"))
    p50_ms = 0.05 * (width * resolution * 4) ** 2 * (0.5 if precision == "int8" else 1.0) * chance.uniform(0.8, 1.6)
    top1 = min(0.99, 0.35 + 0.25 * p50_ms**0.3 + 0.1 * width * resolution - chance.expovariate(12))
    return TrialRecord(
        trial=trial,
        key=f"key{trial}",
        state="complete",
        candidate=Candidate(
            scaling=Scaling(resolution=resolution, width=width),
            pruning=Pruning(channel_fraction=0.25),
            quantization=Quantization(precision=precision),
            recipe=Recipe(learning_rate=0.001 * 100 ** chance.random()),
        ),
        charged=True,
        spec=replace(_SPEC, resolution_px=int(64 * resolution)),
        cost=Cost(macs=int(2e7 * width * resolution), params=300_000),
        training=TrainingResult(
            float_score=top1,
            train_s=10.0,
            retrain_s=2.0,
            steps=300,
            safe_recipe_used=False,
            weights_reused=False,
            final_loss=chance.random(),
        ),
        latency=_latency(p50_ms),
        quality=_quality(top1, chance, names),
        accuracy_path=(StepScore(step="float", score=top1),),
        gains=tuple(
            Gain(
                step="precision",
                what=precision,
                speedup=chance.uniform(0.8, 2.5),
                speedup_low=1.0,
                speedup_high=2.0,
                score_change=chance.gauss(-0.01, 0.01),
            )
            for _ in range(precision != "fp32")
        ),
        size_bytes=800_000,
        onnx_sha256="0" * 64,
        device=_DEVICE,
    )


def _latency(p50_ms: float) -> Latency:
    return Latency(
        p50_ms=p50_ms,
        p50_low_ms=0.99 * p50_ms,
        p50_high_ms=1.01 * p50_ms,
        raw_p50_ms=p50_ms,
        raw_p90_ms=p50_ms,
        raw_p99_ms=p50_ms,
        raw_min_ms=p50_ms,
        reference_p50_ms=0.5,
        ratio=p50_ms / 0.5,
        runs=1000,
        batch=1,
        stable=True,
    )


def _quality(top1: float, chance: random.Random, names: tuple[str, ...]) -> Quality:
    classes = tuple(
        ClassQuality(
            name=name,
            support=75,
            precision=chance.random(),
            recall=chance.random(),
            average_precision=chance.random(),
            curve=tuple((place / 49, 1 - chance.random() * place / 49) for place in range(50)),
        )
        for name in names
    )
    return Quality(
        score=top1,
        score_low=top1 - 0.02,
        score_high=top1 + 0.02,
        images=1500,
        detail=ClassDetail(macro_precision=top1, macro_recall=top1, classes=classes),
    )


_PAINTED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
_ZOOM = f"""async () => {{
  const front = document.querySelector('[data-chart="front"]');
  await window.Plotly.relayout(front, {{ "xaxis.range": [-1, 0], "yaxis.range": [40, 70] }});
  await {_PAINTED};
}}"""
_MEMBER = f"""async () => {{
  const pick = document.getElementById("member");
  pick.value = String(pick.options.length - 1);
  pick.dispatchEvent(new Event("change"));
  await {_PAINTED};
}}"""


def _look(file: Path) -> list[float]:
    """Seconds until the page stands, of a zoom, and of another member; empty without a browser."""
    path = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return []
    if path is None:
        return []
    taken = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        began = time.perf_counter()
        tab.goto(file.as_uri())
        tab.wait_for_selector("html[data-ready=yes]", timeout=120_000)
        taken.append(time.perf_counter() - began)
        for action in (_ZOOM, _MEMBER):
            began = time.perf_counter()
            tab.evaluate(action)
            taken.append(time.perf_counter() - began)
        browser.close()
    return taken


if __name__ == "__main__":
    main()
