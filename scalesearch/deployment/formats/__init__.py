"""The export formats by name; the library of each is loaded only when that format is written."""

from collections.abc import Mapping
from typing import Final

from scalesearch.deployment.formats.base import CheckImages, Format, FormatOptions
from scalesearch.registry import load_member

__all__ = ["FORMATS", "OUTPUTS", "CheckImages", "Format", "FormatOptions", "get_format"]

_HERE: Final = "scalesearch.deployment.formats"
FORMATS: Mapping[str, str] = {
    "onnx": f"{_HERE}.plain_onnx:PlainOnnx",
    "onnx-nms": "scalesearch.tasks.detection.onnx_nms:OnnxNms",
    "tensorrt-nms": "scalesearch.tasks.detection.tensorrt_nms:TensorRtNms",
    "c": f"{_HERE}.c99:C99",
    "openvino": f"{_HERE}.openvino:OpenVinoIr",
    "tensorrt": f"{_HERE}.tensorrt:TensorRtPlan",
    "executorch": f"{_HERE}.executorch:ExecuTorchProgram",
    "litert": f"{_HERE}.litert:LiteRtModel",
}
"""Module and class of each format's writer."""

OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("model.onnx",),
    "onnx-nms": ("model_nms.onnx",),
    "tensorrt-nms": ("model_tensorrt_nms.onnx",),
    "c": tuple(f"c/{name}" for name in ("model.c", "model.h", "labels.c", "labels.h", "self_test.c", "Makefile")),
    "openvino": ("openvino/model.xml", "openvino/model.bin"),
    "tensorrt": ("model.engine",),
    "executorch": ("model.pte",),
    "litert": ("model.tflite",),
}
"""The files that each format writes, known without loading its library."""


def get_format(name: str) -> Format:
    """Return the writer of that name.

    Raises:
        ConfigError: There is none of that name; the message names the nearest one and lists all.
    """
    writer: Format = load_member(name, FORMATS, missing="--format: no format is called")()
    return writer
