"""The export formats of any network by name; the library of each is loaded only when that format is written.

`export.formats` has those of single tasks as well.
"""

from collections.abc import Mapping
from typing import Final

from scalesearch.deployment.formats.base import CheckImages, Format, FormatOptions
from scalesearch.registry import load_member

__all__ = ["FORMATS", "OUTPUTS", "CheckImages", "Format", "FormatOptions", "get_format"]

_HERE: Final = "scalesearch.deployment.formats"
FORMATS: Mapping[str, str] = {
    "onnx": f"{_HERE}.plain_onnx:PlainOnnx",
    "c": f"{_HERE}.c99:C99",
    "openvino": f"{_HERE}.openvino:OpenVinoIr",
    "tensorrt": f"{_HERE}.tensorrt:TensorRtPlan",
    "executorch": f"{_HERE}.executorch:ExecuTorchProgram",
    "litert": f"{_HERE}.litert:LiteRtModel",
}
"""Module and class of each format's writer."""

OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("model.onnx",),
    "c": tuple(f"c/{name}" for name in ("model.c", "model.h", "labels.c", "labels.h", "self_test.c", "Makefile")),
    "openvino": ("openvino/model.xml", "openvino/model.bin"),
    "tensorrt": ("model.engine",),
    "executorch": ("model.pte",),
    "litert": ("model.tflite",),
}
"""The files that each format writes, known without loading its library."""


def get_format(name: str, known: Mapping[str, str] = FORMATS) -> Format:
    """Return the writer of that name, out of the `known` ones.

    Raises:
        ConfigError: There is none of that name; the message names the nearest one and lists all.
    """
    writer: Format = load_member(name, known, missing="--format: no format is called")()
    return writer
