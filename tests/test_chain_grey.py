"""The whole chain on grey, long, 12-bit images: searched, exported, answered by infer.py, trained again."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scalesearch.cli.export import export_trial
from scalesearch.cli.full_training import train_export
from scalesearch.config import load_run
from scalesearch.data import LABEL_SOURCES, load_dataset, to_input
from scalesearch.deployment.backends import EngineOptions, get_backend
from scalesearch.deployment.onnx_file import onnx_model, read_onnx
from scalesearch.export.metadata import read_config
from scalesearch.records.run_file import stored_session
from scalesearch.study.run import run_search

pytestmark = pytest.mark.slow

NETWORK = """
from dataclasses import replace
from scalesearch.networks import find_spec

def grey():
    return replace(find_spec("resnet_small"), name="grey_small", image_channels=1)
"""
SPACE = """
network = "resnet_small"
resolution_px = 16
[scaling]
width = 0.5
[pruning]
channel_fraction = 0.25
[quantization]
precision = "int8"
calibration_images = 16
[training]
optimizer = "adamw"
learning_rate = 0.004
steps = 30
batch_size = 16
"""
SETTINGS = ("latency.max_s=0.3", "latency.warmup_s=0.02", "machine.threads=1", "machine.bf16=off", "data.fit=pad")


def write(root: Path) -> Path:
    """Stripes along or across 40 x 16 images of the values 20000..20200: less than one grey level of 16 bits."""
    for label, name in enumerate(("across", "along")):
        (root / name).mkdir(parents=True)
        for index in range(80):
            rng = np.random.default_rng((label, index))
            places = np.mgrid[:16, :40][label]
            waves = 20100 + 60 * np.sin(places * np.pi / 4 + rng.uniform(0, 6)) + rng.uniform(-40, 40, (16, 40))
            Image.fromarray(waves.astype(np.uint16)).save(root / name / f"{index:02}.png")
    return root


@pytest.mark.parametrize("memory", ["ram", "disk"])
def test_grey_long_and_deep_images_go_through_everything(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "grey_nets_xyz.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tiny.toml").write_text(SPACE)
    root, study, best = write(tmp_path / "stripes"), tmp_path / "study", tmp_path / "best"
    flags = {"data.source": str(root), "data.memory": memory, "budget": 1, "network": "grey_nets_xyz:grey"}
    settings, space = load_run(space=str(tmp_path / "tiny.toml"), overrides=SETTINGS, flags=flags)
    outcome = run_search(settings, space, study)
    record = outcome.front[0]
    assert record.spec and record.spec.image_channels == 1
    assert record.quality and record.quality.score > 0.85  # without a window all images are one grey: 0.5

    export_trial(record, stored_session(study), best)
    config = read_config(best)
    window = config.settings.data.window
    assert not isinstance(window, str)
    assert 19990 < window[0] < 20040 and 20160 < window[1] < 20210
    model = onnx_model(best / "model.onnx")
    assert model.input_shape == (1, 1, 16, 16)
    assert {entry.key: entry.value for entry in read_onnx(model.path).metadata_props}["scalesearch.channels"] == "1"

    script = runpy.run_path(str(best / "infer.py"), run_name="script")
    labeller = script["Labeller"](model.path)
    data = load_dataset(config.settings.data, LABEL_SOURCES, storage_px=config.storage_px, channels=1).at(16)
    trained_on = {image.tobytes() for image in to_input(data.train.images[:], mean=data.mean, std=data.std)}
    files = sorted(root.rglob("*.png"))
    inputs = [script["read_input"](path, labeller.preprocessing) for path in files]
    assert sum(each[0].tobytes() in trained_on for each in inputs) == len(data.train)
    with get_backend("onnxruntime").compile(model, EngineOptions()) as engine:
        answers = [int(engine.run(each)["logits"][0].argmax()) for each in inputs]
    labels = [data.class_names.index(path.parent.name) for path in files]
    assert np.mean(np.equal(answers, labels)) > 0.85

    train_export(best / "config.toml", steps=30, data=None, seed=None, to=tmp_path / "again")
    assert "network: the same as exported" in capsys.readouterr().out
    result = json.loads((tmp_path / "again" / "result.json").read_text())
    assert result["test_top1"] > 0.85
