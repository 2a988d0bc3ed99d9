"""Open sessions of ONNX Runtime for any device, and turn its native errors into messages."""

from pathlib import Path
from typing import Final

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # onnx brings it, without stubs
from onnxruntime.capi import onnxruntime_pybind11_state as native

from scalesearch.deployment.backends.base import EngineOptions
from scalesearch.deployment.backends.runs import ensure_counts
from scalesearch.errors import StageFailed
from scalesearch.plain_text import one_line
from scalesearch.values.network import OnnxModel

# The bindings raise a different class for each status code, with no common base except Exception. For inputs of a wrong
# shape or type, the binding layer raises ValueError or RuntimeError.
NATIVE_ERRORS: Final[tuple[type[Exception], ...]] = (
    *(kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
)
_LOG_NOTHING: Final = 4  # ORT's "fatal": its errors reach the user in our exception, so not in stderr as well

Providers = tuple[str | tuple[str, dict[str, str]], ...]
"""Names of execution providers, some of them with options, in the order of preference."""


def open_session(model: OnnxModel, options: EngineOptions, providers: Providers) -> ort.InferenceSession:
    """Open a session with every graph optimization on.

    Raises:
        StageFailed: The file is missing or corrupt, holds an operator that the providers lack, or is too large for
            their memory.
    """
    ensure_counts(options)
    try:
        how = session_options(options.threads, model.path)
        return ort.InferenceSession(str(model.path), how, providers=list(providers))
    except NATIVE_ERRORS as error:
        raise StageFailed(stage="compile", reason=native_reason(error, model.path)) from error


def session_options(threads: int, file: Path) -> ort.SessionOptions:
    """Return the options of all our sessions: all optimizations, a fixed number of threads, no spinning and no log.

    A file in TensorRT's style is an exception: it is run without optimizations.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_DISABLE_ALL if _is_in_tensorrts_style(file) else level.ORT_ENABLE_ALL
    options.log_severity_level = _LOG_NOTHING
    # Candidate and reference are open at the same time and run in turn: a thread pool that spins while idle would take
    # the cores from the one that is being timed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _is_in_tensorrts_style(file: Path) -> bool:
    """Tell whether the file has fp8, or 8-bit values with half-precision scales, as TensorRT's files do.

    ONNX Runtime 1.32 rewrites such graphs wrongly and refuses some. Its WeightBiasQuantization casts bias / (scales) to
    fp16, which overflows: on a trained network's fp8 file, agreement with fp32 fell from 0.995 to 0.33. ClipQuantFusion
    refuses some graphs. Without optimizations they are slow but correct; they are only scored here and never timed.
    """
    try:
        graph = onnx.load(file, load_external_data=False).graph
    except (OSError, DecodeError):  # the session gives a better message
        return False
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    scales = {node.input[1] for node in graph.node if node.op_type == "DequantizeLinear"}
    halves = any(kinds.get(name) == onnx.TensorProto.FLOAT16 for name in scales)
    return halves or onnx.TensorProto.FLOAT8E4M3FN in kinds.values()


def native_reason(error: Exception, file: Path) -> str:
    """Return the reason of a failure in native code, with the file's name."""
    return f"ONNX Runtime on {file.name}: {one_line(str(error))}"
