"""Quantization: convert an fp32 ONNX file to fp16, bf16, int8 or fp8. The file alone defines what is computed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization.onnx_model import ONNXModel

from scalesearch.compression.bias_correction import correct_biases
from scalesearch.compression.calibration import Ranges, calibrate
from scalesearch.compression.cpu_qdq import SEVEN_BITS, insert_cpu_qdq
from scalesearch.compression.half import HALF_SUFFIX, to_half
from scalesearch.compression.layer_ranking import Divergence, rank_layers
from scalesearch.compression.number_format import FORMATS, FormatName, NumberFormat
from scalesearch.compression.qdq import given_ranges, insert_qdq, layers_by_weight, weighted_nodes
from scalesearch.deployment.onnx_file import checking_session, read_onnx, write_bytes, write_onnx
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import Precision, Quantization, WeightScales
from scalesearch.values.network import OnnxModel
from scalesearch.values.target import QuantizationProfile

_CHECK_IMAGES = 8
_RANKING_IMAGES: Final = 32
"""Number of images to rank layers on; each of them is run once for every layer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """What is known about a network's activations and answers, by which its ranges and float layers are chosen."""

    images: NDArray[np.float32]
    """Images (N, C, H, W), normalised as in training and never trained on; the first `calibration_images` of them are
    used."""
    input_ranges: Mapping[str, tuple[float, float]] | None = None
    """Learnt ranges from `qat.QatResult` that replace calibrated ones (`qdq.given_ranges`)."""
    weights: Mapping[str, NDArray[np.float32]] | None = None
    """The weights of the network whose ranges were learnt, by name."""
    divergence: Divergence | None = None
    """The task's divergence, by which `keep_float` ranks the layers; needed only where `keep_float` is above 0 and
    below the number of layers."""
    kept: "Kept | None" = None
    """The layers to leave in float, where they were chosen before (`layers_in_float`); None: they are chosen now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The layers that `keep_float` leaves in float."""

    nodes: frozenset[str]
    """Their names in the file."""
    weights: frozenset[str]
    """The names of their weights in the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """All arguments of `quantize`, as the function of each precision gets them."""

    model: OnnxModel
    quantization: Quantization
    images: NDArray[np.float32]
    profile: QuantizationProfile
    input_ranges: Mapping[str, tuple[float, float]]
    weights: Mapping[str, NDArray[np.float32]] | None
    divergence: Divergence | None
    kept: Kept | None
    to: Path


def quantize(
    model: OnnxModel,
    quantization: Quantization,
    *,
    calibration: Calibration,
    profile: QuantizationProfile,
    to: Path,
) -> OnnxModel:
    """Write the model in the asked precision to `to`; its input and output stay float32.

    fp32 copies the file. fp16 and bf16 hold half-precision weights and activations between two casts. int8 and fp8 are
    post-training quantization with Q/DQ nodes in the style of the profile, with ranges by `calibration.calibrate`. What
    is left in float is fp16 for TensorRT and fp32 for CPUs. The `keep_float` layers that suffer most stay in float too
    (`layer_ranking.rank_layers`). If that is every layer, the result is the fp16 or fp32 file. Biases are not corrected
    where ranges were learnt: training with the rounded weights has set the biases, which a correction would undo.

    Args:
        model: An fp32 file from `to_onnx`.
        quantization: Precision and, for int8 and fp8, how to calibrate.
        calibration: Images, learnt ranges, and the task's divergence.
        profile: The target's style of quantization.
        to: Where to write the file.

    Returns:
        The written file.

    Raises:
        StageFailed: Images of another shape or type, a range for a weight that the model lacks, a divergence that is
            needed and not given, or weights or activations that the precision cannot hold.
    """
    return _PRECISIONS[quantization.precision](_work(model, quantization, calibration, profile, to))


def layers_in_float(
    model: OnnxModel,
    quantization: Quantization,
    *,
    calibration: Calibration,
    profile: QuantizationProfile,
    weights: Mapping[str, NDArray[np.float32]],
) -> Kept:
    """Return the layers that `quantize` would leave in float, before the network is trained with rounding.

    Args:
        model: The fp32 file of the network before that training.
        quantization: int8 or fp8, how to calibrate, and how many layers stay in float.
        calibration: Images, and the task's divergence.
        profile: The target's style of quantization.
        weights: The network's weights by name (`simulation.layer_weights`).

    Raises:
        StageFailed: As `quantize`.
    """
    work = _work(model, quantization, calibration, profile, model.path)
    style = _style(work)
    proto = onnx.shape_inference.infer_shapes(read_onnx(model.path))
    nodes = _kept_in_float(proto, _ranges(proto, work, style), work, style)
    layers = layers_by_weight(proto, weights.keys(), weights)
    names = frozenset(name for name in weights if name in layers and layers[name].name in nodes)
    return Kept(nodes=nodes, weights=names)


def _work(
    model: OnnxModel,
    quantization: Quantization,
    calibration: Calibration,
    profile: QuantizationProfile,
    to: Path,
) -> _Work:
    images = calibration.images[: quantization.calibration_images]
    if images.dtype != np.float32 or images.shape[1:] != model.input_shape[1:]:
        reason = f"calibration images must be float32 (N, *{model.input_shape[1:]}), got {images.dtype} {images.shape}"
        raise StageFailed(stage="quantize", reason=reason)
    return _Work(
        model=model,
        quantization=quantization,
        images=images,
        profile=profile,
        input_ranges=calibration.input_ranges or {},
        weights=calibration.weights,
        divergence=calibration.divergence,
        kept=calibration.kept,
        to=to,
    )


def _to_fp32(work: _Work) -> OnnxModel:
    write_bytes(work.model.path.read_bytes(), work.to)
    return OnnxModel(
        path=work.to, sha256=work.model.sha256, size_bytes=work.model.size_bytes, input_shape=work.model.input_shape
    )


def _to_fp16(work: _Work) -> OnnxModel:
    written = write_onnx(to_half(read_onnx(work.model.path), "fp16"), work.to)
    _ensure_finite(written, work.images[:_CHECK_IMAGES])
    return written


def _to_bf16(work: _Work) -> OnnxModel:
    return write_onnx(to_half(read_onnx(work.model.path), "bf16"), work.to)


def _to_int8(work: _Work) -> OnnxModel:
    return _to_eight_bits(work, _style(work))


def _to_fp8(work: _Work) -> OnnxModel:
    return _to_eight_bits(work, _style(work))


_PRECISIONS: Mapping[Precision, Callable[[_Work], OnnxModel]] = {
    "fp32": _to_fp32,
    "fp16": _to_fp16,
    "bf16": _to_bf16,
    "int8": _to_int8,
    "fp8": _to_fp8,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Style:
    """A style of quantization: where Q/DQ nodes go and which number formats they use."""

    insert: Callable[[onnx.ModelProto, Ranges, WeightScales, frozenset[str]], onnx.ModelProto]
    """Takes the model, its ranges, the kind of weight scales, and the names of the layers to leave in float."""
    number: FormatName
    weights: NumberFormat
    symmetric: bool
    """Whether the ranges of activations are symmetric around 0."""


def _insert_cpu(proto: onnx.ModelProto, ranges: Ranges, weights: WeightScales, skip: frozenset[str]) -> onnx.ModelProto:
    return insert_cpu_qdq(proto, ranges, weights=weights, skip=skip)


def _qdq_style(number: FormatName) -> _Style:
    def insert(proto: onnx.ModelProto, ranges: Ranges, weights: WeightScales, skip: frozenset[str]) -> onnx.ModelProto:
        return insert_qdq(proto, ranges, number, weights=weights, skip=skip)

    return _Style(insert=insert, number=number, weights=FORMATS[number], symmetric=True)


_CPU_STYLE: Final = _Style(insert=_insert_cpu, number="int8", weights=SEVEN_BITS, symmetric=False)
_QDQ_STYLES: Final[Mapping[FormatName, _Style]] = {"int8": _qdq_style("int8"), "fp8": _qdq_style("fp8")}


def _style(work: _Work) -> _Style:
    if work.quantization.precision == "fp8":
        return _QDQ_STYLES["fp8"]
    return _CPU_STYLE if work.profile == "onnxruntime_cpu" else _QDQ_STYLES["int8"]


def _ranges(proto: onnx.ModelProto, work: _Work, style: _Style) -> Ranges:
    """Return the ranges of all activations: calibrated ones, and in their place those that were learnt."""
    asked = work.quantization
    calibrated = calibrate(
        proto,
        work.images,
        method=asked.calibration,
        clip_percentile=asked.clip_percentile,
        symmetric=style.symmetric,
        number=style.number,
    )
    return calibrated | given_ranges(proto, work.input_ranges, work.weights)


def _to_eight_bits(work: _Work, style: _Style) -> OnnxModel:
    """Write an int8 or fp8 file.

    First the ranges are found, then the layers that stay in float, then the biases, then the nodes are inserted.
    """
    proto = onnx.shape_inference.infer_shapes(read_onnx(work.model.path))
    asked = work.quantization
    ranges = _ranges(proto, work, style)
    kept = work.kept.nodes if work.kept else _kept_in_float(proto, ranges, work, style)
    if len(kept) == len(weighted_nodes(proto)):
        return _to_fp16(work) if work.profile == "tensorrt" else _to_fp32(work)
    if asked.bias_correction and not work.input_ranges:
        proto = correct_biases(proto, work.images, style.weights, weights=asked.weights, skip=kept)
    if work.profile == "tensorrt":
        proto, ranges = _halved(proto, ranges)
    quantized = style.insert(proto, ranges, asked.weights, kept)
    ONNXModel(quantized).topological_sort()  # the tools append nodes at the end; ONNX wants them after their inputs
    return write_onnx(quantized, work.to)


def _halved(proto: onnx.ModelProto, ranges: Ranges) -> tuple[onnx.ModelProto, Ranges]:
    """Convert model and ranges to fp16, for TensorRT.

    TensorRT's networks are strongly typed: what is not quantized runs in the type it has in the file. fp16 takes half
    the bytes.
    """
    inputs = [value.name for value in proto.graph.input if value.name in ranges]
    return to_half(proto, "fp16"), ranges | {f"{name}{HALF_SUFFIX}": ranges[name] for name in inputs}


def _kept_in_float(proto: onnx.ModelProto, ranges: Ranges, work: _Work, style: _Style) -> frozenset[str]:
    """Return the names of the `keep_float` layers that suffer most, or of all layers if there are no more than that."""
    names = frozenset(node.name for node in weighted_nodes(proto))
    count = work.quantization.keep_float
    if not 0 < count < len(names):
        return names if count else frozenset()

    def insert_alone(proto: onnx.ModelProto, ranges: Ranges, skip: frozenset[str]) -> onnx.ModelProto:
        return style.insert(proto, ranges, work.quantization.weights, skip)

    if work.divergence is None:
        raise StageFailed(stage="quantize", reason="keep_float ranks layers by the task's divergence: give one")
    ranking = rank_layers(proto, ranges, work.images[:_RANKING_IMAGES], insert=insert_alone, divergence=work.divergence)
    return frozenset(damage.node for damage in ranking[:count])


def _ensure_finite(model: OnnxModel, images: NDArray[np.float32]) -> None:
    """Raise StageFailed if the answers are not finite: weights may fit while an activation overflows to infinity."""
    session = checking_session(read_onnx(model.path))
    answers = session.run(None, {session.get_inputs()[0].name: images})
    if not all(np.isfinite(answer).all() for answer in answers):
        raise StageFailed(stage="quantize", reason=f"activations of {model.path.name} overflow in fp16")
