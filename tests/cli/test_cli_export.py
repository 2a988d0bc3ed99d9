"""The exported folder: whole, light where it can be, and honest where a part could not be made."""

import dataclasses
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import typer
from command import run_command
from onnx import numpy_helper
from small_graphs import CLASSES, WEIGHTED, small_graph, small_model, wide_graph
from typer.testing import CliRunner

from scalesearch.cli import export
from scalesearch.data import LABEL_SOURCES, load_dataset, to_input
from scalesearch.deployment import float_weights
from scalesearch.deployment.graph_structure import first_difference
from scalesearch.deployment.onnx_file import onnx_model, read_onnx, write_onnx
from scalesearch.errors import ConfigError, MissingBackendError, NoFeasibleTrialError, StageFailed
from scalesearch.export import trial_files
from scalesearch.export.folder import check_images
from scalesearch.export.metadata import read_config
from scalesearch.records.confirmed import confirmed_model_path, write_confirmed
from scalesearch.records.run_file import write_run_file
from scalesearch.records.store import RecordStore
from scalesearch.tasks.classification import infer
from scalesearch.tasks.classification.task import TASK
from scalesearch.values.candidate import Precision, Pruning, Quantization, Recipe, Sparsity
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.network import OnnxModel
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.settings import DataSettings, RunSettings
from scalesearch.values.training_length import full_length, updates

MakeRecord = Callable[..., MeasuredTrial]
SIDE_PX = 8
ALWAYS = {
    "MODEL_CARD.md",
    "calibration.json",
    "config.toml",
    "infer.py",
    "model.onnx",
    "preprocessing.toml",
    "requirements.lock",
}


@dataclasses.dataclass
class Study:
    session: Session
    make_record: MakeRecord
    data: Path

    def trial(self, number: int, precision: Precision = "fp32", **quantization: object) -> MeasuredTrial:
        """A stored front member whose model is kept."""
        record = self.make_record(number, top1=0.7 + number / 100, p50_ms=1 + number)
        assert record.spec
        asked = Quantization(precision=precision, calibration_images=20, **quantization)  # type: ignore[arg-type]
        spec = dataclasses.replace(record.spec, resolution_px=SIDE_PX)
        candidate = dataclasses.replace(record.candidate, quantization=asked)
        record = dataclasses.replace(record, spec=spec, candidate=candidate, network_sha256="a" * 64)
        models = self.session.folder / "models"
        models.mkdir(exist_ok=True)
        in_float = asked.float_layers >= WEIGHTED  # such a file is the fp32 one
        model = small_model(models, "fp32" if in_float else precision, "onnxruntime_cpu")
        model.path.rename(models / f"trial_{number:06d}.onnx")
        record = dataclasses.replace(record, onnx_sha256=model.sha256)
        RecordStore(self.session.folder).save(record)
        return record


