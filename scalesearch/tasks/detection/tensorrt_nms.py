"""The ONNX file of a detector with TensorRT's plugin EfficientNMS_TRT after its decoding, for TensorRT alone."""

import copy
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from scalesearch.deployment.formats.base import FormatOptions
from scalesearch.deployment.onnx_file import read_onnx, write_onnx
from scalesearch.errors import StageFailed
from scalesearch.tasks.detection.decoding import (
    LEAST_SCORE,
    MOST_DETECTIONS,
    OVERLAP,
    Detections,
    decode_answers,
    suppressed,
)
from scalesearch.tasks.detection.decoding_graph import (
    STAGE,
    DetectorFacts,
    DetectorFormat,
    Nodes,
    class_and_point_counts,
    decoded,
    facts_of,
    run_file,
    same_detections,
)
from scalesearch.values.network import OnnxModel

PLUGIN: Final = "EfficientNMS_TRT"
DOMAIN: Final = "TRT"
_FILE: Final = "model_tensorrt_nms.onnx"
_INPUTS: Final = ("candidate_boxes", "candidate_scores")


class TensorRtNms(DetectorFormat):
    """A writer of the ONNX file with TensorRT's plugin; see the `Format` protocol."""

    name: Final = "tensorrt-nms"
    what: Final = "the network with decoding and the plugin EfficientNMS_TRT, for TensorRT (not run here)"

    def write(self, model: OnnxModel, folder: Path, options: FormatOptions) -> tuple[str, ...]:
        """Write model_tensorrt_nms.onnx; what goes into the plugin is compared with this program's own decoding.

        ONNX Runtime lacks the plugin. So the file's other nodes are run, and this program's suppression is applied to
        their outputs; the plugin itself is not run.

        Raises:
            StageFailed: The network is no detector, or other boxes and scores go into the plugin.
        """
        facts = facts_of(model, self.name)
        written = write_onnx(
            with_plugin(read_onnx(model.path), facts.sides_px, facts.threshold), folder / _FILE, lowest_versions=False
        )
        _ensure_same(written, model, options.check_images().images, facts)
        return (_FILE,)


def with_plugin(proto: onnx.ModelProto, sides_px: tuple[int, int], threshold: float) -> onnx.ModelProto:
    """Return a detector's model with the decoding and the plugin added after its raw output.

    Its outputs are those of the plugin: `num_detections` (batch, 1), `detection_boxes` (batch, 100, 4) in pixels of the
    input, `detection_scores` and `detection_classes` (batch, 100).

    Args:
        proto: The model, with one output (batch, 4 + classes + 1, points); it is changed.
        sides_px: Height and width of its input.
        threshold: Detections with at least this score are reported.
    """
    graph = proto.graph
    (raw,) = graph.output
    batch = raw.type.tensor_type.shape.dim[0]
    first: str | int = batch.dim_param or batch.dim_value
    nodes = Nodes(graph)
    boxes, scores = decoded(nodes, raw, sides_px)
    nodes.add("Identity", boxes, named=_INPUTS[0])
    nodes.add("Transpose", scores, named=_INPUTS[1], perm=[0, 2, 1])
    most = MOST_DETECTIONS
    outputs = {
        "num_detections": (TensorProto.INT32, [first, 1]),
        "detection_boxes": (TensorProto.FLOAT, [first, most, 4]),
        "detection_scores": (TensorProto.FLOAT, [first, most]),
        "detection_classes": (TensorProto.INT32, [first, most]),
    }
    plugin = helper.make_node(
        PLUGIN,
        list(_INPUTS),
        list(outputs),
        name="efficient_nms",
        domain=DOMAIN,
        plugin_version="1",
        plugin_namespace="",
        score_threshold=threshold,
        iou_threshold=OVERLAP,
        max_output_boxes=most,
        background_class=-1,
        score_activation=0,
        class_agnostic=0,
        box_coding=0,
    )
    graph.node.append(plugin)
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(name, *facts) for name, facts in outputs.items())
    proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return proto


def without_plugin(proto: onnx.ModelProto, points: int, classes: int) -> onnx.ModelProto:
    """Return a copy of a model of `with_plugin` without the plugin; its outputs are what the plugin's inputs were."""
    cut = copy.deepcopy(proto)
    kept = [node for node in cut.graph.node if node.op_type != PLUGIN]
    del cut.graph.node[:]
    cut.graph.node.extend(kept)
    del cut.graph.output[:]
    for name, last in zip(_INPUTS, (4, classes), strict=True):
        cut.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", points, last]))
    others = [entry for entry in cut.opset_import if entry.domain != DOMAIN]
    del cut.opset_import[:]
    cut.opset_import.extend(others)
    return cut


def _ensure_same(written: OnnxModel, model: OnnxModel, images: NDArray[np.float32], facts: DetectorFacts) -> None:
    """Raise StageFailed if suppressing the plugin's inputs gives other detections than the program's own decoding."""
    classes, points = class_and_point_counts(read_onnx(model.path).graph.output[0])
    cut = without_plugin(read_onnx(written.path), points, classes)
    file = written.path.with_name(".before_plugin.onnx")
    try:
        inputs = run_file(write_onnx(cut, file, lowest_versions=False), images)
    finally:
        file.unlink(missing_ok=True)
    (raw,) = run_file(model, images).values()
    for threshold in (LEAST_SCORE, facts.threshold):
        expected = decode_answers(np.asarray(raw, np.float32), facts.sides_px, least_score=threshold)
        for place, ours in enumerate(expected):
            theirs = suppressed_candidates(*(inputs[name][place] for name in _INPUTS), threshold=threshold)
            if not same_detections(theirs, ours):
                reason = f"--format tensorrt-nms: for check image {place} other boxes or scores go into the plugin"
                raise StageFailed(stage=STAGE, reason=reason)


def suppressed_candidates(boxes: NDArray[np.float32], scores: NDArray[np.float32], *, threshold: float) -> Detections:
    """Return the detections that this program's suppression keeps of the plugin's inputs for one image.

    Like the plugin, it compares all candidates whose score counts: the file itself gives only the best ones a score.

    Args:
        boxes: (points, 4).
        scores: (points, classes).
        threshold: The lowest score that counts.
    """
    labels, places = np.nonzero(threshold <= scores.T)
    chosen = scores[places, labels]
    best = np.argsort(-chosen, kind="stable")
    labels, places, chosen = labels[best], places[best], chosen[best]
    kept = suppressed(boxes[places], labels)[:MOST_DETECTIONS]
    return Detections(boxes[places][kept], labels[kept], chosen[kept])
