"""The C of detectors and segmentation networks: what it makes of answers, and its self-test on whole networks."""

import ctypes
import json
import math
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.quantize import Calibration, quantize
from scalesearch.deployment.formats import CheckImages, FormatOptions, get_format
from scalesearch.deployment.formats.c_answer import CAnswer
from scalesearch.deployment.formats.c_texts import header
from scalesearch.deployment.onnx_file import annotate
from scalesearch.deployment.to_onnx import to_onnx
from scalesearch.errors import StageFailed
from scalesearch.export.formats import OUTPUTS
from scalesearch.export.reading import sides_px
from scalesearch.networks import base_spec
from scalesearch.networks.build import build
from scalesearch.networks.scaling import scale
from scalesearch.tasks.base import AnswersInC
from scalesearch.tasks.detection.c_decoding import checked_threshold, detector_answer
from scalesearch.tasks.detection.decoding import LEAST_SCORE, MOST_DETECTIONS, decode_answers
from scalesearch.tasks.detection.task import TASK as DETECTION
from scalesearch.tasks.segmentation.c_mask import mask_answer
from scalesearch.tasks.segmentation.infer import class_map
from scalesearch.tasks.segmentation.task import TASK as SEGMENTATION
from scalesearch.values.candidate import Precision, Quantization, Scaling
from scalesearch.values.network import Network, OnnxModel
from scalesearch.values.network_spec import Decoder, InputSize

