"""The ONNX file of a detector with decoding and ONNX's NonMaxSuppression inside, for runtimes that have it."""

from pathlib import Path
from typing import Any, Final

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
)
from scalesearch.tasks.detection.decoding_graph import (
    STAGE,
    DetectorFormat,
    Nodes,
    decoded,
    facts_of,
    run_file,
    same_detections,
)
from scalesearch.values.network import OnnxModel

OUTPUTS: Final = ("boxes", "scores", "classes", "images")
_FILE: Final = "model_nms.onnx"


class OnnxNms(DetectorFormat):
    """A writer of the ONNX file with decoding and suppression inside; see the `Format` protocol."""

    name: Final = "onnx-nms"
    what: Final = "the network with decoding and NonMaxSuppression inside: boxes, scores, classes, images"

    def write(self, model: OnnxModel, folder: Path, options: FormatOptions) -> tuple[str, ...]:
        """Write model_nms.onnx and compare its detections with those of the program's own decoding.

        They are compared at two thresholds: the exported one, and the lowest score of any candidate (`LEAST_SCORE`).

        Raises:
            StageFailed: The network is no detector, or the file gives other detections.
        """
        facts = facts_of(model, self.name)
        images = options.check_images().images
        for threshold in (LEAST_SCORE, facts.threshold):  # the last one is that of the file that is kept
            proto = with_suppression(read_onnx(model.path), facts.sides_px, threshold)
            written = write_onnx(proto, folder / _FILE, lowest_versions=False)
            _ensure_same(written, model, images, facts.sides_px, threshold)
        return (_FILE,)


def with_suppression(proto: onnx.ModelProto, sides_px: tuple[int, int], threshold: float) -> onnx.ModelProto:
    """Return a detector's model with the decoding of `decoding.decode_answers` after its raw output.

    Its outputs are `boxes` (detections, 4) in pixels of the input, and `scores`, `classes` and `images`, the index of
    the image in the batch, each (detections,). Detections are sorted by image, the most certain first.

    Args:
        proto: The model, with one output (batch, 4 + classes + 1, points); it is changed.
        sides_px: Height and width of its input.
        threshold: Detections with at least this score are reported.
    """
    graph = proto.graph
    (raw,) = graph.output
    nodes = Nodes(graph)
    boxes, scores = decoded(nodes, raw, sides_px)
    picked = _suppressed(nodes, boxes, scores, threshold)
    _reported(nodes, boxes, scores, picked)
    del graph.output[:]
    for name, kind in zip(
        OUTPUTS, (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT64), strict=True
    ):
        shape: list[str | int] = ["detections", 4] if name == "boxes" else ["detections"]
        graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    return proto


def _suppressed(nodes: Nodes, boxes: str, scores: str, threshold: float) -> str:
    """Add the suppression, and return the name of its output: image, class and point of each detection that is kept.

    The output is (detections, 3).
    """
    # ONNX keeps scores above the threshold; this program also keeps those equal to it.
    below = np.nextafter(np.float32(threshold), np.float32(0))
    return nodes.add(
        "NonMaxSuppression",
        boxes,
        scores,
        nodes.whole(MOST_DETECTIONS),
        nodes.constant(np.asarray([OVERLAP], np.float32)),
        nodes.constant(np.asarray([below], np.float32)),
    )


def _reported(nodes: Nodes, boxes: str, scores: str, picked: str) -> None:
    """Add the outputs: the picked detections, sorted by image and score, at most MOST_DETECTIONS of each image."""
    image = nodes.add("Squeeze", nodes.part(picked, 0, 1, 1), nodes.whole(1))
    label = nodes.add("Squeeze", nodes.part(picked, 1, 2, 1), nodes.whole(1))
    place = nodes.add("Concat", nodes.part(picked, 0, 1, 1), nodes.part(picked, 2, 3, 1), axis=1)
    box, score = nodes.add("GatherND", boxes, place), nodes.add("GatherND", scores, picked)
    number = nodes.add("Shape", score)
    # In double precision, since a score added to the index of an image would lose its last digits.
    exact = nodes.add("Cast", score, to=TensorProto.DOUBLE)
    weight = nodes.add("Mul", nodes.add("Cast", image, to=TensorProto.DOUBLE), nodes.constant(np.float64(2)))
    key = nodes.add("TopK", nodes.add("Sub", exact, weight), number, outputs=2, axis=0)
    order = key.removesuffix("_0") + "_1"
    image = nodes.add("Gather", image, order)
    # Rank of each detection in its image: its index among all detections, less that of the image's first one.
    zero, one = nodes.constant(np.int64(0)), nodes.constant(np.int64(1))
    batch = nodes.add("Squeeze", nodes.add("Slice", nodes.add("Shape", scores), nodes.whole(0), nodes.whole(1)))
    every = nodes.add("Range", zero, batch, one)
    mine = nodes.add(
        "Equal", nodes.add("Unsqueeze", image, nodes.whole(1)), nodes.add("Unsqueeze", every, nodes.whole(0))
    )
    counts = nodes.add("ReduceSum", nodes.add("Cast", mine, to=TensorProto.INT64), nodes.whole(0), keepdims=0)
    first = nodes.add("Gather", nodes.add("CumSum", counts, zero, exclusive=1), image)
    rank = nodes.add("Sub", nodes.add("Range", zero, nodes.add("Squeeze", number), one), first)
    kept = nodes.add("Less", rank, nodes.constant(np.int64(MOST_DETECTIONS)))
    kept = nodes.add("Squeeze", nodes.add("NonZero", kept), nodes.whole(0))
    chosen = nodes.add("Gather", order, kept)
    for name, part in zip(OUTPUTS, (box, score, label), strict=False):
        nodes.add("Gather", part, chosen, named=name)
    nodes.add("Gather", image, kept, named=OUTPUTS[3])


def detections_of(outputs: "dict[str, NDArray[Any]]", number: int) -> list[Detections]:
    """Return the detections of each of `number` images, out of boxes (n, 4), scores, classes and images (n,)."""
    boxes, scores, classes, images = (outputs[name] for name in OUTPUTS)
    chosen = [images == place for place in range(number)]
    return [Detections(boxes[kept], classes[kept], scores[kept]) for kept in chosen]


def _ensure_same(
    written: OnnxModel, model: OnnxModel, images: NDArray[np.float32], sides_px: tuple[int, int], threshold: float
) -> None:
    """Raise StageFailed if the file's detections are not those of the program's own decoding."""
    (raw,) = run_file(model, images).values()
    expected = decode_answers(np.asarray(raw, np.float32), sides_px, least_score=threshold)
    found = detections_of(run_file(written, images), len(images))
    for place, (theirs, ours) in enumerate(zip(found, expected, strict=True)):
        if not same_detections(theirs, ours):
            reason = (
                f"--format onnx-nms: for check image {place} the file gives {len(theirs.scores)} detections from a "
                f"score of {threshold:g} on, other than the {len(ours.scores)} of the program's own decoding"
            )
            raise StageFailed(stage=STAGE, reason=reason)
