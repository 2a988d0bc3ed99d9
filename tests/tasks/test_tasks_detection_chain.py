"""Detection the whole way, from a YOLO folder: searched, shown, reported, exported, and run by infer.py alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scalesearch.data.street_scenes import SIGN_CLASSES, draw_scene
from scalesearch.records.run_file import stored_session
from scalesearch.records.store import RecordStore
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


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "scalesearch", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_detector_goes_through_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("space.toml").write_text(SPACE)
    root = write_yolo(Path("scenes"))
    asked = [f"--set={text}" for text in SETTINGS]
    run("run", "--task", "detection", "--space", "space.toml", "--data", str(root), "--budget", "2", "--to", "study",
        *asked)  # fmt: skip
    records = [record for record in RecordStore(Path("study")).all() if record.quality]
    assert {record.quality.metric for record in records if record.quality} == {"map50_95"}
    best = max(records, key=lambda record: record.quality.score if record.quality else 0)
    assert best.quality
    detail = best.quality.detail
    assert isinstance(detail, DetectionDetail)
    assert best.quality.score > 0
    assert detail.decode_ms > 0
    assert stored_session(Path("study")).settings.task == "detection"

    shown = run("show", "study", "--trial", str(best.trial))
    assert "Objects found" in shown
    assert "end to end, ms" in shown
    run("report", "study")
    page = Path("study/report.html").read_text()
    assert "Objects: precision and recall" in page
    assert "data:image/jpeg;base64," in page

    run("export", "study", "--trial", str(best.trial), "--to", "best")
    assert "A detector of objects of 8 classes" in Path("best/MODEL_CARD.md").read_text()
    files = sorted((root / "images" / "val").glob("*.png"))[:6]
    predicted = json.loads(run("predict", "best", *map(str, files), "--json", "--to", "drawn"))
    command = [sys.executable, "-I", "best/infer.py", "--json", *map(str, files)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [json.loads(line)["objects"] for line in lines] == [each["objects"] for each in predicted]
    assert len(list(Path("drawn").glob("*.png"))) == len(files)
