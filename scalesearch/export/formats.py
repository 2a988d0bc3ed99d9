"""All export formats by name: those of any network, and those that only the networks of one task have."""

from collections.abc import Mapping
from typing import Final

from scalesearch.deployment import formats

FORMATS: Final[Mapping[str, str]] = {
    **formats.FORMATS,
    "onnx-nms": "scalesearch.tasks.detection.onnx_nms:OnnxNms",
    "tensorrt-nms": "scalesearch.tasks.detection.tensorrt_nms:TensorRtNms",
}
"""Module and class of each format's writer."""

OUTPUTS: Final[Mapping[str, tuple[str, ...]]] = {
    **formats.OUTPUTS,
    "c": (*formats.OUTPUTS["c"], *(f"c/{name}.{ending}" for name in ("detections", "mask") for ending in "ch")),
    "onnx-nms": ("model_nms.onnx",),
    "tensorrt-nms": ("model_tensorrt_nms.onnx",),
}
"""The files that each format may write, known without loading its library."""


def get_format(name: str) -> formats.Format:
    """Return the writer of that name.

    Raises:
        ConfigError: There is none of that name; the message names the nearest one and lists all.
    """
    return formats.get_format(name, FORMATS)
