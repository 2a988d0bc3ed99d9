"""ONNX files: describe them by their content, and write them so that a half-written file is never seen."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # onnx brings it, without stubs

from scalesearch.deployment.onnx_versions import lower_versions
from scalesearch.errors import StageFailed
from scalesearch.files import replace_file
from scalesearch.plain_text import one_line
from scalesearch.values.network import OnnxModel

# Stands for a dynamic dimension; only the batch may be dynamic.
_DYNAMIC = 0


def onnx_model(path: Path) -> OnnxModel:
    """Describe a file by its hash, size and input shape.

    Raises:
        StageFailed: The file is missing, is not ONNX, or does not take images of one fixed size.
    """
    return _described(path, read_onnx(path))


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read the content of a file; the weights must be inside it.

    Raises:
        StageFailed: The file is missing or is not ONNX.
    """
    try:
        return onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise StageFailed(stage="export", reason=f"{path} cannot be read as an ONNX file: {error}") from error


def write_onnx(proto: onnx.ModelProto, to: Path, *, lowest_versions: bool = True) -> OnnxModel:
    """Check the model against the ONNX standard and write it, under a temporary name until it is complete.

    Equal models give equal bytes.

    Args:
        proto: The model; it is changed to the same versions as the file.
        to: Where to write.
        lowest_versions: Whether to write the lowest operator set and IR version that are enough, or to keep the model's
            own versions.

    Raises:
        StageFailed: The model is not valid ONNX, or the place cannot be written.
    """
    if lowest_versions:
        lower_versions(proto)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = f"{to.name} would not be valid ONNX: {one_line(str(error))}"
        raise StageFailed(stage="export", reason=reason) from error
    write_bytes(proto.SerializeToString(deterministic=True), to)
    return _described(to, proto)


def write_bytes(content: bytes, to: Path) -> None:
    """Replace a file's content by `files.replace_file`.

    Raises:
        StageFailed: The place cannot be written.
    """
    try:
        replace_file(to, content)
    except OSError as error:
        raise StageFailed(stage="export", reason=f"{to} cannot be written: {error}") from error


def checking_session(proto: onnx.ModelProto, *, as_written: bool = False) -> ort.InferenceSession:
    """Open a session of ONNX Runtime's CPU provider to check a graph, silent and on one thread; never for timing.

    Args:
        proto: The model, with its weights inside.
        as_written: Whether to run without any optimization, so that every tensor and every Q/DQ pair is computed as it
            is in the file.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors reach the user in our exceptions
    options.intra_op_num_threads = 1
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def annotate(model: OnnxModel, metadata: Mapping[str, str], to: Path) -> OnnxModel:
    """Write the same model to `to` with these entries added to its metadata; an entry of the same key is replaced.

    The versions in the file are kept: ONNX Runtime may compute another graph from the same nodes in another operator
    set, and this one was measured.
    """
    proto = read_onnx(model.path)
    entries = {entry.key: entry.value for entry in proto.metadata_props} | dict(metadata)
    onnx.helper.set_model_props(proto, entries)
    return write_onnx(proto, to, lowest_versions=False)


def _described(path: Path, proto: onnx.ModelProto) -> OnnxModel:
    content = path.read_bytes()
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    shape = [dim.dim_value or _DYNAMIC for dim in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    if len(shape) != 4 or _DYNAMIC in shape[1:]:
        reason = f"{path} must take one input of images (batch, channels, height, width) of fixed size, not {shape}"
        raise StageFailed(stage="export", reason=reason)
    return OnnxModel(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        input_shape=(1, shape[1], shape[2], shape[3]),
    )