SIDES = (64, 96)
SIZE = InputSize(height_px=64, width_px=96)
CLASSES, POINTS = 3, 96 + 24 + 6
NAMES = ("stop", "yield", 'no "entry" ??/')
COMPILER = shutil.which("gcc") or shutil.which("cc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
POINTER = ctypes.POINTER(ctypes.c_float)


class Detection(ctypes.Structure):
    """As in detections.h."""

    _fields_ = [
        *((name, ctypes.c_float) for name in ("left", "top", "right", "bottom", "score")), ("label", ctypes.c_int),
    ]  # fmt: skip


def compiled(answer: CAnswer, name: str, folder: Path, *, sides: tuple[int, int] = SIDES) -> Any:
    """Compile one of the modules of an answer, with all warnings, and return it."""
    declared, source = answer.modules[name]
    for file, text in {
        "model.h": "\n".join(header((3, *sides), answer)),
        f"{name}.h": declared,
        f"{name}.c": source,
    }.items():
        (folder / file).write_text(text + "\n")
    strict = ("-O2", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fPIC", "-shared")
    assert COMPILER
    subprocess.run([COMPILER, *strict, "-o", str(folder / "m.so"), str(folder / f"{name}.c"), "-lm"], check=True)
    return ctypes.CDLL(str(folder / "m.so"))


def raw_answers(images: int, seed: int, *, logit: float = 0.0, points: int = POINTS) -> NDArray[np.float32]:
    """Return raw answers with many boxes that overlap one another; some distances are negative."""
    random = np.random.default_rng(seed)
    raw = random.normal(0, 2, (images, 5 + CLASSES, points))
    raw[:, :4] = random.uniform(-0.5, 3, (images, 4, points))
    raw[:, 4:] += logit
    return raw.astype(np.float32)


def a_detector(folder: Path, size: InputSize = SIZE) -> OnnxModel:
    """Return a file with a detector's metadata; what it computes does not matter."""
    from small_graphs import small_model

    facts = {"task": "detection", "threshold": "0.3", "resolution_px": json.dumps(sides_px(size))}
    return annotate(small_model(folder), {f"scalesearch.{key}": text for key, text in facts.items()}, folder / "d.onnx")


@pytest.mark.parametrize(
    ("threshold", "logit", "size"),
    [
        (0.001, 0.0, SIZE),
        (0.3, 0.0, SIZE),
        (0.001, 4.0, SIZE),
        (0.9, -9.0, SIZE),
        (0.05, -2.0, SIZE),
        (0.3, 0.0, InputSize.square(64)),
    ],
)
def test_c_finds_what_the_programs_own_decoding_finds(
    tmp_path: Path, threshold: float, logit: float, size: InputSize
) -> None:
    points = POINTS if size == SIZE else 64 + 16 + 4
    raw = raw_answers(20, seed=int(100 * threshold), logit=logit, points=points)
    answer = detector_answer(a_detector(tmp_path, size), raw)
    library = compiled(answer, "detections", tmp_path, sides=size.sides)
    found = (Detection * MOST_DETECTIONS)()
    expected = decode_answers(raw, size.sides, least_score=threshold)
    for each, wanted in zip(raw, expected, strict=True):
        given = np.ascontiguousarray(each)
        count = library.model_detections(given.ctypes.data_as(POINTER), ctypes.c_float(threshold), found)
        assert count == len(wanted.scores)
        mine = [(one.left, one.top, one.right, one.bottom, one.score, one.label) for one in found[:count]]
        theirs = np.column_stack([wanted.boxes, wanted.scores, wanted.classes])
        np.testing.assert_allclose(np.array(mine).reshape(-1, 6), theirs, atol=1e-3)
    counts = [len(each.scores) for each in expected]
    assert {0.001: max(counts) >= 60, 0.3: min(counts) > 3, 0.9: max(counts) == 0, 0.05: max(counts) > 0}[threshold]


def test_a_mask_of_an_answer_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    logits = np.zeros((1, 3, 4, 6), np.float32)
    model = OnnxModel(path=tmp_path / "none.onnx", input_shape=(0, 3, *SIDES), size_bytes=0, sha256="")
    library = compiled(mask_answer(model, logits), "mask", tmp_path)
    logits[0, 1, 2, 3] = np.nan
    mask = np.full((8, 8), 99, np.uint8)
    to = mask.ctypes.data_as(ctypes.POINTER(ctypes.c_ubyte))
    assert library.model_mask(logits.ctypes.data_as(POINTER), 8, 8, to) == -1
    assert (mask == 99).all()


def test_an_answer_that_is_not_finite_has_no_detections(tmp_path: Path) -> None:
    raw = raw_answers(1, seed=1)
    library = compiled(detector_answer(a_detector(tmp_path), raw), "detections", tmp_path)
    raw[0, 2, 7] = np.inf
    found = (Detection * MOST_DETECTIONS)()
    assert library.model_detections(raw.ctypes.data_as(POINTER), ctypes.c_float(0.3), found) == -1


def test_the_self_tests_threshold_is_clear_of_every_score_and_reached() -> None:
    raw = np.full((1, 5 + CLASSES, POINTS), -20, np.float32)
    raw[0, -1, :] = 20
    raw[0, 4, :12] = np.linspace(1.0, -1.2, 12)  # scores from 0.73 to 0.23
    assert checked_threshold(raw, 0.3) == pytest.approx(0.3)
    tenth = float(1 / (1 + np.exp(0.8)))
    assert tenth - 0.001 < checked_threshold(raw, 0.9) < tenth
    assert checked_threshold(raw, 0.5) < 0.5, "one score is 0.5"
    raw[0, -1, :] = -9  # all scores lie below the least one that is reported
    assert checked_threshold(raw, 0.3) == LEAST_SCORE


@pytest.mark.parametrize("size", [(8, 12), (64, 96), (17, 37), (200, 111), (3, 4), (1, 1)])
@pytest.mark.parametrize("cells", [(8, 12), (1, 5)])
def test_c_makes_the_mask_of_infer_py(tmp_path: Path, size: tuple[int, int], cells: tuple[int, int]) -> None:
    logits = np.random.default_rng(3).normal(0, 2, (2, 7, *cells)).astype(np.float32)
    model = OnnxModel(path=tmp_path / "none.onnx", input_shape=(0, 3, *SIDES), size_bytes=0, sha256="")
    library = compiled(mask_answer(model, logits), "mask", tmp_path)
    for each in logits:
        mask = np.full(size, 99, np.uint8)
        library.model_mask(
            np.ascontiguousarray(each).ctypes.data_as(POINTER), *map(ctypes.c_int, size),
            mask.ctypes.data_as(ctypes.POINTER(ctypes.c_ubyte)),
        )  # fmt: skip
        assert (mask == class_map(each, size, (0.0, 0.0, 1.0, 1.0))).mean() >= 0.999


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network of a task."""

    task: str
    precision: Precision
    decoder: Decoder = "topdown"


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        Case(task="detection", precision="fp32"),
        Case(task="detection", precision="int8"),
        Case(task="segmentation", precision="fp32"),
        Case(task="segmentation", precision="int8"),
        Case(task="segmentation", precision="fp32", decoder="lraspp"),
    ],
    ids=lambda case: f"{case.task}-{case.decoder}-{case.precision}",
)
def test_the_self_test_passes_and_can_fail(case: Case, tmp_path: Path) -> None:
    task = DETECTION if case.task == "detection" else SEGMENTATION
    assert isinstance(task, AnswersInC)
    images = np.random.default_rng(0).standard_normal((3, 3, *SIDES), dtype=np.float32)
    scaling = Scaling(width=0.5, decoder=case.decoder)
    spec = scale(base_spec("resnet_scene"), scaling, resolution_px=SIZE, num_classes=CLASSES)
    network = with_lively_outputs(build(spec, task.make_module))
    model = to_onnx(
        fold_batchnorm(network), to=tmp_path / "f.onnx", check_images=images, output_names=task.output_names
    )
    if case.precision == "int8":
        calibration = Calibration(images=images, divergence=task.divergence)
        asked = Quantization(precision="int8")
        model = quantize(model, asked, calibration=calibration, profile="onnxruntime_cpu", to=tmp_path / "q.onnx")
    facts = {"scalesearch.task": case.task, "scalesearch.threshold": "0.3"}
    model = annotate(model, {**facts, "scalesearch.resolution_px": json.dumps(SIDES)}, tmp_path / "m.onnx")
    options = FormatOptions(
        precision=case.precision, class_names=NAMES, c_answer=task.c_answer,
        check_images=lambda: CheckImages(images=images, told="noise"),
    )  # fmt: skip
    files = get_format("c").write(model, tmp_path, options)
    assert set(files) < set(OUTPUTS["c"])
    assert all((tmp_path / file).is_file() for file in files)

    def make() -> subprocess.CompletedProcess[str]:
        make = ["make", "-C", str(tmp_path / "c"), "test", f"CC={COMPILER}", "CFLAGS=-O1"]
        return subprocess.run(make, capture_output=True, text=True, check=False)

    done = make()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "self-test passed" in done.stdout
    assert "image 2: " in done.stdout
    names = {"detection": "detections", "segmentation": "mask"}
    decoding, network_c = (tmp_path / "c" / f"{name}.c" for name in (names[case.task], "model"))
    right = decoding.read_text()
    decoding.write_text(right.replace("+ 0.5f) *", "+ 0.9f) *").replace("- 0.5f;", "+ 0.9f;"))
    assert "SELF-TEST FAILED" in make().stdout, "the decoding was spoiled"
    decoding.write_text(right)
    network_c.write_text(with_one_row_spoiled(network_c.read_text()))
    done = make()
    assert done.returncode != 0, "the last row of the network's answer was spoiled"
    assert "SELF-TEST FAILED" in done.stdout


def with_one_row_spoiled(source: str) -> str:
    """Return the text of model.c whose last row (objectness, or the last class) is -20 everywhere."""
    start = source.index("\nvoid model(")
    image, answer = re.findall(r"const float (image\[.*?)\)?,|float (\w+\[.*?)\) \{", source[start : start + 400])[:2]
    given, written = image[0].replace("restrict ", ""), answer[1].replace("restrict ", "")
    rows, *others = re.findall(r"\[(\d+)\]", written)[1:]
    row = math.prod(map(int, others))
    name = written.split("[")[0]
    wrapper = f"""
void right(const float {image[0]}, float {answer[1]});
void model(const float {given}, float {written}) {{
    right(image, {name});
    for (int place = 0; place < {row}; place++) {{ ((float *){name})[{int(rows) - 1} * {row} + place] = -20.0f; }}
}}
"""
    return (
        source.replace("\nvoid model(", f"\nvoid right(const float {image[0]}, float {answer[1]});\nvoid right(", 1)
        + wrapper
    )


def with_lively_outputs(network: Network) -> Network:
    """Return the network with random weights whose answers differ from place to place, as trained ones do."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for name, layer in network.module.named_modules():
            if isinstance(layer, nn.Conv2d) and name in getattr(network.module, "output_layers", ()):
                nn.init.normal_(layer.weight, std=0.5)
                if layer.bias is not None and name.endswith("distances"):
                    nn.init.constant_(layer.bias, 1.0)
                elif layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    network.module.eval()
    return network


def test_a_task_without_c_says_so(tmp_path: Path) -> None:
    pytest.importorskip("emx_onnx_cgen")
    spec = scale(base_spec("resnet_scene"), Scaling(width=0.5), resolution_px=SIZE, num_classes=CLASSES)
    network = fold_batchnorm(with_lively_outputs(build(spec, SEGMENTATION.make_module)))
    images = np.random.default_rng(0).standard_normal((2, 3, *SIDES), dtype=np.float32)
    dense = to_onnx(network, to=tmp_path / "f.onnx", check_images=images, output_names=SEGMENTATION.output_names)
    with pytest.raises(StageFailed, match=r"is neither: take its model\.onnx"):
        get_format("c").write(
            dense,
            tmp_path,
            FormatOptions(
                precision="fp32",
                class_names=NAMES,
                check_images=lambda: CheckImages(images=images, told=""),
            ),
        )


def test_a_network_without_class_names_says_so(tmp_path: Path) -> None:
    from small_graphs import small_model

    options = FormatOptions(
        precision="fp32", class_names=NAMES, check_images=lambda: pytest.fail("images are not needed")
    )
    with pytest.raises(StageFailed, match=r"has no class names: take its model\.onnx"):
        get_format("c").write(small_model(tmp_path), tmp_path, replace(options, class_names=()))
