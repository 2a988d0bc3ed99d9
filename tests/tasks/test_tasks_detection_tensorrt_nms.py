"""A detector's ONNX file with TensorRT's plugin: attributes, shapes, and what goes into it. The plugin is not run."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from scalesearch.deployment.formats import CheckImages, FormatOptions
from scalesearch.deployment.onnx_file import annotate, read_onnx, write_onnx
from scalesearch.errors import StageFailed
from scalesearch.export.formats import get_format
from scalesearch.export.reading import sides_px
from scalesearch.tasks.detection import decoding_graph
from scalesearch.tasks.detection.decoding import LEAST_SCORE, MOST_CANDIDATES, decode_answers
from scalesearch.tasks.detection.tensorrt_nms import suppressed_candidates, with_plugin, without_plugin
from scalesearch.values.network import OnnxModel
from scalesearch.values.network_spec import InputSize

WIDE, SQUARE = InputSize(height_px=64, width_px=96), InputSize.square(64)
POINTS = {WIDE: 96 + 24 + 6, SQUARE: 64 + 16 + 4}


def answering_model(to: Path, task: str = "detection", size: InputSize = WIDE) -> OnnxModel:
    """Write a model whose raw answers are its "image": (N, 1, 8, points) becomes (N, 8, points)."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, POINTS[size]])
    raw = helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["batch", 8, POINTS[size]])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(
        [helper.make_node("Squeeze", ["image", "axes"], ["raw"])], "answers", [image], [raw], [axes]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    facts = {"task": task, "threshold": "0.3", "resolution_px": json.dumps(sides_px(size))}
    return annotate(write_onnx(model, to), {f"scalesearch.{key}": text for key, text in facts.items()}, to)


def options(size: InputSize = WIDE) -> FormatOptions:
    raw = np.random.default_rng(0).uniform(-0.5, 3, (4, 1, 8, POINTS[size])).astype(np.float32)
    check = CheckImages(images=raw, told="made up")
    return FormatOptions(precision="fp32", class_names=("a", "b", "c"), check_images=lambda: check)


@pytest.mark.parametrize("size", [WIDE, SQUARE], ids=lambda size: size.label)
def test_the_plugin_has_the_attributes_inputs_and_outputs_of_its_version_1(tmp_path: Path, size: InputSize) -> None:
    model = answering_model(tmp_path / "model.onnx", size=size)
    assert get_format("tensorrt-nms").write(model, tmp_path, options(size)) == ("model_tensorrt_nms.onnx",)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model_tensorrt_nms.onnx"]
    proto = onnx.shape_inference.infer_shapes(read_onnx(tmp_path / "model_tensorrt_nms.onnx"))
    (plugin,) = (node for node in proto.graph.node if node.op_type == "EfficientNMS_TRT")
    found = {entry.name: helper.get_attribute_value(entry) for entry in plugin.attribute}
    # The plugin's README in NVIDIA's repository TensorRT lists these.
    assert found == {
        "plugin_version": b"1", "plugin_namespace": b"", "score_threshold": pytest.approx(0.3),
        "iou_threshold": pytest.approx(0.6), "max_output_boxes": 100, "background_class": -1, "score_activation": 0,
        "class_agnostic": 0, "box_coding": 0,
    }  # fmt: skip
    shapes = {
        each.name: [dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim]
        for each in (*proto.graph.value_info, *proto.graph.output)
    }
    assert [shapes[name][1:] for name in plugin.input] == [[POINTS[size], 4], [POINTS[size], 3]]
    assert {name: shapes[name] for name in plugin.output} == {
        "num_detections": ["batch", 1], "detection_boxes": ["batch", 100, 4], "detection_scores": ["batch", 100],
        "detection_classes": ["batch", 100],
    }  # fmt: skip


def test_no_more_candidates_go_into_the_plugin_than_are_compared_elsewhere(tmp_path: Path) -> None:
    """The plugin compares every candidate above the threshold, so that the file itself must leave out the others."""
    model = answering_model(tmp_path / "model.onnx")
    raw = np.random.default_rng(0).uniform(-3, 3, (4, 1, 8, POINTS[WIDE])).astype(np.float32)
    cut = without_plugin(with_plugin(read_onnx(model.path), WIDE.sides, 0.3), POINTS[WIDE], 3)
    plain = decoding_graph.run_file(write_onnx(cut, tmp_path / "cut.onnx"), raw)
    for boxes, scores, each in zip(plain["candidate_boxes"], plain["candidate_scores"], raw[:, 0], strict=True):
        assert 0 < np.count_nonzero(scores) <= MOST_CANDIDATES < scores.size
        theirs = suppressed_candidates(boxes, scores, threshold=LEAST_SCORE)
        (ours,) = decode_answers(each[None], WIDE.sides)
        assert decoding_graph.same_detections(theirs, ours)


def test_other_inputs_of_the_plugin_and_other_tasks_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = get_format("tensorrt-nms")
    with pytest.raises(StageFailed, match="expected a detector, came a network for segmentation"):
        writer.write(answering_model(tmp_path / "model.onnx", task="segmentation"), tmp_path, options())
    monkeypatch.setattr(
        "scalesearch.tasks.detection.decoding_graph.points_of",
        lambda *_: (np.zeros((POINTS[WIDE], 2), np.float32), np.full(POINTS[WIDE], 8, np.float32)),
    )
    with pytest.raises(StageFailed, match="other boxes or scores go into the plugin"):
        writer.write(answering_model(tmp_path / "model.onnx"), tmp_path, options())
