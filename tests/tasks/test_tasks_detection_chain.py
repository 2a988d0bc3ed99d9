"""Detection the whole way, from a YOLO folder: searched, shown, reported, exported, and run by infer.py alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import stdout_of
from PIL import Image

from scalesearch.data.street_scenes import SIGN_CLASSES, draw_scene
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.records.run_file import stored_session
from scalesearch.records.store import RecordStore
from scalesearch.search.storage import opened_study
from scalesearch.tasks.detection.decoding import decode_answers
from scalesearch.tasks.detection.decoding_graph import run_file, same_detections
from scalesearch.tasks.detection.infer import Detector
from scalesearch.tasks.detection.onnx_nms import detections_of
from scalesearch.tasks.infer_parts.images import read_input
from scalesearch.values.network_spec import InputSize
from scalesearch.values.quality import DetectionDetail

pytestmark = pytest.mark.slow

SPACE = """
network = "resnet_scene"
resolution_px = [64, 96]
[scaling]
width = 0.5
[pruning]
channel_fraction = [0.0, 0.25]
[quantization]
precision = ["fp32", "int8"]
calibration_images = 16
[training]
steps = 60
batch_size = 8
loss = "bce"
label_smoothing = 0.0
dropout = 0.0
[training.loss_weights]
box = [2.5, 5.0]
"""
SETTINGS = (
    "latency.max_s=0.3", "latency.warmup_s=0.02", "machine.threads=1", "machine.bf16=off", "data.fit=pad",
    "data.memory=disk", "data.calibration_images=16",
)  # fmt: skip


def write_yolo(root: Path) -> Path:
    """Write generated scenes as a YOLO data set."""
    size = InputSize(height_px=90, width_px=160)
    for stream, (split, number) in enumerate((("train", 60), ("val", 16), ("test", 16))):
        for place in range(number):
            scene = draw_scene(rng=np.random.default_rng((7, stream, place)), size=size)
            image = root / "images" / split / f"{place:03}.png"
            label = root / "labels" / split / f"{place:03}.txt"
            for folder in (image.parent, label.parent):
                folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scene.image).save(image)
            fractions = scene.boxes / np.asarray([160, 90, 160, 90])
            label.write_text(
                "".join(
                    f"{name} {(left + right) / 2} {(top + bottom) / 2} {right - left} {bottom - top}\n"
                    for name, (left, top, right, bottom) in zip(scene.classes, fractions, strict=True)
                )
            )
    names = ", ".join(SIGN_CLASSES)
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\ntest: images/test\nnames: [{names}]\n")
    return root


def test_a_detector_goes_through_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("space.toml").write_text(SPACE)
    root = write_yolo(Path("scenes"))
    asked = [f"--set={text}" for text in SETTINGS]
    stdout_of("run", "--task", "detection", "--space", "space.toml", "--data", str(root), "--budget", "2", "--to",
              "study", *asked)  # fmt: skip
    records = [record for record in RecordStore(Path("study")).all() if record.quality]
    assert {record.quality.metric for record in records if record.quality} == {"map50_95"}
    best = max(records, key=lambda record: record.quality.score if record.quality else 0)
    assert best.quality
    detail = best.quality.detail
    assert isinstance(detail, DetectionDetail)
    assert best.quality.score > 0
    latency = best.latency
    assert latency and latency.postprocessing and latency.end_to_end
    assert latency.name == "p50_ms"
    assert latency.postprocessing.images == 16
    assert latency.end_to_end.p50_ms == pytest.approx(latency.p50_ms + latency.postprocessing.p50_ms)
    assert stored_session(Path("study")).settings.task == "detection"

    shown = stdout_of("show", "study", "--trial", str(best.trial))
    assert "Objects found" in shown
    assert "end to end, ms" in shown
    stdout_of("report", "study")
    page = Path("study/report.html").read_text()
    assert "Objects: precision and recall" in page
    assert "data:image/jpeg;base64," in page

    stdout_of("export", "study", "--trial", str(best.trial), "--to", "best")
    assert "A detector of objects of 8 classes" in Path("best/MODEL_CARD.md").read_text()
    files = sorted((root / "images" / "val").glob("*.png"))[:6]
    predicted = json.loads(stdout_of("predict", "best", *map(str, files), "--json", "--to", "drawn"))
    command = [sys.executable, "-I", "best/infer.py", "--json", *map(str, files)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [json.loads(line)["objects"] for line in lines] == [each["objects"] for each in predicted]
    assert len(list(Path("drawn").glob("*.png"))) == len(files)


def test_another_score_and_end_to_end_latency_are_what_is_searched_for_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "250")  # so that no heading of a table is broken
    monkeypatch.chdir(tmp_path)
    Path("space.toml").write_text(SPACE + "[limits]\nmax_latency_ms = 1000.0\n")
    root = write_yolo(Path("scenes"))
    begin = ("run", "--task", "detection", "--space", "space.toml", "--data", str(root), "--budget", "1",
             "--to", "study", *(f"--set={text}" for text in SETTINGS), "--set=detection.objective=recall_at_precision",
             "--set=detection.precision=0.1", "--set=siblings=false", "--set=twins=false")  # fmt: skip
    stdout_of(*begin, "--set=latency.objective=end_to_end")
    metric = "recall_at_precision_10"
    records = [record.measured for record in RecordStore(Path("study")).all() if record.measured]
    for record in records:
        latency, after = record.latency, record.latency.postprocessing
        assert after and latency.name == "end_to_end_ms"
        assert latency.p50_ms == pytest.approx(latency.of_engine.p50_ms + after.p50_ms)
        (use,) = (use for use in record.limits if use.limit == "max_latency_ms")
        assert use.excess == pytest.approx(latency.p50_ms / 1000 - 1)
        detail = record.quality.detail
        assert isinstance(detail, DetectionDetail)
        assert (record.quality.metric, detail.recall_at_precision) == (metric, record.quality.score)
        if record.quality.score:
            assert detail.precision >= 0.1
            assert detail.recall == pytest.approx(record.quality.score)
    with opened_study(Path("study")) as opened:
        assert opened.study.metric_names == [metric, "end_to_end_ms"]
        told = {trial.number: trial.values for trial in opened.study.trials if trial.values}
    assert {number: values[1] for number, values in told.items() if number in {each.trial for each in records}} == {
        record.trial: record.latency.p50_ms for record in records
    }
    rows = json.loads(stdout_of("front", "study", "--json"))
    assert all(row["latency_objective"] == "end_to_end" and metric in row for row in rows)
    shown = stdout_of("front", "study")
    assert "end-to-end, ms" in shown
    stdout_of("report", "study")
    assert "end-to-end latency, ms" in Path("study/report.html").read_text()
    done = subprocess.run([sys.executable, "-m", "scalesearch", *begin], capture_output=True, text=True)
    assert done.returncode != 0
    assert "settings.latency.objective: was 'end_to_end', is 'engine'" in done.stderr

    best = max(records, key=lambda record: record.quality.score)
    stdout_of("export", "study", "--trial", str(best.trial), "--to", "best", "--format", "onnx-nms")
    card = Path("best/MODEL_CARD.md").read_text()
    assert "end-to-end latency" in card and "model_nms.onnx" in card
    assert "end_to_end_ms" in Path("best/config.toml").read_text()
    detector, whole = Detector("best/model.onnx"), onnx_model(Path("best/model_nms.onnx"))
    found = 0
    for path in sorted((root / "images" / "val").glob("*.png")):
        images = read_input(path, detector.preprocessing)
        (theirs,) = detections_of(run_file(whole, images), 1)
        (ours,) = decode_answers(
            detector.raw(images), detector.preprocessing.resolution_px, least_score=detector.threshold
        )
        assert same_detections(theirs, ours)
        found += len(ours.scores)
    assert found > 0


def test_a_detector_learns_from_a_parent_that_sees_images_of_another_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("space.toml").write_text(SPACE)
    root = write_yolo(Path("scenes"))
    given = ("run", "--task", "detection", "--space", "space.toml", "--data", str(root), "--budget", "1",
             *(f"--set={text}" for text in SETTINGS), "--set=siblings=false", "--set=twins=false",
             "--set=training.steps=10", "--set=pruning.channel_fraction=0.0")  # fmt: skip
    stdout_of(*given, "--to", "first")
    (trial, *_) = (record.trial for record in RecordStore(Path("first")).all() if record.quality)
    stdout_of("export", "first", "--trial", str(trial), "--to", "exported")
    stdout_of("train", "exported/config.toml", "--steps", "10", "--to", "parent")
    asked = ("--set=training.distill_weight=0.5", "--set=scaling.resolution=1.5")
    stdout_of(*given, "--to", "taught", "--parent", "parent", *asked)
    session = stored_session(Path("taught"))
    assert session.parent and session.parent.network.input_size.sides == (64, 96)
    measured = [record.measured for record in RecordStore(Path("taught")).all() if record.measured]
    sizes = {record.spec.input_size.sides for record in measured}
    assert sizes == {(96, 160)}
