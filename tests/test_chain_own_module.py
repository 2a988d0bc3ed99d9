"""A torch module of the user's the whole way: run, confirm, export, infer.py, predict, and trained from the export.

It has registered two of its layers twice.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scalesearch.cli.export import export_trial
from scalesearch.config import load_run
from scalesearch.export.metadata import read_config
from scalesearch.records.confirmed import read_confirmed
from scalesearch.records.run_file import stored_session
from scalesearch.study.run import run_search
from scalesearch.values.record import MeasuredTrial

pytestmark = pytest.mark.slow

SPACE = """
network = "own_modules:twice_two_classes"
resolution_px = 32
resolution_multiple = 16
[scaling]
resolution = [0.5, 1.0]
[pruning]
channel_fraction = [0.25, 0.5]
criterion = ["taylor", "l2"]
[quantization]
precision = ["fp32", "int8"]
keep_float = [0, 1]
qat_steps = 4
calibration_images = 16
[training]
optimizer = "adamw"
learning_rate = 0.004
steps = 30
batch_size = 16
"""
SETTINGS = ("latency.max_s=0.3", "latency.warmup_s=0.02", "machine.threads=1", "machine.bf16=off", "siblings=false")
COMMAND = (sys.executable, "-m", "scalesearch")


def write(root: Path) -> Path:
    """Stripes along or across images of 32 x 32."""
    import numpy as np
    from PIL import Image

    for label, name in enumerate(("across", "along")):
        (root / name).mkdir(parents=True)
        for index in range(80):
            rng = np.random.default_rng((label, index))
            waves = 128 + 90 * np.sin(np.mgrid[:32, :32][label] * np.pi / 4 + rng.uniform(0, 6))
            Image.fromarray((waves + rng.uniform(-30, 30, (32, 32))).clip(0, 255).astype(np.uint8)).save(
                root / name / f"{index:02}.png"
            )
    return root


def test_a_module_goes_through_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tiny.toml").write_text(SPACE)
    root, study, best = write(tmp_path / "stripes"), tmp_path / "study", tmp_path / "best"
    flags = {"data.source": str(root), "budget": 3}
    settings, space = load_run(space=str(tmp_path / "tiny.toml"), overrides=SETTINGS, flags=flags)
    outcome = run_search(settings, space, study)
    complete = [record for record in outcome.records if isinstance(record, MeasuredTrial)]
    assert len(complete) == len(outcome.records) >= 3  # nothing failed
    assert {record.candidate.quantization.precision for record in complete} == {"fp32", "int8"}
    record = next(each for each in complete if each.candidate.quantization.precision == "int8")
    assert record.cost.macs < 0.7 * (record.dense_macs or 0)
    assert record.quality.score > 0.85

    export_trial(record, stored_session(study), best)
    config = read_config(best)
    assert config.network.origin == "own_modules:twice_two_classes" and config.network.origin_sha256
    assert {path.name for path in best.iterdir()} >= {"weights.safetensors", "config.toml", "model.onnx", "infer.py"}
    photos = sorted(str(path) for path in root.glob("*/*.png"))[::20]
    shown = subprocess.run(
        (sys.executable, best / "infer.py", *photos), capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.splitlines()
    labels = [line.removeprefix(f"{photo}: ").split()[0] for photo, line in zip(photos, shown, strict=True)]
    predicted = json.loads(command(tmp_path, "predict", str(best), *photos, "--json"))
    assert [each["label"] for each in predicted] == labels
    assert set(labels) == {"across", "along"}

    told = command(tmp_path, "train", str(best / "config.toml"), "--steps", "40", "--to", str(tmp_path / "trained"))
    assert "network: the same as exported, every tensor by name and shape" in told
    assert "graph: that of " in told
    command(tmp_path, "confirm", str(study), "--steps", "40", "--seeds", "1")
    assert {run.steps for run in read_confirmed(study)} == {40}
    elsewhere = command(tmp_path, "train", str(best / "config.toml"), "--to", str(tmp_path / "no"), path="", code=2)
    assert "no module 'own_modules', neither installed nor in" in elsewhere
    assert len(elsewhere.strip().splitlines()) <= 3


def command(folder: Path, *arguments: str, path: str | None = None, code: int = 0) -> str:
    """What the command prints in a process of its own, run in a folder that holds no module."""
    here = str(Path(__file__).parents[1])
    modules = str(Path(__file__).parent) if path is None else path
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (here, modules)))}
    done = subprocess.run((*COMMAND, *arguments), cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr
