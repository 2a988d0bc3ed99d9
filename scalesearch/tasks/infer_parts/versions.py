"""Opens an ONNX file, after a check that what is installed is new enough for it.

In an exported infer.py this part comes first: it says what to install where numpy, onnxruntime or Pillow is missing.
"""

from __future__ import annotations  # Python 3.8 and 3.9 could not evaluate some of the types below

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

OLDEST = {"python": "3.8", "numpy": "1.21", "pillow": "8.0", "onnxruntime": "1.14"}
"""Oldest versions; tried with these and with the newest ones."""
INSTALL = "pip install --upgrade " + " ".join(
    f"'{name}>={OLDEST[name]}'" for name in ("onnxruntime", "numpy", "pillow")
)
try:
    import numpy as np
    import onnxruntime as ort
    import PIL
    from PIL import Image, ImageOps  # noqa: F401  (the parts that follow use these)
except ImportError as error:  # missing, or onnxruntime below 1.19 beside numpy 2
    if __name__ != "__main__":
        raise
    print(
        f"error: {error}\nexpected onnxruntime, numpy and Pillow (numpy 2 wants onnxruntime 1.19): {INSTALL}",
        file=sys.stderr,
    )
    sys.exit(2)

if TYPE_CHECKING:
    from collections.abc import Iterator

ONNXRUNTIME_OF_IR = {8: "1.14", 9: "1.15", 10: "1.18", 11: "1.23", 13: "1.24"}
"""First release that reads an ONNX file of this IR version; each release was tried."""
ONNXRUNTIME_OF_OPSET = {18: "1.14", 19: "1.15", 20: "1.17", 21: "1.18", 22: "1.21", 23: "1.23", 25: "1.24", 26: "1.25"}
"""First release that knows this version of the operator set; each release was tried."""
ONNXRUNTIME_OF_HALF = "1.15"
"""First release for half precision: 1.14 crashes on fp16."""
ONNXRUNTIME_OF_HALF_SCALES = "1.30"
"""First release for TensorRT's int8 and fp8, with optimizations off. Older ones refuse these files (1.15) or answer
int8 otherwise than it was scored: 1.17 to 1.29 gave 2 of 40 test images another label; 1.30 to 1.32 agree to the bit.
"""