@pytest.fixture
def study(session: Session, make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng, path = np.random.default_rng(0), tmp_path / "noise.npz"
    labels = np.arange(200) % CLASSES
    np.savez(path, images=rng.integers(0, 256, (200, SIDE_PX, SIDE_PX, 3), dtype=np.uint8), labels=labels)
    settings = RunSettings(data=DataSettings(source=str(path), calibration_images=30, val_fraction=0.3))
    found = load_dataset(settings.data, LABEL_SOURCES, storage_px=SIDE_PX)
    data = dataclasses.replace(session.data, fingerprint=found.fingerprint, mean=found.mean, std=found.std)
    made = dataclasses.replace(
        session, folder=tmp_path / "results" / "first", settings=settings, storage_px=SIDE_PX, data=data
    )
    write_run_file(made)
    return Study(session=made, make_record=make_record, data=path)


def float_instead(monkeypatch: pytest.MonkeyPatch, *, change: float = 0.0) -> None:
    """What would be built again in float: the small graph, its first weights changed by so many deviations."""

    def build(
        record: MeasuredTrial, session: Session, to: Path, *, quantization: Quantization, evaluator: None = None
    ) -> OnnxModel:
        assert (quantization.precision, quantization.qat_steps) == ("fp32", 0)
        assert session.target.backend == "onnxruntime"
        proto = small_graph()
        weight = proto.graph.initializer[0]
        values = numpy_helper.to_array(weight)
        noise = np.random.default_rng(0).normal(size=values.shape) * values.std() * change
        weight.CopyFrom(numpy_helper.from_array((values + noise).astype(np.float32), weight.name))
        return write_onnx(proto, to)

    monkeypatch.setattr(trial_files, "built_file", build)


def test_an_fp32_export_is_whole_and_loads_neither_torch_nor_the_data(study: Study, tmp_path: Path) -> None:
    record = study.trial(1)
    study.data.unlink()
    code = (
        "import sys; sys.argv = ['scalesearch', 'export', 'first', '--trial', '1', '--to', 'best']\n"
        "from scalesearch.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'optuna', 'pandas'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "best"
    assert {path.name for path in folder.iterdir()} == ALWAYS | {"weights.safetensors"}
    assert "MODEL_CARD.md, calibration.json, config.toml" in done.stdout

    kept = read_onnx(study.session.folder / "models" / "trial_000001.onnx")
    weights = safetensors.numpy.load_file(folder / "weights.safetensors")
    for tensor in kept.graph.initializer:
        np.testing.assert_array_equal(weights.pop(tensor.name), numpy_helper.to_array(tensor))
    assert not weights
    assert first_difference(read_onnx(folder / "model.onnx"), kept) == ""
    assert read_config(folder).candidate == record.candidate
    told = tomllib.loads((folder / "preprocessing.toml").read_text())
    labeller = infer.Labeller(folder / "model.onnx")
    assert list(labeller.preprocessing.class_names) == told["class_names"] == list(study.session.data.class_names)
    assert f"onnxruntime=={importlib.metadata.version('onnxruntime')}" in (folder / "requirements.lock").read_text()
    assert (folder / "infer.py").read_bytes() == TASK.infer_script()
    card = (folder / "MODEL_CARD.md").read_text()
    assert all(f"`{name}`" in card for name in ALWAYS - {"MODEL_CARD.md"})


def test_calibration_leads_to_the_images_that_calibrated(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    float_instead(monkeypatch)
    notes = export.export_trial(study.trial(2, "int8"), study.session, tmp_path / "best")
    assert notes == ()
    told = json.loads((tmp_path / "best" / "calibration.json").read_text())
    data = load_dataset(study.session.settings.data, LABEL_SOURCES, storage_px=SIDE_PX)
    with np.load(study.data) as source:
        np.testing.assert_array_equal(source["images"][told["indices"]], data.calibration.images[:20])
    assert told["data_fingerprint"] == data.fingerprint
    weights = safetensors.numpy.load_file(tmp_path / "best" / "weights.safetensors")
    assert weights["stem"].dtype == np.float32 and weights["stem"].shape == (16, 3, 3, 3)


def test_what_cannot_be_made_is_said_and_the_rest_is_there(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object, **__: object) -> OnnxModel:
        message = "data.source: nothing there"
        raise ConfigError(message)

    monkeypatch.setattr(trial_files, "built_file", build)
    record = study.trial(2, "int8")
    study.data.unlink()
    export.export_trial(study.trial(1), study.session, tmp_path / "best")  # with weights, which must not stay
    notes = export.export_trial(record, study.session, tmp_path / "best")
    assert [note.split()[0] for note in notes] == ["weights.safetensors", "calibration.json"]
    assert "data.source: nothing there" in notes[0]
    assert {path.name for path in (tmp_path / "best").iterdir()} == ALWAYS
    assert json.loads((tmp_path / "best" / "calibration.json").read_text())["indices"] is None
    card = (tmp_path / "best" / "MODEL_CARD.md").read_text()
    assert "weights.safetensors is left out" in card and "| `weights.safetensors` |" not in card


def test_weights_of_another_training_are_not_passed_off(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    float_instead(monkeypatch, change=1.0)
    (note,) = export.export_trial(study.trial(2, "int8"), study.session, tmp_path / "best")
    assert note.startswith("weights.safetensors is left out") and "(stem)" in note
    assert not (tmp_path / "best" / "weights.safetensors").exists()


def test_weights_before_quantization_aware_updates_are_called_so(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    float_instead(monkeypatch)
    export.export_trial(study.trial(2, "int8", qat_steps=10), study.session, tmp_path / "best")
    with safetensors.safe_open(tmp_path / "best" / "weights.safetensors", framework="np") as file:
        assert file.metadata()["state"].endswith("; before quantization-aware updates")


@pytest.mark.parametrize("qat_steps", [0, 10])
def test_an_int8_file_with_all_layers_left_in_float_gives_its_own_weights(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qat_steps: int
) -> None:
    float_instead(monkeypatch, change=1.0)  # what would be built again is another network
    record = study.trial(2, "int8", keep_float=WEIGHTED, qat_steps=qat_steps)
    assert export.export_trial(record, study.session, tmp_path / "best") == ()
    with safetensors.safe_open(tmp_path / "best" / "weights.safetensors", framework="np") as file:
        assert file.metadata()["state"] == "trained, pruned, BatchNorm folded, fp32"
        assert {*file.keys()} == {tensor.name for tensor in small_graph().graph.initializer}


@pytest.mark.slow
def test_formats_land_in_the_folder_and_on_the_card(study: Study, tmp_path: Path) -> None:
    pytest.importorskip("emx_onnx_cgen")
    export.export_trial(study.trial(1), study.session, tmp_path / "best", formats=("onnx", "c", "c"))
    card = (tmp_path / "best" / "MODEL_CARD.md").read_text()
    assert "| `c/model.c` | portable C99" in card
    assert "calibration images of pictures" in (tmp_path / "best" / "c" / "self_test.c").read_text()


def test_formats_are_checked_on_the_studys_images_or_on_noise_that_is_called_so(study: Study) -> None:
    record = study.trial(1)
    check = check_images(record, study.session)
    data = load_dataset(study.session.settings.data, LABEL_SOURCES, storage_px=SIDE_PX)
    np.testing.assert_array_equal(check.images, to_input(data.calibration.images[:8], mean=data.mean, std=data.std))
    assert check.told == "8 calibration images of pictures"
    study.data.unlink()
    noise = check_images(record, study.session)
    assert noise.images.shape == (8, 3, SIDE_PX, SIDE_PX) and noise.images.dtype == np.float32
    assert "normal noise, for the images are gone" in noise.told


@pytest.mark.parametrize(
    ("precision", "formats", "error"),
    [
        ("fp16", ("c",), ConfigError),
        ("fp32", ("onyx",), ConfigError),
        ("fp32", ("tensorrt",), MissingBackendError),
    ],
)
def test_a_format_that_cannot_be_is_refused_before_anything_is_written(
    precision: Precision,
    formats: tuple[str, ...],
    error: type[Exception],
    study: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scalesearch.deployment.backends.tensorrt.probe", lambda _: _unavailable())
    with pytest.raises(error):
        export.export_trial(study.trial(1, precision), study.session, tmp_path / "best", formats=formats)
    assert not (tmp_path / "best").exists()


def _written_text(name: str) -> Callable[..., tuple[str, ...]]:
    """A writer of a format that writes one file of text instead."""

    def write(self: object, model: OnnxModel, folder: Path, options: object) -> tuple[str, ...]:
        (folder / name).write_text(model.sha256)
        return (name,)

    return write


def test_members_of_the_front_are_exported_without_the_formats_that_cannot_hold_them(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalesearch.deployment.formats.executorch.ExecuTorchProgram.ensure_available", lambda _: None)
    monkeypatch.setattr("scalesearch.deployment.formats.executorch.ExecuTorchProgram.write", _written_text("model.pte"))
    float_instead(monkeypatch)
    study.trial(1)
    study.trial(2, "fp16")
    study.trial(3)
    told = _run("first", "--front", "--format", "executorch", "--to", "all").splitlines()
    with_it = [(tmp_path / "all" / f"trial_{number:06d}" / "model.pte").exists() for number in (1, 2, 3)]
    assert with_it == [True, False, True]
    assert (tmp_path / "all" / "trial_000002" / "model.onnx").exists()
    after = told[next(place for place, line in enumerate(told) if line.startswith("trial 2:")) + 1]
    assert after == "  not written as executorch, which cannot hold fp16"
    assert len([line for line in told if "not written as" in line]) == 1


def test_a_format_that_holds_no_member_of_the_front_is_refused_before_anything_is_written(
    study: Study, tmp_path: Path
) -> None:
    for number in (1, 2):
        study.trial(number, "fp16")
    with pytest.raises(ConfigError, match="expected a network in fp32 or int8, came fp16"):
        _run("first", "--front", "--format", "c", "--to", "all")
    assert not (tmp_path / "all").exists()


def test_a_member_of_the_front_that_fails_does_not_stop_the_others(study: Study, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        study.trial(number)
    models = study.session.folder / "models"
    (models / "trial_000002.onnx").write_bytes(small_graph().SerializeToString())
    app = typer.Typer()
    export.register(app)
    done = CliRunner().invoke(app, ["first", "--front", "--to", "all"], standalone_mode=False)
    assert (done.return_value, done.exception) == (1, None)
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["trial_000001", "trial_000003"]
    assert "trial 2 is not exported: " in done.stderr and "is not the file that trial 2 measured" in done.stderr
    assert "1 of 3 members of the front are not exported." in done.stderr


def test_a_format_that_fails_for_one_member_leaves_its_other_files(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "scalesearch.deployment.formats.executorch.ExecuTorchProgram"
    plain = _written_text("model.pte")

    def fails_for_one(self: object, model: OnnxModel, folder: Path, options: object) -> tuple[str, ...]:
        written = plain(self, model, folder, options)
        if "trial_000002" in str(folder):
            (folder / "half").mkdir()
            raise StageFailed("executorch", "no such operator")
        return written

    monkeypatch.setattr(f"{program}.ensure_available", lambda _: None)
    monkeypatch.setattr(f"{program}.write", fails_for_one)
    for number in (1, 2, 3):
        study.trial(number)
    app = typer.Typer()
    export.register(app)
    asked = ["first", "--front", "--format", "executorch", "--to", "all"]
    done = CliRunner().invoke(app, asked, standalone_mode=False)
    assert (done.return_value, done.exception) == (1, None)
    assert [(tmp_path / "all" / f"trial_{number:06d}" / "model.pte").exists() for number in (1, 2, 3)] == [
        True, False, True,
    ]  # fmt: skip
    assert not (tmp_path / "all" / "trial_000002" / "half").exists()
    card = (tmp_path / "all" / "trial_000002" / "MODEL_CARD.md").read_text()
    assert "infer.py" in card
    assert "model.pte" not in card
    assert [line for line in done.stderr.splitlines() if "not written" in line] == [
        "  not written as executorch: executorch: no such operator"
    ]

    with pytest.raises(StageFailed, match="no such operator"):
        _run("first", "--trial", "2", "--format", "executorch", "--to", "trial_000002")
    assert not (tmp_path / "trial_000002").exists()


def _unavailable() -> object:
    from scalesearch.deployment.backends import BackendStatus

    return BackendStatus(available=False, version="", reason="no GPU here")


def test_a_tensorrt_study_gets_its_engine_where_its_gpu_is(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from scalesearch.deployment.backends import BackendStatus
    from scalesearch.values.target import Device

    package = "scalesearch.deployment.backends.tensorrt"
    target = dataclasses.replace(study.session.target, backend="tensorrt")
    gpu = Device(name="NVIDIA L4", backend="tensorrt", backend_version="10.12", threads=1, features=("sm_89",))
    session = dataclasses.replace(study.session, target=target, device=gpu)
    newer = dataclasses.replace(gpu, backend_version="11.1", threads=2)
    for available, here, formats in (
        (False, gpu, ()),
        (True, gpu, ("tensorrt",)),
        (True, newer, ("tensorrt",)),
        (True, dataclasses.replace(gpu, name="NVIDIA A10", features=("sm_86",)), ()),
        (True, dataclasses.replace(gpu, name="NVIDIA L40S"), ()),
    ):
        status = BackendStatus(available=available, version="11", reason="no GPU here")
        monkeypatch.setattr(f"{package}.probe", lambda _, status=status: status)
        monkeypatch.setattr(f"{package}.gpu_device", lambda here=here, **_: here)
        assert export.default_formats(session) == formats
    assert export.default_formats(study.session) == ()


@pytest.mark.parametrize(
    ("sparsity", "zeros", "sparse"), [("none", True, False), ("2:4", True, True), ("2:4", False, False)]
)
def test_a_tensorrt_engine_is_asked_for_as_the_study_built_the_one_that_it_timed(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sparsity: Sparsity, zeros: bool, sparse: bool
) -> None:
    from scalesearch.deployment.backends.base import EngineOptions
    from scalesearch.deployment.backends.tensorrt import TensorRtBackend
    from scalesearch.deployment.formats.tensorrt import TensorRtPlan

    asked = list[tuple[str, bool]]()

    def plan(self: TensorRtBackend, model: OnnxModel, options: EngineOptions) -> bytes:
        asked.append((model.sha256, options.tensorrt.sparse_weights))
        return b"plan"

    monkeypatch.setattr(TensorRtBackend, "plan", plan)
    monkeypatch.setattr(TensorRtPlan, "ensure_available", lambda self: None)
    record = study.trial(1)
    model = write_onnx(wide_graph(sparse=zeros), study.session.folder / "models" / "trial_000001.onnx")
    candidate = dataclasses.replace(record.candidate, pruning=Pruning(sparsity=sparsity))
    record = dataclasses.replace(record, candidate=candidate, onnx_sha256=model.sha256)
    export.export_trial(record, study.session, tmp_path / "best", formats=("tensorrt",))
    # Of the file that was timed, not of the exported one, whose metadata tell more: so the store of engines has it.
    assert asked == [(record.onnx_sha256, sparse)]
    card = (tmp_path / "best" / "MODEL_CARD.md").read_text()
    assert ("none (asked: 2:4 zeros, for which no layer is wide enough)" in card) is (sparsity == "2:4" and not zeros)


def test_the_hash_of_the_exported_file_is_not_the_records(study: Study, tmp_path: Path) -> None:
    """Its metadata tell more; the graph and the weights are the same, bit for bit."""
    export.export_trial(study.trial(1), study.session, tmp_path / "best")
    kept = study.session.folder / "models" / "trial_000001.onnx"
    assert onnx_model(tmp_path / "best" / "model.onnx").sha256 != onnx_model(kept).sha256
    mine, theirs = read_onnx(tmp_path / "best" / "model.onnx"), read_onnx(kept)
    assert mine.graph.SerializeToString(deterministic=True) == theirs.graph.SerializeToString(deterministic=True)


def _confirm(study: Study, record: MeasuredTrial, *, top1: float, seed: int = 7, together: bool = True) -> ConfirmedRun:
    """A run at full length of a stored trial, and its file: the same graph with weights of its own."""
    assert record.quality and record.latency
    file = confirmed_model_path(study.session.folder, record.trial, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    proto = small_graph()
    weight = proto.graph.initializer[0]
    longer = numpy_helper.to_array(weight) * np.float32(1 + seed)
    weight.CopyFrom(numpy_helper.from_array(longer, weight.name))
    model = write_onnx(proto, file)
    steps = updates(full_length(record.candidate.recipe, full_updates=0), pruned=record.candidate.pruning.any)
    quality = dataclasses.replace(record.quality, score=top1, score_low=top1 - 0.01, score_high=top1 + 0.01)
    run = ConfirmedRun(
        trial=record.trial, seed=seed, steps=steps, train_s=9.0, float_score=top1,
        validation=quality, test=dataclasses.replace(quality, score=top1 - 0.2), latency=record.latency,
        size_bytes=model.size_bytes, onnx_sha256=model.sha256, network_sha256="b" * 64,
        timed_together=(record.trial,) if together else (),
    )  # fmt: skip
    write_confirmed(study.session.folder, run)
    return run


_run = partial(run_command, export.register)


def test_a_confirmed_export_is_the_file_of_full_length(study: Study, tmp_path: Path) -> None:
    run = _confirm(study, study.trial(1), top1=0.9)
    _confirm(study, study.trial(1), top1=0.95, seed=3, together=False)
    told = _run("first", "--trial", "1", "--confirmed", "--to", "best")
    assert told.startswith(f"trial 1 at full length ({run.steps} steps): top-1 90.0 %")
    kept = read_onnx(confirmed_model_path(study.session.folder, 1, 7))
    assert first_difference(read_onnx(tmp_path / "best" / "model.onnx"), kept) == ""
    weights = safetensors.numpy.load_file(tmp_path / "best" / "weights.safetensors")
    for tensor in kept.graph.initializer:
        np.testing.assert_array_equal(weights[tensor.name], numpy_helper.to_array(tensor))
    config = read_config(tmp_path / "best")
    # Trained again from the config alone, it is the same training: the run's seed, and eight times the brief steps.
    assert config.settings.seed == 7 and config.candidate == RecordStore(study.session.folder).load(1).candidate
    assert config.expected.score == 0.9
    assert config.expected.test_score == pytest.approx(0.7)
    assert list(config.expected.confirmed_test_score) == pytest.approx([0.75, 0.7])
    card = (tmp_path / "best" / "MODEL_CARD.md").read_text()
    assert "The exported file is the confirmed one of seed 7" in card and "by which it was chosen" not in card
    assert f"{run.steps} steps of" in card and "| search |" not in card
    assert "scalesearch train config.toml --to trained    #" in card


@pytest.mark.parametrize("retrained", [False, True])
def test_a_confirmed_export_of_the_cosine_schedule_is_retrained_as_the_search_did(
    retrained: bool, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Recipe]()

    def build(record: MeasuredTrial, session: Session, to: Path, **_: object) -> OnnxModel:
        asked.append(record.candidate.recipe)
        return write_onnx(small_graph(), to)

    monkeypatch.setattr(trial_files, "built_file", build)
    monkeypatch.setattr(float_weights, "is_in_float", lambda _: False)  # the file that stands for int8 is in fp32
    record, recipe = study.trial(1, "int8"), Recipe(steps=240, retrain_steps=60, schedule="cosine")
    pruning = record.candidate.pruning if retrained else Pruning()
    candidate = dataclasses.replace(record.candidate, recipe=recipe, pruning=pruning)
    training = dataclasses.replace(record.training, steps=updates(recipe, pruned=retrained))
    record = dataclasses.replace(record, candidate=candidate, training=training)
    RecordStore(study.session.folder).save(record)
    run = _confirm(study, record, top1=0.9)
    assert run.steps == (2400 if retrained else 1920)
    _run("first", "--trial", "1", "--confirmed", "--to", "best")
    assert asked == [full_length(recipe, full_updates=0)], "the float weights are those of the confirmed training"
    card = (tmp_path / "best" / "MODEL_CARD.md").read_text()
    assert "scalesearch train config.toml --to trained    #" in card, "the usual full length needs no --steps"


def test_where_lengths_were_unlike_the_config_says_so_and_the_card_knows_the_default(
    study: Study, tmp_path: Path
) -> None:
    store = RecordStore(study.session.folder)
    record = study.trial(1)
    recipe = dataclasses.replace(record.candidate.recipe, steps=960)
    record = dataclasses.replace(record, candidate=dataclasses.replace(record.candidate, recipe=recipe))
    store.save(dataclasses.replace(record, full_updates=960))
    steps = updates(full_length(record.candidate.recipe, full_updates=960), pruned=False)
    assert steps == 4 * 960
    write_confirmed(study.session.folder, dataclasses.replace(_confirm(study, record, top1=0.9), steps=steps))
    _run("first", "--trial", "1", "--confirmed", "--to", "best")
    assert read_config(tmp_path / "best").full_updates == 960
    assert "scalesearch train config.toml --to trained    #" in (tmp_path / "best" / "MODEL_CARD.md").read_text()


def test_another_length_than_the_default_is_told_for_training_again(study: Study, tmp_path: Path) -> None:
    run = dataclasses.replace(_confirm(study, study.trial(1), top1=0.9), steps=1234)
    write_confirmed(study.session.folder, run)
    _run("first", "--trial", "1", "--confirmed", "--to", "best")
    assert "train config.toml --to trained --steps " in (tmp_path / "best" / "MODEL_CARD.md").read_text()


def test_the_best_at_full_length_need_not_be_the_best_of_the_search(study: Study) -> None:
    faster, slower = study.trial(1), study.trial(2)  # 71 % at 2 ms, 72 % at 3 ms
    _confirm(study, faster, top1=0.93)
    _confirm(study, slower, top1=0.9)
    assert _run("first", "--max-latency", "3.5ms", "--to", "searched").startswith("trial 2: top-1 72.0 %")
    assert _run("first", "--max-latency", "3.5ms", "--confirmed", "--to", "full").startswith("trial 1 at full length")


def test_a_trial_that_was_added_to_the_front_is_chosen_by_what_it_is_at_full_length(study: Study) -> None:
    _confirm(study, study.trial(1), top1=0.8)  # 71 % at 2 ms
    wronged = study.trial(2)  # at 3 ms
    wronged = dataclasses.replace(wronged, quality=dataclasses.replace(wronged.quality, score=0.65, score_low=0.6))
    RecordStore(study.session.folder).save(wronged)
    _confirm(study, wronged, top1=0.95)
    assert _run("first", "--max-latency", "3.5ms", "--to", "searched").startswith("trial 1: top-1 71.0 %")
    assert _run("first", "--max-latency", "3.5ms", "--confirmed", "--to", "full").startswith("trial 2 at full length")


def test_only_one_length_is_compared_and_a_named_trial_is_exported_of_any(study: Study) -> None:
    _confirm(study, study.trial(1), top1=0.8)
    _confirm(study, study.trial(2), top1=0.85)
    other = _confirm(study, study.trial(3), top1=0.99)  # the most accurate, after twice the training
    write_confirmed(study.session.folder, dataclasses.replace(other, steps=2 * other.steps))
    told = _run("first", "--front", "--confirmed", "--to", "full")
    assert f"left out of the confirmed front: trial 3 trained for {2 * other.steps} steps, unlike most members" in told
    assert "trial 1 at full length" in told and "trial 2 at full length" in told and "trial 3 at" not in told
    assert _run("first", "--trial", "3", "--confirmed", "--to", "best").startswith("trial 3 at full length")


def test_an_export_of_brief_training_names_the_better_file(study: Study) -> None:
    record = study.trial(1)
    assert "--confirmed" not in _run("first", "--to", "best")
    _confirm(study, record, top1=0.9)
    assert "full length (90.0 % on validation, 70.0 % on test images) is exported by --confirmed" in _run(
        "first", "--to", "best"
    )


def test_what_was_not_confirmed_or_is_gone_is_said(study: Study, tmp_path: Path) -> None:
    study.trial(1)
    with pytest.raises(ConfigError, match=r"nothing was confirmed\.\nRun `scalesearch confirm"):
        _run("first", "--confirmed", "--to", "best")
    run = _confirm(study, study.trial(2), top1=0.9)
    with pytest.raises(ConfigError, match="Trial 1 was not confirmed; these were: 2"):
        _run("first", "--confirmed", "--trial", "1", "--to", "best")
    file = confirmed_model_path(study.session.folder, 2, run.seed)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="is not the file that was confirmed"):
        _run("first", "--confirmed", "--trial", "2", "--to", "best")
    file.unlink()
    with pytest.raises(ConfigError, match="is missing"):
        _run("first", "--confirmed", "--trial", "2", "--to", "best")
    assert not (tmp_path / "best" / "model.onnx").exists()


def test_a_study_without_a_finished_trial_is_said(study: Study) -> None:
    for which in ("--best", "--front"):
        with pytest.raises(NoFeasibleTrialError, match="first has no results yet: no trial has finished"):
            _run("first", which)


def test_confirmed_trials_without_a_record_are_said(study: Study) -> None:
    study.trial(1)
    _confirm(study, study.trial(2), top1=0.9)
    RecordStore(study.session.folder).path(2).unlink()
    with pytest.raises(ConfigError, match=r"expected records of the confirmed trials \(2\), found none"):
        _run("first", "--confirmed", "--to", "best")


@pytest.mark.slow
def test_another_trial_replaces_the_export_whole_and_the_same_one_keeps_its_formats(
    study: Study, tmp_path: Path
) -> None:
    pytest.importorskip("emx_onnx_cgen")
    best, other = study.trial(1), study.trial(3, "fp16")
    export.export_trial(best, study.session, tmp_path / "best", formats=("c",))
    before = (tmp_path / "best" / "c" / "model.c").read_bytes()
    export.export_trial(best, study.session, tmp_path / "best")
    assert (tmp_path / "best" / "c" / "model.c").read_bytes() == before
    assert "| `c/` | of the same network" in (tmp_path / "best" / "MODEL_CARD.md").read_text()
    told = _run("first", "--trial", "3", "--to", "best")
    assert not (tmp_path / "best" / "c").exists() and "it replaces the export of trial 1 of first" in told
    assert read_config(tmp_path / "best").trial == other.trial
    assert (tmp_path / "best" / "config.toml").stat().st_mode & 0o077 == 0o666 & ~_umask() & 0o077
    assert sorted(path.name for path in tmp_path.iterdir() if "best" in path.name) == ["best"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("fault", ["the model was replaced", "a format fails", "a stranger is there"])
def test_a_failed_export_leaves_the_old_one_and_no_folder_of_its_own(
    fault: str, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = study.trial(1)
    export.export_trial(record, study.session, tmp_path / "best")
    if fault == "the model was replaced":
        models = study.session.folder / "models"
        study.trial(2, "fp16")
        (models / "trial_000002.onnx").replace(models / "trial_000001.onnx")
    elif fault == "a format fails":

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("scalesearch.export.model_card.replace_file", full)
    else:
        (tmp_path / "best" / "mine.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()}
    with pytest.raises(ConfigError):
        export.export_trial(record, study.session, tmp_path / "best")
    assert {path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()} == before
    if fault != "a stranger is there":
        with pytest.raises(ConfigError):
            export.export_trial(record, study.session, tmp_path / "new" / "place")
        assert not (tmp_path / "new").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_model_that_was_replaced_is_not_shipped_with_the_numbers_of_another(study: Study) -> None:
    study.trial(1)
    models = study.session.folder / "models"
    study.trial(2, "fp16")
    shutil.copy(models / "trial_000002.onnx", models / "trial_000001.onnx")
    with pytest.raises(ConfigError, match=r"trial_000001\.onnx is not the file that trial 1 measured"):
        _run("first", "--trial", "1", "--to", "best")


def test_a_file_that_was_made_again_otherwise_is_said(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = dataclasses.replace(study.trial(1), onnx_sha256="e" * 64)
    (study.session.folder / "models" / "trial_000001.onnx").unlink()
    monkeypatch.setattr(trial_files, "deployed_file", lambda record, session, to, **_: write_onnx(small_graph(), to))
    (note,) = export.export_trial(record, study.session, tmp_path / "best")
    assert note.startswith("model.onnx was made again") and note in (tmp_path / "best" / "MODEL_CARD.md").read_text()


def test_an_export_from_another_folder_finds_the_data_or_takes_their_new_place(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    float_instead(monkeypatch)
    study.trial(2, "int8")
    given = dataclasses.replace(study.session.settings, data=dataclasses.replace(
        study.session.settings.data, source="noise.npz"))  # fmt: skip
    write_run_file(dataclasses.replace(study.session, settings=given, run_folder=str(tmp_path)))
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    folder = str(study.session.folder)
    _run(folder, "--trial", "2", "--to", "best")
    config = read_config(Path("best"))
    assert (config.settings.data.source, config.run_folder) == ("noise.npz", str(tmp_path))
    assert len(json.loads(Path("best/calibration.json").read_text())["indices"]) == 20
    study.data.rename(tmp_path / "moved.npz")
    told = _run(folder, "--trial", "2", "--to", "best")
    assert "calibration.json names no images: The images that" in told and "'noise.npz'" in told
    _run(folder, "--trial", "2", "--to", "best", "--data", "../moved.npz")
    assert len(json.loads(Path("best/calibration.json").read_text())["indices"]) == 20
    assert read_config(Path("best")).settings.data.source == str(tmp_path / "moved.npz")


def test_a_limit_beside_the_number_of_a_trial_is_refused(study: Study, tmp_path: Path) -> None:
    study.trial(1)
    with pytest.raises(ConfigError, match="Give one of --trial N and --max-latency"):
        _run("first", "--trial", "1", "--max-latency", "1ms", "--to", "best")
    assert not (tmp_path / "best").exists()
