import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from command import run_command
from loading import loaded
from onnx import TensorProto, helper, numpy_helper

from scalesearch.cli import histogram
from scalesearch.dashboard.publisher import stored_histograms
from scalesearch.data import LABEL_SOURCES, load_dataset
from scalesearch.deployment.onnx_file import write_onnx
from scalesearch.errors import ConfigError
from scalesearch.export import trial_files
from scalesearch.export.metadata import write_config
from scalesearch.records.run_file import write_run_file
from scalesearch.records.store import RecordStore
from scalesearch.values.candidate import Quantization
from scalesearch.values.network import OnnxModel
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.session import Session
from scalesearch.values.settings import DataSettings, RunSettings

MakeRecord = Callable[..., MeasuredTrial]
INT8 = Quantization(precision="int8", calibration="percentile", clip_percentile=99.0, calibration_images=20)


@pytest.fixture
def study(
    session: Session, make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, list[tuple[Quantization, Session]]]:
    """A study of real images, whose networks are one convolution; and what was asked to be built."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (200, 32, 32, 3), dtype=np.uint8), np.arange(200) % 2
    np.savez(tmp_path / "noise.npz", images=images, labels=labels)
    folder = tmp_path / "results" / "first"
    settings = RunSettings(
        data=DataSettings(source=str(tmp_path / "noise.npz"), calibration_images=20, val_fraction=0.3), accept="rtx"
    )
    target = dataclasses.replace(session.target, backend="tensorrt", quantization_profile="tensorrt")
    found = load_dataset(settings.data, LABEL_SOURCES, storage_px=32).fingerprint
    data = dataclasses.replace(session.data, fingerprint=found)
    write_run_file(
        dataclasses.replace(session, folder=folder, settings=settings, target=target, storage_px=32, data=data)
    )
    store = RecordStore(folder)
    int8 = make_record(1, top1=0.9, p50_ms=2.0)
    store.save(make_record(0, top1=0.7))
    store.save(dataclasses.replace(int8, candidate=dataclasses.replace(int8.candidate, quantization=INT8)))
    store.save(make_record(2, top1=None))
    store.save(make_record(3, state="cached", same_as=1, charged=False))
    asked: list[tuple[Quantization, Session]] = []

    def build(
        record: TrialRecord, session: Session, to: Path, *, quantization: Quantization, evaluator: None = None
    ) -> OnnxModel:
        asked.append((quantization, session))
        return write_onnx(_network(), to)

    monkeypatch.setattr(trial_files, "built_file", build)
    return folder, asked


def _network() -> onnx.ModelProto:
    weights = np.random.default_rng(1).normal(0, 0.1, (8, 3, 3, 3))
    weights[0, 0, 0, 0] = 2.0  # twenty standard deviations out
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "stem.0.weight"], ["logits"], name="Conv_0")],
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 8, 30, 30])],
        [numpy_helper.from_array(weights.astype(np.float32), "stem.0.weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


_run = partial(run_command, histogram.register)


def test_a_table_and_two_pictures(study: tuple[Path, list[tuple[Quantization, Session]]], tmp_path: Path) -> None:
    text = _run("--trial", "1", "--to", "pictures")
    lines = text.splitlines()
    assert lines[0] == "first, trial 1: int8, percentile 99 over 20 images"
    (row,) = [line.split() for line in lines if line.lstrip().startswith("stem.0")]
    assert row[1] == "8x3x3x3"
    assert "yes" in row, "its one outlier wastes the range"
    assert "1 of 1 layers keep 99 % of their weights in a quarter of the range: stem.0" in lines
    assert lines[-1] == "-> pictures/histogram.png, histogram.html"
    assert (tmp_path / "pictures" / "histogram.png").read_bytes().startswith(b"\x89PNG")
    assert "first, trial 1" in (tmp_path / "pictures" / "histogram.html").read_text(encoding="utf-8")


def test_the_float_network_is_built_without_chip_and_gate(
    study: tuple[Path, list[tuple[Quantization, Session]]],
) -> None:
    _run("--trial", "1", "--json")
    ((quantization, session),) = study[1]
    assert quantization == dataclasses.replace(INT8, precision="fp32")
    assert (session.target.backend, session.settings.accept) == ("onnxruntime", "off")
    assert session.target.channel_multiple == 8, "what the shape of the network follows is the chip's still"


def test_json_holds_the_layers_on_the_studys_own_images(
    study: tuple[Path, list[tuple[Quantization, Session]]], tmp_path: Path
) -> None:
    (layer,) = json.loads(_run("--trial", "1", "--json"))
    assert (layer["name"], layer["shape"], layer["wasted_range"]) == ("stem.0", [8, 3, 3, 3], True)
    read = layer["activations"]
    assert sum(read["counts"]) == 20 * 3 * 32 * 32, "the 20 calibration images, in the trial's resolution"
    # bytes 0..255, normalised by the session's mean and deviation
    assert read["low"] == pytest.approx(min((0 - mean) / std for mean, std in ((0.4, 0.2), (0.5, 0.25), (0.6, 0.3))))
    assert read["high"] == pytest.approx((1 - 0.4) / 0.2)
    assert read["clip_low"] == -read["clip_high"], "TensorRT's style is symmetric"
    assert read["clipped_fraction"] == pytest.approx(0.01, abs=0.003)
    assert not (tmp_path / "export").exists()


def test_a_float_trial_says_that_int8_is_a_thought(study: tuple[Path, list[tuple[Quantization, Session]]]) -> None:
    text = _run("--trial", "0")
    assert text.startswith("first, trial 0: fp32, with what int8 (minmax) would do to it")
    assert Path("export/first/trial_000000/histogram.html").is_file()


def test_an_answer_from_the_cache_is_its_original(study: tuple[Path, list[tuple[Quantization, Session]]]) -> None:
    assert _run("--trial", "3").startswith("first, trial 1: ")


def test_a_trial_without_network_is_said(study: tuple[Path, list[tuple[Quantization, Session]]]) -> None:
    with pytest.raises(ConfigError, match="Trial 2 has no trained network to look at: failed, train: loss is not"):
        _run("--trial", "2")
    assert study[1] == []


def test_a_folder_in_the_way_is_said_before_the_work(study: tuple[Path, list[tuple[Quantization, Session]]]) -> None:
    Path("file").touch()
    with pytest.raises(ConfigError, match=r"Cannot write to file/inside: Not a directory\. Give another .* --to"):
        _run("--trial", "1", "--to", "file/inside")
    assert study[1] == []


def test_what_the_picture_leaves_out_is_said(
    study: tuple[Path, list[tuple[Quantization, Session]]], make_record: MakeRecord
) -> None:
    record = make_record(4)
    asked = dataclasses.replace(INT8, keep_float=2, qat_steps=50)
    candidate = dataclasses.replace(record.candidate, quantization=asked)
    RecordStore(study[0]).save(dataclasses.replace(record, candidate=candidate))
    text = _run("--trial", "4")
    assert "the deployed file leaves the 2 layers that suffer most in float" in text
    assert "before quantization-aware training" in text


@pytest.mark.slow
def test_the_float_network_of_a_real_int8_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stubbed: a network is trained by a search, and comes again from its kept weights."""
    from scalesearch.config import load_run
    from scalesearch.study.run import run_search

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    images = rng.integers(0, 120, (400, 16, 16, 3)) + 90 * labels[:, None, None, None]
    np.savez(tmp_path / "shades.npz", images=images.astype(np.uint8), labels=labels)
    Path("tiny.toml").write_text(
        'network = "resnet_small"\nresolution_px = 16\nsummary = "tiny"\n[scaling]\nwidth = [0.5]\n'
        '[quantization]\nprecision = ["int8"]\n[training]\nsteps = 12\nbatch_size = 16\n'
    )
    quick = ("latency.max_s=0.3", "latency.warmup_s=0.02", "machine.threads=1", "data.val_fraction=0.3")
    flags = {"data.source": str(tmp_path / "shades.npz"), "budget": 1}
    settings, space = load_run(space="tiny.toml", overrides=quick, flags=flags)
    run_search(settings, space, Path("results/tiny"))
    assert set(stored_histograms(Path("results/tiny"))) == {0}, "a search looks at its front before it ends"
    assert not Path("results/tiny/exported").exists(), "files kept between candidates go with the search"
    layers = json.loads(_run("--json"))
    assert [layer["name"] for layer in layers][::10] == ["stem.0", "classifier"]
    # uint8 activations and 7-bit weights of CPUs: good to about 35 dB and more in every layer
    assert all(25 < layer[part]["sqnr_db"] < 60 for layer in layers for part in ("weights", "activations"))


def test_help_loads_nothing_heavy() -> None:
    heavy = {"torch", "optuna", "pandas", "onnx", "onnxruntime", "numpy", "matplotlib", "rich.console"}
    assert not loaded("import scalesearch.cli.histogram", of=heavy)


def test_a_failure_leaves_no_folder_and_another_trials_export_as_it_is(
    study: tuple[Path, list[tuple[Quantization, Session]]],
    session: Session,
    make_record: MakeRecord,
    tmp_path: Path,
) -> None:
    write_config(make_record(0), dataclasses.replace(session, folder=study[0]), tmp_path / "best")
    with pytest.raises(ConfigError, match="holds the export of trial 0 of first"):
        _run("--trial", "1", "--to", "best")
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["config.toml"]
    (tmp_path / "noise.npz").rename(tmp_path / "moved.npz")
    with pytest.raises(ConfigError, match="--data PATH"):
        _run("--trial", "1")
    assert not (tmp_path / "export").exists()
    assert "-> new/histogram.png" in _run("--trial", "1", "--to", "new", "--data", "moved.npz")