def open_session(model: Path, threads: int) -> ort.InferenceSession:
    """Open an ONNX file on the CPU, with all cores if `threads` is 0.

    Raises:
        ValueError: The file needs a newer ONNX Runtime.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    ensure_new_enough(model)
    if has_half_scales(model):
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def has_half_scales(model: Path) -> bool:
    """Tell whether the file is TensorRT's int8 or fp8; False if it cannot be read as an ONNX file.

    With its optimizations on, ONNX Runtime (1.21 to 1.32) answers fp8 wrongly. They were scored without.
    """
    try:
        content = read_versions(model)
    except (OSError, ValueError, IndexError):
        return False
    return content.half and content.quantized


def too_old() -> str:
    """Return a sentence about installed versions older than those this file was tried with; empty if there are none."""
    found = {
        "python": "{}.{}.{}".format(*sys.version_info),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "onnxruntime": ort.__version__,
    }
    old = [name for name, oldest in OLDEST.items() if as_numbers(found[name]) < as_numbers(oldest)]
    if not old:
        return ""
    wanted = ", ".join(f"{name} {OLDEST[name]} or newer (this is {found[name]})" for name in old)
    packages = [name for name in old if name != "python"]
    return f"infer.py needs {wanted}" + f": {INSTALL}" * bool(packages)


def as_numbers(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version, to compare by: (1, 14) for `1.14.0rc1`."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def onnxruntime_needed(model: Path) -> str:
    """Return the oldest release of ONNX Runtime that reads this ONNX file and gives right answers on a CPU.

    Raises:
        ValueError: It is not an ONNX file, or it is newer than all versions known here.
        IndexError: The file ends too early.
    """
    content = read_versions(model)
    wanted = [OLDEST["onnxruntime"]]
    for table, version in ((ONNXRUNTIME_OF_IR, content.ir_version), (ONNXRUNTIME_OF_OPSET, content.opset)):
        known = [release for highest, release in table.items() if version <= highest]
        if not known:
            message = f"version {version} is newer than all that is known here"
            raise ValueError(message)
        wanted.append(known[0])
    if content.half:
        wanted.append(ONNXRUNTIME_OF_HALF_SCALES if content.quantized else ONNXRUNTIME_OF_HALF)
    return max(wanted, key=as_numbers)


def oldest_versions(model: Path) -> dict[str, str]:
    """Return the oldest versions that this file runs with on the model, which may need a newer ONNX Runtime."""
    return {**OLDEST, "onnxruntime": onnxruntime_needed(model)}


def ensure_new_enough(model: Path) -> None:
    """Check, before ONNX Runtime reads the model, that its version is new enough.

    A version that is too old may crash, or give wrong answers without a message.

    Raises:
        ValueError: The installed version is too old for this model.
    """
    try:
        needed, content = onnxruntime_needed(model), read_versions(model)
    except (OSError, ValueError, IndexError):
        return  # not an ONNX file, or a very new one: ONNX Runtime's own message is better
    if as_numbers(needed) > as_numbers(ort.__version__):
        halves = " and numbers in half precision" if content.half else ""
        message = (
            f"expected onnxruntime {needed} or newer for its IR version {content.ir_version}, opset {content.opset}"
            f"{halves}, this is {ort.__version__}: pip install --upgrade 'onnxruntime>={needed}'"
        )
        raise ValueError(message)


@dataclass(frozen=True)
class Versions:
    """The properties of an ONNX file that decide which ONNX Runtime can run it."""

    ir_version: int
    opset: int
    half: bool
    """Whether the file holds numbers in fp16 or fp8."""
    quantized: bool
    """Whether the file has nodes that quantize."""


def read_versions(model: Path) -> Versions:
    """Read the versions from an ONNX file, without a library, since one that is too old cannot tell them.

    Raises:
        ValueError: It is not an ONNX file.
        IndexError: The file ends too early.
    """
    ir_version, opset = 0, 0
    types: set[int] = set()
    operators: set[bytes] = set()
    for field, value in protobuf_fields(memoryview(model.read_bytes())):
        if isinstance(value, int):
            ir_version = value if field == 1 else ir_version
        elif field == 8:  # one for each domain; the standard one has no name
            entry = dict(protobuf_fields(value))
            if bytes(entry.get(1, b"")) in (b"", b"ai.onnx"):
                opset = int(entry.get(2, 0))
        elif field == 7:  # the graph: nodes, and tensors with their types
            for part, inner in protobuf_fields(value):
                if part == 1:
                    operators.update(bytes(name) for number, name in protobuf_fields(inner) if number == 4)
                elif part == 5:
                    types.update(kind for number, kind in protobuf_fields(inner) if number == 2)
    if not 0 < ir_version < 1000 or not 0 < opset < 1000:
        message = "no ONNX file"
        raise ValueError(message)
    return Versions(
        ir_version=ir_version, opset=opset, half=bool(types & {10, 17}), quantized=b"QuantizeLinear" in operators
    )


def protobuf_fields(content: Any) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a protobuf message; fields of a fixed size are left out.

    Raises:
        ValueError: It is not a protobuf message as in ONNX files.
        IndexError: It ends in the middle of a field.
    """
    place = 0

    def varint() -> int:
        nonlocal place
        value, shift = 0, 0
        while True:
            byte = int(content[place])
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(content):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
        elif kind == 2:
            size = varint()
            if size > len(content) - place:
                message = "a field is longer than what is left"
                raise ValueError(message)
            yield key >> 3, content[place : place + size]
            place += size
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            message = f"fields of type {kind} are not in an ONNX file"
            raise ValueError(message)
