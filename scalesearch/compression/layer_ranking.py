"""Layer ranking: find the layers that suffer most from 8 bits.

Each layer is quantized alone, and the network's answers are compared with those of the float network.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization.onnx_model import ONNXModel

from scalesearch.compression.calibration import Ranges
from scalesearch.compression.qdq import weighted_nodes
from scalesearch.deployment.onnx_file import checking_session
from scalesearch.errors import StageFailed

Insert = Callable[[onnx.ModelProto, Ranges, frozenset[str]], onnx.ModelProto]
"""Puts Q/DQ nodes into a float model, using the ranges of its activations, except at the layers with these names."""
Divergence = Callable[[Mapping[str, NDArray[np.float32]], Mapping[str, NDArray[np.float32]]], float]
"""Returns how far answers (second argument) are from the expected ones (first), both by the names of the outputs."""
_BATCH: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDamage:
    """How much the network's answers change when only this convolution or linear layer is in 8 bits."""

    node: str
    weight: str
    """Name of its weight in the file."""
    divergence: float
    """Divergence of the answers from the float network's, by the task's measure."""
    mean_squared_change: float
    """Mean squared change of the first output, relative to the variance of that output over the images."""


def rank_layers(
    proto: onnx.ModelProto,
    ranges: Ranges,
    images: NDArray[np.float32],
    *,
    insert: Insert,
    divergence: Divergence,
) -> tuple[LayerDamage, ...]:
    """Rank every convolution and linear layer by the damage that 8 bits do, the most damaging layer first.

    One layer is quantized at a time, as NVIDIA's pytorch-quantization advises ("Quick sensitivity analysis"). The
    damage is the divergence of the answers, as in Cai et al., "ZeroQ", CVPR 2020, equation 5. This takes one ONNX
    Runtime session for each layer.

    Args:
        proto: The float model.
        ranges: (low, high) of its activations by name.
        images: (N, C, H, W), normalised as in training; targets are not needed.
        insert: Inserts the Q/DQ nodes, in the style of quantization that is to be judged.
        divergence: The task's function that returns how far answers are from the expected ones, both by the names of
            the outputs.

    Returns:
        The damage of each layer; layers with equal damage are in the graph's order.

    Raises:
        StageFailed: There are no images.
    """
    if not len(images):
        raise StageFailed(stage="quantize", reason="ranking layers needs calibration images, got none")
    layers = weighted_nodes(proto)
    names = frozenset(node.name for node in layers)
    expected = run_as_written(proto, images)
    damages = []
    for node in layers:
        answers = run_as_written(insert(proto, ranges, names - {node.name}), images)
        first, wanted = next(iter(answers.values())), next(iter(expected.values()))
        change = np.mean((first - wanted) ** 2) / max(float(wanted.var(axis=0).mean()), 1e-30)
        damages.append(
            LayerDamage(
                node=node.name,
                weight=node.input[1],
                divergence=divergence(expected, answers),
                mean_squared_change=float(change),
            )
        )
    return tuple(sorted(damages, key=lambda damage: -damage.divergence))


def run_as_written(proto: onnx.ModelProto, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Run the model on images (N, C, H, W), with every Q/DQ node executed exactly as written in the file.

    ONNX Runtime's optimizations are off: with them, version 1.32 gives wrong answers for fp8 files, and uses integer
    kernels for int8.

    Returns:
        The answers, float32 arrays with images along the first axis, by the names of the outputs.
    """
    ordered = ONNXModel(proto)  # inserted nodes are at the end of the list
    ordered.topological_sort()
    session = checking_session(proto, as_written=True)
    feed = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs()]
    parts = [session.run(names, {feed: images[at : at + _BATCH]}) for at in range(0, len(images), _BATCH)]
    return {
        name: np.concatenate(arrays).astype(np.float32)
        for name, arrays in zip(names, zip(*parts, strict=True), strict=True)
    }
