"""Code for ONNX files of detectors that include suppression: the decoding as ONNX nodes, and the check of the file."""

import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from scalesearch.deployment.backends.base import EngineOptions
from scalesearch.deployment.backends.onnxruntime_session import NATIVE_ERRORS, native_reason, open_session
from scalesearch.deployment.formats.base import Format
from scalesearch.deployment.onnx_file import read_onnx
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.tasks.detection.decoding import MOST_CANDIDATES, Detections, points_of, strides_for
from scalesearch.tasks.infer_parts.preprocessing import read_sides
from scalesearch.values.candidate import Precision
from scalesearch.values.network import OnnxModel

STAGE: Final = "export"
_PREFIX: Final = "nms_"


class DetectorFormat(Format):
    """A writer of files that are checked with ONNX Runtime, whatever runs them later; see the `Format` protocol."""

    def ensure_available(self) -> None:
        """Accept: ONNX Runtime, which checks the file, is always installed."""

    def ensure_holds(self, precision: Precision) -> None:
        """Raise an error for bf16, which ONNX Runtime cannot run on a CPU, so that nothing could be compared.

        Raises:
            ConfigError: The precision is bf16.
        """
        if precision == "bf16":
            message = (
                f"--format {self.name} is checked with ONNX Runtime on the CPU, which cannot run bf16.\n"
                f"Export a trial of another precision, or leave out --format {self.name}."
            )
            raise ConfigError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorFacts:
    """Facts from the metadata of a detector's file: height and width of its input, and the threshold."""

    sides_px: tuple[int, int]
    threshold: float


def facts_of(model: OnnxModel, format_name: str) -> DetectorFacts:
    """Return the facts that a detector's file has in its own metadata.

    Raises:
        StageFailed: The metadata are those of another task.
    """
    told = {entry.key: entry.value for entry in read_onnx(model.path).metadata_props}
    task = told.get("scalesearch.task", "classification")
    if task != "detection" or "scalesearch.threshold" not in told:
        reason = f"--format {format_name}: expected a detector, came a network for {task}; leave this format out"
        raise StageFailed(stage=STAGE, reason=reason)
    sides_px = read_sides(told["scalesearch.resolution_px"])
    return DetectorFacts(sides_px=sides_px, threshold=float(json.loads(told["scalesearch.threshold"])))


class Nodes:
    """Adds nodes to a graph, with names that no other node has."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph, self._number = graph, 0

    def add(self, kind: str, *inputs: str, outputs: int = 1, named: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its first output, which is `named` if given."""
        self._number += 1
        name = f"{_PREFIX}{self._number}_{kind}"
        made = [named or f"{name}_0", *(f"{name}_{place}" for place in range(1, outputs))]
        self._graph.node.append(helper.make_node(kind, list(inputs), made, name=name, **attributes))
        return made[0]

    def constant(self, value: NDArray[Any] | np.generic) -> str:
        """Add an initializer of any shape and return its name."""
        self._number += 1
        name = f"{_PREFIX}{self._number}_value"
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def whole(self, *values: int) -> str:
        """Add whole numbers as an initializer and return its name."""
        return self.constant(np.asarray(values, np.int64))

    def part(self, name: str, start: int, end: int, axis: int) -> str:
        """Add a Slice from `start` to `end` along one axis and return the name of its output."""
        return self.add("Slice", name, self.whole(start), self.whole(end), self.whole(axis))


def class_and_point_counts(output: onnx.ValueInfoProto) -> tuple[int, int]:
    """Return the number of classes and of points of raw outputs (batch, 4 + classes + 1, points)."""
    dims = output.type.tensor_type.shape.dim
    return dims[1].dim_value - 5, dims[2].dim_value


