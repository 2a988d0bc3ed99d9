"""Which layers suffer most from 8 bits: each is quantized alone and its answers are compared with the float ones."""

from collections.abc import Callable
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
"""Puts Q/DQ nodes into a float model, by the ranges of its activations, but not at the layers of these names."""
_BATCH: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDamage:
    """What the network's answers suffer when this convolution or linear layer alone is in 8 bits."""

    node: str
    weight: str
    """Name of its weight in the file."""
    divergence: float
    """Kullback-Leibler divergence of its class probabilities from the float network's, mean over the images."""
    mean_squared_change: float
    """Of the logits, relative to their variance over the images."""


def rank_layers(
    proto: onnx.ModelProto,
    ranges: Ranges,
    images: NDArray[np.float32],
    *,
    insert: Insert,
) -> tuple[LayerDamage, ...]:
    """Every convolution and linear layer, the one that does most damage first; equals in the graph's order.

    One at a time, as NVIDIA's pytorch-quantization advises ("Quick sensitivity analysis"), measured by the divergence
    of the answers as in Cai et al., "ZeroQ", CVPR 2020, equation 5. Costs one ONNX Runtime session for each layer.

    Args:
        proto: The float model.
        ranges: Of its activations.
        images: (N, C, H, W), normalised as in training; labels are not needed.
        insert: The style of quantization.

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
        change = np.mean((answers - expected) ** 2) / max(float(expected.var(axis=0).mean()), 1e-30)
        damages.append(
            LayerDamage(
                node=node.name,
                weight=node.input[1],
                divergence=mean_divergence(expected, answers),
                mean_squared_change=float(change),
            )
        )
    return tuple(sorted(damages, key=lambda damage: -damage.divergence))


def mean_divergence(expected: NDArray[np.float32], answers: NDArray[np.float32]) -> float:
    """Kullback-Leibler divergence, in nats, of the softmax of `answers` from that of `expected`, mean over the rows."""
    p, q = _log_softmax(expected), _log_softmax(answers)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def run_as_written(proto: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of the images, every Q/DQ node run as it stands in the file.

    With its optimizations on, ONNX Runtime 1.32 answers wrongly to fp8 files, and takes integer kernels for int8.
    """
    ordered = ONNXModel(proto)  # insertion leaves new nodes at the end
    ordered.topological_sort()
    session = checking_session(proto, as_written=True)
    feed = session.get_inputs()[0].name
    parts = [session.run(None, {feed: images[at : at + _BATCH]})[0] for at in range(0, len(images), _BATCH)]
    return np.concatenate(parts).astype(np.float32)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    logs: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return logs
