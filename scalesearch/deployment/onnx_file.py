"""ONNX files: described by their content, and written so that a half-written one is never seen."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # onnx brings it, without stubs

from scalesearch.deployment.onnx_versions import lower_versions
from scalesearch.errors import StageFailed
from scalesearch.files import replace_file
from scalesearch.values.onnx_model import OnnxModel

# Where a dimension is dynamic; only the batch may be.
_DYNAMIC = 0


def onnx_model(path: Path) -> OnnxModel:
    """Hash, size and input shape of a file.

    Raises:
        StageFailed: The file is missing, is not ONNX, or does not take images of one fixed size.
    """
    return _described(path, read_onnx(path))


def read_onnx(path: Path) -> onnx.ModelProto:
    """The content of a file; weights must be inside it.

    Raises:
        StageFailed: The file is missing or is not ONNX.
    """
    try:
        return onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise StageFailed(stage="export", reason=f"{path} cannot be read as an ONNX file: {error}") from error


def write_onnx(proto: onnx.ModelProto, to: Path, *, lowest_versions: bool = True) -> OnnxModel:
    """Checks the model against the ONNX standard and writes it, under a temporary name until it is whole.

    Equal models give equal bytes.

    Args:
        proto: The model; it gets the same versions as the file.
        to: Where to write.
        lowest_versions: In the lowest operator set and IR version that serve it, else in those that it has.

    Raises:
        StageFailed: The model is not valid ONNX, or the place cannot be written.
    """
    if lowest_versions:
        lower_versions(proto)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = f"{to.name} would not be valid ONNX: {' '.join(str(error).split())[:300]}"
        raise StageFailed(stage="export", reason=reason) from error
    write_bytes(proto.SerializeToString(deterministic=True), to)
    return _described(to, proto)


def write_bytes(content: bytes, to: Path) -> None:
    """Replaces a file by `files.replace_file`.

    Raises:
        StageFailed: The place cannot be written.
    """
    try:
        replace_file(to, content)
    except OSError as error:
        raise StageFailed(stage="export", reason=f"{to} cannot be written: {error}") from error


def checking_session(proto: onnx.ModelProto, *, as_written: bool = False) -> ort.InferenceSession:
    """A session of ONNX Runtime's CPU provider for looking at a graph, silent and on one thread; never for timing.

    Args:
        proto: With its weights inside.
        as_written: Without any optimization, so that every tensor and every Q/DQ pair is computed as it stands.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors reach the user by our exceptions
    options.intra_op_num_threads = 1
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def annotate(model: OnnxModel, metadata: Mapping[str, str], to: Path) -> OnnxModel:
    """The same model written to `to`, with these entries among its metadata; an entry of the same key is replaced.

    Its versions stay: ONNX Runtime may compute another graph from the same nodes in another operator set, and this one
    was measured.
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
