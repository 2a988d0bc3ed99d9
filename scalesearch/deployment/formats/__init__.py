"""The export formats by name; the library of each is loaded only when that format is written."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches

from scalesearch.deployment.formats.base import CheckImages, Format, FormatOptions
from scalesearch.errors import ConfigError

__all__ = ["FORMATS", "OUTPUTS", "CheckImages", "Format", "FormatOptions", "get_format"]


def _onnx() -> Format:
    from scalesearch.deployment.formats.plain_onnx import PlainOnnx

    return PlainOnnx()


def _c() -> Format:
    from scalesearch.deployment.formats.c99 import C99

    return C99()


def _openvino() -> Format:
    from scalesearch.deployment.formats.openvino import OpenVinoIr

    return OpenVinoIr()


def _tensorrt() -> Format:
    from scalesearch.deployment.formats.tensorrt import TensorRtPlan

    return TensorRtPlan()


def _executorch() -> Format:
    from scalesearch.deployment.formats.executorch import ExecuTorchProgram

    return ExecuTorchProgram()


def _litert() -> Format:
    from scalesearch.deployment.formats.litert import LiteRtModel

    return LiteRtModel()


FORMATS: Mapping[str, Callable[[], Format]] = {
    "onnx": _onnx,
    "c": _c,
    "openvino": _openvino,
    "tensorrt": _tensorrt,
    "executorch": _executorch,
    "litert": _litert,
}

OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("model.onnx",),
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
    if name in FORMATS:
        return FORMATS[name]()
    near = get_close_matches(name, FORMATS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    message = f"--format {name!r}: there is no such format.{hint} There are: {', '.join(FORMATS)}."
    raise ConfigError(message)
