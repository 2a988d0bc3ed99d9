"""A detector's ONNX file with decoding and suppression inside finds in ONNX Runtime what this program finds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from small_graphs import IMAGES as CLASSIFIED
from small_graphs import small_model

from scalesearch.deployment.formats import CheckImages, FormatOptions
from scalesearch.deployment.onnx_file import annotate, onnx_model, read_onnx, write_onnx
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.export.formats import get_format
from scalesearch.export.reading import sides_px
from scalesearch.tasks.detection.decoding import (
    LEAST_SCORE,
    MOST_CANDIDATES,
    MOST_DETECTIONS,
    Detections,
    decode_answers,
    sigmoid,
)
from scalesearch.tasks.detection.decoding_graph import run_file, same_detections
from scalesearch.tasks.detection.onnx_nms import detections_of, with_suppression
from scalesearch.values.network import OnnxModel
from scalesearch.values.network_spec import InputSize

SIDES = (64, 96)
CLASSES = 3


def points_in(sides: tuple[int, int]) -> int:
    """Return the number of points of feature maps of 1/8, 1/16 and 1/32 of these sides."""
    return sum((sides[0] // stride) * (sides[1] // stride) for stride in (8, 16, 32))


POINTS = points_in(SIDES)


def answering_model(to: Path, *, half: bool = False, sides: tuple[int, int] = SIDES) -> OnnxModel:
    """Write a model whose raw answers are its "image": (N, 1, 8, points) becomes (N, 8, points)."""
    kind, points = TensorProto.FLOAT16 if half else TensorProto.FLOAT, points_in(sides)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 5 + CLASSES, points])
    raw = helper.make_tensor_value_info("raw", kind, ["batch", 5 + CLASSES, points])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Squeeze", ["image", "axes"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["raw"], to=kind),
    ]
    graph = helper.make_graph(nodes, "answers", [image], [raw], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    size = InputSize(height_px=sides[0], width_px=sides[1])
    facts = {"task": "detection", "threshold": "0.3", "resolution_px": json.dumps(sides_px(size))}
    return annotate(write_onnx(model, to), {f"scalesearch.{key}": text for key, text in facts.items()}, to)


def answers(images: int, seed: int, *, logit: float = 0.0, points: int = POINTS) -> NDArray[np.float32]:
    """Return raw answers with many boxes that overlap one another; some distances are negative."""
    random = np.random.default_rng(seed)
    raw = random.normal(0, 2, (images, 1, 5 + CLASSES, points))
    raw[:, :, :4] = random.uniform(-0.5, 3, (images, 1, 4, points))
    raw[:, :, 4:] += logit
    return raw.astype(np.float32)


@pytest.mark.parametrize(
    ("threshold", "images", "logit"),
    [(0.001, 5, 0.0), (0.3, 5, 0.0), (0.001, 1, 4.0), (0.9, 2, -9.0), (0.05, 40, -2.0)],
)
def test_it_finds_what_the_programs_own_decoding_finds(
    tmp_path: Path, threshold: float, images: int, logit: float
) -> None:
    model = answering_model(tmp_path / "model.onnx")
    raw = answers(images, seed=int(100 * threshold) + images, logit=logit)
    written = write_onnx(with_suppression(read_onnx(model.path), SIDES, threshold), tmp_path / "nms.onnx")
    outputs = run_file(written, raw)
    found = detections_of(outputs, images)
    expected = decode_answers(raw[:, 0], SIDES, least_score=threshold)
    for theirs, ours in zip(found, expected, strict=True):
        assert same_detections(theirs, ours), (theirs, ours)
    assert (np.diff(outputs["images"]) >= 0).all()
    assert sum(len(each.scores) for each in found) == len(outputs["scores"])
    # What is compared: crowded images reach the limit of 100 detections, others have few or none.
    counts = [len(each.scores) for each in expected]
    assert {0.001: max(counts) >= 60, 0.3: min(counts) > 3, 0.9: max(counts) == 0, 0.05: max(counts) > 0}[threshold]


def crowded(kind: str) -> NDArray[np.float32]:
    """Return raw answers with more candidates than are compared: boxes without area, or scores of a few values."""
    raw, random = answers(5, seed=0), np.random.default_rng(0)
    if kind == "inverted":
        raw[:, :, :4] = random.uniform(-3, 3, raw[:, :, :4].shape)
    else:
        raw[:, :, :4] = random.uniform(2, 6, raw[:, :, :4].shape)
        raw[:, :, 4:] = np.round(raw[:, :, 4:] / 8)
    return raw


def test_detections_are_the_same_in_any_order_but_for_rounding() -> None:
    boxes = np.asarray([[0, 0, 10, 10], [20, 20, 40, 60], [5, 5, 9, 9]], np.float32)
    scores, classes = np.asarray([0.5, 0.50000003, 0.2], np.float32), np.asarray([1, 0, 0])
    one = Detections(boxes=boxes, classes=classes, scores=scores)

    def changed(order: tuple[int, ...], **parts: NDArray[Any]) -> Detections:
        at = list(order)
        return replace(Detections(boxes=boxes[at], classes=classes[at], scores=scores[at]), **parts)

    assert same_detections(one, changed((1, 0, 2)))
    assert same_detections(one, changed((0, 1, 2), scores=scores + np.float32(5e-5), boxes=boxes + np.float32(0.005)))
    assert not same_detections(one, changed((0, 1)))
    assert not same_detections(one, changed((0, 1, 1))), "one of them twice"
    assert not same_detections(one, changed((0, 1, 2), classes=np.asarray([0, 1, 0])))
    assert not same_detections(one, changed((0, 1, 2), scores=scores + np.float32(2e-4)))
    assert not same_detections(one, changed((0, 1, 2), boxes=boxes + np.float32(0.1)))


@pytest.mark.parametrize("kind", ["inverted", "equal"])
def test_the_best_candidates_are_taken_before_boxes_without_area_go(tmp_path: Path, kind: str) -> None:
    raw = crowded(kind)
    scores = sigmoid(raw[:, 0, 4:-1]) * sigmoid(raw[:, 0, -1:])
    assert (np.count_nonzero(scores >= LEAST_SCORE, axis=(1, 2)) > MOST_CANDIDATES).all()
    model = answering_model(tmp_path / "model.onnx")
    written = write_onnx(with_suppression(read_onnx(model.path), SIDES, LEAST_SCORE), tmp_path / "nms.onnx")
    found = detections_of(run_file(written, raw), len(raw))
    expected = decode_answers(raw[:, 0], SIDES)
    assert [same_detections(*each) for each in zip(found, expected, strict=True)] == [True] * len(raw)
    assert max(len(each.scores) for each in expected) < MOST_DETECTIONS
    for name, file in (("onnx-nms", "model_nms.onnx"), ("tensorrt-nms", "model_tensorrt_nms.onnx")):
        assert get_format(name).write(model, tmp_path, options(raw)) == (file,)


def test_a_score_at_the_threshold_is_reported(tmp_path: Path) -> None:
    model = answering_model(tmp_path / "model.onnx")
    raw = np.full((1, 1, 5 + CLASSES, POINTS), -20, np.float32)
    raw[0, 0, :4, 30] = 1
    raw[0, 0, 4:, 30] = 20, -20, -20, 0  # a score of 0.5
    for threshold, number in ((0.5, 1), (0.5001, 0)):
        written = write_onnx(with_suppression(read_onnx(model.path), SIDES, threshold), tmp_path / "nms.onnx")
        assert len(run_file(written, raw)["scores"]) == number
        assert len(decode_answers(raw[:, 0], SIDES, least_score=threshold)[0].scores) == number


def options(images: NDArray[np.float32]) -> FormatOptions:
    return FormatOptions(
        precision="fp32", class_names=("a", "b", "c"), check_images=lambda: CheckImages(images=images, told="made up")
    )


@pytest.mark.parametrize(("half", "sides"), [(False, SIDES), (True, SIDES), (False, (64, 64))])
def test_the_format_keeps_the_threshold_and_the_metadata_of_the_file(
    tmp_path: Path, half: bool, sides: tuple[int, int]
) -> None:
    model = answering_model(tmp_path / "model.onnx", half=half, sides=sides)
    raw = answers(3, seed=0, points=points_in(sides))
    assert get_format("onnx-nms").write(model, tmp_path, options(raw)) == ("model_nms.onnx",)
    written = onnx_model(tmp_path / "model_nms.onnx")
    proto = read_onnx(written.path)
    onnx.checker.check_model(proto, full_check=True)
    assert [output.name for output in proto.graph.output] == ["boxes", "scores", "classes", "images"]
    assert {entry.key: entry.value for entry in proto.metadata_props}["scalesearch.threshold"] == "0.3"
    outputs = run_file(written, raw)
    assert outputs["scores"].min() >= 0.3
    assert [part.dtype for part in outputs.values()] == [np.float32, np.float32, np.int64, np.int64]


def test_classifiers_other_answers_and_bf16_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = get_format("onnx-nms")
    classifier = annotate(small_model(tmp_path, "fp32", "onnxruntime_cpu"), {}, tmp_path / "classifier.onnx")
    with pytest.raises(StageFailed, match="expected a detector, came a network for classification"):
        writer.write(classifier, tmp_path, options(CLASSIFIED[:2]))
    with pytest.raises(ConfigError, match="bf16"):
        writer.ensure_holds("bf16")
    monkeypatch.setattr("scalesearch.tasks.detection.onnx_nms.OVERLAP", 0.2)
    with pytest.raises(StageFailed, match="other than the"):
        writer.write(answering_model(tmp_path / "model.onnx"), tmp_path, options(answers(3, seed=0)))
