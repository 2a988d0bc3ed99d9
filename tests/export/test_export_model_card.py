"""The model card tells the numbers of the record, and a user's words cannot turn into markup in it."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from scalesearch.export.contents import ExportedFile, Later, Written
from scalesearch.export.metadata import onnx_metadata, read_config, write_config
from scalesearch.export.model_card import write_model_card
from scalesearch.records.confirmed import UNKNOWN_COST
from scalesearch.tasks.classification.views import ClassificationViews
from scalesearch.values.candidate import Candidate, Precision, Pruning, Quantization
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.latency import Postprocessing
from scalesearch.values.parent import Parent
from scalesearch.values.record import FrontScore, MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.settings import DataSettings, RunSettings
from scalesearch.values.target import QuantizationProfile
from scalesearch.views.markup import markdown_text

RecordFactory = Callable[..., MeasuredTrial]


def card_of(
    record: MeasuredTrial, session: Session, *, later: Later | None = None, written: Written | None = None
) -> str:
    later, written = later or Later(), written or Written()
    parts = ClassificationViews().card(record, later.score)
    path = write_model_card(record, session, session.folder, card=parts, later=later, written=written)
    return path.read_text(encoding="utf-8")


def run_of(record: MeasuredTrial) -> ConfirmedRun:
    assert record.quality and record.latency
    return ConfirmedRun(
        trial=record.trial,
        seed=3,
        steps=2400,
        train_s=1.0,
        float_score=record.quality.score,
        validation=record.quality,
        test=record.quality,
        latency=record.latency,
        size_bytes=1,
        onnx_sha256="0",
        network_sha256="0",
    )


def test_every_number_is_that_of_the_record(session: Session, make_record: RecordFactory) -> None:
    record, other = make_record(7, top1=0.8, p50_ms=1.25), make_record(7, top1=0.6, p50_ms=1.5)
    assert other.quality and other.latency
    score = FrontScore(trial=7, test=other.quality, latency=other.latency)
    real = dataclasses.replace(session, settings=RunSettings(data=DataSettings(source="photos")))
    text = card_of(record, real, later=Later(score=score))
    assert "| validation, by which it was chosen | 80.0 (78.0-82.0) | 79.0 % | 80.0 % | 1000 |" in text
    assert "| test | 60.0 (58.0-62.0) |" in text
    assert "| search | 1.250 (1.238-1.262) | yes |" in text
    assert "| fresh process | 1.500 (1.485-1.515) | yes |" in text
    assert "20 M multiply-accumulates an image, 310 k parameters, 1.25 MB deployed." in text
    assert "AMD EPYC (2 cores), onnxruntime 1.32.0, 1 thread" in text.replace("\\", "")
    for name, precision, recall in (("stop", "80.0 %", "80.0 %"), ("yield", "78.0 %", "77.0 %")):
        assert re.search(rf"^\| {name} \| {precision} \| {recall} ", text, flags=re.MULTILINE)
    assert "Not confirmed" in text and "Synthetic" not in text


def test_what_nobody_knows_of_the_exported_network_is_left_out(session: Session, make_record: RecordFactory) -> None:
    record = dataclasses.replace(make_record(1, precision="int8"), cost=UNKNOWN_COST)
    assert "\n1.25 MB deployed." in card_of(record, session)
    path = write_config(record, session, session.folder)
    assert "macs" not in path.read_text() and read_config(path).expected.macs == 0


def test_no_more_calibration_images_are_told_than_there_were(session: Session, make_record: RecordFactory) -> None:
    few = dataclasses.replace(session, data=dataclasses.replace(session.data, calibration_images=42))
    quantization = Quantization(precision="int8", calibration_images=128)
    record = make_record(1)
    record = dataclasses.replace(record, candidate=dataclasses.replace(record.candidate, quantization=quantization))
    assert "* Precision: int8, minmax over 42 images." in card_of(record, few)


def test_confirmed_runs_are_shown_and_end_the_warning(session: Session, make_record: RecordFactory) -> None:
    record, full = make_record(7), make_record(7, top1=0.9)
    text = card_of(record, session, later=Later(confirmed=(run_of(full),)))
    assert "| test, confirmed: seed 3, 2400 steps | 90.0 (88.0-92.0) |" in text
    assert "Not confirmed" not in text


def test_the_work_on_answers_is_dated_as_it_was_timed(session: Session, make_record: RecordFactory) -> None:
    record = make_record(7)
    assert record.latency
    after = Postprocessing(p50_ms=0.5, p50_low_ms=0.4, p50_high_ms=0.6, images=64)
    record = dataclasses.replace(record, latency=record.latency.beside(after, "end_to_end"))
    assert "median of 64 validation images, when the study was made)" in card_of(record, session)
    run = run_of(record)
    text = card_of(record, session, later=Later(confirmed=(run,), exported=run))
    assert "median of 64 validation images, after this training)" in text


def test_a_decoder_without_rows_of_convolutions_has_none(session: Session, make_record: RecordFactory) -> None:
    record = make_record(7)
    assert record.spec
    scaling = dataclasses.replace(record.candidate.scaling, decoder="lraspp")
    candidate = dataclasses.replace(record.candidate, scaling=scaling)
    own = dataclasses.replace(record, candidate=candidate, spec=dataclasses.replace(record.spec, decoder="lraspp"))
    assert "Between backbone and outputs: lraspp.\n" in card_of(own, session)
    scaling = dataclasses.replace(record.candidate.scaling, neck_width=2.0)
    own = dataclasses.replace(record, candidate=dataclasses.replace(record.candidate, scaling=scaling))
    assert re.search(r"Between backbone and outputs: .* \(rows of \d+ convolutions of \dx\d\)\.", card_of(own, session))


def test_synthetic_data_are_called_so(session: Session, make_record: RecordFactory) -> None:
    for source, drawn in (("signs", "road signs"), ("streets", "street scenes")):
        made_up = dataclasses.replace(session, settings=RunSettings(data=DataSettings(source=source)))
        text = card_of(make_record(1), made_up)
        assert text.count("ynthetic") >= 2
        assert f"**The data are synthetic:** {drawn} drawn by a program." in text


def test_a_study_that_was_given_as_the_working_folder_has_a_name(
    session: Session, make_record: RecordFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(session.folder)
    here = dataclasses.replace(session, folder=Path())
    assert f"of study {markdown_text(session.folder.name)}." in card_of(make_record(1), here)
    assert read_config(write_config(make_record(1), here, session.folder / "export")).study == session.folder.name
    assert onnx_metadata(make_record(1), here)["scalesearch.trial"] == f"{session.folder.name}/1"


def test_a_tensorrt_study_says_how_to_build_the_engine(session: Session, make_record: RecordFactory) -> None:
    target = dataclasses.replace(session.target, backend="tensorrt")
    text = card_of(make_record(1), dataclasses.replace(session, target=target))
    assert "trtexec --onnx=model.onnx --stronglyTyped --optShapes=image:1x3x32x32" in text
    assert " --noTF32 --saveEngine=model.engine" in text  # as the study built it: TF32 rounds what fp32 multiplies
    rtx = dataclasses.replace(session.target, backend="tensorrt_rtx")
    text = card_of(make_record(1), dataclasses.replace(session, target=rtx))
    assert "tensorrt_rtx --onnx=model.onnx" in text and "TF32" not in text


@pytest.mark.parametrize(("backend", "told"), [("tensorrt", True), ("tensorrt_rtx", False)])
def test_the_command_allows_the_sparse_kernels_with_which_it_was_timed(
    session: Session, make_record: RecordFactory, backend: str, told: bool
) -> None:
    record = make_record(1, candidate=Candidate(pruning=Pruning(sparsity="2:4")))
    target = dataclasses.replace(session.target, backend=backend)
    text = card_of(record, dataclasses.replace(session, target=target))
    assert (" --sparsity=enable --saveEngine=model.engine" in text) is told


def test_what_was_pruned_is_told_and_not_what_was_asked_in_vain(session: Session, make_record: RecordFactory) -> None:
    record = make_record(1, candidate=Candidate(pruning=Pruning(channel_fraction=0.25)))
    text = card_of(record, session)
    assert "* Pruning: 25 % of the channels (l2, uniform)." in text
    assert "before pruning; pruned: 25 % of the channels (l2, uniform)." in text
    text = card_of(record, session, written=Written(pruning=Pruning()))
    assert "* Pruning: none (asked: 25 % of the channels (l2, uniform), which rounds to no channel)." in text
    assert "before pruning" not in text


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "a | b\n| c",
        "[x](javascript:alert(1))",
        "`code` *bold* _it_ # head",
        "\x1b[31mred\r",
    ],
)
def test_a_users_words_stay_words(hostile: str, session: Session, make_record: RecordFactory) -> None:
    data = dataclasses.replace(session.data, name=hostile, class_names=(hostile, "yield"), warnings=(hostile,))
    record = make_record(1, classes=(hostile, "yield"), warnings=(hostile,))
    named = dataclasses.replace(session, data=data)
    file = ExportedFile(name="model.onnx", what="the network")
    text = card_of(record, named, written=Written(files=(file,), notes=(hostile,)))
    tame = make_record(1, classes=("a", "yield"))
    plain = card_of(tame, session, written=Written(files=(file,), notes=("a",)))
    assert "<script" not in text and "<img" not in text and "\x1b" not in text
    assert not re.search(r"(?<!\\)\]\(", text)
    # As many cells as with a harmless name: no pipe or line break of the name made one.
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
    assert cells == [line.count("|") for line in plain.splitlines() if line.startswith("|")]


def test_ordinary_names_stay_readable() -> None:
    assert markdown_text("Oat-Milk 2.0 (sour): 5 %, é") == "Oat-Milk 2.0 \\(sour\\): 5 %, é"


def test_the_oldest_versions_that_run_it_are_stated(session: Session, make_record: RecordFactory) -> None:
    oldest = {"python": "3.8", "onnxruntime": "1.17", "pillow": "8.0"}
    text = card_of(make_record(7), session, written=Written(oldest=oldest))
    assert "The oldest versions that do: Python 3.8, ONNX Runtime 1.17, Pillow 8.0." in text
    assert "nothing else is needed" not in text


@pytest.mark.parametrize(
    ("precision", "profile", "told"),
    [("fp8", "tensorrt", True), ("int8", "tensorrt", True), ("int8", "openvino", False), ("fp16", "tensorrt", False)],
)
def test_files_that_onnx_runtimes_optimizations_spoil_are_told(
    precision: Precision, profile: QuantizationProfile, told: bool, session: Session, make_record: RecordFactory
) -> None:
    record = make_record(7)
    candidate = dataclasses.replace(record.candidate, quantization=Quantization(precision=precision))
    target = dataclasses.replace(session.target, quantization_profile=profile)
    text = card_of(dataclasses.replace(record, candidate=candidate), dataclasses.replace(session, target=target))
    assert ("ORT_DISABLE_ALL" in text) is told


def test_what_was_learnt_from_a_parent_is_stated(session: Session, make_record: RecordFactory) -> None:
    record = make_record(7)
    parent = Parent(
        source="net.pth", sha256="a" * 64, licence="free to use", network=session.base, mean=(0.5,), std=(0.5,),
        head="it gets a new classifier", steps=9, key="k",
    )  # fmt: skip
    recipe = dataclasses.replace(record.candidate.recipe, distill_weight=0.25)
    taught = dataclasses.replace(record, candidate=dataclasses.replace(record.candidate, recipe=recipe))
    inherited = dataclasses.replace(session, parent=parent)
    told = {weight: card_of(each, inherited) for weight, each in ((0, record), (0.25, taught))}
    line = "* Distillation: 25 % of the loss asked for the parent's answers, at temperature 4."
    assert line in told[0.25] and "Distillation" not in told[0] and "fine-tuned on these images by 9" in told[0]
