"""Precision: an fp32 ONNX file becomes an fp16 or int8 one. What a precision means is inside the file."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData
from onnxruntime.quantization.onnx_model import ONNXModel

from scalesearch.compression.calibration import calibrate
from scalesearch.deployment.onnx_file import read_onnx, write_bytes, write_onnx
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import Precision, Quantization
from scalesearch.values.onnx_model import OnnxModel
from scalesearch.values.target import QuantizationProfile

_FP16_LARGEST = float(np.finfo(np.float16).max)
_CHECK_IMAGES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Int8Style:
    """How int8 is written for one family of kernels; weights are always int8, symmetric, one scale a channel."""

    unsigned_activations: bool
    seven_bit_weights: bool
    quantized_bias: bool


_STYLES: Mapping[QuantizationProfile, _Int8Style] = {
    # Without VNNI, ONNX Runtime multiplies uint8 by int8 with the vpmaddubsw instruction, whose 16-bit sum of two
    # products saturates (255 * 127 * 2 > 32767); its guide 'Quantize ONNX models' (reduce_range, U8U8) advises 7-bit
    # weights there. benchmarks/int8_profiles.py shows them exact on such a CPU, as fast, and without measurable loss
    # where nothing saturates. So every CPU gets the 7-bit file, and it means the same on each of them.
    "onnxruntime_cpu": _Int8Style(unsigned_activations=True, seven_bit_weights=True, quantized_bias=True),
    # TensorRT takes signed, symmetric activations and refuses Q/DQ on the int32 bias; its kernels sum in 32 bits.
    "tensorrt": _Int8Style(unsigned_activations=False, seven_bit_weights=False, quantized_bias=False),
}
_OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "Sigmoid", "MaxPool", "GlobalAveragePool",
              "AveragePool", "Reshape", "Flatten", "Squeeze", "Concat")  # fmt: skip


def quantize(
    model: OnnxModel,
    quantization: Quantization,
    *,
    calibration: NDArray[np.float32],
    profile: QuantizationProfile,
    to: Path,
) -> OnnxModel:
    """The model in the asked precision, written to `to`; input and output stay float32.

    fp32 is the same file. fp16 holds half-precision weights and activations between two casts. int8 is post-training
    quantization with Q/DQ nodes, in the style of the profile, ranges by `calibration.calibrate`.

    Args:
        model: An fp32 file from `to_onnx`.
        quantization: Precision and, for int8, how to calibrate.
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
    return _PRECISIONS[quantization.precision](model, quantization, images, profile, to)


def _to_fp32(model: OnnxModel, _: Quantization, __: NDArray[np.float32], ___: str, to: Path) -> OnnxModel:
    write_bytes(model.path.read_bytes(), to)
    return OnnxModel(path=to, sha256=model.sha256, size_bytes=model.size_bytes, input_shape=model.input_shape)


def _to_fp16(model: OnnxModel, _: Quantization, images: NDArray[np.float32], __: str, to: Path) -> OnnxModel:
    proto = read_onnx(model.path)
    _ensure_weights_fit_fp16(proto)
    converted = _convert_to_fp16(proto)
    _sort_nodes(converted)
    written = write_onnx(converted, to)
    _ensure_finite(written, images[:_CHECK_IMAGES])
    return written


def _to_int8(
    model: OnnxModel,
    quantization: Quantization,
    images: NDArray[np.float32],
    profile: QuantizationProfile,
    to: Path,
) -> OnnxModel:
    style = _STYLES[profile]
    proto = onnx.shape_inference.infer_shapes(read_onnx(model.path))
    ranges = calibrate(
        proto,
        images,
        method=quantization.calibration,
        clip_percentile=quantization.clip_percentile,
        symmetric=not style.unsigned_activations,
    )
    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    with _quiet():
        quantizer = QDQQuantizer(
            proto,
            per_channel=True,
            reduce_range=style.seven_bit_weights,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8 if style.unsigned_activations else QuantType.QInt8,
            # Tells it only that the ranges are final, whatever method they came from.
            tensors_range=TensorsData(CalibrationMethod.MinMax, data),
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=list(_OPERATORS),
            extra_options={
                "ActivationSymmetric": not style.unsigned_activations,
                "WeightSymmetric": True,
                "QuantizeBias": style.quantized_bias,
            },
        )
        quantized = quantizer.quantize_model()
    _sort_nodes(quantized)
    return write_onnx(quantized, to)


_PRECISIONS: Mapping[Precision, Callable[..., OnnxModel]] = {"fp32": _to_fp32, "fp16": _to_fp16, "int8": _to_int8}


def _convert_to_fp16(proto: onnx.ModelProto) -> onnx.ModelProto:
    search_path = list(sys.path)
    from onnxruntime.transformers.float16 import convert_float_to_float16

    sys.path[:] = search_path  # the package puts its own folder there when it is imported
    converted: onnx.ModelProto = convert_float_to_float16(proto, keep_io_types=True)
    return converted


def _ensure_weights_fit_fp16(proto: onnx.ModelProto) -> None:
    """The converter would clamp them without a word."""
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            largest = float(np.abs(onnx.numpy_helper.to_array(tensor)).max(initial=0.0))
            if not largest <= _FP16_LARGEST:
                reason = f"fp16 holds up to {_FP16_LARGEST:.0f}, but weight {tensor.name} reaches {largest:.3g}"
                raise StageFailed(stage="quantize", reason=reason)


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
    """In place: the tools append their casts and Q/DQ nodes at the end, ONNX wants every node behind its inputs."""
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
