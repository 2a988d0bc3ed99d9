"""Precision: an fp32 ONNX file becomes an fp16, bf16, int8 or fp8 one. What a precision means is inside the file."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData
from onnxruntime.quantization.onnx_model import ONNXModel

from scalesearch.compression.calibration import Ranges, calibrate
from scalesearch.compression.half import HALF_SUFFIX, to_half
from scalesearch.compression.qdq import FormatName, insert_qdq
from scalesearch.deployment.onnx_file import read_onnx, write_bytes, write_onnx
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import Precision, Quantization
from scalesearch.values.onnx_model import OnnxModel
from scalesearch.values.target import QuantizationProfile

_CHECK_IMAGES = 8
# What ONNX Runtime's quantizer quantizes for its CPU kernels.
_CPU_OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "Sigmoid", "MaxPool", "GlobalAveragePool",
                  "AveragePool", "Reshape", "Flatten", "Squeeze", "Concat")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What a precision's function gets: all that `quantize` was given."""

    model: OnnxModel
    quantization: Quantization
    images: NDArray[np.float32]
    profile: QuantizationProfile
    to: Path


def quantize(
    model: OnnxModel,
    quantization: Quantization,
    *,
    calibration: NDArray[np.float32],
    profile: QuantizationProfile,
    to: Path,
) -> OnnxModel:
    """The model in the asked precision, written to `to`; input and output stay float32.

    fp32 is the same file. fp16 and bf16 hold half-precision weights and activations between two casts. int8 and fp8 are
    post-training quantization with Q/DQ nodes, in the style of the profile, ranges by `calibration.calibrate`; what is
    left in float is fp16 for TensorRT, fp32 for CPUs.

    Args:
        model: An fp32 file from `to_onnx`.
        quantization: Precision and, for int8 and fp8, how to calibrate.
        calibration: Images (N, C, H, W), normalised as in training and never trained on; the first
            `calibration_images` of them are used.
        profile: The target's.
        to: Where to write.

    Raises:
        StageFailed: Images of another shape, or weights or activations that the precision cannot hold.
    """
    images = calibration[: quantization.calibration_images]
    if images.dtype != np.float32 or images.shape[1:] != model.input_shape[1:]:
        reason = f"calibration images must be float32 (N, *{model.input_shape[1:]}), got {images.dtype} {images.shape}"
        raise StageFailed(stage="quantize", reason=reason)
    work = _Work(model=model, quantization=quantization, images=images, profile=profile, to=to)
    return _PRECISIONS[quantization.precision](work)


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
    proto = onnx.shape_inference.infer_shapes(read_onnx(work.model.path))
    if work.profile == "onnxruntime_cpu":
        return write_onnx(_for_onnxruntime_cpu(proto, _ranges(proto, work, symmetric=False)), work.to)
    return _to_qdq(proto, work, "int8")


def _to_fp8(work: _Work) -> OnnxModel:
    return _to_qdq(onnx.shape_inference.infer_shapes(read_onnx(work.model.path)), work, "fp8")


def _to_qdq(proto: onnx.ModelProto, work: _Work, name: FormatName) -> OnnxModel:
    ranges = _ranges(proto, work, symmetric=True)
    if work.profile == "tensorrt":
        # Its networks are strongly typed: what is not quantized runs in the type it has here, so in half the bytes.
        proto = to_half(proto, "fp16")
        ranges |= {
            f"{value.name}{HALF_SUFFIX}": ranges[value.name] for value in proto.graph.input if value.name in ranges
        }
    quantized = insert_qdq(proto, ranges, name)
    _sort_nodes(quantized)
    return write_onnx(quantized, work.to)


_PRECISIONS: Mapping[Precision, Callable[[_Work], OnnxModel]] = {
    "fp32": _to_fp32,
    "fp16": _to_fp16,
    "bf16": _to_bf16,
    "int8": _to_int8,
    "fp8": _to_fp8,
}


def _ranges(proto: onnx.ModelProto, work: _Work, *, symmetric: bool) -> Ranges:
    return calibrate(
        proto,
        work.images,
        method=work.quantization.calibration,
        clip_percentile=work.quantization.clip_percentile,
        symmetric=symmetric,
    )


def _for_onnxruntime_cpu(proto: onnx.ModelProto, ranges: Ranges) -> onnx.ModelProto:
    """Q/DQ for ONNX Runtime's CPU kernels: uint8 activations, int8 weights of 7 bits, one scale a channel.

    Without VNNI, ONNX Runtime multiplies uint8 by int8 with the vpmaddubsw instruction, whose 16-bit sum of two
    products saturates (255 * 127 * 2 > 32767); its guide 'Quantize ONNX models' (reduce_range, U8U8) advises 7-bit
    weights there. benchmarks/int8_profiles.py shows them exact on such a CPU, as fast, and without measurable loss
    where nothing saturates. So every CPU gets the 7-bit file, and it means the same on each of them.
    """
    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    with _quiet():
        quantizer = QDQQuantizer(
            proto,
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            # Tells it only that the ranges are final, whatever method they came from.
            tensors_range=TensorsData(CalibrationMethod.MinMax, data),
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=list(_CPU_OPERATORS),
            extra_options={"WeightSymmetric": True},
        )
        quantized: onnx.ModelProto = quantizer.quantize_model()
    _sort_nodes(quantized)
    return quantized


def _ensure_finite(model: OnnxModel, images: NDArray[np.float32]) -> None:
    """Weights may fit while an activation overflows to infinity on the way."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images})
    if not np.isfinite(logits).all():
        raise StageFailed(stage="quantize", reason=f"activations of {model.path.name} overflow in fp16")


def _sort_nodes(proto: onnx.ModelProto) -> None:
    """In place: the tools append their Q/DQ nodes at the end, ONNX wants every node behind its inputs."""
    ONNXModel(proto).topological_sort()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the quantizer, which logs by the root logger and would configure it."""
    root, before = logging.getLogger(), logging.root.manager.disable
    handler = logging.NullHandler()
    root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)
