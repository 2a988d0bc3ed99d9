"""Segmentation goes the whole way: trained, cut, quantized in both styles, exported, run by infer.py, and told."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.chain.planner import Planner
from scalesearch.cli import predict, preview
from scalesearch.compression.layer_ranking import run_as_written
from scalesearch.compression.quantize import Calibration, quantize
from scalesearch.config import load_run, parse_space
from scalesearch.data import to_input
from scalesearch.data.finding import load_study_data
from scalesearch.deployment.onnx_file import onnx_model, read_onnx
from scalesearch.errors import ConfigError
from scalesearch.export.folder import write_export
from scalesearch.networks import base_spec
from scalesearch.networks.build import build
from scalesearch.networks.scaling import scale
from scalesearch.records.front_scores import write_front_scores
from scalesearch.records.store import RecordStore
from scalesearch.report.page import write_page
from scalesearch.study.contents import read_contents
from scalesearch.study.pictures import picture_front
from scalesearch.study.session import open_session
from scalesearch.tasks.registry import get_task, views_of
from scalesearch.tasks.segmentation.head import levels
from scalesearch.tasks.segmentation.infer import Segmenter
from scalesearch.tasks.segmentation.quality import MeanIoU
from scalesearch.values.candidate import Candidate, Precision, Pruning, Quantization, Recipe, Scaling
from scalesearch.values.network_spec import Decoder, InputSize
from scalesearch.values.quality import MaskDetail
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.settings import MachineSettings
from scalesearch.values.target import QuantizationProfile
from scalesearch.views.description import describe

SPACE = {
    "network": "resnet_scene",
    "resolution_px": [32, 64],
    "scaling": {"width": [0.5], "decoder": ["topdown", "lraspp"]},
}
RECIPE = Recipe(
    steps=45,
    warmup_steps=10,
    batch_size=8,
    label_smoothing=0.0,
    dropout=0.0,
    shift_fraction=0.05,
    jitter=0.1,
    flip=True,
)
SIZE = (48, 96)
NAMES = ("sky", "ground", "box")
pytestmark = pytest.mark.slow


def scene(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A light sky above dark ground, with a red box of any size."""
    mask = np.zeros(SIZE, np.uint8)
    mask[random.integers(16, 32) :] = 1
    top, left = random.integers(4, 28), random.integers(4, 70)
    mask[top : top + random.integers(10, 18), left : left + random.integers(10, 22)] = 2
    colours = np.asarray([(190, 210, 240), (60, 90, 50), (220, 40, 40)], np.int64)
    image = colours[mask] + random.integers(-25, 26, (*SIZE, 3))
    return np.clip(image, 0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, random = tmp_path_factory.mktemp("boxes") / "boxes", np.random.default_rng(0)
    for split, number in (("train", 60), ("val", 16), ("test", 16)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for place in range(number):
            image, mask = scene(random)
            Image.fromarray(image).save(root / "images" / split / f"{place:02}.png")
            Image.fromarray(mask).save(root / "masks" / split / f"{place:02}.png")
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, pictures: Path, brief_calm: None) -> Session:
    folder = tmp_path_factory.mktemp("masks") / "study"
    folder.mkdir()
    settings, _ = load_run(
        space="resnet_scene",
        flags={"data.source": str(pictures), "target": "cpu", "task": "segmentation", "data.calibration_images": 20},
    )
    machine = MachineSettings(threads=1, bf16="off", device="cpu")
    quick = replace(settings.latency, max_s=0.2, warmup_s=0.02)
    settings = replace(settings, latency=quick, machine=machine, twins=False)
    return open_session(settings, parse_space(SPACE, name="masks", origin="masks.toml"), folder)


CANDIDATES = {
    "dense": Candidate(recipe=RECIPE),
    "cut": Candidate(recipe=RECIPE, pruning=Pruning(channel_fraction=0.5, criterion="taylor", sparsity="2:4")),
    "aware": Candidate(recipe=RECIPE, quantization=Quantization(precision="int8", qat_steps=5, calibration_images=16)),
    "gated": Candidate(
        recipe=RECIPE,
        scaling=Scaling(width=0.5, decoder="lraspp"),
        quantization=Quantization(precision="int8", keep_float=1, calibration_images=16),
    ),
}


@pytest.fixture(scope="module")
def records(session: Session) -> dict[str, MeasuredTrial]:
    evaluator, store, found = TrialEvaluator(session), RecordStore(session.folder), {}
    for number, (name, candidate) in enumerate(CANDIDATES.items()):
        asked = replace(candidate, scaling=replace(candidate.scaling, width=0.5))
        record = evaluator.evaluate(Planner(session)(asked), trial=number, report=lambda _: None)
        store.save(record)
        found[name] = record
    write_front_scores(session.folder, [evaluator.score_on_test(found["dense"])])
    return found


def test_every_kind_of_compression_keeps_what_was_learnt(records: dict[str, MeasuredTrial]) -> None:
    scores = {name: record.quality.score for name, record in records.items()}
    assert scores["dense"] > 0.6  # the same answer everywhere has a third of the largest class at most
    assert min(scores.values()) > 0.5, scores
    assert records["cut"].cost.macs < 0.5 * records["dense"].cost.macs
    assert records["dense"].spec.decoder == "topdown" and records["gated"].spec.decoder == "lraspp"
    assert len({record.key for record in records.values()}) == 4
    path = {step.step: step.score for step in records["dense"].accuracy_path}
    assert path["float"] == pytest.approx(path["engine"], abs=1e-3)


def test_output_layers_keep_a_logit_for_each_class(records: dict[str, MeasuredTrial], session: Session) -> None:
    for name, record in records.items():
        output = read_onnx(session.folder / "models" / f"trial_{record.trial:06d}.onnx").graph.output
        assert [each.name for each in output] == ["logits"], name
        dims = [each.dim_value for each in output[0].type.tensor_type.shape.dim]
        assert dims[1:] == [3, 4, 8], name  # classes, and stride 8


@pytest.mark.parametrize("profile", ["onnxruntime_cpu", "tensorrt"])
@pytest.mark.parametrize("precision", ["int8", "fp8", "fp16"])
def test_files_in_eight_and_sixteen_bits_answer_as_in_float(
    precision: Precision,
    profile: QuantizationProfile,
    records: dict[str, MeasuredTrial],
    session: Session,
    tmp_path: Path,
) -> None:
    if (precision, profile) == ("fp8", "onnxruntime_cpu"):
        pytest.skip("fp8 is written in TensorRT's style alone")
    task = get_task("segmentation")
    model = onnx_model(session.folder / "models" / "trial_000000.onnx")
    data = load_study_data(session, task.sources()).at(InputSize(height_px=32, width_px=64))
    calibration = to_input(data.calibration.images[:16], mean=data.mean, std=data.std)
    asked = Quantization(precision=precision, calibration_images=16)
    small = quantize(
        model,
        asked,
        calibration=Calibration(images=calibration, divergence=task.divergence),
        profile=profile,
        to=tmp_path / "m.onnx",
    )
    scores = []
    for each in (model, small):
        metric = MeanIoU(NAMES)
        outputs = run_as_written(read_onnx(each.path), to_input(data.val.images[:], mean=data.mean, std=data.std))
        metric.update(outputs, data.val.targets)  # type: ignore[arg-type]
        scores.append(metric.score())
    assert scores[0] == pytest.approx(records["dense"].quality.score, abs=1e-3)
    assert scores[1] == pytest.approx(scores[0], abs=0.05)


def test_words_tables_and_pictures_are_those_of_masks(
    records: dict[str, MeasuredTrial], session: Session, tmp_path: Path
) -> None:
    record = records["dense"]
    detail = record.quality.detail
    assert isinstance(detail, MaskDetail) and record.quality.metric == "miou"
    assert RecordStore(session.folder).all()[0] == record
    views = views_of(record)
    assert views is not None
    words = json.dumps([(each.title, each.lines) for each in describe(record, task_sections=views.sections(record))])
    assert "Weakest classes" in words and "IoU" in words and "pixel_accuracy" in words and "top-1" not in words
    views.draw(record, tmp_path / "classes.svg")
    assert (tmp_path / "classes.svg").read_text(encoding="utf-8").count("<rect") == 1 + 2 * 3
    assert not picture_front(session, [record])
    pytest.importorskip("plotly")
    write_page(read_contents(session.folder), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8").split("<script", 1)[0]
    assert "Classes: intersection over union" in page and '<a href="#pictures">Pictures</a>' in page
    assert page.count('src="data:image/jpeg;base64,') == int(
        record.trial in {each.trial for each in read_contents(session.folder).front}
    )


@pytest.fixture(scope="module")
def exported(records: dict[str, MeasuredTrial], session: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "export"
    write_export(records["dense"], session, folder, formats=())
    return folder


def test_the_model_card_speaks_of_masks(exported: Path) -> None:
    card = (exported / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "A segmentation network of 3 classes, found by scalesearch" in card
    assert "gives logits (batch, 3, h, w)" in card and "## Mean intersection over union" in card
    assert "| box |" in card and "test IoU" in card


def test_infer_py_alone_scores_what_the_study_measured(
    exported: Path, records: dict[str, MeasuredTrial], pictures: Path, tmp_path: Path
) -> None:
    """The script is run as it stands, its masks are read from its PNG files, and their mIoU is counted anew."""
    files = sorted((pictures / "images" / "val").iterdir())
    done = subprocess.run(
        [sys.executable, exported / "infer.py", *files, "--to", tmp_path / "out", "--top", "3"],
        capture_output=True, text=True, cwd=tmp_path, env={"PATH": "/usr/bin", "PYTHONPATH": ""}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(files) and "ground " in done.stdout
    right, union = np.zeros(3), np.zeros(3)
    segmenter = Segmenter(exported / "model.onnx")
    for file in files:
        with (
            Image.open(tmp_path / "out" / file.name) as picture,
            Image.open(tmp_path / "out" / f"{file.stem}.overlay.png") as seen,
        ):
            answer, mode = np.asarray(picture), picture.mode
            assert seen.size == SIZE[::-1]
        with Image.open(pictures / "masks" / "val" / file.name) as right_one:
            truth = np.asarray(right_one)
        assert mode == "P" and answer.shape == SIZE
        assert np.array_equal(answer, segmenter.mask(file))  # and so does `predict`
        for place in range(3):
            right[place] += ((answer == place) & (truth == place)).sum()
            union[place] += ((answer == place) | (truth == place)).sum()
    assert np.mean(right / union) == pytest.approx(records["dense"].quality.score, abs=1e-4)


def test_predict_prints_shares_and_draws(exported: Path, pictures: Path, tmp_path: Path) -> None:
    file, alone = next((pictures / "images" / "val").iterdir()), typer.Typer()
    alone.command()(predict.predict)
    asked = [str(exported), str(file), "--json", "--top", "3", "--to", str(tmp_path)]
    (answer,) = json.loads(CliRunner().invoke(alone, asked, standalone_mode=False).stdout)
    assert {each["name"] for each in answer["classes"]} <= set(NAMES)
    assert sum(each["share"] for each in answer["classes"]) == pytest.approx(1)
    assert (answer["height"], answer["width"]) == SIZE
    assert {path.name for path in tmp_path.iterdir()} == {f"{file.stem}.png", f"{file.stem}.overlay.png"}
    again = [*asked[:1], str(tmp_path / f"{file.stem}.overlay.png"), *asked[2:]]
    assert "no picture replaces an image" in str(CliRunner().invoke(alone, again, standalone_mode=False).exception)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    assert "cannot read" in CliRunner().invoke(alone, [str(exported), str(broken)], standalone_mode=False).stderr


@pytest.mark.slow
def test_c_comes_with_the_mask(records: dict[str, MeasuredTrial], session: Session, tmp_path: Path) -> None:
    pytest.importorskip("emx_onnx_cgen")
    write_export(records["dense"], session, tmp_path / "export", formats=("c",))
    assert "int model_mask(" in (tmp_path / "export" / "c" / "mask.h").read_text()
    assert "`c/mask.c`" in (tmp_path / "export" / "MODEL_CARD.md").read_text()


def test_check_draws_what_training_sees(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preview, "predicted", lambda *_: "")  # it trains for half a minute
    settings, space = load_run(space="resnet_scene", flags={"data.source": str(pictures), "task": "segmentation"})
    space = parse_space({**SPACE, "training": {"steps": 2}}, name="masks", origin="masks.toml")
    preview.check_space(
        replace(settings, target="cpu", budget=1), space, with_data=True, to=tmp_path / "deep" / "sheet.png"
    )
    assert "12 training images at 32x64 px with their targets, after augmentation" in capsys.readouterr().out
    with Image.open(tmp_path / "deep" / "sheet.png") as picture:
        sheet = np.asarray(picture)
    assert sheet.shape[2] == 3 and sheet.shape[0] > 200 and sheet.std() > 30


@pytest.mark.parametrize(
    ("network", "read"),
    [
        ("resnet_scene", (("stage2", 8), ("stage3", 16), ("stage4", 32))),
        ("resnet_small", (("stage3", 8),)),
        ("resnet18", (("stage2", 8), ("stage3", 16), ("stage4", 32))),
        ("mobilenet_v2", (("stage3", 8), ("stage5", 16), ("stage7", 32))),
    ],
)
@pytest.mark.parametrize("decoder", ["topdown", "lraspp"])
def test_every_base_network_takes_a_decoder(network: str, read: tuple[tuple[str, int], ...], decoder: Decoder) -> None:
    import torch

    spec = scale(
        base_spec(network),
        Scaling(decoder=decoder),
        resolution_px=InputSize(height_px=32, width_px=64),
        num_classes=5,
    )
    assert levels(spec) == read
    module = build(spec, get_task("segmentation").make_module).module.eval()
    with torch.no_grad():
        assert module(torch.zeros(1, 3, 32, 64)).shape == (1, 5, 4, 8)


def test_one_class_is_refused() -> None:
    spec = replace(base_spec("resnet_scene"), num_classes=1)
    with pytest.raises(ConfigError, match="expected at least two classes to tell apart, came 1"):
        get_task("segmentation").make_module(spec)