def decoded(nodes: Nodes, output: onnx.ValueInfoProto, sides_px: tuple[int, int]) -> tuple[str, str]:
    """Add nodes that decode raw outputs, and return the names of boxes (batch, points, 4) and scores.

    The scores are (batch, classes, points). As in the program's own decoding, only the best candidates of an image
    have one, whatever their class, and of these only the ones whose box has an area; all others have a score of 0.

    Args:
        nodes: Where the nodes are added.
        output: The raw outputs (batch, 4 + classes + 1, points).
        sides_px: Height and width of the network's input.
    """
    classes, points = class_and_point_counts(output)
    raw = output.name
    if output.type.tensor_type.elem_type != TensorProto.FLOAT:
        raw = nodes.add("Cast", raw, to=TensorProto.FLOAT)
    places, strides = points_of(sides_px, strides_for(sides_px, points))
    chances = nodes.add("Sigmoid", nodes.part(raw, 4, 4 + classes, 1))
    scores = nodes.add("Mul", chances, nodes.add("Sigmoid", nodes.part(raw, 4 + classes, 5 + classes, 1)))
    reach = nodes.add("Mul", nodes.part(raw, 0, 4, 1), nodes.constant(strides[None, None]))
    middle = nodes.constant(np.ascontiguousarray(places.T)[None])
    low = nodes.add("Sub", middle, nodes.part(reach, 0, 2, 1))
    high = nodes.add("Add", middle, nodes.part(reach, 2, 4, 1))
    height, width = sides_px
    limits = nodes.constant(np.asarray([width, height, width, height], np.float32).reshape(1, 4, 1))
    inside = nodes.add("Min", nodes.add("Concat", low, high, axis=1), limits)
    inside = nodes.add("Max", inside, nodes.constant(np.float32(0)))
    wide = nodes.add("Greater", nodes.part(inside, 2, 4, 1), nodes.part(inside, 0, 2, 1))
    whole = nodes.add("And", nodes.part(wide, 0, 1, 1), nodes.part(wide, 1, 2, 1))
    # Boxes without area are among the best candidates, too, and go only then: `infer.py` does both in this order.
    scores = nodes.add("Where", whole, _of_the_best(nodes, scores, classes, points), nodes.constant(np.float32(0)))
    return nodes.add("Transpose", inside, perm=[0, 2, 1]), scores


def _of_the_best(nodes: Nodes, scores: str, classes: int, points: int) -> str:
    """Add nodes that keep the scores (batch, classes, points) of the best candidates of each image; others become 0.

    Of equal scores at the end those of the first class and point are kept, as in the program's own decoding.
    """
    flat = nodes.add("Reshape", scores, nodes.whole(0, -1))
    most = min(MOST_CANDIDATES, classes * points)
    best = nodes.add("TopK", flat, nodes.whole(most), outputs=2, axis=1)
    zero = numpy_helper.from_array(np.zeros(1, np.float32))
    none = nodes.add("ConstantOfShape", nodes.add("Shape", flat), value=zero)
    kept = nodes.add("ScatterElements", none, best.removesuffix("_0") + "_1", best, axis=1)
    return nodes.add("Reshape", kept, nodes.whole(0, classes, points))


def run_file(model: OnnxModel, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Return the outputs of a file for images (N, C, H, W), by name, as ONNX Runtime's CPU kernels give them.

    Raises:
        StageFailed: ONNX Runtime cannot run it.
    """
    session = open_session(model, EngineOptions(threads=1), ("CPUExecutionProvider",))
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, {session.get_inputs()[0].name: images}), strict=True))
    except NATIVE_ERRORS as error:
        raise StageFailed(stage=STAGE, reason=native_reason(error, model.path)) from error


def same_detections(one: Detections, other: Detections) -> bool:
    """Tell whether detections are the same, but for the rounding of float32 (1e-4 of a score, 0.01 pixels).

    Their order does not count: by that rounding, two whose scores nearly tie may change places.
    """
    if len(one.scores) != len(other.scores):
        return False
    same = one.classes[:, None] == other.classes
    same &= np.isclose(one.scores[:, None], other.scores, rtol=0, atol=1e-4)
    same &= np.isclose(one.boxes[:, None], other.boxes, rtol=1e-4, atol=0.01).all(axis=2)
    return bool(same.any(axis=1).all() and same.any(axis=0).all())
