"""The whole chain on rectangles: searched, trained at full length, exported, labelled, trained again."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import stdout_of
from PIL import Image

from scalesearch.data import LABEL_SOURCES, load_dataset, to_input
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.export.metadata import read_config
from scalesearch.records.run_file import stored_session
from scalesearch.records.store import RecordStore
from scalesearch.tasks.classification import infer
from scalesearch.tasks.infer_parts import images as infer_images
from scalesearch.values.network_spec import InputSize

pytestmark = pytest.mark.slow

SPACE = """
network = "resnet_small"
resolution_px = [24, 40]
[scaling]
resolution = [0.5, 1.0]
width = 0.5
[pruning]
channel_fraction = 0.25
[quantization]
precision = ["fp32", "int8"]
calibration_images = 16
[training]
optimizer = "adamw"
learning_rate = 0.004
steps = 30
batch_size = 16
"""
SETTINGS = ("latency.max_s=0.3", "latency.warmup_s=0.02", "machine.threads=1", "machine.bf16=off", "siblings=false")
# 24 x 40 and half of it, with both sides rounded to multiples of resnet_small's total stride of 8 (ties go up).
SIZES = {(24, 40), (16, 24)}


def write(root: Path) -> Path:
    """Noise of 96 x 160 px, of which only the 32 columns at either border, beyond the centre square, tell the class."""
    for label, name in enumerate(("red", "green")):
        (root / name).mkdir(parents=True)
        for index in range(80):
            pixels = np.random.default_rng((label, index)).integers(0, 256, (96, 160, 3), np.uint8)
            for border in (pixels[:, :32], pixels[:, 128:]):
                border[..., label] = border[..., label] // 2 + 128
                border[..., 1 - label] //= 2
            Image.fromarray(pixels).save(root / name / f"{index:02}.png")
    return root


def labels_by_script(export: Path, files: list[Path]) -> list[str]:
    """By the export's own infer.py, in a process that knows nothing of scalesearch."""
    command = [sys.executable, "-I", str(export / "infer.py"), "--top", "1", *map(str, files)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split(": ")[1].split()[0] for line in lines]


def test_rectangles_go_through_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("wide.toml").write_text(SPACE)
    root, files = write(Path("pictures")), sorted(Path("pictures").rglob("*.png"))
    asked = [f"--set={text}" for text in (*SETTINGS, "data.memory=disk")]

    stdout_of("run", "--space", "wide.toml", "--data", str(root), "--budget", "2", "--to", "study", *asked)
    session, records = stored_session(Path("study")), RecordStore(Path("study/records")).all()
    assert session.storage == InputSize(height_px=24, width_px=40)
    assert not any("centre crop" in text for text in session.data.warnings)  # 96 x 160 has the shape of 24 x 40
    assert {record.spec.input_size.sides for record in records if record.spec} <= SIZES
    stdout_of("confirm", "study", "--steps", "30", "--seeds", "1")
    for folder, more in (("best", ()), ("confirmed", ("--confirmed",))):
        stdout_of("export", "study", "--to", folder, *more)
        export, config = Path(folder), read_config(Path(folder))
        sides = config.network.input_size.sides
        assert sides in SIZES and onnx_model(export / "model.onnx").input_shape == (1, 3, *sides)

        told = infer.Labeller(export / "model.onnx").preprocessing
        assert (told.storage_px, told.resolution_px) == ((24, 40), sides)
        data = load_dataset(config.settings.data, LABEL_SOURCES, storage_px=config.storage).at(
            config.network.input_size
        )
        trained_on = {image.tobytes() for image in to_input(data.train.images[:], mean=data.mean, std=data.std)}
        found = [infer_images.read_input(path, told)[0].tobytes() in trained_on for path in files]
        assert sum(found) == len(data.train) == len(trained_on)

        by_script = labels_by_script(export, files)
        answers = json.loads(stdout_of("predict", folder, *map(str, files), "--top", "1", "--json"))
        assert by_script == [answer["label"] for answer in answers]
        # A centre square would leave nothing but noise, of which half of the labels were right.
        assert np.mean([label == path.parent.name for label, path in zip(by_script, files, strict=True)]) > 0.85

    trained = stdout_of("train", "best/config.toml", "--to", "again", "--steps", "30")
    assert "network: the same as exported" in trained and "graph: that of best/model.onnx" in trained
